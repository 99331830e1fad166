"""Closed loop: after a first design, what the same FLOPs buy as suggested runs, as more first design and at random.

    python benchmarks/closed_loop.py [WORLDS]

The worlds of `simulated`, numbers from 200 on, four families in turn. A first design of 14 whole small runs is
trained, fitted and proposed from. Then each arm spends the FLOPs of 10 more whole small runs, at most 24 of them; the
fit and the proposal after that, without a guard, are judged by the world. Kept in out/closed_loop.json. Writes
its part of docs/optimizer_benchmarks.md.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
import torch
from replay import write_part
from scoreboard_tables import ROOT
from simulated import ALLOWED, DOMAINS, LARGE, PROXIES, SMALL, TARGET, UNIQUE, Trial, flops, flops_of_run

from mixlaw.analysis.fit import fit
from mixlaw.analysis.surface.surface import Surfaces
from mixlaw.optimizer.answers.propose import propose
from mixlaw.optimizer.next_runs.candidates import scaled
from mixlaw.optimizer.next_runs.costs import Proxies
from mixlaw.optimizer.next_runs.first_design import first_design
from mixlaw.optimizer.next_runs.suggest import suggest
from mixlaw.optimizer.search.climb import random_starts
from mixlaw.recipe import Recipe
from mixlaw.testing.worlds import Family

KEPT = ROOT / "out" / "closed_loop.json"
WORLDS, FIRST_WORLD = 8, 200
#: Whole small runs that the first design, and each arm after it, may cost; runs of both, at most.
FIRST, MORE = 14, 10
FIRST_RUNS, MORE_RUNS = 28, 24
#: Fits between which `suggest` spends its part.
ROUNDS = 2
#: Posterior draws of every fit.
DRAWS = 32
UNIT = flops_of_run(SMALL)


@dataclass(frozen=True, eq=False)
class Loop:
    """One world after its first design."""

    number: int

    @cached_property
    def trial(self) -> Trial:
        """The world and its truth."""
        return Trial(FIRST_WORLD + self.number)

    @cached_property
    def first(self) -> list[Recipe]:
        """Recipes of the first design."""
        return [c.recipe for c in first_design(ALLOWED, PROXIES, FIRST * UNIT, FIRST_RUNS, seed=self.number)]

    def known(self, more: Sequence[Recipe] = ()) -> Proxies:
        """What can be trained: checkpoints at every end of a phase of what is measured."""
        measured = (*self.first, *more)
        ends = [(r, sum(p.tokens for p in r.phases[:i])) for r in measured for i in range(1, len(r.phases))]
        return Proxies(PROXIES.sizes, measured=measured, checkpoints=tuple(ends))

    @cached_property
    def start(self) -> Surfaces:
        """The fit to the first design."""
        return self.surfaces(())

    def surfaces(self, more: Sequence[Recipe]) -> Surfaces:
        """The fit to the first design and to more runs."""
        parts = [self.trial.world.measure(self.first, seed=self.number)]
        if more:
            parts.append(self.trial.world.measure(list(more), seed=self.number + 1000))
            parts[1] = parts[1].with_columns(run=pl.lit("more-") + pl.col("run"))
        table = pl.concat(parts, how="diagonal")
        return fit(table, units=self.trial.world.units, unique=UNIQUE, resamples=DRAWS, seed=self.number)

    def reached(self, surfaces: Surfaces) -> float:
        """Share of the possible gain of what `propose` recommends."""
        proposal = propose(surfaces, TARGET, DOMAINS, draws=DRAWS, starts=12, sizes=[], seed=self.number)
        return self.trial.judged(proposal.recipe)["reached"]


def suggested(loop: Loop) -> tuple[list[Recipe], float]:
    """What `suggest` asks for, in rounds with a fit before each, and the gain that it expects of it, % of loss."""
    more: list[Recipe] = []
    expected = 0.0
    for left in range(ROUNDS, 0, -1):
        budget = MORE * UNIT - (flops([*loop.first, *more], shared=True) - flops(loop.first, shared=True))
        found = suggest(
            loop.surfaces(more) if more else loop.start,
            TARGET,
            DOMAINS,
            loop.known(more),
            budget=budget / left,
            count=(MORE_RUNS - len(more)) // left,
            draws=DRAWS,
            seed=loop.number,
        )
        more += [job.recipe for job in found.jobs]
        expected += found.value.gain if found.value else 0.0
    return more, expected


def designed(loop: Loop) -> tuple[list[Recipe], float]:
    """More of the first design, which expects nothing."""
    recipes = [c.recipe for c in first_design(ALLOWED, loop.known(), MORE * UNIT, MORE_RUNS, seed=loop.number + 1)]
    return recipes, 0.0


def random(loop: Loop) -> tuple[list[Recipe], float]:
    """Whole small runs of recipes anywhere inside the limits."""
    points = random_starts(ALLOWED, MORE, 1000 + loop.number)
    recipes = [ALLOWED.recipe(points[i : i + 1]) for i in range(MORE)]
    return [scaled(ALLOWED, recipe, SMALL, PROXIES.sizes[SMALL]) for recipe in recipes], 0.0


ALONE, SUGGESTED = "first design alone", "+ suggest, fitted again halfway"
ARMS: dict[str, Callable[[Loop], tuple[list[Recipe], float]]] = {
    ALONE: lambda _loop: ([], 0.0),
    SUGGESTED: suggested,
    "+ more first design": designed,
    "+ random": random,
}


def played(loop: Loop, arm: str) -> dict[str, float]:
    """What one arm reaches, and for how many FLOPs."""
    more, expected = ARMS[arm](loop)
    spent = flops([*loop.first, *more], shared=True) - flops(loop.first, shared=True)
    return {
        "reached": loop.reached(loop.surfaces(more) if more else loop.start),
        "possible": 100 * loop.trial.possible[False],
        "expected": expected,
        "spent": spent / UNIT,
        "runs": float(len(more)),
        "large": float(sum(recipe.params == LARGE for recipe in more)),
    }


def results(worlds: int) -> dict[str, list[dict[str, float]]]:
    """What every arm reached in every world; what was played before is not played again."""
    torch.set_num_threads(1)
    kept: dict[str, dict[str, float]] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    for number in range(worlds):
        loop = Loop(number)
        for arm in ARMS:
            if (key := f"{number}/{arm}") not in kept:
                kept[key] = played(loop, arm)
                KEPT.parent.mkdir(exist_ok=True)
                KEPT.write_text(json.dumps(kept))
                print(key, {what: round(value, 3) for what, value in kept[key].items()}, flush=True)
    return {arm: [kept[f"{number}/{arm}"] for number in range(worlds)] for arm in ARMS}


def table(found: dict[str, list[dict[str, float]]]) -> list[str]:
    """Share of the possible gain by arm, FLOPs spent and runs; the median world of each family."""
    families = " | ".join(family.name.lower() for family in Family)
    head = f"| after | median | mean | least | FLOPs of {MORE} | runs | of the larger size | {families} |"
    rows = [head, "| --- " * (7 + len(Family)) + "|"]
    for arm, each in found.items():
        reached = [one["reached"] for one in each]
        shares = [np.median(reached), np.mean(reached), np.min(reached)]
        counts = [np.mean([one[what] for one in each]) for what in ("spent", "runs", "large")]
        by_family = [np.median(reached[i :: len(Family)]) for i in range(min(len(Family), len(reached)))]
        cells = [f"{x:.3f}" for x in shares] + [f"{x:.1f}" for x in counts] + [f"{x:.2f}" for x in by_family]
        rows.append(f"| {arm} | {' | '.join(cells)} |")
    return rows


def brought(found: dict[str, list[dict[str, float]]]) -> str:
    """What `suggest` expected its runs to gain, and what they did, % of loss."""
    pairs = list(zip(found[ALONE], found[SUGGESTED], strict=True))
    gained = [(after["reached"] - before["reached"]) * before["possible"] for before, after in pairs]
    expected = [after["expected"] for _, after in pairs]
    return (
        f"`suggest` expected {np.mean(expected):.2f} % of loss of its runs in the mean and "
        f"{np.median(expected):.2f} in the median; they gained {np.mean(gained):.2f} and {np.median(gained):.2f}."
    )


def main(worlds: int) -> int:
    """Play, and print and write the table."""
    found = results(worlds)
    rows = [*table(found), "", brought(found)]
    print("\n".join(rows))
    write_part("closed-loop", [f"{worlds} worlds.", "", *rows])
    return 0


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]) if len(sys.argv) > 1 else WORLDS))
