"""Every plot of a study in a real browser: drawn, legible, without errors, in light and dark, and in the docs."""

from __future__ import annotations

import io
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import gallery

from mixlaw.errors import InputError
from mixlaw.optimizer.answers.front import Compromise, Front
from mixlaw.optimizer.answers.pairs import Pair, PairedGain
from mixlaw.optimizer.goal.values import Interval
from mixlaw.optimizer.next_runs.suggestion import Job, Suggestion, Value
from mixlaw.plots import paired
from mixlaw.plots.style import INK, themed
from mixlaw.report.evidence import curves, logged
from mixlaw.runner.train.step import rate
from mixlaw.study import Study, open_study
from mixlaw.study.plots import Plots
from small_study import SETTINGS, prepare
from studies import on_disk, study

ROOT = Path(__file__).parents[1]
TARGET = '[target]\nparams = 330000\ntokens = 6600000\n[groups]\none = ["task0"]\nother = ["task1"]\n'
HEAD, _, _ = SETTINGS.partition("[[recipes]]")
RECIPES = "".join(
    f'[[recipes]]\nsize = "0.025M"\nphases = {{ init = "half", continue = "code", cooldown = "{end}" }}\n'
    for end in ("text", "code")
)
METHODS = {name for name, value in vars(Plots).items() if not name.startswith("_") and callable(value)}
#: Texts of a plot: those that are cut off by its edge or the window's, and pairs that lie over each other.
TEXTS = """box => {
  const edge = box.getBoundingClientRect();
  const texts = [...box.querySelectorAll('svg.main-svg text')].filter(t =>
    t.textContent.trim() && !t.closest('.hoverlayer') && getComputedStyle(t).opacity > 0);
  const boxes = texts.map(t => [t.textContent, t.getBoundingClientRect(), t]).filter(([, b]) => b.width > 0);
  const cut = boxes.filter(([, b]) => b.left < edge.left - 1 || b.right > edge.right + 1 || b.top < edge.top - 1
    || b.bottom > edge.bottom + 1).map(([text]) => text);
  const over = [];
  boxes.forEach(([one, a, s], i) => boxes.slice(i + 1).forEach(([other, b, t]) => {
    const turned = [s, t].some(e => /rotate\\((?!0[ ,)])/.test(e.getAttribute('transform') || ''));
    const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (!turned && wide > 2 && high > 3) over.push(one + ' | ' + other);
  }));
  return {count: boxes.length, cut, over};
}"""
#: What is said of a point in the middle of each trace that says something, of six at most.
HOVERS = """async box => {
  const said = [], told = () => [...box.querySelectorAll('.hoverlayer .hovertext')].map(t => t.textContent).join(' / ');
  const until = async true_ => { for (let i = 0; i < 600 && !true_(); i++) await new Promise(requestAnimationFrame); };
  for (const [number, trace] of box.data.entries()) {
    const x = trace.x?._inputArray ?? trace.x;
    if (!trace.hovertemplate || !x || x[0] === null || trace.type === 'contourcarpet' || said.length > 5) continue;
    const area = ['heatmap', 'contour'].includes(trace.type);
    let pointNumber = Math.floor((box.calcdata[number].length - 1) / 2);
    while (!area && x[pointNumber] === null) pointNumber++;  // a gap between two lines of one trace
    const at = area ? {xpx: 30, ypx: 30} : [{curveNumber: number, pointNumber}];
    Plotly.Fx.hover(box, at, [(trace.xaxis ?? 'x') + (trace.yaxis ?? 'y')]);
    await until(told);
    said.push(told());
    Plotly.Fx.unhover(box);
    await until(() => !told());
  }
  return said;
}"""
#: Whether all plots have taken the width of the window, and the ink of the page.
REDRAWN = """ink => boxes.every(box => Math.abs(box._fullLayout.width - box.clientWidth) < 2
  && box._fullLayout.font.color === ink && !box._replotting)"""
#: Plots whose dots are runs or recipes, and a part of what is said of the first of them.
DOTS = {
    "response": "runs, init", "two_phases": "measured runs", "ternary": "measured runs",
    "extrapolation": "measured runs", "parity": "24K params", "residuals": "24K params", "comparison": "proposal",
    "front": "front", "value_of_runs": "suggested runs",
}  # fmt: skip


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study of foreign runs of a simulated world, with surfaces and a frozen proposal."""
    folder = on_disk(tmp_path_factory.mktemp("gallery"), TARGET)
    study().proposal.freeze(folder / "proposals")
    return open_study(folder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Two real runs that share two of their three phases."""
    ready = open_study(prepare(tmp_path_factory.mktemp("trained") / "study", HEAD + RECIPES))
    assert not ready.run(workers=1).failed
    return ready


