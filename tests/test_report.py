"""The report in a real browser: it draws, it asks no network, it reads on a phone."""

from __future__ import annotations

import gzip
import re
from base64 import b64decode
from dataclasses import replace
from html import escape, unescape
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from mixlaw.analysis.surface.surface import WEAK
from mixlaw.optimizer.answers.front import Compromise, Front
from mixlaw.optimizer.answers.verify import verify
from mixlaw.optimizer.answers.what_if import Worthwhile
from mixlaw.optimizer.goal.values import Interval, chance_text
from mixlaw.plots import Curve
from mixlaw.recipe import Mixture, Phase, Recipe
from mixlaw.report import sections
from mixlaw.report.first_screen import measured_pair
from mixlaw.report.sections import ReportData
from studies import DOMAINS, NODES, audited, study

MIXED = Phase("cooldown", 99, Mixture({"web": 0.3, "python": 0.7}))
FRONT = Front(
    {"language": ("task0",), "code & more": ("task1",)},
    "proportional",
    (
        Compromise(Recipe(9, (MIXED,)), {"language": Interval(2, 1, 3), "code & more": Interval(-1, -2, 0)}),
        Compromise(Recipe(9, (MIXED,), 1), {"language": Interval(1, 0, 2), "code & more": Interval(1, 0.5, 1.5)}),
    ),
    evaluations=9,
)


@pytest.fixture(scope="module")
def data() -> ReportData:
    small = study()
    since = small.world.measure([small.proposal.recipe, small.proposal.baselines[small.proposal.against]], seed=2)
    return ReportData(
        title="Code & text <script>alert(1)</script><img src=x onerror=alert(2)><!--<script>",
        surfaces=audited(small.surfaces, off=1.0),
        table=small.table,
        domains=DOMAINS,
        worth=(Worthwhile("init", "web", "task0", Interval(0.5, 0.2, 0.8)),),
        curves=(
            Curve('"><img src=x onerror=alert(3)>', None, 24_000, "init", "web 100%", ("a",), (100, 400), (5.0, 3.0)),
        ),
        proposals=(small.proposal,),
        nodes=NODES,
        verification=verify([small.proposal], since),
        front=FRONT,
        reproduce=("mixlaw report study",),
    )


def report(data: ReportData) -> str:
    """The report with plain spaces."""
    return sections.report(data).replace("\u00a0", " ")


@pytest.fixture(scope="module")
def page(data: ReportData) -> str:
    return report(data)


def test_no_line_of_the_page_ends_inside_a_number_or_an_option(data: ReportData) -> None:
    shown = re.sub(r"<script.*?</script>", "", sections.report(data), flags=re.DOTALL)
    body = shown[shown.index("<body>") :]
    assert "\u00a0%" in body
    assert "\u00a0±\u00a0" in body
    assert not re.search(r"\d [%±]|± \d", body)
    assert '<span class="one">--queue</span>' in body


def test_the_recommendation_comes_first_and_every_task_is_there(data: ReportData, page: str) -> None:
    body = page[page.index("<body>") :]
    assert body.index(escape(data.proposals[0].sentence)) < body.index('<section id="predictions">')
    assert all(f">{task}<" in body for task in data.surfaces.tasks)
    assert data.verification is not None
    gains = [gain for pair in data.verification.pairs for gain in (*pair.gains, pair.total) if gain is not None]
    inside = [*(gain.inside for gain in gains), *(check.inside for check in data.verification.checks)]
    assert body.count('<td class="good">inside</td>') == sum(inside)
    assert "mixlaw report study" in body


