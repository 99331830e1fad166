"""The first screen of the report: verdict, recipe, what pays and what loses, risk, and what to train next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from mixlaw.numbers import size
from mixlaw.optimizer.answers.pairs import Pair
from mixlaw.optimizer.answers.proposal import Proposal
from mixlaw.optimizer.answers.verify import Verification
from mixlaw.optimizer.goal.values import PROPOSAL, percent
from mixlaw.plots.paired import paired
from mixlaw.plots.paying import paying
from mixlaw.plots.recipes import schedule
from mixlaw.recipe import Domain
from mixlaw.report.page import plot, table, words

MOST_JOBS = 5  # that fit the first screen


def first_screen(
    proposal: Proposal, domains: Sequence[Domain], verification: Verification | None, jobs: Sequence[Mapping[str, Any]]
) -> str:
    """What a lead needs in order to decide.

    Args:
        proposal: the recommendation.
        domains: of the study.
        verification: measured since.
        jobs: lines of the last suggestion for the present fit; empty where there is none.
    """
    pair = measured_pair(proposal, verification)
    figure = paired(pair) if pair else paying(proposal)
    if pair:  # the verdict above says what its title would
        figure.update_layout(title_text="", height=figure.layout.height - 82, margin_t=40)
    shown = "Measured and predicted gain of every task" if pair else "Predicted gain of every task"
    return "".join(
        [
            _verdict(proposal, pair),
            "<div class='grid'>",
            f"<div><h3>Recipe</h3>{plot(schedule(proposal.recipe, domains), RECIPE)}</div>",
            f"<div><h3>What pays, what loses</h3>{plot(figure, shown)}{_points(proposal)}</div></div>",
            f"<div class='grid'><div><h3>Risk</h3>{_risks(proposal)}</div>",
            f"<div><h3>What to train next</h3>{next_runs(jobs)}</div></div>",
        ]
    )


RECIPE = "Mixture of every phase over tokens, with the learning rate"


def measured_pair(proposal: Proposal, verification: Verification | None) -> Pair | None:
    """The proposal beside the baseline that its gains refer to, where both are trained."""
    pairs = verification.pairs if verification else ()
    return next((p for p in pairs if (p.proposal, p.against) == (proposal.id, proposal.against)), None)


def _verdict(proposal: Proposal, pair: Pair | None) -> str:
    """One sentence, in green only where it is clear: what was measured, or else what is predicted."""
    style = {"better": "yes", "worse": "no"}.get(pair.tone if pair else proposal.tone, "unsure")
    predicted = f"<p class='soft'>Predicted before training: {words(proposal.sentence)}</p>" if pair else ""
    return f'<div class="verdict {style}">{words(pair.sentence if pair else proposal.sentence)}</div>{predicted}'


def _points(proposal: Proposal) -> str:
    """Accuracies in points beside gains in percent of loss; nothing where no task is one."""
    rows = [["accuracy of", proposal.against, PROPOSAL, "points"]]
    for task in proposal.gains:
        one, other = proposal.forecast(PROPOSAL, task), proposal.forecast(proposal.against, task)
        if one.unit == "accuracy":
            rows.append([task, f"{other.mean:.3f}", f"{one.mean:.3f}", f"{100 * (one.mean - other.mean):+.1f}"])
    return table(rows) if len(rows) > 1 else ""


def _risks(proposal: Proposal) -> str:
    return "<ul class='risks'>" + "".join(f"<li class='{s}'>{words(t)}</li>" for s, t in _risk(proposal)) + "</ul>"


def _risk(proposal: Proposal) -> Iterator[tuple[str, str]]:
    """What may go wrong, each with `bad` where it is marked."""
    for direction in proposal.directions:
        text = f"Audit: {direction}."
        yield ("bad", f"{text} Intervals are too narrow in this direction.") if direction.broken else ("", text)
    if not proposal.directions:
        yield "bad", "No audit: nothing was held out in the direction of this target."
    if proposal.nearest:
        far = proposal.distance > proposal.radius
        yield (
            "bad" if far else "",
            f"Distance: {proposal.distance:.0%} of the tokens of a phase differ from the nearest run "
            f"{proposal.nearest}; runs have a neighbour within {proposal.radius:.0%}.",
        )
    if proposal.guarded:
        task = min(proposal.guarded, key=lambda name: proposal.guarded[name])
        chance, least = proposal.guarded[task], proposal.target.guard.sure if proposal.target.guard else 0.9
        yield (
            ("bad" if chance < least - 0.005 else ""),
            f"Guard: holds for {task}, the least sure task, with {percent(chance)}.",
        )
    if proposal.risks:
        worst = proposal.risks[PROPOSAL].worst
        yield (
            ("bad" if worst < 0 else ""),
            f"In the worst tenth of posterior samples the gain is {worst:+.2g} {proposal.unit}.",
        )
    yield from (("bad", f"{reason}.") for reason in proposal.reasons)


def next_runs(jobs: Sequence[Mapping[str, Any]], most: int = MOST_JOBS) -> str:
    """The first runs of the last suggestion, or how to get one."""
    if not jobs:
        return (
            "<p>No suggestion for the present fit: <code>mixlaw suggest STUDY --budget FLOPS</code> ranks the next "
            "runs, and says when more would not change the recommendation.</p>"
        )
    rows = [["run", "params", "FLOPs", "gain, % of loss", "why"]]
    for job in jobs[:most]:
        gain = "" if job["brings"] is None else f"{job['brings']:.2g}"
        rows.append([str(job["run"])[:8], size(job["params"]), f"{job['flops']:.2g}", gain, str(job["why"])])
    styles = [["extra", "", "", "", "words"]] * (len(rows) - 1)
    cost = f"{len(jobs)} runs for {sum(job['flops'] for job in jobs):.2g} FLOPs"
    return f"<p>{escape(cost)}, the first {len(rows) - 1}:</p>{table(rows, styles)}"
