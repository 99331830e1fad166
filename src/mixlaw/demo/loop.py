"""The whole loop on corpora of installed packages: train small proxies, fit, propose, train the proposal, compare."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixlaw.numbers import percent, size
from mixlaw.printable import Page, Printable
from mixlaw.progress import progress_bar
from mixlaw.study import Study, open_study
from mixlaw.study.choosing import queue_checks
from mixlaw.templates import create

if TYPE_CHECKING:
    from mixlaw.optimizer.answers.proposal import Proposal
    from mixlaw.optimizer.answers.verify import Verification
    from mixlaw.runner.plan.price import Plan

#: Seeds that the proposal and its baseline are trained with.
SEEDS = (0, 1)
#: Times that a proposal is trained at the proxies' sizes, before another one is made with what that shows.
CHECKS = 2


@dataclass(frozen=True)
class Demo(Printable):
    """Result of the demo: its proposal, and predicted against measured gains over its baseline.

    Attributes:
        study: folder of the study.
        plan: of all recipes, those at the target's size among them.
        proposal: made from the smaller sizes alone.
        verification: its predictions against what was measured.
        report: path of the page.
        seconds: this call took.
    """

    study: Path
    plan: Plan
    proposal: Proposal
    verification: Verification
    report: Path
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        return {
            "study": str(self.study),
            "plan": self.plan.as_json(),
            "proposal": self.proposal.as_json(),
            "verification": self.verification.as_json(),
            "report": str(self.report),
            "seconds": self.seconds,
        }

    def page(self) -> Page:
        """Predicted before training, measured after; what it took, and where the report is."""
        plan, found = self.plan, self.verification.page()
        saved = 1 - plan.flops_shared / plan.flops_separate
        took = (
            f"{len(plan.tree.recipes)} recipes, {size(plan.tokens_shared)} tokens, {plan.flops_shared:.3g} FLOPs "
            f"(sharing saved {percent(saved)}); this call took {self.seconds:.0f} s"
        )
        notes = [*found.notes, took, f"report: {self.report}"]
        return replace(found, head="Predicted before training, measured after:", notes=notes)


def run_demo(folder: Path, smoke: bool = False, workers: int | None = None, seeds: tuple[int, ...] = SEEDS) -> Demo:
    """Run the demo in a folder, or continue the one that is there.

    Args:
        folder: of the study; created if it is not there.
        smoke: the small version, for a first look and for CI; only where the study is created.
        workers: training processes; as many as cores if None.
        seeds: that the proposal and its baseline are trained with.
    """
    began = time.monotonic()
    if not (folder / "study.toml").exists():
        create(folder, "demo/smoke.toml" if smoke else "demo/demo.toml")
    study = open_study(folder)
    with progress_bar("data") as show:
        manifest = study.prepare(progress=show)
    _say("1. Corpora, read from installed packages", manifest)
    if not study.proposals():
        _say("2. Proxies to train", study.plan(workers=workers, measure=True).sentence)
    while len(made := study.proposals()) <= CHECKS:
        for last in made[-1:]:
            queue_checks(study, last)  # here, so that a demo that was killed after it proposed still trains them
        _train(study, workers)
        _propose(study)
    proposal = made[-1]
    expected = "\n\n".join([str(proposal), f"Now training it and {proposal.against}, {len(seeds)} seeds each, to see."])
    _say("4. What is expected, before it is trained", expected)
    for name, seed in product(("proposal", proposal.against), seeds):
        study.add_recipe(replace(proposal.recipes[name], seed=seed))
    _train(study, workers)
    report = study.report()
    return Demo(folder, study.plan(workers=workers), proposal, study.verify(), report, time.monotonic() - began)


def _propose(study: Study) -> None:
    """Fit what is smaller than the target, and propose for the target."""
    import polars as pl

    table = study.table().filter(pl.col("params") < study.target().params)
    with progress_bar("fit") as report:
        surfaces = study.fit(table=table, save=True, progress=report)
    _say("3. Surfaces, fitted to the smaller sizes", surfaces)
    with progress_bar("propose") as report:
        study.propose(progress=report)


def _train(study: Study, workers: int | None) -> None:
    with progress_bar("training") as report:
        outcome = study.run(workers=workers, progress=report)
    if outcome.failed:
        raise RuntimeError(str(outcome))


def _say(title: str, what: object) -> None:
    """A step of the demo on stderr; stdout is for the result."""
    print(f"\n== {title}\n{what}", file=sys.stderr, flush=True)
