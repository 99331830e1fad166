from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.laws import Exposure, Phasewise
from test_laws import designs, thetas


def law(elasticity: float, evenness: float, worth: tuple[float, ...], retention: tuple[float, ...]) -> Phasewise:
    """Data alone matter: L = D_eff**-.3."""
    domains = tuple(f"domain{i}" for i in range(len(worth)))
    return Phasewise(
        0.0, 1e-9, 0.3, 1.0, 0.3, 1.0, elasticity, worth, 1.0, 1e6, 1.0, (1.0,) * len(worth), retention, evenness,
        15.4, 15.0, 1e9, 0.7, (0.0,) * len(worth), tuple(f"phase{i}" for i in range(len(retention))), domains,
    )  # fmt: skip


def read(*phases: tuple[float, ...]) -> Design:
    """A recipe of a million parameters, tokens by phase and domain."""
    return replace(
        designs(rows=2, phases=len(phases), domains=len(phases[0]), unique=math.inf).select([0]),
        params=torch.tensor([1e6], dtype=torch.float64),
        tokens=torch.tensor([phases], dtype=torch.float64),
    )


def effective(of: Phasewise, design: Design) -> float:
    """D_eff, solved from the loss."""
    return math.pow(float(of(design)), -1 / 0.3)


def test_effective_tokens_worked_out_by_hand() -> None:
    """Two phases of 100 and 300 tokens; A_0 = 400 (.6 .25**.5 + .4 .75**.5)**2, A_1 = 400 (.6 + .4 * 0)**2."""
    of = law(0.5, 0.25, (0.6, 0.4), (0.2, 1.0))
    early, late = 0.2 * 100 / (0.2 * 100 + 300), 300 / (0.2 * 100 + 300)
    taught = [400 * (0.6 * 0.25**0.5 + 0.4 * 0.75**0.5) ** 2, 400 * 0.6**2]
    wanted = (early * taught[0] ** 0.25 + late * taught[1] ** 0.25) ** 4
    assert effective(of, read((25.0, 75.0), (300.0, 0.0))) == pytest.approx(wanted, rel=1e-6)


def test_domains_of_one_worth_that_replace_each_other_stand_in_for_each_other_in_any_phase() -> None:
    """Half of each phase is useful: one domain first and the other later, or both at all times."""
    of = law(1.0, 0.3, (0.5, 0.5, 1e-12), (0.3, 1.0))
    steady, bursts = read((25.0, 25.0, 50.0), (75.0, 75.0, 150.0)), read((50.0, 0.0, 50.0), (0.0, 150.0, 150.0))
    assert effective(of, bursts) == pytest.approx(effective(of, steady), rel=1e-9)
    exposed = Exposure(**{name: getattr(of, name) for name in Exposure.__dataclass_fields__})
    early, late = 0.3 * 100 / (0.3 * 100 + 300), 300 / (0.3 * 100 + 300)
    useful = 0.5 * (early ** (1 / 0.3) + late ** (1 / 0.3))  # exposures add up before domains do
    assert float(exposed(bursts) / exposed(steady)) == pytest.approx((useful / (useful + 0.5) / 0.5) ** -0.3, rel=1e-6)


def test_with_one_mixture_in_all_phases_it_is_the_exposure_law() -> None:
    design = designs()
    mixture = design.tokens.sum(1, keepdim=True) / design.total[:, None, None]
    design = replace(design, tokens=mixture * design.tokens.sum(2, keepdim=True))
    phasewise, exposure = (family.form(designs()) for family in (Phasewise, Exposure))
    theta = thetas(exposure)
    assert torch.allclose(phasewise.log_loss(theta, design), exposure.log_loss(theta, design), rtol=1e-9)


def test_slopes_by_tokens_are_numbers_where_domains_and_phases_are_empty() -> None:
    """A search for a recipe follows them."""
    design = designs()
    tokens: Tensor = design.tokens.clone().requires_grad_()
    form = Phasewise.form(design)
    (slope,) = torch.autograd.grad(form.log_loss(thetas(form), replace(design, tokens=tokens)).sum(), tokens)
    assert bool(torch.isfinite(slope).all())
