"""Fronts: volume that the gradients of `pareto` dominate, beside Optuna's NSGA-II at equal evaluations.

    python benchmarks/pareto.py [WORLDS]

Simulated worlds of 7 domains, 3 phases and 8 tasks in 2 or 3 groups, known exactly, so that only the search differs.
Volumes lie above the worst gain of any front for each group and count as a share of the best front of the world; a
slope counts like two evaluations.
"""

from __future__ import annotations

import sys

import numpy as np

from mixlaw.optimizer.answers.front import pareto
from mixlaw.optimizer.target.target import Target
from mixlaw.recipe import Domain, Kind
from mixlaw.testing.fronts import hypervolume, nsga2_gains
from mixlaw.testing.worlds import random_world

KINDS = (Kind.TEXT, Kind.TEXT, Kind.CODE, Kind.MARKUP, Kind.CODE_ADJACENT, Kind.SYNTHETIC_CODE, Kind.MATH)
DOMAINS = tuple(Domain(f"{kind.value}{i}", kind, 2_000_000 * (1 + i % 3)) for i, kind in enumerate(KINDS))
TARGET = Target(330_000, 6_600_000, cooldown=(0.15, 0.15))
TASKS = [f"task{i}" for i in range(8)]
GROUPS = {
    2: {"language": TASKS[:5], "code": TASKS[5:]},
    3: {"language": TASKS[:4], "knowledge": TASKS[4:6], "code": TASKS[6:]},
}
EVALUATIONS = (500, 1000, 2000)
WORLDS = 20


def volumes(groups: dict[str, list[str]], seed: int) -> list[float]:
    """Volume of the front of both searches at each number of evaluations, as a share of the greatest."""
    world = random_world(DOMAINS, tasks=len(TASKS), seed=seed)
    fronts = []
    for count in EVALUATIONS:
        fronts.append(pareto(world, TARGET, DOMAINS, groups, draws=8, evaluations=count, seed=seed).gains())
        fronts.append(nsga2_gains(world, TARGET, DOMAINS, groups, draws=8, evaluations=count, seed=seed))
    floor = np.min([front.min(0) for front in fronts], axis=0)
    found = np.array([hypervolume(front, floor) for front in fronts])
    return list(found / found.max())


def main(worlds: int) -> int:
    """Print the volumes, median and 5 % to 95 % over worlds."""
    print("groups  evaluations  gradients            NSGA-II              worlds in which gradients are better")
    for count, groups in GROUPS.items():
        shares = np.array([volumes(groups, seed) for seed in range(worlds)])
        for i, evaluations in enumerate(EVALUATIONS):
            ours, peer = shares[:, 2 * i], shares[:, 2 * i + 1]
            cells = ["{1:.2f} ({0:.2f} to {2:.2f})".format(*np.quantile(v, [0.05, 0.5, 0.95])) for v in (ours, peer)]
            better = f"{(ours > peer).sum()} of {worlds}"
            print(f"{count:>6}  {evaluations:>11,}  {cells[0]:<19}  {cells[1]:<19}  {better}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]) if len(sys.argv) > 1 else WORLDS))
