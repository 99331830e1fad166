"""Runs chosen from tables of real ones to predict, and to choose at, a larger size: after PlanarG/active-sl.

    python benchmarks/active_sl.py [SEEDS]

Spend Less, Fit Better (Li et al. 2026, arXiv:2604.22753): candidates are the runs below the largest size, the target
region is the largest size, and a share of what all candidates cost may be spent. Its mixture task (20 mixtures of five
domains at 70M to 410M, `../shared/data/scalebench`; tokens are not known, taken to be equal) and the ladder of
`ladder.py`, as far as it is trained. All methods start from the same cheap runs, choose in one batch for each budget,
and are judged by the same fit. D- and V-optimal design look at the same posterior draws, V-optimal as in that paper,
with costs to the power of .3. Kept in out/active_sl.json. Writes its part of docs/optimizer_benchmarks.md.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from replay import write_part
from scoreboard_tables import DATA, ROOT
from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.data.observed import higher_is_better, to_log_loss
from mixlaw.analysis.fit import fit
from mixlaw.analysis.surface.surface import Surfaces
from mixlaw.numbers import percent
from mixlaw.optimizer.goal.posterior import log_losses
from mixlaw.optimizer.next_runs.value import choose

Floats = NDArray[np.float64]
KEPT = ROOT / "out" / "active_sl.json"
SEEDS = 1
#: Shares of the cost of all candidates; posterior draws of a fit; runs at the start.
BUDGETS, DRAWS, START = (0.2, 0.35, 0.5), 64, 8
#: Power of the cost in V-optimal design, as published.
COST_POWER = 0.3
LADDER = Path(__file__).parent / "ladder" / "runs.csv"
LEAST_ROWS = 12  # of the largest size


@dataclass(frozen=True, eq=False)
class Pool:
    """A table of runs: candidates below the largest size, and the runs of that size as the target region."""

    table: pl.DataFrame
    units: Mapping[str, str]
    unique: Mapping[str, float]

    @property
    def design(self) -> Design:
        """All rows."""
        return Design.from_table(self.table, self.unique)

    @property
    def target(self) -> NDArray[np.int64]:
        """Rows of the largest size."""
        return np.flatnonzero(self.design.at_largest.numpy())

    @property
    def candidates(self) -> NDArray[np.int64]:
        """Rows below it."""
        return np.flatnonzero(~self.design.at_largest.numpy())

    @property
    def costs(self) -> Floats:
        """FLOPs of every row over those of all candidates."""
        costs = (self.design.params * self.design.total).numpy()
        return np.asarray(costs / costs[self.candidates].sum(), dtype=np.float64)

    def fitted(self, rows: list[int], seed: int) -> Surfaces:
        """The fit to some rows."""
        settings = {"units": self.units, "unique": self.unique, "resamples": DRAWS, "seed": seed}
        return fit(self.table[rows], **settings, audited=False)  # type: ignore[arg-type]

    def judged(self, surfaces: Surfaces) -> dict[str, float]:
        """R2 over all values of the target region, and regret of the recipe chosen there, in percent of loss."""
        design = self.design.select(self.target.tolist())
        with torch.no_grad():
            predicted = surfaces.mean(design)
        names = [f"metric:{task}" for task in surfaces.tasks]
        truth = torch.tensor(self.table[self.target.tolist()].select(names).to_numpy())
        off, all_ = (predicted - truth).square().sum(), (truth - truth.mean()).square().sum()
        units = [self.units[task] for task in surfaces.tasks]
        ours, real = (
            torch.stack([to_log_loss(v[:, t], u) for t, u in enumerate(units)], -1).mean(-1) for v in (predicted, truth)
        )
        return {"r2": max(float(1 - off / all_), -1.0), "regret": 100 * float(real[ours.argmin()] - real.min())}


Method = Callable[[Pool, Surfaces, list[int], float, np.random.Generator], list[int]]


def suggested(pool: Pool, surfaces: Surfaces, rows: list[int], budget: float, draw: np.random.Generator) -> list[int]:
    """What `suggest` would choose of a list: the regret of the recommendation at the largest size is to fall."""
    left = [int(row) for row in pool.candidates if row not in rows]
    batch = choose(
        surfaces,
        pool.design.select(left),
        pool.costs[left].tolist(),
        len(left),
        recommendations=pool.design.select(pool.target.tolist()),
        budget=budget,
        draws=DRAWS,
    )
    return [left[i] for i in batch.chosen]


def at_random(pool: Pool, surfaces: Surfaces, rows: list[int], budget: float, draw: np.random.Generator) -> list[int]:
    """Any runs."""
    return affordable(pool, draw.permutation(pool.candidates), rows, budget)


def cheapest(pool: Pool, surfaces: Surfaces, rows: list[int], budget: float, draw: np.random.Generator) -> list[int]:
    """The runs that cost least, equal ones in any order."""
    order = draw.permutation(pool.candidates)
    return affordable(pool, order[np.argsort(pool.costs[order], kind="stable")], rows, budget)


def affordable(pool: Pool, order: NDArray[np.int64], rows: list[int], budget: float) -> list[int]:
    """Rows in their order as long as they can be paid."""
    chosen: list[int] = []
    for row in map(int, order):
        if row not in rows and pool.costs[[*chosen, row]].sum() <= budget:
            chosen.append(row)
    return chosen


def d_optimal(pool: Pool, surfaces: Surfaces, rows: list[int], budget: float, draw: np.random.Generator) -> list[int]:
    """Runs of which least is known: log det of their predictive covariance per cost."""
    return by_variance(pool, surfaces, rows, budget, lambda own, _shared, noise: torch.log1p(own / noise).sum(-1), 1.0)


def v_optimal(pool: Pool, surfaces: Surfaces, rows: list[int], budget: float, draw: np.random.Generator) -> list[int]:
    """Runs that take most variance off the predictions of the target region."""

    def taken(own: Tensor, shared: Tensor, noise: Tensor) -> Tensor:
        return (shared.square().sum(1) / (own + noise)).sum(-1)

    return by_variance(pool, surfaces, rows, budget, taken, COST_POWER)


Score = Callable[[Tensor, Tensor, Tensor], Tensor]


def by_variance(
    pool: Pool, surfaces: Surfaces, rows: list[int], budget: float, score: Score, power: float
) -> list[int]:
    """Greedy by a score of variances (C, T), covariances with the targets (C, M, T) and noise (C, T), per cost."""
    with torch.no_grad():
        losses = log_losses(surfaces, pool.design, DRAWS)
        noise = surfaces.spread(pool.design).square()
    off, chosen = losses - losses.mean(0), list[int]()
    candidates = pool.candidates
    while True:
        own = off[:, candidates].var(0)
        shared = torch.einsum("sct,smt->cmt", off[:, candidates], off[:, pool.target]) / (DRAWS - 1)
        worth = score(own, shared, noise[candidates]) / torch.tensor(pool.costs[candidates]) ** power
        spent = pool.costs[chosen].sum()
        worth[[i for i, row in enumerate(candidates) if row in (*rows, *chosen)]] = -torch.inf
        worth[torch.tensor(pool.costs[candidates] + spent > budget)] = -torch.inf
        if worth.max() == -torch.inf:
            return chosen
        chosen.append(int(candidates[int(worth.argmax())]))
        off = known(off, chosen[-1], noise[chosen[-1]])


def known(off: Tensor, row: int, noise: Tensor) -> Tensor:
    """Deviations of draws (S, R, T) once a row was measured: Potter's square root of the Kalman update."""
    mine = off[:, row]
    variance = mine.var(0).clamp_min(1e-15)
    gain = torch.einsum("srt,st->rt", off, mine) / (len(off) - 1) / (variance + noise)
    return off - gain * mine[:, None] / (1 + torch.sqrt(noise / (variance + noise)))


