"""Simulated worlds of four families: how much of the possible gain is reached, for how many FLOPs, and how honestly.

    python benchmarks/simulated.py [WORLDS]
    python benchmarks/simulated.py FIRST:END    # ours alone, on the worlds of these numbers; writes no page

Seven domains, three phases, four tasks; the target is 8 times the largest proxy. Ours trains the first design of
`suggest` for a budget, at three sizes or at the larger two, fits and proposes, with the default guard and without one.
The others know no guard, train whole runs of the smallest size, where a FLOP buys most runs, and may spend up to twice
as much. The possible gain is that of
the true optimum under the same guard or none. Kept in out/simulated.json. Writes its part of
docs/optimizer_benchmarks.md.
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
from mixlaw.analysis.surface.surface import Surfaces
from mixlaw.optimizer.answers.propose import propose
from mixlaw.optimizer.goal.gains import recipes_losses
from mixlaw.optimizer.next_runs.candidates import scaled
from mixlaw.optimizer.next_runs.costs import Proxies
from mixlaw.optimizer.next_runs.first_design import first_design
from mixlaw.optimizer.search.climb import random_starts
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
GUARDED = Target(8 * LARGE, 8 * LARGE * PER_PARAM)
TARGET = GUARDED.model_copy(update={"guard": None})
PROXIES = Proxies({SMALL: SMALL * PER_PARAM, LARGE: LARGE * PER_PARAM})
LEAST = SMALL // 2
THREE = Proxies({LEAST: LEAST * PER_PARAM, **PROXIES.sizes})
ALLOWED = feasible(TARGET, DOMAINS)
#: Most runs of the first design, and its budget in whole runs of the smallest size; what the others may spend of that.
RUNS, BUDGET, TIMES = 96, 112, (1, 2)
DOUBLE = "2"
FREE, TWO, TWO_FREE = (f"{OURS}, {what}" for what in ("no guard", "two sizes", "two sizes, no guard"))
METHODS = (OURS, FREE, TWO, TWO_FREE, *PEERS)
#: Percent of loss that a task may lose under the default guard.
LOST = 1.0
#: Posterior draws of a fit, and random recipes whose gains its 90 % intervals should hold.
DRAWS, RANDOM, Z90 = 32, 60, 1.645
#: Runs that the others begin with, and sampled mixtures that they choose among at every step.
START, POOL = 12, 1000
#: Runs that are chosen at once.
BATCH = 32


def flops(recipes: Sequence[Recipe], shared: bool) -> float:
    """Training FLOPs, 6 N D, of recipes trained with common prefixes once or one by one."""
    if shared:
        return sum(FLOPS * s.recipe.params * s.tokens for s in plan(recipes).segments)
    return sum(FLOPS * recipe.params * recipe.tokens for recipe in recipes)


@dataclass(frozen=True, eq=False)
class Trial:
    """One world of some domains, with the truth about recipes for the target."""

    number: int
    domains: tuple[Domain, ...] = DOMAINS

    @cached_property
    def world(self) -> World:
        """Families in turn."""
        return wild_world(tuple(Family)[self.number % len(Family)], self.domains, seed=self.number)

    @cached_property
    def baseline(self) -> Floats:
        """Log losses (T,) of the best of the baselines that everybody can name."""
        named = propose(self.world, TARGET, self.domains, draws=8, starts=1, sizes=[], seed=self.number).baselines
        return min((self.losses(recipe) for recipe in named.values()), key=lambda losses: float(losses.mean()))

    @cached_property
    def possible(self) -> dict[bool, float]:
        """Gain of the true optimum over the best baseline, with the default guard (True) and without."""
        gains = {}
        for target in (TARGET, GUARDED):
            optimum = propose(
                self.world, target, self.domains, draws=8, caution=0.0, starts=48, sizes=[], seed=self.number
            )
            gains[target is GUARDED] = float((self.baseline - self.losses(optimum.recipe)).mean())
        return gains

    def losses(self, recipe: Recipe) -> Floats:
        """True log losses of all tasks, (T,)."""
        design = design_of([recipe], self.world.phases, self.world.domains, UNIQUE)
        return self.world.mean(design).log()[0].numpy()

    def judged(self, recipe: Recipe, guarded: bool = False) -> dict[str, float]:
        """Share of the possible gain over the best baseline, and the most that a task loses to it, % of loss."""
        gains = self.baseline - self.losses(recipe)
        return {"reached": float(gains.mean()) / self.possible[guarded], "lost": -100 * float(gains.min())}


def ours(trial: Trial, proxies: Proxies, name: str, free: str) -> dict[str, dict[str, float]]:
    """First design, fit, propose; with the default guard (under `name`) and without (`free`)."""
    budget = BUDGET * flops_of_run(LEAST)
    recipes = [c.recipe for c in first_design(ALLOWED, proxies, budget, RUNS, seed=trial.number)]
    table = trial.world.measure(recipes, seed=trial.number)
    surfaces = fit(table, units=trial.world.units, unique=UNIQUE, resamples=DRAWS, seed=trial.number)
    spent = {"runs": float(len(recipes)), "flops": flops(recipes, True), "separate": flops(recipes, False)}
    return {what: spent | proposed(trial, surfaces, target) for what, target in ((name, GUARDED), (free, TARGET))}


def held(trial: Trial, surfaces: Surfaces, baseline: Recipe) -> dict[str, float]:
    """Shares of the gains of random recipes over a baseline that 90 % intervals hold: of means over tasks, of tasks."""
    points = random_starts(ALLOWED, RANDOM, 3000 + trial.number)
    recipes = [baseline, *(ALLOWED.recipe(points[i : i + 1]) for i in range(RANDOM))]
    true = np.stack([trial.losses(recipe) for recipe in recipes])
    said = recipes_losses(surfaces, ALLOWED, recipes, DRAWS).numpy()
    errors = said[:, :1] - said[:, 1:] - (true[:1] - true[1:])  # draws, recipes, tasks

    def share(error: Floats) -> float:
        return float((np.abs(error.mean(0)) <= Z90 * error.std(0, ddof=1)).mean())

    return {"means inside": share(errors.mean(-1)), "tasks inside": share(errors)}


def proposed(trial: Trial, surfaces: Surfaces, target: Target) -> dict[str, float]:
    """What is proposed for a target, judged by the truth; gains in % of loss."""
    proposal = propose(surfaces, target, DOMAINS, sizes=[], seed=trial.number)
    baseline = proposal.baselines[proposal.against]
    against = trial.losses(baseline)
    own = {
        "gain": 100 * float((against - trial.losses(proposal.recipe)).mean()),
        "lo90": proposal.gain.lo90,
        "hi90": proposal.gain.hi90,
        "supported": float(proposal.supported),
        "possible": 100 * trial.possible[target is GUARDED],
    }
    return trial.judged(proposal.recipe, target is GUARDED) | held(trial, surfaces, baseline) | own


def flops_of_run(params: int) -> float:
    """Of one whole proxy."""
    return FLOPS * params * params * PER_PARAM


def other(trial: Trial, peer: Peer) -> dict[str, float]:
    """Share of the possible gain, and most lost, of a peer with a multiple of our budget, by multiple (`TIMES`)."""
    draw = np.random.default_rng(trial.number)
    even = np.full((len(TARGET.phases), len(DOMAINS)), 1 / len(DOMAINS))
    empty = Space(*even.shape, np.empty((0, even.size)), even, finite=False)
    x, losses, reached = np.empty((0, even.size)), np.empty(0), dict[str, float]()
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
            judged = trial.judged(recipe_of(inside(best[None])[0]))
            reached |= {stops[len(x)]: judged["reached"], "lost": judged["lost"]}
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
    recipes = [scaled(ALLOWED, recipe_of(row), LEAST, LEAST * PER_PARAM) for row in x]
    table = trial.world.measure(recipes, seed=1000 * trial.number + before)
    return np.asarray(np.log(table.select("^metric:.*$").to_numpy()).mean(1), dtype=np.float64)


def traces(worlds: Sequence[int], peers: bool) -> list[dict[str, dict[str, float]]]:
    """What every method reached in every world; what was played before is not played again."""
    torch.set_num_threads(1)
    played: dict[str, dict[str, float]] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    for number in worlds:
        trial = Trial(number)
        jobs: dict[str, Callable[[], dict[str, dict[str, float]]]] = {
            OURS: partial(ours, trial, THREE, OURS, FREE),
            TWO: partial(ours, trial, PROXIES, TWO, TWO_FREE),
        }
        jobs |= {name: partial(as_job, name, trial, peer) for name, peer in PEERS.items()} if peers else {}
        for name, job in jobs.items():
            if f"{number}/{name}" not in played:
                for part, values in job().items():
                    played[f"{number}/{part}"] = values
                    print(number, part, {what: round(value, 3) for what, value in values.items()}, flush=True)
                KEPT.parent.mkdir(exist_ok=True)
                KEPT.write_text(json.dumps(played))
    methods = METHODS if peers else METHODS[: -len(PEERS)]
    return [{name: played[f"{number}/{name}"] for name in methods} for number in worlds]


def as_job(name: str, trial: Trial, peer: Peer) -> dict[str, dict[str, float]]:
    """A peer's figures under its name."""
    return {name: other(trial, peer)}