def test_the_first_screen_has_verdict_recipe_gains_risk_and_the_next_runs(data: ReportData, page: str) -> None:
    part = page[page.index('<section id="recommendation">') : page.index('<section id="shares">')]
    proposal = data.proposals[-1]
    pair = measured_pair(proposal, data.verification)
    assert pair is not None, "it has been trained"
    assert part.index(escape(pair.sentence)) < part.index(escape(proposal.sentence)) < part.index("<h3>Risk</h3>")
    assert "<li class='bad'>Not audited: no runs were held out" in part
    odds = re.findall(r"<tr>(.*?)</tr>", part[part.index("chance to lose against") :].partition("</table>")[0])
    told = [unescape(re.sub("<[^>]+>", "|", row)).strip("|").split("||") for row in odds]
    assert told == [
        [name, *(chance_text(1 - gain.better_groups[group]) for group in gain.better_groups), chance_text(1 - p)]
        for name, gain in proposal.over.items()
        for p in (gain.probability,)
    ]
    assert "mixlaw suggest STUDY" in part, "there is no suggestion yet"
    job = {"run": "abc", "params": 24_000, "flops": 2e12, "brings": 0.25, "why": "no run is near the optimum"}
    assert "<p>1 run for 2e+12 FLOPs.</p>" in report(replace(data, jobs=(job,)))
    judged = job | {"verdict": "1 run for 2e+12 FLOPs. Not worth it: a & b"}
    assert "<p>1 run for 2e+12 FLOPs. Not worth it: a &amp; b</p>" in report(replace(data, jobs=(judged, judged)))
    uncertain = replace(proposal, supported=False, reasons=("the gain is within noise",))
    before = report(replace(data, proposals=(uncertain,), verification=None))
    assert '<div class="verdict unsure">' in before
    assert "<li class='bad'>The gain is within noise.</li>" in before


def test_a_front_stands_there_with_gains_mixtures_and_the_proposal(data: ReportData, page: str) -> None:
    part = page[page.index('<section id="front">') : page.index('<section id="response">')]
    assert "The groups: language: task0; code &amp; more: task1." in part
    assert part.count("<td>2.0 ± 1.0</td>") == part.count("<td>-1.0 ± 1.0</td>") == 1
    bars = part[part.index("Mixtures of the recipes, a row for each phase") :]
    assert '"name":"python"' in bars
    assert part.count("recipe 1") >= 2  # a dot of the plot, and bars
    assert ('"name":"proposal"' in part) == (data.proposals[0].against == "proportional")
    assert '<section id="front">' not in report(replace(data, front=None))


def test_it_is_one_file_under_three_megabytes_with_plotly_once(page: str) -> None:
    assert len(page.encode()) < 3_000_000
    assert page.count('<script id="plotly"') == 1
    packed = page.partition('<script id="plotly" type="text/plain">')[2].partition("<")[0]
    assert "plotly.js v" in gzip.decompress(b64decode(packed)).decode()[:100]
    assert "<script src" not in page
    assert '<link rel="stylesheet"' not in page


def test_evidence_is_of_held_out_runs_with_the_audit_beside_it(page: str) -> None:
    part = page[page.index('<section id="fit">') : page.index('<section id="unknown">')]
    assert "<th>inside 90 %, held-out mixtures</th>" in part
    lines = [line for line in part.split("<tr>") if any(f"<td>{task}</td>" in line for task in study().surfaces.tasks)]
    assert len(lines) == sum("100 %" in line for line in lines) == len(study().surfaces.tasks)
    assert "eave mixtures out (18 rows)" in part
    assert "<h3>Calibration</h3>" in part


def test_gains_over_every_baseline_are_those_of_the_proposal_and_levels_are_folded(data: ReportData, page: str) -> None:
    part = page[page.index('<section id="predictions">') : page.index('<section id="verified">')]
    gains, levels = part.split("<details>")
    proposal = data.proposals[-1]
    for gain in proposal.over.values():
        for one in (*gain.by_task.values(), gain.total):
            assert f">{one.text()}</td>" in gains
        assert f">{escape(chance_text(gain.probability))}</td>" in gains
    assert all(f"<td>{task}</td>" in levels for task in proposal.gains)


