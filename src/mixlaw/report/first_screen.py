"""The first screen of the report: verdict, recipe, what pays and what loses, risk, and what to train next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from mixlaw.analysis.data.code_share import code_share
from mixlaw.numbers import percent, size
from mixlaw.optimizer.answers.pairs import Pair
from mixlaw.optimizer.answers.proposal import Proposal
from mixlaw.optimizer.answers.verify import Verification
from mixlaw.optimizer.goal.values import PROPOSAL, chance_text
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
        figure.update_layout(title_text="", height=figure.layout.height - 72, margin_t=40)
    shown = "Measured and predicted gain of every task" if pair else "Predicted gain of every task"
    pays = f"{plot(figure, shown)}{SEEDS if pair else ''}{_points(proposal)}"
    mixture = f"{plot(schedule(proposal.recipe, domains), RECIPE)}{_shares(proposal, domains)}"
    return "".join(
        [
            _verdict(proposal, pair),
            "<div class='grid'>",
            f"<div><h3>Recipe</h3>{mixture}</div>",
            f"<div><h3>What pays, what loses</h3>{pays}</div></div>",
            f"<div class='grid text'><div><h3>Risk</h3>{_risks(proposal)}{_against(proposal)}</div>",
            f"<div><h3>What to train next</h3>{next_runs(jobs)}</div></div>",
        ]
    )


BEFORE = "Predicted before training, without the seed noise of two runs:"
RECIPE = "Mixture of every phase over tokens, with the learning rate"
SEEDS = (
    "<p class='soft'>Bars are wider than the predicted gain of the recipe itself: they allow for the seed noise of the "
    "runs that were compared.</p>"
)


def measured_pair(proposal: Proposal, verification: Verification | None) -> Pair | None:
    """The proposal beside the baseline that its gains refer to, where both are trained."""
    pairs = verification.pairs if verification else ()
    return next((p for p in pairs if (p.proposal, p.against) == (proposal.id, proposal.against)), None)


def _verdict(proposal: Proposal, pair: Pair | None) -> str:
    """One sentence, in green only where it is clear: what was measured, or else what is predicted."""
    style = {"better": "yes", "worse": "no"}.get(pair.tone if pair else proposal.tone, "unsure")
    predicted = f"<p class='soft'>{BEFORE} {words(proposal.sentence)}</p>" if pair else ""
    return f'<div class="verdict {style}">{words(pair.sentence if pair else proposal.sentence)}</div>{predicted}'


def _shares(proposal: Proposal, domains: Sequence[Domain]) -> str:
    """How much of every phase is code, and how long the last one is."""
    recipe = proposal.recipe
    code = ", ".join(f"{percent(code_share(p.mixture, domains))} of {p.name}" for p in recipe.phases)
    last = recipe.phases[-1]
    length = f"; {last.name} has {percent(last.tokens / recipe.tokens)} of {size(recipe.tokens)} tokens"
    return f"<p class='soft'>Code: {escape(code + (length if len(recipe.phases) > 1 else ''))}.</p>"


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


def _against(proposal: Proposal) -> str:
    """Probability that the proposal is worse than each baseline, for every group and by weight."""
    groups = list(next(iter(proposal.over.values())).better_groups)
    rows = [["chance to lose against", *groups, "all, by weight"]]
    for name, gain in proposal.over.items():
        odds = [*(gain.better_groups[group] for group in groups), gain.probability]
        if name not in proposal.same:
            rows.append([name, *(chance_text(1 - better) for better in odds)])
    return table(rows) if len(rows) > 1 else ""


def _risk(proposal: Proposal) -> Iterator[tuple[str, str]]:
    """What may go wrong, each with `bad` where it is marked."""
    for direction in proposal.directions:
        where = "in this direction" if direction.broken else "for these tasks"
        narrow = f" Intervals are too narrow {where}." if direction.broken or direction.few else ""
        yield "bad" if narrow else "", f"Audit: {direction}.{narrow}"
    if not proposal.directions:
        yield "bad", "Not audited: no runs were held out to test predictions in the direction of this target."
    if proposal.nearest:
        far = proposal.distance > proposal.radius
        yield (
            "bad" if far else "",
            f"Distance: in the phase that differs most, {percent(proposal.distance)} of the tokens differ from the "
            f"nearest measured run, {proposal.nearest}; measured runs have a neighbour within "
            f"{percent(proposal.radius)}.",
        )
    if proposal.guarded:
        task = min(proposal.guarded, key=lambda name: proposal.guarded[name])
        chance, least = proposal.guarded[task], proposal.target.guard.sure if proposal.target.guard else 0.9
        most = f" more than {proposal.may_lose[task]:g} {proposal.unit}" if task in proposal.may_lose else ""
        yield (
            ("bad" if chance < least - 0.005 else ""),
            f"Guard: {task}, the task most at risk, does not lose{most} with a probability of {chance_text(chance)}.",
        )
    if proposal.risks:
        worst = proposal.risks[PROPOSAL].worst
        yield (
            ("bad" if worst < 0 else ""),
            f"Bad luck: in the worst tenth of posterior samples the mean gain is {worst:+.2g} {proposal.unit}.",
        )
    yield from (("bad", f"{reason[:1].upper()}{reason[1:]}.") for reason in proposal.reasons)


def next_runs(jobs: Sequence[Mapping[str, Any]], most: int = MOST_JOBS) -> str:
    """What the suggestions for the present fit say, and their first runs; or how to get one."""
    if not jobs:
        how = "`mixlaw suggest STUDY --budget FLOPS --queue` ranks the next runs and lists them here"
        return f"<p>{words(f'Nothing has been queued since the fit. {how}, or says that more runs would not pay.')}</p>"
    rows = [["run", "params", "FLOPs", "gain, % of loss", "why"]]
    for job in jobs[:most]:
        gain = "" if job["brings"] is None else f"{job['brings']:.2g}"
        rows.append([str(job["run"])[:8], size(job["params"]), f"{job['flops']:.2g}", gain, str(job["why"])])
    styles = [["extra", "", "", "", "words"]] * (len(rows) - 1)
    cost = f"{len(jobs)} run{'s' * (len(jobs) > 1)} for {sum(job['flops'] for job in jobs):.2g} FLOPs."
    verdicts = dict.fromkeys(str(job.get("verdict", cost)) for job in jobs)
    first = f"<p class='soft'>The first {most} of {len(jobs)} runs:</p>" if len(jobs) > most else ""
    return "".join(f"<p>{words(verdict)}</p>" for verdict in verdicts) + first + table(rows, styles)