def main(worlds: str = str(WORLDS)) -> int:
    """Play, and print and write the tables."""
    if ":" in worlds:
        played = traces(range(*map(int, worlds.split(":"))), peers=False)
        print("\n\n".join("\n".join(rows) for rows in (as_table(own_figures(played)), coverage(played))))
        return 0
    played = traces(range(int(worlds)), peers=True)
    lines = "\n\n".join("\n".join(rows) for rows in (figures(played), table(played), coverage(played)))
    print(lines)
    write_part("simulated", [f"{worlds} worlds.", "", lines])
    return 0


def figures(found: Sequence[Mapping[str, Mapping[str, float]]]) -> list[str]:
    """Figures beside their bars."""
    best, name = max((float(np.median([one[n][DOUBLE] for one in found])), n) for n in PEERS)
    return as_table([Figure("the best other method at twice the FLOPs", best, name), *own_figures(found)])


def own_figures(found: Sequence[Mapping[str, Mapping[str, float]]]) -> list[Figure]:
    """Of our methods."""
    rows = []
    for method in METHODS[: -len(PEERS)]:
        mine = [one[method] for one in found]
        inside = float(np.mean([m["lo90"] <= m["gain"] <= m["hi90"] for m in mine]))
        supported = [m["gain"] for m in mine if m["supported"]]
        worse = sum(gain < 0 for gain in supported)
        bias = float(np.mean([(m["lo90"] + m["hi90"]) / 2 - m["gain"] for m in mine]))
        rows += [
            Figure(f"{method}: share of the possible gain, median world", reached(found, method), at_least=0.93),
            Figure(f"{method}: 90 % intervals that hold the true gain", inside, at_least=0.85, at_most=0.95),
            Figure(f"{method}: supported and worse than the baseline", worse, f"of {len(supported)}", at_most=0),
            Figure(f"{method}: bias of the gain, % of loss", bias),
        ]
    shared = sum(one[OURS]["flops"] for one in found) / sum(one[OURS]["separate"] for one in found)
    return [*rows, Figure("FLOPs of the first design over those of its recipes one by one", shared, at_most=0.5)]


