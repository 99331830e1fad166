from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import approx_fprime
from scipy.spatial.distance import cdist
from scipy.stats import multivariate_normal
from torch import Tensor

from mixlaw.analysis.data.coordinates import Features
from mixlaw.analysis.data.design import Design
from mixlaw.analysis.residual import process
from mixlaw.analysis.residual.learn import Evidence, learn_kernel, objective
from mixlaw.analysis.residual.process import WAVES, Kernel, Residual
from test_laws import designs

LENGTHS = torch.tensor([[1.0, 1.0, 2.0]], dtype=torch.float64)


def kernel(
    signal: float = 0.1, noise: float = 0.01, length: float = 1.0, rise: float = 0.0, local: float = 0.0
) -> Kernel:
    """Of three coordinates; whatever comes after them are shares."""
    span = torch.tensor([[-0.2, 0.3]], dtype=torch.float64)
    return Kernel(_one(signal), _one(noise), length * LENGTHS, _one(rise), span, _one(local), _one(0.25))


def _one(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


def _points(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_kernel_is_matern_five_halves() -> None:
    x = torch.zeros(1, 3, dtype=torch.float64)
    y = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    by_hand = 0.1**2 * (1 + math.sqrt(5) + 5 / 3) * math.exp(-math.sqrt(5))
    assert math.isclose(float(kernel()(x, y)), by_hand, rel_tol=1e-6)


def test_the_local_part_is_matern_five_halves_in_the_shares() -> None:
    x = torch.zeros(1, 5, dtype=torch.float64)
    y = torch.tensor([[0.0, 0.0, 0.0, 0.15, -0.2]], dtype=torch.float64)  # .25 apart, which is the reach
    by_hand = 0.1**2 + 0.03**2 * (1 + math.sqrt(5) + 5 / 3) * math.exp(-math.sqrt(5))
    assert math.isclose(float(kernel(local=0.03)(x, y)), by_hand, rel_tol=1e-6)


def test_the_process_interpolates_near_runs_and_is_silent_far_away() -> None:
    x = _points(12)
    left = 0.1 * torch.sin(x.sum(1))[None, :, None]
    near = Residual(kernel(noise=1e-4), x, torch.full((1, 12), 1e-8, dtype=torch.float64))
    weights = near.weights(left)
    assert torch.allclose(near.at(x, weights), left, atol=1e-4)
    far = x + 50
    assert float(near.at(far, weights).abs().max()) < 1e-8


def test_values_without_noise_at_all_but_equal_recipes_are_interpolated_all_the_same() -> None:
    # Rounding alone decides whether such a matrix has a Cholesky factor: an optimum that many workers ask for at once.
    x = torch.cat([_points(40), _points(1).repeat(160, 1) + 1e-9 * _points(160, seed=1)])
    left = 5 * torch.sin(x.sum(1))[None, :, None]
    bare = Residual(kernel(signal=3e4), x, torch.zeros(1, 200, dtype=torch.float64))
    with pytest.raises(RuntimeError, match="not positive-definite"):
        torch.linalg.cholesky(bare.kernel(x, x) + 1e-10 * torch.eye(200, dtype=torch.float64))
    assert torch.allclose(bare.at(x, bare.weights(left)), left, atol=1e-2)
    for broken in (torch.nan, -2e9):  # no rounding error
        with pytest.raises(RuntimeError, match="not positive-definite"):
            replace(bare, variance=torch.full((1, 200), broken, dtype=torch.float64)).weights(left)


def test_a_noisy_row_is_trusted_less() -> None:
    x = torch.zeros(2, 3, dtype=torch.float64)
    left = torch.tensor([1.0, -1.0], dtype=torch.float64)[None, :, None]
    noisy = Residual(kernel(signal=1.0), x, torch.tensor([[0.01, 1.0]], dtype=torch.float64))
    assert float(noisy.at(x[:1], noisy.weights(left))) > 0.9


def test_a_process_through_fewer_points_is_the_exact_one_where_rows_repeat_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, left = _points(20).repeat(3, 1), torch.randn(1, 60, 2, dtype=torch.float64)
    variance = torch.linspace(1e-4, 1e-2, 60, dtype=torch.float64)[None]
    exact = torch.linalg.solve(kernel()(x, x) + torch.diag_embed(variance), left)
    monkeypatch.setattr(process, "MOST", 20)
    through = Residual(kernel(), x, variance)
    assert len(through.points) == 20
    new = _points(9, seed=1)
    assert torch.allclose(through.at(new, through.weights(left)), kernel()(new, x) @ exact, atol=1e-5)


def test_fourier_features_reproduce_both_parts_of_the_kernel() -> None:
    # Mean over draws of the product of features; the error of WAVES Monte Carlo features is about 1/sqrt(WAVES).
    x = torch.cat([_points(6), 0.2 * _points(6, seed=1)], 1)
    truth = kernel(local=0.1)
    found = torch.zeros(2, 6, 6, dtype=torch.float64)
    for seed in range(20):
        frequency, turn = truth.waves(torch.Generator().manual_seed(seed), 3)
        features = 0.1 * math.sqrt(2 / WAVES) * torch.cos(x @ frequency[0] + turn)
        for part, own in enumerate((features[:, :WAVES], features[:, WAVES:])):
            found[part] += own @ own.T / 20
    wide = kernel()(x, x)[0]
    for part, expected in zip(found, (wide, truth(x, x)[0] - wide), strict=True):
        assert torch.allclose(part, expected, atol=0.1**2 * 0.06)


def test_a_coordinate_counts_by_its_length() -> None:
    x, y = torch.zeros(1, 3, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    found = kernel()(x, y)[0, 0]
    half = math.sqrt(5) / 2
    assert math.isclose(float(found[2]), 0.1**2 * (1 + half + half**2 / 3) * math.exp(-half), rel_tol=1e-6)
    assert float(found[2]) > float(found[0])


def test_noise_rises_with_the_law_and_stays_constant_outside_of_what_was_measured() -> None:
    law = torch.tensor([[-9.0, -0.2, 0.0, 0.1, 0.3, 9.0]], dtype=torch.float64)
    by_hand = [0.01 * math.exp(4 * x) for x in (-0.2, -0.2, 0.0, 0.1, 0.3, 0.3)]
    assert torch.allclose(kernel(rise=4.0).noise_at(law)[0], torch.tensor(by_hand, dtype=torch.float64))


def _evidence(truth: Kernel, design: Design, law: Tensor, seed: int = 2) -> Evidence:
    """A draw of the residual process and of noise at the recipes, nothing else being uncertain."""
    features, count = Features.of(design), len(design)
    x, random = features.and_shares(design), torch.Generator().manual_seed(seed)
    root = torch.linalg.cholesky(truth(x, x)[0] + 1e-12 * torch.eye(count, dtype=torch.float64))
    smooth, noise = torch.randn(2, count, generator=random, dtype=torch.float64)
    left = (root @ smooth + truth.noise_at(law)[0] * noise)[None]
    unknown = torch.full((1, count), torch.nan, dtype=torch.float64)
    nothing = torch.zeros(1, count, count, dtype=torch.float64)
    return Evidence(
        x, features.groups, law, left, nothing, unknown, torch.log(_one(0.02)), _one(0.7), torch.log(_one(0.02))
    )


def _truth(design: Design, signal: float, rise: float = 0.0, relevant: int | None = None, local: float = 0.0) -> Kernel:
    """Kernel over the coordinates of a design; all but one coordinate may be irrelevant."""
    count = Features.of(design)(design).shape[1]
    length = torch.full((1, count), 6.0 if relevant is None else 60.0, dtype=torch.float64)
    if relevant is not None:
        length[0, relevant] = 1.0
    span = torch.tensor([[-2.0, 2.0]], dtype=torch.float64)
    return Kernel(_one(signal + 1e-9), _one(0.01), length, _one(rise), span, _one(local), _one(0.6))


def test_the_density_of_a_kernel_is_that_of_scipy_and_its_slope_that_of_differences() -> None:
    design = designs(rows=30)
    law = torch.linspace(-1, 1, 30, dtype=torch.float64)[None]
    evidence = _evidence(_truth(design, 0.05), design, law)
    counts = _widths(evidence)[1]
    count, density = sum(counts), objective(evidence)
    left, x, length = evidence.residual[0].numpy(), evidence.x.numpy(), 2.0 * np.repeat(*_widths(evidence))

    def by_scipy(vector: NDArray[np.float64]) -> float:
        """Signal, noise, its rise (.5 over one deviation of the law), the local part and its reach, then lengths."""
        rise = 0.5 * vector[2] / law.std(correction=0)
        signal, noise = 0.04 * np.exp(vector[0]), 0.02 * torch.exp(0.7 * vector[1] + rise * law[0])
        local, reach = 0.01 * np.exp(vector[3]), 0.6 * np.exp(0.5 * vector[4])
        group, own = vector[5 : 5 + len(counts)], vector[5 + len(counts) :]
        scaled = x[:, :count] / (length * np.exp(0.7 * np.repeat(group, counts) + 0.5 * own))
        covariance = np.diag(noise.numpy() ** 2)
        for size, at in ((signal, scaled), (local, x[:, count:] / reach)):
            r = np.sqrt(5) * cdist(at, at)
            covariance = covariance + size**2 * (1 + r + r**2 / 3) * np.exp(-r)
        return float(0.5 * vector @ vector - multivariate_normal(cov=covariance).logpdf(left))

    one, other = np.random.default_rng(0).normal(size=(2, 5 + len(counts) + count)) / 2
    assert density(one)[0] - density(other)[0] == pytest.approx(by_scipy(one) - by_scipy(other), rel=1e-5)
    assert density(one)[1] == pytest.approx(approx_fprime(one, by_scipy, 1e-6), rel=1e-3, abs=1e-3)


def _widths(evidence: Evidence) -> tuple[NDArray[np.float64], list[int]]:
    """Root of the number of coordinates of each group, and that number."""
    counts = [group.stop - group.start for group in evidence.groups]
    return np.sqrt(counts), counts


@pytest.mark.parametrize("signal", [0.0, 0.05])
def test_signal_and_noise_are_told_apart(signal: float) -> None:
    design = designs(rows=80)
    law = torch.linspace(-1, 1, 80, dtype=torch.float64)[None]
    found = learn_kernel(_evidence(_truth(design, signal), design, law))
    assert 0.006 < float(found.noise) < 0.016
    assert (float(found.signal) > 0.02) == (signal > 0)
    assert abs(float(found.rise)) < 0.5


@pytest.mark.parametrize("local", [0.0, 0.03])
def test_what_mixtures_have_for_themselves_at_every_size_is_told_from_noise(local: float) -> None:
    once = designs(rows=120)
    recipes = once.select([row % 40 for row in range(120)])
    design = replace(recipes, params=once.params, runs=once.runs)
    law = torch.linspace(-1, 1, len(design), dtype=torch.float64)[None]
    found = learn_kernel(_evidence(_truth(design, 0.0, local=local), design, law))
    assert 0.006 < float(found.noise) < 0.016
    assert float(found.signal) < 0.02
    assert (0.02 < float(found.local) < 0.045) if local else (float(found.local) < 0.006)


def test_noise_that_rises_tenfold_is_found_to_rise() -> None:
    design = designs(rows=120)
    law = torch.linspace(-1, 1, 120, dtype=torch.float64)[None]
    found = learn_kernel(_evidence(_truth(design, 0.02, rise=math.log(10) / 2), design, law))
    low, high = found.noise_at(torch.tensor([[-1.0, 1.0]], dtype=torch.float64))[0].tolist()
    assert 4 < high / low < 25
    assert 0.006 < math.sqrt(low * high) < 0.016


def test_the_coordinate_that_matters_gets_the_shortest_length() -> None:
    design = designs(rows=120)
    law = torch.zeros(1, 120, dtype=torch.float64)
    size = Features.of(design).groups[-1].start
    found = learn_kernel(_evidence(_truth(design, 0.05, relevant=size), design, law)).length[0]
    assert int(found.argmin()) == size


def test_a_search_that_starts_at_a_good_kernel_stays_there() -> None:
    design = designs(rows=80)
    evidence = _evidence(_truth(design, 0.05), design, torch.linspace(-1, 1, 80, dtype=torch.float64)[None])
    cold = learn_kernel(evidence)
    warm = learn_kernel(evidence, cold)
    for name in ("signal", "noise", "length", "reach"):
        assert torch.allclose(getattr(warm, name).log(), getattr(cold, name).log(), atol=0.2)


def test_equal_recipes_have_equal_coordinates_and_all_are_finite_at_zero_shares() -> None:
    design = designs()
    features = Features.of(design)
    x = features(design)
    assert bool(x.isfinite().all())
    assert torch.equal(x, features(design.select(list(range(9)))))
    assert torch.allclose(x.mean(0), torch.zeros(x.shape[1], dtype=torch.float64), atol=1e-12)
