"""Report: everything a decision needs on one offline page, the recommendation first."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.metadata import version
from typing import Any

import polars as pl

from mixlaw.analysis.data.recipes import largest_run
from mixlaw.analysis.surface.surface import WEAK, Surfaces
from mixlaw.numbers import percent
from mixlaw.optimizer.answers.front import Front
from mixlaw.optimizer.answers.proposal import Proposal
from mixlaw.optimizer.answers.verify import Verification
from mixlaw.optimizer.answers.what_if import Worthwhile
from mixlaw.optimizer.goal.values import PROPOSAL, Interval, chance_text
from mixlaw.plots import (
    Curve,
    Node,
    comparison,
    extrapolation,
    losses,
    response,
    segment_tree,
    spread,
    worth,
)
from mixlaw.plots.style import colours, count
from mixlaw.plots.worth import width_of
from mixlaw.recipe import Domain, Recipe
from mixlaw.report.first_screen import first_screen
from mixlaw.report.fit import fit_part, grid_of
from mixlaw.report.front import front_part
from mixlaw.report.page import HoverTexts, bullets, legend_of, page, plot, section, table, words
from mixlaw.report.runs import runs_table

#: Of sections in the navigation, where the capitalised anchor is not short and clear; all of them fit one row.
NAMES = {"verified": "Measured", "front": "Groups", "worth": "Domains", "response": "Responses", "size": "Sizes",
         "plan": "Training", "unknown": "Unknowns"}  # fmt: skip
TONES = {"better": "good", "worse": "bad", "": ""}  # styles of gains, by where they are clear of zero
MOST_TASKS = 16  # with plots of their own: more would make the page too large to attach
MOST_DOMAINS = 20  # with curves of their own
BEYOND = 0.01  # of a phase's tokens, by which a share may lie beyond a range without a word
MOST_SEGMENTS = 300  # that can be distinguished in a plot


@dataclass(frozen=True, eq=False)
class ReportData:
    """The content of a report; empty parts are left out, with a note on how to get them.

    Attributes:
        title: of the page, usually the name of the study.
        surfaces: fitted tasks.
        table: the measured runs.
        domains: all domains of the study.
        worth: change of each task per extra point of each domain in each phase.
        curves: training losses as logged.
        proposals: frozen proposals, oldest first; the last one is recommended.
        nodes: segments of the plan.
        verification: forecasts against measured values.
        front: between the groups of tasks, or why there is none; None without groups.
        jobs: lines of the last suggestion for the present fit.
        reproduce: command lines and hashes, in order.
    """

    title: str
    surfaces: Surfaces
    table: pl.DataFrame
    domains: tuple[Domain, ...]
    worth: tuple[Worthwhile, ...] = ()
    curves: tuple[Curve, ...] = ()
    proposals: tuple[Proposal, ...] = ()
    nodes: tuple[Node, ...] = ()
    verification: Verification | None = None
    front: Front | str | None = None
    jobs: tuple[Mapping[str, Any], ...] = ()
    reproduce: tuple[str, ...] = ()


def report(data: ReportData) -> str:
    """Write the page as one HTML document that needs no network and no other file."""
    texts = HoverTexts()
    proposal = data.proposals[-1] if data.proposals else None
    reference = proposal.recipe if proposal else largest_run(data.surfaces.observed.design)
    tasks = _plotted(data.surfaces, proposal)
    parts = {
        "recommendation": ("Recommendation", _recommendation(data, proposal)),
        **({"shares": ("How sure the shares are", _sure(proposal, data.domains))} if proposal else {}),
        "predictions": ("Predictions against baselines", _predictions(data, proposal, texts)),
        "verified": ("Predicted and measured", verified(data.verification)),
        **({"front": ("Between groups of tasks", _front(data, proposal, texts))} if data.front else {}),
        **({"worth": ("Effect of each domain", _worth(data))} if data.worth else {}),
        "response": (
            "Response to shares",
            _responses(data, reference, tasks, texts) + _by_domain(data, reference, tasks, texts),
        ),
        "size": ("Extrapolation over size", _sizes(data, proposal, reference, tasks, texts)),
        "plan": ("What was trained", _plan(data, texts) + runs_table(data.surfaces, tasks)),
        "fit": ("How well the surfaces fit", fit_part(data.surfaces, tasks, texts)),
        "unknown": ("What is not known", _unknown(data.surfaces, proposal)),
        "reproduce": ("How to reproduce", _reproduce(data)),
    }
    links = "".join(f'<a href="#{name}">{NAMES.get(name, name.capitalize())}</a>' for name in parts)
    head = f"<header><h1>{escape(data.title)}</h1><p class='soft'>{_subtitle(data)}</p></header><nav>{links}</nav>"
    body = "".join(section(name, title, html) for name, (title, html) in parts.items())
    return page(data.title, f"{head}<main>{body}</main>{_footer()}", texts)


def _plotted(surfaces: Surfaces, proposal: Proposal | None) -> list[str]:
    """Tasks that get plots of their own: those that weigh most in the proposal, in the order of the surfaces."""
    weights = proposal.weights if proposal else {}
    first = sorted(surfaces.tasks, key=lambda task: -weights.get(task, 0.0))[:MOST_TASKS]
    return [task for task in surfaces.tasks if task in first]


def _subtitle(data: ReportData) -> str:
    sizes = sorted(set(data.surfaces.observed.design.params.tolist()))
    runs = len(set(data.surfaces.observed.design.runs))
    span = f"{count(sizes[0])} to {count(sizes[-1])}" if len(sizes) > 1 else count(sizes[0])
    return (
        f"{len(data.surfaces.tasks)} tasks fitted on {runs} runs of {span} parameters over {len(data.domains)} domains"
    )


def _recommendation(data: ReportData, proposal: Proposal | None) -> str:
    if proposal is None:
        return (
            "<p>No proposal yet: write <code>[target]</code> with <code>params</code> and <code>tokens</code> of your "
            "model into <code>study.toml</code> and run <code>mixlaw propose</code>.</p>"
        )
    notes = f"<h3>Notes</h3>{bullets(proposal.warnings)}" if proposal.warnings else ""
    return first_screen(proposal, data.domains, data.verification, data.jobs) + notes


def _sure(proposal: Proposal, domains: Sequence[Domain]) -> str:
    """One picture for both questions about a share: where its optimum may be, and what makes no difference."""
    if not proposal.spread:
        return f"<p>The recipe was chosen by hand: no optimum was searched for.</p>{_shares(proposal, domains)}"
    free = proposal.free.recipe if proposal.free else None
    note = (
        "Wide bars: any share inside is statistically equivalent to the proposal (the other domains scaled)"
        + ("" if proposal.flat else "; there is none here")
        + ". Thin bars: where the best share lies in 90 % of posterior samples, the other shares at their best too. "
        "They ignore the guard: where the proposal lies outside, the guard or caution about uncertain gains holds it."
    )
    figure = spread(proposal.recipe, proposal.spread, domains, free, flat=proposal.flat)
    together = [str(flat) for flat in proposal.flat if flat.what in ("code", "all code", "length")]
    notes = [*together, *_beyond(proposal)]
    return f"<p>{note}</p>{plot(figure, 'How sure the shares are')}{bullets(notes)}{_shares(proposal, domains)}"


def _beyond(proposal: Proposal) -> list[str]:
    """Where the proposal lies beyond its thin bars, and what keeps it there."""
    places = [
        f"{domain} in {phase.name} ({percent(share)}, best from {percent(ends[0])} to {percent(ends[1])})"
        for phase in proposal.recipe.phases
        for domain, ends in proposal.spread.get(phase.name, {}).items()
        if not ends[0] - BEYOND <= (share := phase.mixture.share(domain)) <= ends[1] + BEYOND
    ]
    limits = "; ".join(proposal.free.breaks) if proposal.free else ""
    why = f" Without limits the recipe would break: {limits}." if limits else ""
    rule = "A posterior sample chooses for itself, the proposal for the lower end of its gain over all of them."
    return [f"Beyond the thin bar: {', '.join(places)}. {rule}{why}"] if places else []


def _shares(proposal: Proposal, domains: Sequence[Domain]) -> str:
    """Shares by domain and phase with the range of the optimum over posterior samples, and epochs."""
    recipe = proposal.recipe
    rows = [["domain", "kind", *(p.name for p in recipe.phases), "epochs"]]
    for domain in sorted(domains, key=lambda d: -recipe.domain_tokens(d.name)):
        cells = []
        for phase in recipe.phases:
            ends = proposal.spread.get(phase.name, {}).get(domain.name)  # a phase that is over has none
            span = f" ({100 * ends[0]:.0f}\u00a0to\u00a0{percent(ends[1])})" if ends else ""
            cells.append(f"{percent(phase.mixture.share(domain.name), 1)}{span}")
        epochs = recipe.domain_tokens(domain.name) / domain.unique_tokens
        rows.append([domain.name, domain.kind.value, *cells, f"{epochs:.2f}"])
    note = "In brackets: 90 % range of the best share over posterior samples."
    styles = [["", "extra", *["range"] * len(recipe.phases), "extra"]] * (len(rows) - 1)
    return f"{table(rows, styles)}<p class='soft'>{note}</p>"


def _front(data: ReportData, proposal: Proposal | None, texts: HoverTexts) -> str:
    if data.front is None or isinstance(data.front, str):
        return f"<p>{words(data.front or '')}</p>"
    return front_part(data.front, data.domains, proposal, texts)


def _predictions(data: ReportData, proposal: Proposal | None, texts: HoverTexts) -> str:
    if proposal is None:
        return "<p>No predictions yet.</p>"
    measured = data.verification.measured(proposal.id) if data.verification else {}
    note = (
        "These are not gains: most of what makes a level uncertain is common to all recipes. Each interval contains "
        f"the value of one newly trained run with 90 % probability; 0 is the prediction for {proposal.against}."
    )
    if measured:
        note += " Diamonds: measured since."
    figure = comparison(proposal.forecasts, proposal.against, measured, proposal.recipes)
    levels = f"<p>{escape(note)}</p>{plot(figure, 'Predicted level of every recipe by task', texts)}{_levels(proposal)}"
    return f"{_gains(proposal)}<details><summary>Levels of every recipe</summary>{levels}</details>"


def _gains(proposal: Proposal) -> str:
    """What the proposal gains over each baseline, task by task; the one that the verdict is about first."""
    names = sorted(proposal.over, key=lambda name: name != proposal.against)
    parts: list[tuple[str, str, list[Interval]]] = [
        (task, percent(proposal.weights.get(task, 0.0)), [proposal.over[name].by_task[task] for name in names])
        for task in proposal.gains
    ]
    parts.append(("all, by weight", "", [proposal.over[name].total for name in names]))
    rows = [["task", "weight", *(f"over {name}" for name in names)]]
    rows += [[task, weight, *(gain.text() for gain in gains)] for task, weight, gains in parts]
    rows.append(["chance to beat it", "", *(chance_text(proposal.beats[name]) for name in names)])
    marks = [[TONES[gain.tone] for gain in gains] for *_, gains in parts] + [[""] * len(names)]
    styles = [["", "extra", first, *(f"{mark} extra" for mark in others)] for first, *others in marks]
    note = (
        f"Predicted gain of the proposal over every baseline, {proposal.unit}, with 90 % intervals; coloured where "
        "clear of zero. Two recipes are compared within each posterior sample."
    )
    weight = (
        "Weight: share of the task in the gain of all together; 0 where study.toml says so or the task has no signal "
        "above seed noise."
    )
    return f"<p>{escape(note)}</p>{table(rows, styles)}<p class='soft'>{weight}</p>"


def _levels(proposal: Proposal) -> str:
    rows = [["task", "unit", *proposal.recipes]]
    for task in proposal.gains:
        parts = [proposal.forecast(name, task) for name in proposal.recipes]
        rows.append([task, parts[0].unit, *(Interval(f.mean, f.lo90, f.hi90).text() for f in parts)])
    less = [name not in ("task", PROPOSAL, proposal.against) for name in rows[0]]
    return table(rows, [["extra" if e else "" for e in less]] * len(proposal.gains))


def verified(verification: Verification | None) -> str:
    """What proposals that were trained gained beside the predictions, and the levels of their runs."""
    if verification is None or not (verification.checks or verification.pairs):
        return "<p>None of the predicted recipes has been trained yet; <code>mixlaw verify</code> compares later.</p>"
    parts = []
    for pair in verification.pairs:  # the sentence names the baseline; on a phone its name would widen the column
        head, *rows = pair.rows()
        gains = _marked([[head[0], f"measured gain, {pair.unit}", *head[2:]], *rows])
        parts.append(f"<p>{words(pair.sentence)}</p>{gains}")
    parts += [] if verification.pairs else [f"<p>{words(verification.sentence)}</p>"]
    levels = "Each is in the interval of one newly trained run. Predictions were frozen before the runs."
    folded = f"<summary>Levels of every run</summary><p>{levels}</p>{_marked(verification.rows())}"
    return "".join([*parts, f"<details>{folded}</details>"])


def _marked(rows: Sequence[Sequence[str]]) -> str:
    marks = {"inside": "good", "MISSED": "bad", "better": "good", "worse": "bad"}
    less = [head in ("unit", "proposal", "90 % interval", "off by") for head in rows[0]]
    classes = [["extra" if e else marks.get(cell, "") for cell, e in zip(row, less, strict=True)] for row in rows[1:]]
    return table(rows, classes)


def _worth(data: ReportData) -> str:
    note = (
        "Change of each task per extra point of a domain (1 % of the tokens to be trained), from the phase's other "
        "domains in proportion. Coloured: clear of zero at 90 %. In brackets: not significant; rows with nothing "
        "else are left out."
    )
    least = width_of({point.task for point in data.worth})
    return f"<p>{note}</p>{plot(worth(data.worth), 'Gain of every task per extra point of each domain', least=least)}"


def _responses(data: ReportData, reference: Recipe, tasks: Sequence[str], texts: HoverTexts) -> str:
    if not any(d.kind.is_code for d in data.domains) or all(d.kind.is_code for d in data.domains):
        return (
            "<p>All domains are code, or all are text, so there is no code share to move. Kinds are set under "
            '<code>[domains]</code> of <code>study.toml</code>: <code>kind = "code"</code>.</p>'
        )
    note = (
        "Each line varies the code share of one phase, all else as in the reference recipe (rings): "
        + ("the proposal." if data.proposals else "the largest measured run.")
        + " Bands: 90 % of the difference from it. Dots: measured runs, shifted to the reference by their residual."
    )
    plots = (
        plot(response(data.surfaces, task, reference, data.domains), f"{task} against code shares", texts, legend=False)
        for task in tasks
    )
    return f"<p>{note}</p>{_phases(reference)}{grid_of(plots, data.surfaces, tasks, 'response')}"


def _phases(recipe: Recipe) -> str:
    """The legend of plots with a line per phase."""
    return legend_of(colours([phase.name for phase in recipe.phases]))


def _by_domain(data: ReportData, reference: Recipe, tasks: Sequence[str], texts: HoverTexts) -> str:
    """The same for every domain, folded: a curve per phase, with fewer points and without runs to stay small."""

    def plots(domain: str) -> str:
        """The figures of all tasks against the share of one domain."""
        figures = (
            response(data.surfaces, task, reference, data.domains, points=17, runs=False, domain=domain)
            for task in tasks
        )
        return "".join(
            plot(f, f"{t} against the share of {domain}", texts, legend=False)
            for f, t in zip(figures, tasks, strict=True)
        )

    folds = [
        f"<details><summary>Response to {escape(d.name)}</summary>{_phases(reference)}"
        f"<div class='grid'>{plots(d.name)}</div></details>"
        for d in data.domains[:MOST_DOMAINS]
    ]
    if rest := [d.name for d in data.domains[MOST_DOMAINS:]]:
        how = f"`study.plots.response({tasks[0]!r}, domain={rest[0]!r})` in Python draws the first"
        left = f"To stay small, the page leaves {len(rest)} domains out; {how}: {', '.join(rest)}."
        folds.append(f"<p class='soft'>{words(left)}</p>")
    return "".join(folds)


def _sizes(
    data: ReportData, proposal: Proposal | None, reference: Recipe, tasks: Sequence[str], texts: HoverTexts
) -> str:
    recipes = {"largest run": reference}
    if proposal:
        recipes = {PROPOSAL: proposal.recipe, proposal.against: proposal.baselines[proposal.against]}
    measured = data.verification.measured(proposal.id) if proposal and data.verification else {}

    def over_size(task: str) -> str:
        values = {recipe: values for (recipe, of), values in measured.items() if of == task}
        return plot(extrapolation(data.surfaces, task, recipes, data.domains, values), f"{task} over size", texts)

    note = (
        "Lines scale a recipe to other sizes at its own tokens per parameter; intervals at the target are side "
        "by side. Dots: all measured runs, of any mixture. Compare them with the dotted line: the first recipe, at as "
        "many tokens per parameter as the runs of each size had."
    )
    return f"<p>{note}</p>{grid_of(map(over_size, tasks), data.surfaces, tasks, 'extrapolation')}"


def _plan(data: ReportData, texts: HoverTexts) -> str:
    if not data.nodes:
        return f"<p>{data.table.height} measured rows were given as a table; their training segments are unknown.</p>"
    trained = sum(n.stop - n.start for n in data.nodes)
    alone = sum((n.stop - n.start) * len(n.runs) for n in data.nodes)
    runs = len({run for node in data.nodes for run in node.runs})
    note = f"{runs} recipes share training: {count(trained)} tokens instead of {count(alone)}."
    if max(len(data.nodes), len(data.curves)) > MOST_SEGMENTS:
        more = (
            f"Tree and loss curves of {len(data.nodes)} segments do not fit a page (at most {MOST_SEGMENTS}): "
            "`study.plots.segment_tree()` draws them in Python, `study.plots.losses(RUNS)` the curves of runs by name."
        )
        return f"<p>{note}</p><p>{words(more)}</p>"
    tree = plot(segment_tree(data.nodes), "Tree of training segments", texts)
    if not data.curves:
        return f"<p>{note}</p>{tree}"
    curves = plot(losses(data.curves), "Training loss against tokens")
    return f"<p>{note}</p>{tree}<p>Loss of every segment on the mixture that it was trained on.</p>{curves}"


def _unknown(surfaces: Surfaces, proposal: Proposal | None) -> str:
    notes, weak = _grouped(surfaces)
    if proposal:
        notes += proposal.warnings
    notes.append(
        "Intervals hold for recipes like the measured ones; tasks that were not measured may change either way."
    )
    folded = f"<details><summary>Coefficients that the runs barely identify, by task</summary>{bullets(weak)}</details>"
    return bullets(notes) + (folded if weak else "")


def _grouped(surfaces: Surfaces) -> tuple[list[str], list[str]]:
    """Notes of the fit, each once with its tasks, and those that name coefficients of single tasks."""
    about: dict[str, list[str]] = {}
    for task in surfaces.tasks:
        for note in surfaces.notes[task]:
            about.setdefault(note, []).append(task)
    everyone = len(surfaces.tasks)
    notes = {note: note if len(t) == everyone else f"{', '.join(t)}: {note}" for note, t in about.items()}
    return (
        [said for note, said in notes.items() if not note.startswith(WEAK)],
        [said.replace(f"{WEAK}: ", "") for note, said in notes.items() if note.startswith(WEAK)],
    )


def _reproduce(data: ReportData) -> str:
    packages = ", ".join(
        f"{name} {version(name)}" for name in ("mixlaw", "torch", "numpy", "scipy", "polars", "plotly")
    )
    lines = [*data.reproduce, f"# {packages}, Python {platform.python_version()}"]
    return f"<pre>{escape(chr(10).join(lines))}</pre>"


def _footer() -> str:
    hint = "Hover over a plot for runs, values and intervals; click a legend entry to hide it."
    return f"<footer>Works offline. {hint}</footer>"
