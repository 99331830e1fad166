"""A world of known truth at the size of the demo: few runs, two sizes, three phases, six domains, several tasks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.laws import Exposure

PHASES = ("init", "continue", "cooldown")
DOMAINS = ("text", "facts", "code", "markup", "adjacent", "synthetic")
UNIQUE = dict(zip(DOMAINS, (3e6, 1e6, 5e6, 5e5, 4e5, 1e6), strict=True))
SMALL, MEDIUM, LARGE = 2.4e4, 1e5, 2.2e5


@dataclass(frozen=True)
class World:
    """Laws of the tasks, a smooth deviation that no law of ours can express, and the noise of a run in log loss."""

    laws: tuple[Exposure, ...]
    slopes: NDArray[np.float64]
    turns: NDArray[np.float64]
    noise: float
    rng: np.random.Generator

    @property
    def units(self) -> dict[str, str]:
        return {f"task{i}": "bits/byte" for i in range(len(self.laws))}

    def truth(self, table: pl.DataFrame) -> NDArray[np.float64]:
        """Expected values, (rows, tasks)."""
        design = Design.from_table(table, UNIQUE)
        smooth = torch.sin(3 * design.shares.flatten(1) @ torch.tensor(self.slopes.T) + torch.tensor(self.turns))
        values: NDArray[np.float64] = (
            torch.stack([law(design) for law in self.laws], 1) * torch.exp(0.01 * smooth)
        ).numpy()
        return values

    def measure(self, table: pl.DataFrame) -> pl.DataFrame:
        """The table with a noisy value of every task."""
        truth = self.truth(table)
        values = truth * np.exp(self.noise * self.rng.normal(size=truth.shape))
        return table.with_columns(**{f"metric:{t}": values[:, i] for i, t in enumerate(self.units)})

    def recipes(self, count: int, sizes: tuple[float, ...], repeated: int = 0) -> pl.DataFrame:
        """Random recipes at 20 or 40 tokens per parameter, the first `repeated` of them one and the same centre."""
        rows = [self._centre(i) if i < repeated else self._random(i, sizes) for i in range(count)]
        return pl.DataFrame(rows)

    def _centre(self, index: int) -> dict[str, float | str]:
        even = np.full(len(DOMAINS), 1 / len(DOMAINS))
        return _row(f"run{index}", SMALL, 20 * SMALL, (0.6, 0.25, 0.15), (even, even, even))

    def _random(self, index: int, sizes: tuple[float, ...]) -> dict[str, float | str]:
        size = float(self.rng.choice(sizes))
        lengths = (0.6, 0.25, 0.15) if self.rng.random() < 0.7 else (0.85, 0.0, 0.15)
        mixtures = tuple(self._mixture() for _ in PHASES)
        return _row(f"run{index}", size, size * 20 * float(self.rng.choice([1, 2])), lengths, mixtures)

    def _mixture(self) -> NDArray[np.float64]:
        shares = self.rng.dirichlet(np.full(len(DOMAINS), 0.7))
        shares[shares < 0.02] = 0
        normal: NDArray[np.float64] = shares / shares.sum()
        return normal


def world(seed: int, tasks: int = 8, noise: float = 0.012) -> World:
    """A world whose exponents, retention and worths are drawn anew."""
    rng = np.random.default_rng(seed)
    alpha, beta = 0.35 * np.exp(0.2 * rng.normal(size=2))
    g = 0.5 * np.exp(0.4 * rng.normal())
    retention = np.exp([-0.4, -0.2] + 0.2 * rng.normal(size=2))
    laws = tuple(_law(rng, i, alpha, beta, g, retention) for i in range(tasks))
    return World(laws, rng.normal(size=(tasks, 18)), 3 * rng.normal(size=tasks), noise, rng)


def _law(
    rng: np.random.Generator, own: int, alpha: float, beta: float, g: float, retention: NDArray[np.float64]
) -> Exposure:
    worth = np.exp(rng.normal(size=len(DOMAINS)))
    if own < len(DOMAINS):
        worth[own] *= 12  # a task of a domain's own text
    worth /= worth.sum()
    alpha, beta, g = (float(x * np.exp(0.1 * rng.normal())) for x in (alpha, beta, g))
    even = (worth * (1 / len(DOMAINS)) ** g).sum() ** (beta / g)
    return Exposure(
        floor=1.0,
        a=0.6 * 5e4**alpha,
        alpha=alpha,
        b=float(0.8 * 1.2e6**beta * even),
        beta=beta,
        bottleneck=1.0,
        elasticity=g,
        worth=tuple(map(float, worth)),
        contrast=1.0,
        home=5e4,
        typical=1.0,
        efficiency=tuple(map(float, np.exp(0.2 * rng.normal(size=len(DOMAINS))))),
        retention=(*map(float, retention * np.exp(0.1 * rng.normal(size=2))), 1.0),
        evenness=0.5,
        repeats=15.0,
        onset=15.0,
        crowding=1e9,
        memory=0.7,
        overload=(0.1,) * len(DOMAINS),
        phases=PHASES,
        domains=DOMAINS,
    )


def _row(
    run: str, size: float, tokens: float, lengths: tuple[float, ...], mixtures: tuple[NDArray[np.float64], ...]
) -> dict[str, float | str]:
    row: dict[str, float | str] = {"run": run, "params": size}
    for phase, length, mixture in zip(PHASES, lengths, mixtures, strict=True):
        row |= {f"tokens:{phase}:{d}": tokens * length * share for d, share in zip(DOMAINS, mixture, strict=True)}
    return row
