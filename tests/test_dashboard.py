"""The dashboard in a real browser: what it shows is what the Python API says, at every move."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import polars as pl
import pytest
from typer.testing import CliRunner

pytest.importorskip("dash", reason="needs the package dash")

from dashboards import TARGET, Page, expected, served
from mixlaw.cli import app
from mixlaw.export.write import export
from mixlaw.optimizer.goal.goal import Goal
from mixlaw.optimizer.goal.values import PROPOSAL, Interval
from mixlaw.optimizer.target.target import Guard
from mixlaw.plots import checked
from mixlaw.report.fit import fit_part
from mixlaw.study import open_study
from studies import on_disk


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of foreign runs with surfaces and a target, which no test changes."""
    return on_disk(tmp_path_factory.mktemp("dashboard"), TARGET)


@pytest.fixture(scope="module")
def tab(browser: Any, made: Path) -> Iterator[Page]:
    """The dashboard of the study, in a tab that tests use one after the other."""
    with served(made) as address:
        tab = Page(browser, address)
        yield tab
        tab.view.close()


@pytest.fixture
def page(tab: Page) -> Page:
    """The dashboard at the study's own view."""
    tab.start()
    return tab


def test_numbers_bars_and_cards_are_those_of_the_python_api_at_every_move(page: Page, made: Path) -> None:
    page.press("params", *["ArrowRight"] * 3)
    page.press("cooldown", *["ArrowLeft"] * 5)
    page.press("weight:task1", "Home")
    page.press("limit:recipe:books", *["PageDown"] * 9, *["ArrowLeft"] * 5, handle=1)
    page.settle()
    assert page.said("params") == "379K"  # 330K x 10 ** 0.06
    assert page.said("cooldown") == "5 % to 20 %"
    assert page.said("limit:recipe:books") == "0 % to 5 %"
    given = open_study(made).target()
    target = given.changed(params=379_000, cooldown=(0.05, 0.2), caps={"recipe": {"books": 0.05}})
    shown = page.shown(made)
    assert shown.target(given) == target
    assert shown.recipe is not None
    assert shown.recipe.mixture.share("books") <= 0.05
    told = expected(made, shown.recipe, target, Goal({"task0": 1.0}))
    assert told.broken == ()
    assert page.text("#sentence") == told.sentence
    head, *rows, total = page.cells()
    assert (total[0], total[-1]) == ("all, by weight", told.gain.text())
    assert head == ["task", "unit", PROPOSAL, told.against, f"gain of {PROPOSAL}, % of loss"]
    for row, forecast in zip(rows, told.forecasts, strict=True):
        assert row[0] == forecast.task
        value, half = map(float, row[2].split(" ± "))
        assert value == pytest.approx(forecast.mean, rel=1e-2)
        assert half == pytest.approx((forecast.hi90 - forecast.lo90) / 2, rel=0.1)
        assert row[4] == told.gains[forecast.task].text()
    assert page.bars() == pytest.approx([gain.mean for gain in told.gains.values()])
    assert page.complaints == []


def test_a_slider_follows_the_mouse_and_a_guard_is_kept(page: Page, made: Path) -> None:
    handle = page.view.locator('.field[data-name="eps"] [role=slider]')
    track = page.view.locator('.field[data-name="eps"] .dash-slider-root').bounding_box()
    box, before = handle.bounding_box(), page.view.url
    assert page.said("eps") == "no guard"
    page.view.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.view.mouse.down()
    page.view.mouse.move(track["x"] + 0.1 * track["width"], box["y"], steps=5)
    while_moving = page.said("eps")
    assert page.view.url == before
    page.view.mouse.up()
    page.view.wait_for_function("was => location.href !== was", arg=before)
    page.settle()
    eps = page.shown(made).eps
    assert eps is not None
    assert eps == pytest.approx(0.5, abs=0.1)
    assert float(page.said("eps")) == float(while_moving) == pytest.approx(eps)
    shown = page.shown(made)
    assert shown.recipe is not None
    told = expected(made, shown.recipe, open_study(made).target().changed(guard=Guard(eps)))
    assert "chance that the guard holds" in page.text("#facts")
    assert min(told.guarded.values()) > 0.6  # 90 % in the eight worlds that were searched


def test_sliders_share_their_callbacks(page: Page) -> None:
    """With a callback for each of 256 sliders, a study of 64 domains took the browser more than a minute to show."""
    wired = page.view.evaluate("async () => await (await fetch('_dash-dependencies')).text()")
    assert "ALL" in wired
    assert "MATCH" not in wired


