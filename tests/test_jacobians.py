from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.laws import LAWS
from mixlaw.analysis.laws.base import ClosedForm, Form
from mixlaw.analysis.laws.terms import ces
from test_laws import designs, thetas


def one_size() -> Design:
    """Recipes of one size and budget, as most published swarms: half of the entries are held."""
    design = designs(rows=12, phases=2, domains=5, unique=math.inf, seed=7)
    tokens = design.tokens / design.total[:, None, None] * 1e9
    return replace(design, params=torch.full((12,), 1e6, dtype=torch.float64), tokens=tokens)


DESIGNS = {
    "three phases with zeros and repeats": designs(),
    "one phase": designs(phases=1, domains=6, unique=math.inf, seed=5),
    "one domain": designs(phases=2, domains=1, unique=1e8),
    "one size and budget": one_size(),
    "one domain alone in every row": replace(
        designs(rows=4, phases=1), tokens=torch.eye(4, dtype=torch.float64)[:, None] * 1e9
    ),
}


@pytest.mark.parametrize("name", [name for name, law in LAWS.items() if isinstance(law.form(designs()), ClosedForm)])
@pytest.mark.parametrize("design", DESIGNS.values(), ids=DESIGNS)
def test_closed_forms_equal_forward_mode(name: str, design: Design) -> None:
    form = LAWS[name].form(design)
    theta = thetas(form, count=5, seed=11)
    value, jacobian = form.jacobian(theta, design)
    forward_value, forward = Form.jacobian(form, theta, design)
    assert jacobian.shape == (5, len(form.free), len(design))
    assert torch.allclose(value, forward_value, rtol=1e-12, atol=1e-12)
    assert torch.allclose(jacobian, forward, rtol=1e-9, atol=1e-11)


def test_an_amount_of_zero_adds_nothing_and_has_no_slope() -> None:
    worth = torch.log(torch.tensor([2.0, 3.0, 5.0], dtype=torch.float64)).requires_grad_()
    elasticity = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    found = ces(worth, torch.tensor([4.0, 0.0, 9.0], dtype=torch.float64), elasticity)
    slopes = torch.autograd.grad(found, (worth, elasticity))
    assert found.item() == pytest.approx(math.log(2 * 2 + 5 * 3))
    assert slopes[0].tolist() == pytest.approx([4 / 19, 0, 15 / 19])
    assert slopes[1].item() == pytest.approx((4 * math.log(4) + 15 * math.log(9)) / 19)
