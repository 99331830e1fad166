"""Simulated worlds of four families: how much of the possible gain is reached, for how many FLOPs, and how honestly.

    python benchmarks/simulated.py [WORLDS]

Seven domains, three phases, four tasks; the target is 8 times the largest proxy. Ours trains the first design of
`suggest` for a budget, fits and proposes. The others train whole runs of the smaller size, where a FLOP buys most
runs, and may spend up to twice as much. Kept in out/simulated.json. Writes its part of docs/optimizer_benchmarks.md.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch
from numpy.typing import NDArray
from peers import PEERS, Peer, Space, olmix, regmix, vectors
from replay import OURS, as_table, write_part
from scoreboard_tables import ROOT, Figure

from mixlaw.analysis.data.recipes import design_of
from mixlaw.analysis.fit import fit
from mixlaw.optimizer.answers.propose import propose
from mixlaw.optimizer.next_runs.candidates import scaled
from mixlaw.optimizer.next_runs.costs import Proxies
from mixlaw.optimizer.next_runs.first_design import first_design
from mixlaw.optimizer.target.feasible import feasible
from mixlaw.optimizer.target.target import FLOPS, Target
from mixlaw.recipe import Domain, Kind, Recipe
from mixlaw.runner.plan.tree import plan
from mixlaw.testing.worlds import Family, World, wild_world

Floats = NDArray[np.float64]
KEPT = ROOT / "out" / "simulated.json"
WORLDS = 20
DOMAINS = (
    Domain("web", Kind.TEXT, 40_000_000),
    Domain("books", Kind.TEXT, 3_000_000),
    Domain("code", Kind.CODE, 20_000_000),
    Domain("markup", Kind.MARKUP, 2_000_000),
    Domain("commits", Kind.CODE_ADJACENT, 1_500_000),
    Domain("synthetic", Kind.SYNTHETIC_CODE, 1_000_000),
    Domain("math", Kind.MATH, 2_000_000),
)
UNIQUE = {domain.name: float(domain.unique_tokens) for domain in DOMAINS}
SMALL, LARGE, PER_PARAM = 47_000, 94_000, 20
TARGET = Target(8 * LARGE, 8 * LARGE * PER_PARAM)
PROXIES = Proxies({SMALL: SMALL * PER_PARAM, LARGE: LARGE * PER_PARAM})
ALLOWED = feasible(TARGET, DOMAINS)
#: Runs of the first design and its budget, in whole runs of the smaller size; what the others may spend of that.
RUNS, BUDGET, TIMES = 64, 28, (1, 2)
DOUBLE = "2"
#: Runs that the others begin with, and sampled mixtures that they choose among at every step.
START, POOL = 12, 1000
#: Runs that are chosen at once.
BATCH = 8


def flops(recipes: Sequence[Recipe], shared: bool) -> float:
    """Training FLOPs, 6 N D, of recipes trained with common prefixes once or one by one."""
    if shared:
        return sum(FLOPS * s.recipe.params * s.tokens for s in plan(recipes).segments)
    return sum(FLOPS * recipe.params * recipe.tokens for recipe in recipes)


@dataclass(frozen=True, eq=False)
class Trial:
    """One world, with the truth about recipes for the target."""

    number: int

    @cached_property
    def world(self) -> World:
        """Families in turn."""
        return wild_world(tuple(Family)[self.number % len(Family)], DOMAINS, seed=self.number)

    @cached_property
    def best(self) -> tuple[float, float]:
        """Mean log losses of the true optimum and of the best baseline."""
        optimum = propose(self.world, TARGET, DOMAINS, draws=8, caution=0.0, starts=48, sizes=[], seed=self.number)
        return self.loss(optimum.recipe), min(map(self.loss, optimum.baselines.values()))

    def loss(self, recipe: Recipe) -> float:
        """True mean log loss over tasks."""
        design = design_of([recipe], self.world.phases, self.world.domains, UNIQUE)
        return float(self.world.mean(design).log().mean())

    def reached(self, recipe: Recipe) -> float:
        """Share of the possible gain over the best baseline."""
        best, baseline = self.best
        return (baseline - self.loss(recipe)) / (baseline - best)


def ours(trial: Trial) -> dict[str, float]:
    """First design, fit, propose."""
    budget = BUDGET * flops_of_run(SMALL)
    recipes = [c.recipe for c in first_design(ALLOWED, PROXIES, budget, RUNS, seed=trial.number)]
    table = trial.world.measure(recipes, seed=trial.number)
    surfaces = fit(table, units=trial.world.units, unique=UNIQUE, resamples=32, seed=trial.number)
    proposal = propose(surfaces, TARGET, DOMAINS, draws=32, starts=12, sizes=[], seed=trial.number)
    against = trial.loss(proposal.baselines[proposal.against])
    return {
        "reached": trial.reached(proposal.recipe),
        "gain": 100 * (against - trial.loss(proposal.recipe)),
        "lo90": proposal.gain.lo90,
        "hi90": proposal.gain.hi90,
        "supported": float(proposal.supported),
        "runs": float(len(recipes)),
        "flops": flops(recipes, shared=True),
        "separate": flops(recipes, shared=False),
        "possible": 100 * (trial.best[1] - trial.best[0]),
    }


def flops_of_run(params: int) -> float:
    """Of one whole proxy."""
    return FLOPS * params * params * PER_PARAM


def other(trial: Trial, peer: Peer) -> dict[str, float]:
    """Share of the possible gain that a peer reaches with a multiple of our budget, by multiple (`TIMES`)."""
    draw = np.random.default_rng(trial.number)
    even = np.full((len(TARGET.phases), len(DOMAINS)), 1 / len(DOMAINS))
    empty = Space(*even.shape, np.empty((0, even.size)), even, finite=False)
    x, losses, reached = np.empty((0, even.size)), np.empty(0), {}
    wanted = inside(empty.sampled(START, np.random.default_rng([trial.number, 7])))
    stops = {times * BUDGET: str(times) for times in TIMES}
    while True:
        losses = np.append(losses, measured(trial, wanted, len(x)))
        x = np.concatenate([x, wanted])
        near = np.abs(
            x[losses.argsort()[:5]].repeat(POOL // 10, 0) * np.exp(0.3 * draw.normal(size=(POOL // 2, even.size)))
        )
        near = vectors(np.array([empty.shares(row) for row in near]).reshape(-1, *even.shape))
        pool = inside(np.concatenate([empty.sampled(POOL // 2, draw), near]))
        next_stop = min((stop for stop in stops if stop > len(x)), default=len(x))
        count = next_stop - len(x) if peer in (regmix, olmix) else min(BATCH, next_stop - len(x))
        last = len(x) >= max(stops)
        wanted, best = peer(replace(empty, pool=pool), x, losses, 0 if last else count, draw)
        if len(x) in stops:
            reached[stops[len(x)]] = trial.reached(recipe_of(inside(best[None])[0]))
        if last:
            return reached
        wanted = inside(wanted)


def inside(x: Floats) -> Floats:
    """Mixtures (R, V) drawn inside the limits of the target."""
    shares = torch.tensor(x).reshape(len(x), len(TARGET.phases), len(DOMAINS))
    lengths = torch.tensor([[0.425, 0.425, 0.15]], dtype=torch.float64).expand(len(x), -1)
    return vectors(ALLOWED.project(ALLOWED.complete(shares, lengths)).shares.numpy())


def recipe_of(x: Floats) -> Recipe:
    """The recipe for the target of one mixture."""
    shares = torch.tensor(x).reshape(1, len(TARGET.phases), len(DOMAINS))
    return ALLOWED.recipe(ALLOWED.complete(shares, torch.tensor([[0.425, 0.425, 0.15]], dtype=torch.float64)))


def measured(trial: Trial, x: Floats, before: int) -> Floats:
    """Mean log losses of small proxies, noise included."""
    recipes = [scaled(ALLOWED, recipe_of(row), SMALL, SMALL * PER_PARAM) for row in x]
    table = trial.world.measure(recipes, seed=1000 * trial.number + before)
    return np.asarray(np.log(table.select("^metric:.*$").to_numpy()).mean(1), dtype=np.float64)


def traces(worlds: int) -> list[dict[str, dict[str, float]]]:
    """What every method reached in every world; what was played before is not played again."""
    torch.set_num_threads(1)
    played: dict[str, dict[str, float]] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    for number in range(worlds):
        trial = Trial(number)
        jobs: dict[str, Callable[[], dict[str, float]]] = {OURS: partial(ours, trial)}
        jobs |= {name: partial(other, trial, peer) for name, peer in PEERS.items()}
        for name, job in jobs.items():
            if (key := f"{number}/{name}") not in played:
                played[key] = job()
                KEPT.parent.mkdir(exist_ok=True)
                KEPT.write_text(json.dumps(played))
                print(key, {what: round(value, 3) for what, value in played[key].items()}, flush=True)
    return [{name: played[f"{number}/{name}"] for name in (OURS, *PEERS)} for number in range(worlds)]


def main(worlds: int) -> int:
    """Play, and print and write the tables."""
    played = traces(worlds)
    lines = ["\n".join(rows) for rows in (figures(played), table(played))]
    print("\n\n".join(lines))
    write_part("simulated", [f"{worlds} worlds.", "", lines[0], "", lines[1]])
    return 0


def figures(found: Sequence[Mapping[str, Mapping[str, float]]]) -> list[str]:
    """Figures beside their bars."""
    mine = [one[OURS] for one in found]
    inside = float(np.mean([m["lo90"] <= m["gain"] <= m["hi90"] for m in mine]))
    told = [m for m in mine if m["supported"]]
    worse = float(np.mean([m["gain"] < 0 for m in told])) if told else 0.0
    best, name = max((float(np.median([one[n][DOUBLE] for one in found])), n) for n in PEERS)
    shared = sum(m["flops"] for m in mine) / sum(m["separate"] for m in mine)
    peers = f"{name} {best:.2f} at twice the FLOPs"
    return as_table(
        [
            Figure("share of the possible gain, median world", reached(found, OURS), peers, at_least=0.9),
            Figure("the best other method at twice the FLOPs", best, name, at_most=0.9 - 1e-9),
            Figure("90 % intervals of the gain that hold the true gain", inside, at_least=0.85, at_most=0.95),
            Figure("supported recommendations worse than the baseline", worse, f"of {len(told)}", at_most=0.05),
            Figure("bias of the gain, % of loss", float(np.mean([centre(m) - m["gain"] for m in mine]))),
            Figure("FLOPs of the first design over those of its recipes one by one", shared, at_most=0.5),
        ]
    )


def centre(mine: Mapping[str, float]) -> float:
    """Middle of the interval of the gain."""
    return (mine["lo90"] + mine["hi90"]) / 2


def reached(found: Sequence[Mapping[str, Mapping[str, float]]], name: str, key: str = "reached") -> float:
    """Median share of the possible gain."""
    return float(np.median([one[name][key] for one in found]))


def table(found: Sequence[Mapping[str, Mapping[str, float]]]) -> list[str]:
    """Share of the possible gain by method and FLOPs, and by family."""
    rows = ["| method | our FLOPs | twice | " + " | ".join(f.name.lower() for f in Family) + " |", "| --- " * 7 + "|"]
    for name in (OURS, *PEERS):
        last = "reached" if name == OURS else DOUBLE
        cells = [reached(found, name, "reached" if name == OURS else "1"), reached(found, name, last)]
        cells += [reached(found[i :: len(Family)], name, last) for i in range(len(Family))]
        shown = [f"{cell:.2f}" for cell in cells]
        rows.append(f"| {name} | {shown[0]} | {'' if name == OURS else shown[1]} | {' | '.join(shown[2:])} |")
    return rows


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]) if len(sys.argv) > 1 else WORLDS))