def test_an_address_leads_back_to_the_view_pinned_recipes_and_all(page: Page, made: Path) -> None:
    page.view.fill("#pin-name", "today")
    page.view.click("#do-pin")
    page.view.wait_for_selector("#pinned-box:not(.away) .main-svg")
    pinned = page.shown(made).recipe
    page.press("tokens", "PageUp")
    page.settle()
    shown = page.shown(made)
    assert pinned is not None
    assert shown.pins == {"today": pinned}
    assert shown.recipe != pinned
    page.view.click("#do-pin")
    page.view.wait_for_function("location.search.includes('pin:pin%201')")
    assert page.shown(made).pins == {"today": pinned, "pin 1": shown.recipe}
    assert page.cells()[0][2:5] == [PROPOSAL, "today", "pin 1"]
    assert "today is predicted at its own size" in page.text("#notes")
    seen = page.cells(), page.text("#sentence"), page.said("tokens"), page.bars()
    page.open(page.view.url)
    page.settle()
    assert (page.cells(), page.text("#sentence"), page.said("tokens"), page.bars()) == seen
    assert shown.recipe is not None
    assert page.shown(made) == replace(shown, pins={"today": pinned, "pin 1": shown.recipe})
    page.view.locator(".pinned").get_by_label("Clear").first.click()
    page.view.wait_for_function("!location.search.includes('pin:')")
    assert page.cells()[0][2:4] == [PROPOSAL, expected(made, pinned).against]


def test_a_recipe_that_is_set_by_hand_has_the_figures_of_the_command_line_and_of_the_report(
    page: Page, made: Path, tmp_path: Path
) -> None:
    page.view.click("text=Set by hand")
    page.view.wait_for_selector('.field[data-name="cooldown:web"] output:not(:empty)')
    before = page.shown(made).recipe
    page.view.locator('.field[data-name="cooldown:web"] [role=slider]').focus()
    page.view.keyboard.press("PageUp")

    def settled() -> bool:
        """Whether the address has the shares that the sliders say."""
        shown = page.shown(made).recipe
        assert shown is not None
        shares = [float(page.said(f"cooldown:{name}").rstrip(" %")) for name in ("web", "books", "python")]
        mixture = shown.phases[-1].mixture
        off = [abs(100 * mixture.share(n) - s) for n, s in zip(("web", "books", "python"), shares, strict=True)]
        return shown != before and max(off) < 0.06

    page.until(settled)
    recipe = page.shown(made).recipe
    assert before is not None
    assert recipe is not None
    assert recipe.phases[:-1] == before.phases[:-1]
    assert recipe.phases[-1].mixture.share("web") == pytest.approx(
        before.phases[-1].mixture.share("web") + 0.01, abs=0.002
    )
    (tmp_path / "recipe.json").write_text(json.dumps(recipe.as_json()))
    against = expected(made, recipe).against
    command = ["what-if", str(made), str(tmp_path / "recipe.json"), "--against", against]
    told = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert page.cells()[0][2] == "by hand"
    for cells, forecast in zip(page.cells()[1:-1], told["forecasts"], strict=True):
        assert cells[0] == forecast["task"]
        assert cells[2] == Interval(forecast["mean"], forecast["lo90"], forecast["hi90"]).text()
        assert cells[-1] == Interval(**told["gains"][forecast["task"]]).text()
    page.view.click("#do-freeze")
    page.view.wait_for_function("document.querySelector('#frozen').textContent.includes('Frozen as')")
    out = tmp_path / "report.html"
    assert CliRunner().invoke(app, ["report", str(made), "-o", str(out)]).exit_code == 0
    written = unescape(out.read_text(encoding="utf-8")).replace("\u00a0", " ")
    assert page.text("#sentence").replace("This recipe", "The proposal") in written


def test_runs_that_are_brushed_are_in_the_table_and_other_tabs_have_the_parts_of_the_report(
    page: Page, made: Path
) -> None:
    page.view.click("#tab >> text=Runs")
    page.view.wait_for_function("document.querySelector('#runs-said')?.textContent.includes('18 of 18 runs')")
    page.view.wait_for_selector("#figure-runs .nsewdrag")
    box = page.view.locator("#figure-runs .nsewdrag").bounding_box()
    page.view.mouse.move(box["x"] + 2, box["y"] + 2)
    page.view.mouse.down()
    page.view.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] - 2, steps=4)
    page.view.mouse.up()
    page.view.wait_for_function("!document.querySelector('#runs-said').textContent.includes('18 of 18')")
    number = int(page.text("#runs-said").split()[0])
    points = checked(open_study(made).surfaces(), "task0")
    middle = (points.mean.min() + points.mean.max()) / 2
    assert number == pytest.approx(int((points.mean < middle).sum()), abs=2)
    assert page.view.locator("#runs-table tbody tr").count() == number
    page.view.click("#runs-table >> text=measured")
    measured = page.view.evaluate(
        "[...document.querySelectorAll('#runs-table tbody tr')].map(r => r.cells[2].innerText)"
    )
    assert list(map(float, measured)) == sorted(map(float, measured))
    page.view.click("#tab >> text=Next runs")
    page.view.wait_for_function("document.querySelector('#tab-next').textContent.includes('mixlaw suggest STUDY')")
    page.view.click("#tab >> text=Fit and calibration")
    page.view.wait_for_selector("#tab-fit .plot .main-svg")
    fit = fit_part(open_study(made).surfaces(), ["task0", "task1"])
    assert page.view.evaluate("document.querySelectorAll('#tab-fit td').length") == fit.count("<td")
    assert page.complaints == []


