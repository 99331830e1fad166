from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares
from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.fitting.engine import Problems, Solution, _Model, _secant, solve
from mixlaw.analysis.laws import LAWS, Chinchilla, DataConstrained, Exposure
from mixlaw.analysis.laws.base import Curve, Form, Parameter
from test_laws import designs, thetas

ROWS = 60


def problems(form: Form, truth: Tensor, noise: float, seed: int = 0) -> Problems:
    """Data from known parameters, fits that start at the prior's mean."""
    rng = np.random.default_rng(seed)
    clean = form.log_loss(truth, DESIGN)
    mean = torch.tensor([p.mean for p in form.parameters], dtype=torch.float64).expand(len(truth), -1)
    spread = torch.tensor([0.0 if p.held else p.spread for p in form.parameters], dtype=torch.float64)
    target = clean + noise * torch.tensor(rng.normal(size=clean.shape))
    sigma = torch.full((len(truth), 1), max(noise, 1e-4), dtype=torch.float64)
    return Problems(target, torch.ones_like(target), sigma, mean, mean, spread.expand(len(truth), -1))


DESIGN = designs(rows=ROWS, seed=3)


def test_fits_reach_the_cost_that_scipy_reaches() -> None:
    form = Exposure.form(DESIGN)
    asked = problems(form, thetas(form, 2), 0.01)
    found = solve(form, DESIGN, asked, tolerance=1e-10)
    assert bool(found.converged.all())
    for i in range(2):

        def cost(
            theta: np.ndarray[tuple[int], np.dtype[np.float64]], i: int = i
        ) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
            value = form.log_loss(torch.tensor(theta)[None], DESIGN)[0]
            size = ((value - asked.target[i]) / asked.sigma[i]).abs()
            rho = torch.where(size <= 1.345, 0.5 * size**2, 1.345 * (size - 0.6725))
            pull = (torch.tensor(theta) - asked.mean[i]) / asked.spread[i]
            return torch.cat([(2 * rho).sqrt(), pull]).numpy()

        reference = least_squares(cost, asked.start[i].numpy(), ftol=1e-12, xtol=1e-12, gtol=1e-12)
        assert found.cost[i] <= reference.cost * (1 + 1e-6)


@pytest.mark.parametrize("name", [name for name in LAWS if name != "DataConstrained"])
def test_fits_stop_where_no_step_can_lower_the_cost_much(name: str) -> None:
    form = LAWS[name].form(DESIGN)
    asked = problems(form, thetas(form, 20), 0.02)
    started = Problems(asked.target, asked.weight, asked.sigma, thetas(form, 20, seed=2), asked.mean, asked.spread)
    rough = solve(form, DESIGN, started, tolerance=1e-6)
    fine = solve(form, DESIGN, replace(started, start=rough.theta), tolerance=1e-14, steps=1000)
    assert bool(rough.converged.all())
    assert float((rough.cost / fine.cost - 1).quantile(0.9)) < 1e-5


def test_the_truth_is_recovered_from_exact_data() -> None:
    form = Chinchilla.form(DESIGN)
    truth = thetas(form, 3)
    asked = problems(form, truth, 0.0)
    weak = Problems(asked.target, asked.weight, asked.sigma, asked.start, asked.mean, asked.spread * 100)
    found = solve(form, DESIGN, weak, tolerance=1e-14)
    assert torch.allclose(found.theta, truth, atol=1e-3)


def test_laws_without_a_closed_form_may_be_fitted_in_many_chunks_at_once() -> None:
    form = DataConstrained.form(DESIGN)
    asked = problems(form, thetas(form, 6), 0.01)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        found = solve(form, DESIGN, asked, chunk=1)
    finally:
        torch.set_num_threads(before)
    assert torch.allclose(found.theta, solve(form, DESIGN, asked).theta, atol=1e-9)


def test_masked_rows_do_not_matter_whatever_they_hold() -> None:
    form = Chinchilla.form(DESIGN)
    asked = problems(form, thetas(form, 2), 0.01)
    weight = asked.weight.clone()
    weight[:, ::3] = 0
    wild = torch.where(weight > 0, asked.target, torch.full_like(asked.target, torch.nan))
    masked = Problems(asked.target, weight, asked.sigma, asked.start, asked.mean, asked.spread)
    poisoned = Problems(wild, weight, asked.sigma, asked.start, asked.mean, asked.spread)
    assert torch.equal(solve(form, DESIGN, masked).theta, solve(form, DESIGN, poisoned).theta)


def test_chunks_do_not_change_the_answer_and_progress_reaches_one() -> None:
    form = Chinchilla.form(DESIGN)
    asked = problems(form, thetas(form, 7), 0.01)
    seen: list[float] = []
    small = solve(form, DESIGN, asked, chunk=1, progress=lambda share, _: seen.append(share))
    whole = solve(form, DESIGN, asked)
    assert torch.allclose(small.theta, whole.theta, atol=1e-9)
    assert seen[-1] == 1.0
    assert seen == sorted(seen)


