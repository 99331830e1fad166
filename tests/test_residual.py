from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mixlaw.analysis.features import Features
from mixlaw.analysis.residual import WAVES, Kernel, Residual, learn_kernel
from test_laws import designs

GROUPS = (slice(0, 2), slice(2, 3))


def kernel(signal: float = 0.1, noise: float = 0.01, length: float = 1.0) -> Kernel:
    return Kernel(_one(signal), _one(noise), torch.full((1, 2), length, dtype=torch.float64), GROUPS)


def _one(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


def _points(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_kernel_is_matern_five_halves() -> None:
    x = torch.zeros(1, 3, dtype=torch.float64)
    y = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    by_hand = 0.1**2 * (1 + math.sqrt(5) + 5 / 3) * math.exp(-math.sqrt(5))
    assert math.isclose(float(kernel()(x, y)), by_hand, rel_tol=1e-6)


def test_the_process_interpolates_near_runs_and_is_silent_far_away() -> None:
    x = _points(12)
    left = 0.1 * torch.sin(x.sum(1))[None, :, None]
    process = Residual(kernel(noise=1e-4), x, torch.full((1, 12), 1e-8, dtype=torch.float64))
    factor = process.cholesky()
    weights = process.weights(left, factor)
    assert torch.allclose(process.at(x, weights), left, atol=1e-4)
    far = x + 50
    assert float(process.at(far, weights).abs().max()) < 1e-8
    assert float(process.deviation(x, factor).max()) < 1e-3
    assert torch.allclose(process.deviation(far, factor), torch.full((1, 12), 0.1, dtype=torch.float64))


def test_a_noisy_row_is_trusted_less() -> None:
    x = torch.zeros(2, 3, dtype=torch.float64)
    left = torch.tensor([1.0, -1.0], dtype=torch.float64)[None, :, None]
    process = Residual(kernel(signal=1.0), x, torch.tensor([[0.01, 1.0]], dtype=torch.float64))
    assert float(process.at(x[:1], process.weights(left, process.cholesky()))) > 0.9


def test_fourier_features_reproduce_the_kernel() -> None:
    # Mean over draws of the product of features; the error of WAVES Monte Carlo features is about 1/sqrt(WAVES).
    x = _points(6)
    found = torch.zeros(6, 6, dtype=torch.float64)
    for seed in range(20):
        frequency, turn = kernel().waves(torch.Generator().manual_seed(seed), 3)
        features = 0.1 * math.sqrt(2 / WAVES) * torch.cos(x @ frequency[0] + turn)
        found += features @ features.T / 20
    assert torch.allclose(found, kernel()(x, x)[0], atol=0.1**2 * 0.06)


@pytest.mark.parametrize("signal", [0.0, 0.05])
def test_signal_and_noise_are_told_apart(signal: float) -> None:
    design = designs(rows=80)
    features = Features.of(design)
    x = features(design)
    truth = Kernel(
        _one(signal + 1e-9),
        _one(0.01),
        torch.full((1, len(features.groups)), 6.0, dtype=torch.float64),
        features.groups,
    )
    random = torch.Generator().manual_seed(2)
    root = torch.linalg.cholesky(truth(x, x)[0] + 1e-12 * torch.eye(80, dtype=torch.float64))
    left = root @ torch.randn(80, 1, generator=random, dtype=torch.float64)
    left = (left + 0.01 * torch.randn(80, 1, generator=random, dtype=torch.float64)).T
    unknown = torch.full((1, 80), torch.nan, dtype=torch.float64)
    guess = (torch.log(_one(0.02)), _one(0.7))
    found = learn_kernel(features, x, left, torch.zeros(1, 80, 80, dtype=torch.float64), unknown, guess)
    assert 0.006 < float(found.noise) < 0.016
    assert (float(found.signal) > 0.02) == (signal > 0)


def test_equal_recipes_have_equal_coordinates_and_all_are_finite_at_zero_shares() -> None:
    design = designs()
    features = Features.of(design)
    x = features(design)
    assert bool(x.isfinite().all())
    assert torch.equal(x, features(design.select(list(range(9)))))
    assert torch.allclose(x.mean(0), torch.zeros(x.shape[1], dtype=torch.float64), atol=1e-12)
