"""Fronts: volume that gradients followed by NSGA-II dominate, beside plain NSGA-II at equal evaluations.

    python benchmarks/pareto.py [WORLDS]

Simulated worlds of 7 domains, 3 phases and 8 tasks in 2 or 3 groups, known exactly, so that only the search differs.
Volumes lie above the worst gain of any front for each group and count as a share of the best front of the world; a
slope counts like two evaluations.
"""

from __future__ import annotations

import sys

import numpy as np

from mixlaw.optimizer.answers.front import hypervolume, pareto
from mixlaw.optimizer.target.target import Target
from mixlaw.recipe import Domain, Kind
from mixlaw.testing.worlds import random_world

KINDS = (Kind.TEXT, Kind.TEXT, Kind.CODE, Kind.MARKUP, Kind.CODE_ADJACENT, Kind.SYNTHETIC_CODE, Kind.MATH)
DOMAINS = tuple(Domain(f"{kind.value}{i}", kind, 2_000_000 * (1 + i % 3)) for i, kind in enumerate(KINDS))
TARGET = Target(330_000, 6_600_000)
TASKS = [f"task{i}" for i in range(8)]
GROUPS = {
    2: {"language": TASKS[:5], "code": TASKS[5:]},
    3: {"language": TASKS[:4], "knowledge": TASKS[4:6], "code": TASKS[6:]},
}
SEARCHES = [(evaluations, seeded) for evaluations in (500, 1000, 2000) for seeded in (True, False)]
WORLDS = 20


def volumes(groups: dict[str, list[str]], seed: int) -> list[float]:
    """Volume of the front of every search, as a share of the greatest."""
    world = random_world(DOMAINS, tasks=len(TASKS), seed=seed)
    fronts = [
        pareto(world, TARGET, DOMAINS, groups, draws=8, evaluations=count, seeded=seeded, seed=seed).gains()
        for count, seeded in SEARCHES
    ]
    floor = np.min([front.min(0) for front in fronts], axis=0)
    found = np.array([hypervolume(front, floor) for front in fronts])
    return list(found / found.max())


def main(worlds: int) -> int:
    """Print the volumes, median and 5 % to 95 % over worlds."""
    print("groups  evaluations  gradients, then NSGA-II  plain NSGA-II        worlds in which gradients win")
    for count, groups in GROUPS.items():
        found = np.array([volumes(groups, seed) for seed in range(worlds)])
        for i, (evaluations, _) in list(enumerate(SEARCHES))[::2]:
            ours, plain = found[:, i], found[:, i + 1]
            told = ["{1:.2f} ({0:.2f} to {2:.2f})".format(*np.quantile(v, [0.05, 0.5, 0.95])) for v in (ours, plain)]
            won = f"{(ours > plain).sum()} of {worlds}"
            print(f"{count:>6}  {evaluations:>11,}  {told[0]:<23}  {told[1]:<19}  {won}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]) if len(sys.argv) > 1 else WORLDS))