def test_downloads_are_what_other_commands_read(page: Page, made: Path, tmp_path: Path) -> None:
    def fetched(button: str) -> Path:
        with page.view.expect_download() as download:
            page.view.click(button)
        path: Path = tmp_path / download.value.suggested_filename
        download.value.save_as(path)
        return path

    recipe = fetched("#do-recipe")
    shown = page.shown(made)
    assert shown.recipe is not None
    answer = open_study(made).what_if(recipe)
    assert answer.recipe == shown.recipe
    assert export(open_study(made), recipe, ["megatron"], tmp_path / "out").files
    table = pl.read_csv(fetched("#do-csv"))
    mine = table.filter(pl.col("recipe") == PROPOSAL)
    assert mine["mean"].to_list() == pytest.approx([f.mean for f in answer.forecasts])
    assert set(table["recipe"]) == {PROPOSAL, expected(made, shown.recipe).against}
    picture = fetched("#do-png").read_bytes()
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    assert len(picture) > 30_000


def test_limits_that_contradict_each_other_are_said_and_the_page_goes_on(page: Page) -> None:
    page.view.locator('.field[data-name="limit:recipe:books"] [role=slider]').first.focus()
    for _ in range(5):
        page.view.keyboard.press("PageUp")
    page.view.wait_for_selector("#error:not(:empty)")
    assert "no recipe keeps all of: " in page.text("#error")
    assert "books in the recipe" in page.text("#error")
    assert page.view.get_attribute("#body", "class") == "body stale"
    page.view.keyboard.press("Home")
    page.view.wait_for_selector("#error:empty", state="attached")
    page.settle()
    assert page.view.get_attribute("#body", "class") == "body"
    assert page.complaints == []


def test_a_move_that_is_overtaken_on_its_way_to_the_server_does_not_count(page: Page, made: Path) -> None:
    held: list[Any] = []

    def overtaken(route: Any) -> None:
        if "search.data" in (route.request.post_data or "") and len(held) < 1:
            held.append(route)
        else:
            route.continue_()

    page.answered.clear()
    page.view.route("**/_dash-update-component*", overtaken)
    place = page.view.locator('.field[data-name="cooldown"] [role=slider]').last
    place.focus()
    page.view.keyboard.press("ArrowLeft")
    page.until(lambda: bool(held))  # two presses in a breath would be one move
    page.view.keyboard.press("ArrowLeft")
    page.until(lambda: bool(page.answered))
    held[0].continue_()
    page.view.unroute("**/_dash-update-component*")
    page.settle()
    assert page.said("cooldown") == "10 % to 18 %"
    assert page.shown(made).cooldown == (0.1, 0.18)
    assert page.complaints == []


def test_another_site_reads_nothing_presses_nothing_and_frames_nothing(tab: Page) -> None:
    """Also under a name of its own that leads to this machine, as in DNS rebinding."""
    port = urlsplit(tab.home).port
    own, evil = f"http://127.0.0.1:{port}/", tab.view.context.browser.new_page()
    statuses: dict[str, int] = {}
    evil.on("response", lambda response: statuses.update({response.request.url: response.status}))
    evil.goto(f"http://evil.example:{port}/")
    evil.goto(f"http://evil.example:{port}/_dash-layout")
    assert list(statuses.values()) == [400, 400]
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        for name in ("evil.example", "127.0.0.1"):
            evil.goto(f"http://{name}:{other.server_port}/none")
            statuses.clear()
            evil.evaluate(
                """async own => {
                    const headers = {'content-type': 'text/plain'};
                    await fetch(own + '_dash-update-component', {method: 'POST', mode: 'no-cors', body: '{}', headers});
                    await fetch(own + 'progress/x', {mode: 'no-cors'});
                    const frame = document.createElement('iframe');
                    const loaded = new Promise(done => frame.onload = done);
                    frame.src = own;
                    document.body.append(frame);
                    await loaded;
                }""",
                own,
            )
            assert statuses == dict.fromkeys((f"{own}_dash-update-component", f"{own}progress/x", own), 403)
        other.shutdown()
    evil.close()