def test_a_chunk_holds_as_many_fits_as_its_bytes_have_room_for_their_jacobian() -> None:
    form = Chinchilla.form(DESIGN)
    seen: list[str] = []
    room = 2 * 8 * ROWS * len(form.free)  # of float64
    solve(form, DESIGN, problems(form, thetas(form, 5), 0.01), chunk=room, progress=lambda _, text: seen.append(text))
    assert seen == ["2 of 5 fits", "4 of 5 fits", "5 of 5 fits"]


def test_damping_follows_the_rule_of_nielsen() -> None:
    """Nielsen 1999: after a gain mu *= max(1/10, 1 - (2 ratio - 1)**3), nu = 2; without, mu *= nu, nu *= 2."""
    model, damping, growth = _Model.first(1, 1), 1e-3, 2.0
    for gain, predicted in ((-1.0, 2.0), (-1.0, 1.0), (1.0, 1.0), (-1.0, 1.0), (0.5, 1.0), (0.2, 1.0), (-1.0, 1.0)):
        model.learn(torch.tensor([0]), torch.tensor([gain]).double(), torch.tensor([predicted]).double())
        damping *= max(1 / 10, 1 - (2 * gain / predicted - 1) ** 3) if gain > 0 else growth
        growth = 2.0 if gain > 0 else 2 * growth
        assert (float(model.damping), float(model.growth)) == pytest.approx((damping, growth))


def test_the_secant_explains_the_change_of_the_gradient_or_is_left_out() -> None:
    """Dennis, Gay and Welsch 1981: symmetric, and times the step it is what Gauss-Newton leaves of the change."""
    generator = torch.Generator().manual_seed(0)
    before, half = (torch.randn(2, 3, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    before, curvature = before + before.transpose(1, 2), half @ half.transpose(1, 2)
    step = torch.tensor([[0.3, -0.2, 0.5], [1.0, 0.0, 0.0]], dtype=torch.float64)
    change = torch.tensor([[0.4, 0.1, 0.9], [0.0, 1.0, 0.0]], dtype=torch.float64)  # the second is across its step
    found = _secant(before, step, change, curvature)
    assert torch.allclose(found, found.transpose(1, 2))
    assert torch.allclose(found[0] @ step[0], change[0] - curvature[0] @ step[0])
    left = float((step[1] @ (change[1] - curvature[1] @ step[1])).abs() / (step[1] @ before[1] @ step[1]).abs())
    assert torch.allclose(found[1], min(1.0, left) * before[1])


def test_entries_that_the_form_holds_stay_where_they_start() -> None:
    one_size = replace(DESIGN, params=torch.full((ROWS,), 1e6, dtype=torch.float64))
    form = Chinchilla.form(one_size)
    asked = problems(form, thetas(form, 2), 0.01)
    found = solve(form, one_size, asked)
    assert form.free.tolist() == [0, 2, 4]
    assert torch.equal(found.theta[:, [1, 3]], asked.start[:, [1, 3]])
    assert found.covariance.shape == (2, 3, 3)


def test_one_wild_row_in_ten_hardly_moves_a_fit() -> None:
    form = Chinchilla.form(DESIGN)
    asked = problems(form, thetas(form, 1), 0.01)
    target = asked.target.clone()
    target[:, ::10] += 0.5
    broken = solve(form, DESIGN, Problems(target, asked.weight, asked.sigma, asked.start, asked.mean, asked.spread))
    value = form.log_loss(broken.theta, DESIGN)
    good = torch.arange(ROWS) % 10 != 0
    assert float((value - asked.target)[:, good].square().mean().sqrt()) < 0.02


class Cliff(Curve):
    """1 - exp(-x), and near the target without a slope where x < 0: the first steps from the right end there."""

    parameters = (Parameter("x", 0.0, 10.0),)

    def log_loss(self, theta: Tensor, design: Design) -> Tensor:
        return torch.where(theta < 0, 0.1, 1 - torch.exp(-theta)).expand(-1, len(design))

    def jacobian(self, theta: Tensor, design: Design) -> tuple[Tensor, Tensor]:
        slope = torch.where(theta < 0, torch.nan, torch.exp(-theta))
        return self.log_loss(theta, design), slope[..., None].expand(-1, -1, len(design))


def test_a_step_to_where_the_slope_is_no_number_is_not_taken() -> None:
    row, start = torch.full((1, ROWS), 0.05, dtype=torch.float64), torch.tensor([[3.0]], dtype=torch.float64)
    wide = torch.tensor([[1e3]], dtype=torch.float64)
    asked = Problems(row, torch.ones_like(row), torch.ones_like(row), start, torch.zeros_like(start), wide)
    found = solve(Cliff(), DESIGN, asked)
    assert bool(found.converged.all())
    assert found.theta.item() == pytest.approx(-math.log(0.95), abs=1e-4)


def test_a_fit_that_runs_out_of_steps_says_so() -> None:
    form = Exposure.form(DESIGN)
    found: Solution = solve(form, DESIGN, problems(form, thetas(form, 2), 0.01), steps=1)
    assert not bool(found.converged.any())


@pytest.mark.parametrize("seed", [1, 2])
def test_equal_input_gives_equal_output(seed: int) -> None:
    form = Exposure.form(DESIGN)
    asked = problems(form, thetas(form, 2, seed), 0.01)
    assert torch.equal(solve(form, DESIGN, asked).theta, solve(form, DESIGN, asked).theta)
