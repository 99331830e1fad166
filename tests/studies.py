"""A small study in a simulated world, fitted and proposed for once: what plots and report are tested on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import polars as pl
import torch

from mixlaw import import_runs
from mixlaw.analysis.audit.audit import audit
from mixlaw.analysis.audit.held import Fold, Held
from mixlaw.analysis.data.observed import observe
from mixlaw.analysis.laws import Exposure
from mixlaw.analysis.surface.member import fit_member
from mixlaw.analysis.surface.surface import Surfaces, surfaces_of
from mixlaw.optimizer.answers.proposal import Proposal
from mixlaw.optimizer.answers.propose import propose
from mixlaw.optimizer.target.target import Target
from mixlaw.plots import Node
from mixlaw.recipe import Domain, Kind
from mixlaw.testing.worlds import World, random_recipes, random_world

DOMAINS = (
    Domain("web", Kind.TEXT, 4_000_000),
    Domain("books", Kind.TEXT, 400_000),
    Domain("python", Kind.CODE, 3_000_000),
)
#: Two sizes, a shared trunk of two cooldowns each; the larger is not trained yet.
NODES = tuple(
    Node(f"{size}{name}", parent and f"{size}{parent}", start, stop, phase, size, size < 90_000, runs, label)
    for size in (24_000, 94_000)
    for name, parent, start, stop, phase, runs, label in (
        ("trunk", None, 0, 400, "init", (f"{size}a", f"{size}b"), ""),
        ("a", "trunk", 400, 500, "cooldown", (f"{size}a",), "run a"),
        ("b", "trunk", 400, 500, "cooldown", (f"{size}b",), "run b"),
    )
)


def audited(surfaces: Surfaces, off: float) -> Surfaces:
    """The surfaces with an audit of two made-up folds, in which every prediction is `off` deviations too low."""
    observed, held = surfaces.observed, []
    for part in (0, 1):
        rows = torch.arange(len(observed.design))
        fold = Fold("mixtures", rows[rows % 2 != part], rows[rows % 2 == part])
        truth = observed.target[:, fold.test].T
        deviation = torch.full_like(truth, 0.01)
        held.append(Held(fold, truth - off * deviation, truth, deviation))
    return replace(surfaces, audit=audit(observed, held, surfaces.calibration))


@dataclass(frozen=True)
class Study:
    """Everything a report is made of."""

    world: World
    table: pl.DataFrame
    surfaces: Surfaces
    proposal: Proposal


@cache
def measured() -> tuple[World, pl.DataFrame]:
    """A world of two tasks, and 18 runs of two sizes in it."""
    world = random_world(DOMAINS, seed=1, tasks=2)
    return world, world.measure(random_recipes([24_000, 94_000], 20, DOMAINS, count=9))


@cache
def fitted() -> Surfaces:
    """Surfaces of those runs, fitted once in a process."""
    world, table = measured()
    return quick_fit(table, world.units, {d.name: float(d.unique_tokens) for d in DOMAINS})


def quick_fit(table: pl.DataFrame, units: Mapping[str, str], unique: Mapping[str, float]) -> Surfaces:
    """Surfaces of one law in 16 worlds."""
    observed = observe(table, units, unique)
    return surfaces_of((fit_member(Exposure, observed, 16, 0, lambda share, words: None),), observed)


@cache
def study() -> Study:
    """The study with a proposal, made once in a process."""
    proposal = propose(fitted(), Target(330_000, 6_600_000), DOMAINS, draws=16, starts=4)
    return Study(*measured(), fitted(), proposal)


def on_disk(folder: Path, target: str) -> Path:
    """The study as a team with runs of its own has it: imported, with surfaces and a target."""
    measured()[1].write_csv(folder / "runs.csv")
    told = (f'[domains.{d.name}]\nkind = "{d.kind.value}"\nunique_tokens = {d.unique_tokens}\n' for d in DOMAINS)
    (folder / "domains.toml").write_text("".join(told))
    import_runs(folder / "study", folder / "runs.csv", unit="bits/byte", domains=folder / "domains.toml")
    with (folder / "study" / "study.toml").open("a") as toml:
        toml.write(target)
    fitted().save(folder / "study" / "surfaces")
    return folder / "study"