def test_a_search_says_how_far_it_has_come_and_can_be_stopped(page: Page, made: Path) -> None:
    held: list[Any] = []

    def hold(route: Any) -> None:
        searches = json.loads(route.request.post_data or "{}").get("changedPropIds") == ["search.data"]
        held.append(route) if searches else route.continue_()

    page.view.route("**/_dash-update-component*", hold)
    page.press("tokens", "PageUp")
    page.view.wait_for_function("document.querySelector('#state').textContent === 'looking for the best recipe … 0 %'")
    before = page.view.url
    page.view.click("#do-stop")
    page.view.wait_for_function("document.querySelector('#state').textContent.includes('search was stopped')")
    with page.view.expect_response(lambda response: response.request == held[0].request) as stopped:
        held[0].continue_()
    page.view.unroute("**/_dash-update-component*")
    assert stopped.value.status == 204  # the search ended without an answer
    assert "search was stopped" in page.text("#state")
    assert page.view.url == before
    page.press("tokens", "ArrowLeft")
    page.settle()
    assert page.shown(made).recipe is not None
    assert page.complaints == []


@pytest.mark.parametrize(("width", "mode"), [(1280, "light"), (390, "dark")])
def test_it_reads_on_wide_and_narrow_pages_and_asks_nobody_else(
    tab: Page, tmp_path: Path, width: int, mode: str
) -> None:
    tab.open(width=width, mode=mode)
    tab.settle()
    for name in ("gains", "schedule", "landscape"):
        tab.view.wait_for_selector(f"#figure-{name} .main-svg")
    assert tab.view.evaluate("document.documentElement.scrollWidth") <= width
    tops = [tab.view.locator(name).bounding_box()["y"] for name in ("#verdict", "#panel", "#facts")]
    assert width > 820 or tops == sorted(tops)  # the answer, then sliders, then what explains it
    gain = tab.view.locator("#table th").last.bounding_box()  # the column that matters stays
    assert gain["x"] + gain["width"] <= width
    ink = tab.view.evaluate("getComputedStyle(document.querySelector('#figure-gains .xtick text')).fill")
    hint = tab.view.evaluate("getComputedStyle(document.querySelector('.dash-dropdown-placeholder')).color")
    assert hint == ink
    assert ink == {"light": "rgb(87, 96, 106)", "dark": "rgb(154, 164, 175)"}[mode]
    tab.view.screenshot(path=tmp_path / "page.png", full_page=True)
    assert (tmp_path / "page.png").stat().st_size > 50_000
    tab.view.click("#do-pin")
    tab.view.wait_for_selector("#pinned-box:not(.away) .main-svg")
    tab.view.wait_for_function("document.querySelector('#table thead').textContent.includes('gain of pin 1')")
    cut = "name => { const box = document.querySelector(name + ' .scroll'); return box.scrollWidth - box.clientWidth; }"
    assert tab.view.evaluate(cut, "#table") <= 0, "both gains are seen"
    tab.view.click("#tab >> text=Runs")
    tab.view.wait_for_selector("#runs-table td")
    heads = "[...document.querySelectorAll('#runs-table th')].filter(h => h.offsetWidth).map(h => h.textContent)"
    assert {"run", "measured", "predicted", "off by"} <= set(tab.view.evaluate(heads))
    assert tab.view.evaluate(cut, "#runs-table") <= 0
    here = tab.home.partition("?")[0]
    assert len(tab.asked) > 5
    assert [url for url in tab.asked if not url.startswith((here, "data:", "blob:"))] == []
    assert tab.complaints == []


def test_every_control_can_be_reached_by_keyboard_and_has_a_name(page: Page) -> None:
    reached = set()
    page.view.evaluate("document.querySelectorAll('details').forEach(d => d.open = true); document.body.focus()")
    for _ in range(80):
        page.view.keyboard.press("Tab")
        name = page.view.evaluate("(e => e.getAttribute('aria-label') || e.textContent)(document.activeElement)")
        reached.add(str(name).strip())
    sliders = page.view.evaluate("[...document.querySelectorAll('[role=slider]')].map(e => e.ariaLabel)")
    assert (
        len(set(sliders)) == len(sliders) == 2 + 2 + 1 + 2 + 2 * 3 * 4
    )  # counts, cooldown, guard, weights; limits in four places
    assert set(sliders) <= reached
    assert {"Pin this recipe", "Freeze what I see", "Propose", "Recipe", "CSV", "PNG", "Start over", "task"} <= reached
    value = page.view.evaluate("document.querySelector('[role=slider]').getAttribute('aria-valuetext')")
    assert value == "330K"
