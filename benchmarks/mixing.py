"""Mixture loader: exactness of shares against drawing domains at random, and sequences per second, side by side.

`datasets.interleave_datasets` chooses the next source by a random number with the given probabilities; the same draw is
made here with numpy, so that nothing but the way of choosing differs.
"""

from __future__ import annotations

import time

import numpy as np

from mixlaw.recipe import Mixture, Phase, Recipe
from mixlaw.runner.loader import Batches
from mixlaw.runner.mixing import Order

SHARES = {"code": 0.25, "docs": 0.05, "facts": 0.2, "markup": 0.04, "math": 0.01, "prose": 0.45}
LENGTH, SEQUENCE, BATCH = 200_000, 128, 8


def deviation(codes: np.ndarray) -> float:
    """Largest distance of any domain's count from its exact share, in sequences, over all prefixes."""
    share = np.array([SHARES[name] for name in sorted(SHARES)])
    counts = np.cumsum(codes[:, None] == np.arange(len(share)), axis=0)
    return float(np.abs(counts - np.arange(1, len(codes) + 1)[:, None] * share).max())


def main() -> None:
    """Print deviation and speed of both ways, then the speed of the whole loader."""
    began = time.perf_counter()
    exact = Order(SHARES, LENGTH).domains
    ours = time.perf_counter() - began
    began = time.perf_counter()
    drawn = np.random.default_rng(0).choice(len(SHARES), LENGTH, p=[SHARES[name] for name in sorted(SHARES)])
    random = time.perf_counter() - began
    print(f"{'':24} {'largest deviation, sequences':>30} {'sequences/s':>14}")
    print(f"{'exact order':24} {deviation(exact):30.2f} {LENGTH / ours:14,.0f}")
    print(f"{'random draw':24} {deviation(drawn):30.2f} {LENGTH / random:14,.0f}")

    streams = {name: np.arange(2_000_000, dtype=np.uint16) for name in SHARES}
    steps = LENGTH // BATCH
    recipe = Recipe(1, (Phase("init", steps * BATCH * SEQUENCE, Mixture(SHARES)),))
    batches = Batches(recipe, streams, SEQUENCE, BATCH)
    began = time.perf_counter()
    for step in range(3000):
        batches.at(step)
    rate = 3000 * BATCH * SEQUENCE / (time.perf_counter() - began)
    print(f"whole loader, batches of {BATCH} x {SEQUENCE}: {rate:,.0f} tokens/s")


if __name__ == "__main__":
    main()