METHODS: dict[str, Method] = {
    "mixlaw": suggested,
    "V-optimal": v_optimal,
    "D-optimal": d_optimal,
    "cheapest": cheapest,
    "random": at_random,
}


def mixtures() -> Pool:
    """Scalebench's mixtures: five domains, sizes 70M, 160M, 305M and 410M."""
    table = pl.read_csv(DATA / "scalebench" / "domain_mixture_scaling_law_train.csv")
    tokens = {f"tokens:all:domain_{i}": 1e10 * pl.col(f"proportion_domain_{i}") for i in range(1, 6)}
    losses = {f"metric:domain_{i}": pl.col(f"loss_domain_{i}") for i in range(1, 6)}
    params = pl.col("group").str.strip_suffix("M").cast(pl.Float64) * 1e6
    run = pl.int_range(pl.len()).cast(pl.String)
    table = table.select(run=run, params=params, **tokens, **losses)
    return Pool(table, {f"domain_{i}": "nats/token" for i in range(1, 6)}, {})


def ladder() -> Pool | None:
    """The ladder's whole runs of two sizes or more; None before there are enough of the largest size."""
    if not LADDER.exists():
        return None
    table = pl.read_csv(LADDER).filter(pl.col("progress") == 1)
    tasks = [c.removeprefix("metric:") for c in table.columns if c.startswith("metric:")]
    losses = [
        task for task in tasks if table[f"metric:{task}"].to_numpy().min() > 0.6
    ]  # bits per byte; scores are left out
    table = table.drop([f"metric:{task}" for task in tasks if task not in losses])
    pool = Pool(table, dict.fromkeys(losses, "bits/byte"), {})
    assert not any(map(higher_is_better, pool.units.values()))
    return pool if len(pool.target) >= LEAST_ROWS and len(pool.candidates) > START else None