def test_it_says_what_is_not_known_and_how_to_make_it_again(data: ReportData, page: str) -> None:
    unknown = page[page.index('<section id="unknown">') : page.index('<section id="reproduce">')]
    plain, folded = unknown.split("<details>")
    weak = [note for notes in data.surfaces.notes.values() for note in notes if note.startswith(WEAK)]
    for note in {note for notes in data.surfaces.notes.values() for note in notes}:
        assert escape(note.removeprefix(f"{WEAK}: ")) in (folded if note in weak else plain)
    assert weak
    again = page[page.index('<section id="reproduce">') :]
    for package in ("mixlaw", "torch", "numpy", "plotly"):
        assert f"{package} {version(package)}" in again


def test_of_many_tasks_those_that_weigh_most_are_plotted_and_the_others_named(
    data: ReportData, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mixlaw.report.sections.MOST_TASKS", 1)
    proposal = replace(data.proposals[-1], weights={"task1": 2.0, "task0": 1.0})
    small = report(replace(data, proposals=(proposal,)))
    assert small.count("<summary>1 more task</summary>") == 3
    assert "<code>study.plots.response(&#x27;task0&#x27;)</code> in Python draws" in small
    assert page.count('class="plot"') - small.count('class="plot"') == 4 + len(DOMAINS)
    assert "more task" not in page
    monkeypatch.setattr("mixlaw.report.sections.MOST_DOMAINS", 1)
    assert "the page leaves 2 domains out; <code>study.plots.response(&#x27;task1&#x27;, domain=" in report(
        replace(data, proposals=(proposal,))
    )


def test_a_share_beyond_the_range_of_its_optimum_is_named_with_the_limits_that_a_free_hand_breaks(
    data: ReportData,
) -> None:
    proposal = data.proposals[-1]
    assert proposal.free is not None
    phase = proposal.recipe.phases[-1]
    inside = {phase.name: {d.name: (phase.mixture.share(d.name),) * 2 for d in data.domains}}
    free = replace(proposal.free, breaks=("at most 2 epochs of books",))
    assert "Beyond the thin bar" not in report(replace(data, proposals=(replace(proposal, spread=inside, free=free),)))
    name, share = next(iter(phase.mixture.items()))
    away = {phase.name: {**inside[phase.name], name: (share + 0.02, 1.0)}}
    shown = report(replace(data, proposals=(replace(proposal, spread=away, free=free),)))
    ends = f"best from {100 * share + 2:.0f} % to 100 %"
    assert f"Beyond the thin bar: {name} in {phase.name} ({100 * share:.0f} %, {ends})." in shown
    assert "Without limits the recipe would break: at most 2 epochs of books." in shown


def test_names_from_outside_cannot_run_as_script(page: str) -> None:
    assert "<script>alert(1)" not in page
    assert "Code &amp; text &lt;script&gt;" in page


def test_more_segments_than_a_picture_tells_apart_are_said_and_how_to_draw_them(
    data: ReportData, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "do not fit a page" not in page
    monkeypatch.setattr("mixlaw.report.sections.MOST_SEGMENTS", len(NODES) - 1)
    many = report(data)
    assert f"Tree and loss curves of {len(NODES)} segments do not fit a page (at most {len(NODES) - 1})" in many
    assert "<code>study.plots.segment_tree()</code> draws them in Python" in many
    assert many.count('class="plot"') == page.count('class="plot"') - 2


def test_what_dots_say_stands_on_the_page_once(page: str) -> None:
    words = re.findall(r"\d+K params, [^<\"]+ tokens<br>init [^\"]*", page.replace("\\/", "/"))
    assert len(words) >= len(study().table)
    assert len(set(words)) == len(words)


def test_without_a_proposal_it_says_how_to_get_one(data: ReportData) -> None:
    bare = report(replace(data, proposals=(), nodes=(), verification=None))
    assert "run <code>mixlaw propose</code>" in bare
    assert "the largest measured run" in bare
    assert "None of the predicted recipes has been trained yet" in bare


def test_in_a_browser_all_plots_draw_without_errors_network_or_sideways_scrolling(
    browser: Any, page: str, tmp_path: Path
) -> None:
    file, asked, complaints = tmp_path / "report.html", list[str](), list[str]()
    file.write_text(page, encoding="utf-8")
    view = browser.new_page(viewport={"width": 390, "height": 900}, color_scheme="dark")
    view.on("request", lambda request: asked.append(request.url))
    view.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    view.on("pageerror", lambda error: complaints.append(str(error)))
    view.on("dialog", lambda dialog: complaints.append(dialog.message))
    view.on("dialog", lambda dialog: dialog.dismiss())
    view.goto(file.as_uri())
    view.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    plots = view.evaluate("boxes.length")
    for box in view.query_selector_all(".plot"):
        box.scroll_into_view_if_needed()
    view.wait_for_function("boxes.every(box => box.querySelector('svg.main-svg'))", timeout=60_000)
    # recipe, gains, shares, comparison, front twice, worth, tree, losses, calibration; by task four and its domains
    assert plots == 10 + (4 + len(DOMAINS)) * len(study().surfaces.tasks)
    view.evaluate("window.scrollTo(0, 3000)")
    assert view.evaluate("document.querySelector('nav').getBoundingClientRect().top") == 0, "links stay in sight"
    heads = "[...document.querySelectorAll('#predictions th')].filter(h => h.offsetWidth).map(h => h.innerText)"
    assert [head.split(",")[0] for head in view.evaluate(heads)] == [
        "task",
        "over proportional",
        "task",
        "proposal",
        "proportional",
    ]
    for part in ("verified", "predictions"):  # folded levels too
        wide = f"[...document.querySelectorAll('#{part} .scroll')].map(box => box.scrollWidth - box.clientWidth)"
        assert max(view.evaluate(wide)) <= 0, "every column that is shown is seen"
    for width, mode, ink in ((390, "dark", "rgb(154, 164, 175)"), (1280, "light", "rgb(87, 96, 106)")):
        view.emulate_media(color_scheme=mode)
        view.set_viewport_size({"width": width, "height": 900})
        view.wait_for_function(f"getComputedStyle(document.querySelector('.plot .xtick text')).fill === '{ink}'")
        view.wait_for_function("boxes.every(box => Math.abs(box._fullLayout.width - box.clientWidth) < 2)")
        assert view.evaluate("document.documentElement.scrollWidth") <= width
    for name in ("against code shares", "over size", "predicted against measured", "residuals"):
        assert recipe_in(view.evaluate(POINTED, f"task0{':' * (name[0] in 'pr')} {name}")), name
    assert complaints == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    view.close()


#: What is said of the first dot of measured runs in the plot of this name.
POINTED = """async name => {
  const box = document.querySelector(`[aria-label="${name}"]`);
  const runs = box.data.findIndex(t => t.mode === 'markers' && (t.hovertemplate || '').startsWith('run '));
  Plotly.Fx.hover(box, [{curveNumber: runs, pointNumber: 0}]);
  const said = () => [...box.querySelectorAll('.hoverlayer .hovertext')].map(t => t.innerHTML).join(' / ');
  for (let i = 0; i < 600 && !said(); i++) await new Promise(requestAnimationFrame);
  return said();
}"""


def recipe_in(said: str) -> bool:
    """Whether the words about a dot hold a run of the study, its size, and the mixture of each of its phases."""
    row = study().table.row(next(i for i, run in enumerate(study().table["run"]) if run in said), named=True)
    for phase in ("init", "continue", "cooldown"):
        tokens = {d.name: row[f"tokens:{phase}:{d.name}"] for d in DOMAINS}
        most = max(tokens, key=lambda name: tokens[name])
        if f"{phase} " not in said or f"{most} {100 * tokens[most] / sum(tokens.values()):.0f} %" not in said:
            return False
    return f"{row['params'] / 1000:.3g}K params" in said