@pytest.fixture(scope="module")
def drawn(fitted: Study, trained: Study) -> dict[str, go.Figure]:
    """Every plot by its name."""
    proposal = fitted.proposals()[-1]
    recipe, ends = proposal.recipe, (Interval(2, 1, 3), Interval(-1, -2, 0))
    points = [Compromise(recipe, dict(zip(("one", "other"), pair, strict=True))) for pair in (ends, ends[::-1])]
    front = Front({"one": ("task0",), "other": ("task1",)}, proposal.against, tuple(points), evaluations=9)
    jobs = tuple(Job(recipe, why, 2e15, 0, brings=gain) for why, gain in (("first", 0.12), ("second", 0.05)))
    value = Value(regret=0.4, gain=0.17, changes=0.1, longer=0.01, stop=False)
    arguments: dict[str, tuple[Any, ...]] = {
        "front": (front,),
        "value_of_runs": (Suggestion(proposal.target, 5e15, jobs, value),),
    }
    own = {"segment_tree", "losses"}
    gains = [PairedGain(name, ends[0], measured, 0.4) for name, measured in (("task0", 2.5), ("task1", 4), ("all", 3))]
    pair = Pair(proposal.id, 1, proposal.against, "% of loss", (*gains[:2],), gains[2], (2, 2), False, {})
    return {"paired": themed(paired(pair), "light")} | {
        name: getattr((trained if name in own else fitted).plots, name)(*arguments.get(name, ()))
        for name in sorted(METHODS - {"paired"})
    }


@pytest.mark.slow
def test_every_plot_is_drawn_legibly_in_light_and_dark_and_on_a_narrow_page(
    browser: Any, drawn: dict[str, go.Figure]
) -> None:
    complaints: list[str] = []
    with gallery.shown(browser, drawn, "light", complaints=complaints) as view:
        for mode, width in (("light", gallery.WIDTH), ("dark", gallery.WIDTH), ("dark", 390)):
            view.emulate_media(color_scheme=mode)
            view.set_viewport_size({"width": width, "height": 900})
            view.wait_for_function(REDRAWN, arg=INK[mode], timeout=60_000)
            for name in drawn:
                box = view.locator(f"#{name} .plot")
                told = box.evaluate(TEXTS)
                assert told["count"] >= 5, name
                assert told["cut"] == [], (name, mode, width)
                assert told["over"] == [], (name, mode, width)
                if width == gallery.WIDTH:
                    assert inked(box.screenshot(), {"light": (255, 255, 255), "dark": (13, 17, 23)}[mode]) > 0.01, name
        for name in drawn:  # pointing at any trace tells of a point in its middle
            said = view.locator(f"#{name} .plot").evaluate(HOVERS)
            assert said, name
            assert [text for text in said if not text or "%{" in text or "undefined" in text or "NaN" in text] == [], (
                name
            )
    assert complaints == []


def test_dots_that_are_runs_or_recipes_tell_their_mixture_in_every_phase(drawn: dict[str, go.Figure]) -> None:
    for name, which in DOTS.items():
        trace = next(trace for trace in drawn[name].data if trace.name == which)
        words = trace.hovertext if isinstance(trace.hovertext, str) else trace.hovertext[-1]
        for phase in ("init", "continue", "cooldown"):
            lines = words.replace("<br>   ", " ").split("<br>")
            line = next(line for line in lines if line.startswith(f"{phase} "))
            shares = [float(share) for share in re.findall(r"([\d.]+) %", line)]
            assert sum(shares) == pytest.approx(100, abs=2), (name, line)


def inked(png: bytes, paper: tuple[int, int, int]) -> float:
    """Share of the pixels of a picture that are not paper."""
    from PIL import Image

    with Image.open(io.BytesIO(png)) as picture:
        shades = {colour: count for count, colour in picture.convert("RGB").getcolors(2**22) or ()}
    return 1 - shades.get(paper, 0) / sum(shades.values())