def reached(found: Sequence[Mapping[str, Mapping[str, float]]], name: str, key: str = "reached") -> float:
    """Median share of the possible gain."""
    return float(np.median([one[name][key] for one in found]))


def table(found: Sequence[Mapping[str, Mapping[str, float]]]) -> list[str]:
    """Share of the possible gain by method, FLOPs and family, and worlds in which a task loses too much."""
    families = " | ".join(f.name.lower() for f in Family)
    head = f"| method | our FLOPs | twice | {families} | worlds with a task over {LOST:g} % worse |"
    rows = [head, "| --- " * 8 + "|"]
    for name in METHODS:
        own = name not in PEERS
        first, last = ("reached", "reached") if own else ("1", DOUBLE)
        cells = [
            reached(found, name, first),
            *(reached(found[i :: len(Family)], name, last) for i in range(len(Family))),
        ]
        shown = [f"{cell:.2f}" for cell in cells]
        shown.insert(1, "" if own else f"{reached(found, name, DOUBLE):.2f}")
        worse = sum(one[name]["lost"] > LOST for one in found)
        rows.append(f"| {name} | {' | '.join(shown)} | {worse} |")
    return rows


def coverage(found: Sequence[Mapping[str, Mapping[str, float]]]) -> list[str]:
    """Shares of the gains of random recipes that 90 % intervals hold, over all worlds and by family."""
    families = " | ".join(f.name.lower() for f in Family)
    rows = [f"| gains of {RANDOM} random recipes a world, inside | all | {families} |", "| --- " * 6 + "|"]
    for name in (OURS, TWO):
        for what in ("means", "tasks"):
            inside = [one[name][f"{what} inside"] for one in found]
            cells = [np.mean(inside), *(np.mean(inside[i :: len(Family)]) for i in range(len(Family)))]
            of = "means over tasks" if what == "means" else what
            rows.append(f"| {name}: {of} | {' | '.join(f'{cell:.2f}' for cell in cells)} |")
    return rows


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