POOLS: dict[str, Callable[[], Pool | None]] = {"scalebench, mixtures": mixtures, "ladder": ladder}


def played(pool: Pool, method: Method, seed: int) -> dict[str, dict[str, float]]:
    """What a method has reached at each budget."""
    draw = np.random.default_rng(seed)
    order = draw.permutation(pool.candidates)
    rows = [int(row) for row in order[np.argsort(pool.costs[order], kind="stable")][:START]]
    surfaces, found = pool.fitted(rows, seed), {}
    for budget in BUDGETS:
        rows += method(pool, surfaces, rows, budget - pool.costs[rows].sum(), draw)
        surfaces = pool.fitted(rows, seed)
        found[str(budget)] = {**pool.judged(surfaces), "runs": float(len(rows)), "cost": float(pool.costs[rows].sum())}
    return found


def main(seeds: int) -> int:
    """Play, and print and write the tables."""
    if not DATA.exists():
        print(f"active_sl: no public tables in {DATA}; set MIXLAW_DATA to the folder that holds them")
        return 0
    torch.set_num_threads(1)
    kept: dict[str, dict[str, dict[str, float]]] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    lines = [f"{seeds} seeds."]
    for name, load in POOLS.items():
        if (pool := load()) is None:
            continue
        for method, choose_runs in METHODS.items():
            for seed in range(seeds):
                if (key := f"{name}/{method}/{seed}") not in kept:
                    kept[key] = played(pool, choose_runs, seed)
                    KEPT.parent.mkdir(exist_ok=True)
                    KEPT.write_text(json.dumps(kept))
                    print(key, kept[key], flush=True)
        heads = [f"{what}, {percent(budget)}" for what in ("R2", "regret") for budget in BUDGETS]
        lines += ["", f"| {name} | {' | '.join(heads)} | runs, {percent(BUDGETS[-1])} |", "| --- " * 8 + "|"]
        for method in METHODS:
            trials = [kept[f"{name}/{method}/{seed}"] for seed in range(seeds)]
            cells = [f"{np.mean([t[str(b)]['r2'] for t in trials]):.3f}" for b in BUDGETS]
            cells += [f"{np.mean([t[str(b)]['regret'] for t in trials]):.2f}" for b in BUDGETS]
            runs = np.mean([t[str(BUDGETS[-1])]["runs"] for t in trials])
            lines.append(f"| {method} | {' | '.join(cells)} | {runs:.0f} |")
    print("\n".join(lines))
    write_part("active-sl", lines)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]) if len(sys.argv) > 1 else SEEDS))