def test_the_gallery_shows_every_plot_and_its_page_is_what_the_script_writes() -> None:
    assert {entry.line.removeprefix("study.plots.").partition("(")[0] for entry in gallery.ENTRIES} == METHODS
    assert (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8") == gallery.text(Path("out/demo"))
    for entry in gallery.ENTRIES:
        for end in ("", "-dark"):
            picture = ROOT / "docs" / "pictures" / f"gallery-{entry.name}{end}.png"
            assert 3_000 < picture.stat().st_size < 150_000, picture


def test_loss_curves_are_what_training_logged(trained: Study) -> None:
    found = {curve.name: curve for curve in curves(trained)}
    assert sorted(curve.phase for curve in found.values()) == ["continue", "cooldown", "cooldown", "init"]
    ends = {"init": 0.5, "continue": 0.75, "cooldown": 1.0}
    for curve in found.values():
        assert len(curve.tokens) == len(curve.loss) >= 25
        assert 0 <= curve.tokens[-1] - ends[curve.phase] * 24_000 < 4 * 32  # whole steps
        if curve.parent:
            assert found[curve.parent].tokens[-1] < curve.tokens[0]
    trunk = next(curve for curve in found.values() if curve.phase == "init")
    assert trunk.loss[-1] < trunk.loss[0] < 7
    assert len(trunk.runs) == 2
    run = next(curve.name for curve in found.values() if curve.phase == "cooldown")
    assert len(curves(trained, [run])) == 3
    with pytest.raises(InputError, match="no training log of nobody"):
        trained.plots.losses(["nobody"])


def test_a_log_that_was_killed_and_taken_up_again_counts_once(tmp_path: Path) -> None:
    lines = [
        '{"step": 1, "tokens": 10, "loss": 5.0}',
        '{"step": 2, "tokens": 20, "loss": 4.0}',
        '{"step": 2, "event": "left out", "loss": "inf", "norm": "nan"}',
        '{"step": 3, "tokens": 30, "loss": "nan"}',
        '{"step": 2, "tokens": 20, "loss": 4.5}',
        '{"step": 3, "tok{"step": 4, "tokens": 40, "loss": 3.0}',
        '{"step": 5, "tokens": 50, "loss": 2.0}',
    ]
    (tmp_path / "log").write_text("\n".join(lines))
    assert logged(tmp_path / "log") == ((10, 20, 50), (5.0, 4.5, 2.0))
    assert logged(tmp_path / "none") == ((), ())


def test_plots_name_what_is_missing(fitted: Study, trained: Study) -> None:
    with pytest.raises(InputError, match="there is no task 'none'; choose one of task0, task1"):
        fitted.plots.response("none")
    with pytest.raises(InputError, match=r"three domains of .*, got web, books"):
        fitted.plots.ternary("task0", ("web", "books"))
    with pytest.raises(InputError, match="trains nothing itself"):
        fitted.plots.segment_tree()
    with pytest.raises(InputError, match="run `mixlaw propose`"):
        trained.plots.comparison()


def test_before_there_is_a_proposal_plots_are_of_the_largest_run(fitted: Study, tmp_path: Path) -> None:
    bare = open_study(shutil.copytree(fitted.path, tmp_path / "study", ignore=shutil.ignore_patterns("proposals")))
    design = study().surfaces.observed.design
    widths = next(trace for trace in bare.plots.schedule().data if isinstance(trace, go.Bar)).width
    assert sum(widths) == pytest.approx(float(design.total[design.params == design.params.max()].max()), rel=1e-3)
    assert "largest run" in {trace.name for trace in bare.plots.extrapolation().data}


def test_a_dark_page_gets_light_ink_and_the_list_names_every_plot(fitted: Study) -> None:
    light, dark = (plots.schedule().layout.template.layout.font.color for plots in (fitted.plots, fitted.plots.dark))
    assert (light, dark) == ("#1f2328", "#e6e8eb")
    assert all(f"\n  {name} " in str(fitted.plots) for name in METHODS)


def test_the_learning_rate_that_is_drawn_is_the_one_that_is_trained_with(fitted: Study) -> None:
    from dataclasses import replace

    from mixlaw.plots.recipes import learning_rates
    from mixlaw.recipe import Decay, Schedule

    recipe = fitted.proposals()[-1].recipe
    shapes = [replace(recipe.phases[-1], lr_end=0.1, decay=decay) for decay in Decay]
    cases = [replace(recipe, phases=(*recipe.phases[:-1], last)) for last in shapes]
    for case in [*cases, replace(recipe, schedule=Schedule.COSINE)]:
        for tokens, shown in zip(*learning_rates(case), strict=True):
            if tokens < case.tokens:
                assert shown == pytest.approx(rate(case, int(tokens), 0), abs=1e-4)
