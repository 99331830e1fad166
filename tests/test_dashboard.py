"""The dashboard in a real browser: what it shows is what the Python API says, at every move."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

pytest.importorskip("dash", reason="needs the package dash")

from mixlaw.analysis.estimate import fit_member
from mixlaw.analysis.laws import Exposure
from mixlaw.analysis.observed import observe
from mixlaw.analysis.surface import surfaces_of
from mixlaw.dashboard.serve import server_of
from mixlaw.dashboard.view import View, packed
from mixlaw.dashboard.watched import opened
from mixlaw.errors import InputError
from mixlaw.export.write import export
from mixlaw.importing import import_table
from mixlaw.optimizer.proposals.ground import ground_of
from mixlaw.optimizer.proposals.proposal import PROPOSAL
from mixlaw.optimizer.proposals.revise import weighed
from mixlaw.optimizer.simulate import random_recipes, random_world
from mixlaw.optimizer.space.target import Guard
from mixlaw.optimizer.worth.goal import Goal
from mixlaw.recipe import Recipe
from mixlaw.study import open_study
from studies import DOMAINS

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OFFLINE = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--no-first-run"]
SETTLED = "document.querySelector('#state')?.textContent.includes('was found')"
TARGET = "\n[target]\nparams = 330000\ntokens = 6600000\n"


def fitted(path: Path, table: pl.DataFrame) -> None:
    """Surfaces of one law in 16 worlds: quick."""
    study = open_study(path)
    observed = observe(table, study.units, study.unique)
    member = fit_member(Exposure, observed, 16, 0, lambda share, words: None)
    surfaces_of((member,), observed).save(path / "surfaces")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of foreign runs with surfaces and a target."""
    folder = tmp_path_factory.mktemp("dashboard")
    world = random_world(DOMAINS, seed=1, tasks=2)
    table = world.measure(random_recipes([24_000, 94_000], 20, DOMAINS, count=9))
    table.write_csv(folder / "runs.csv")
    told = (f'[domains.{d.name}]\nkind = "{d.kind.value}"\nunique_tokens = {d.unique_tokens}\n' for d in DOMAINS)
    (folder / "domains.toml").write_text("".join(told))
    path = folder / "study"
    import_table(folder / "runs.csv", path, "bits/byte", folder / "domains.toml")
    with (path / "study.toml").open("a") as toml:
        toml.write(TARGET)
    fitted(path, open_study(path).table())
    return path


@pytest.fixture
def study(made: Path, tmp_path: Path) -> Path:
    """A copy of it to change."""
    return Path(shutil.copytree(made, tmp_path / "study"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("needs Chromium on the path")
    api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=OFFLINE)
        yield chromium
        chromium.close()


class Page:
    """A page of the dashboard, with what it asked for and complained of."""

    def __init__(self, browser: Any, address: str, query: str = "", width: int = 1280, mode: str = "light") -> None:
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.view = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=mode)
        self.view.set_default_timeout(20_000)
        self.view.on("request", lambda request: self.asked.append(request.url))
        self.view.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.view.on("console", lambda m: self.complaints.append(m.text) if m.type == "error" else None)
        self.view.goto(address + query)

    def settle(self) -> None:
        """Wait until nothing is searched for."""
        self.view.wait_for_function(SETTLED)

    def press(self, dial: str, key: str, times: int = 1, handle: int = 0) -> None:
        """Move a slider by keys, and wait for what follows."""
        before = self.view.url
        self.view.locator(f'.field[data-name="{dial}"] [role=slider]').nth(handle).focus()
        for _ in range(times):
            self.view.keyboard.press(key)
        self.view.wait_for_function("was => location.href !== was", arg=before)
        self.view.wait_for_timeout(150)
        self.settle()

    def said(self, dial: str) -> str:
        """The value of a slider in words."""
        return str(self.view.inner_text(f'.field[data-name="{dial}"] output'))

    def text(self, place: str) -> str:
        """Words of a part of the page."""
        return str(self.view.inner_text(place))

    def cells(self) -> list[list[str]]:
        """The table of predictions."""
        rows = self.view.query_selector_all("#table tr")
        return [[cell.inner_text() for cell in row.query_selector_all("th, td")] for row in rows]

    def shown(self, path: Path) -> View:
        """The view that the address leads to."""
        return View.read(self.view.url.partition("?")[2], opened(path).view)

    def bars(self) -> list[float]:
        """Lengths of the bars of the gains."""
        return [float(x) for x in self.view.evaluate("[...document.getElementById('figure-gains').data[0].x]")]


class served:
    """The dashboard of a study in a thread."""

    def __init__(self, path: Path) -> None:
        self.server = server_of(path, port=0)

    def __enter__(self) -> str:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.port}/"

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()


@pytest.fixture(scope="module")
def address(made: Path) -> Iterator[str]:
    with served(made) as address:
        yield address


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Page]:
    """A page on the study that all tests share."""
    page = Page(browser, address)
    page.settle()
    yield page
    page.view.close()


@pytest.fixture
def own(browser: Any, study: Path) -> Iterator[Page]:
    """A page on a study that may be changed."""
    with served(study) as address:
        page = Page(browser, address)
        page.settle()
        yield page
        page.view.close()


def expected(path: Path, recipe: Recipe, target: Any = None, goal: Goal | None = None) -> Any:
    """What the Python API says of a recipe."""
    study = open_study(path)
    ground = ground_of(study.surfaces(), target or study.target(), study.domains, goal=goal)
    return ground, weighed(ground, {PROPOSAL: recipe})[PROPOSAL]


def test_numbers_bars_and_cards_are_those_of_the_python_api_at_every_move(page: Page, made: Path) -> None:
    page.press("params", "ArrowRight", times=3)
    page.press("cooldown", "ArrowLeft", times=5, handle=0)
    page.press("weight:task1", "Home")
    page.press("limit:recipe:books", "ArrowLeft", times=95, handle=1)
    assert page.said("params") == "379k"  # 330k x 10 ** 0.06
    assert page.said("cooldown") == "5 % to 20 %"
    assert page.said("limit:recipe:books") == "0 % to 5 %"
    given = open_study(made).target()
    target = replace(given, params=379_000, cooldown=(0.05, 0.2), caps={"recipe": {"books": 0.05}})
    shown = page.shown(made)
    assert shown.target(given) == target
    assert shown.recipe is not None
    assert shown.recipe.mixture.share("books") <= 0.05
    _, told = expected(made, shown.recipe, target, Goal({"task0": 1.0}))
    assert told.broken == ()
    assert page.text("#sentence") == told.sentence
    head, *rows = page.cells()
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
    _, told = expected(made, shown.recipe, replace(open_study(made).target(), guard=Guard(eps)))
    assert "chance that the guard holds" in page.text("#facts")
    assert min(told.guarded.values()) > 0.6  # 90 % in the eight worlds that were searched


def test_an_address_leads_back_to_the_view_pinned_recipe_and_all(page: Page, browser: Any, made: Path) -> None:
    page.view.click("#do-pin")
    page.view.wait_for_selector("#pinned-box:not(.away) .main-svg")
    pinned = page.shown(made).recipe
    page.press("tokens", "ArrowRight", times=10)
    shown = page.shown(made)
    assert pinned is not None
    assert shown.pinned == pinned
    assert shown.recipe != pinned
    assert page.cells()[0][2:4] == [PROPOSAL, "pinned"]
    assert "pinned is predicted at its own size" in page.text("#notes")
    other = Page(browser, page.view.url)
    other.settle()
    assert other.cells() == page.cells()
    assert other.text("#sentence") == page.text("#sentence")
    assert other.said("tokens") == page.said("tokens")
    assert other.bars() == page.bars()
    assert other.shown(made) == shown
    other.view.close()
    page.view.click("#do-unpin")
    page.view.wait_for_function("!location.search.includes('pinned')")
    assert page.cells()[0][2:4] == [PROPOSAL, expected(made, pinned)[1].against]


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
    assert set(table["recipe"]) == {PROPOSAL, expected(made, shown.recipe)[1].against}
    picture = fetched("#do-png").read_bytes()
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    assert len(picture) > 30_000


def test_a_proposal_is_frozen_for_the_view(own: Page, study: Path) -> None:
    own.press("tokens", "ArrowLeft", times=5)
    own.view.click("#do-freeze")
    own.view.wait_for_function("document.querySelector('#frozen').textContent.includes('Frozen as')", timeout=60_000)
    (proposal,) = open_study(study).proposals()
    assert proposal.id in own.text("#frozen")
    assert proposal.sentence in own.text("#frozen")
    assert proposal.target == own.shown(study).target(open_study(study).target())
    own.view.wait_for_function("packed => location.search.includes(packed)", arg=packed(proposal.recipe))


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


def test_a_study_that_grows_is_followed(own: Page, study: Path) -> None:
    assert own.text("#subtitle") == "2 tasks fitted on 18 runs over 3 domains"
    world = random_world(DOMAINS, seed=1, tasks=2)
    more = random_recipes([48_000], 20, DOMAINS, count=3, seed=7)
    world.measure(more).with_columns(run="more-" + pl.col("run")).write_csv(study / "more.csv")
    import_table(study / "more.csv", study)
    own.view.wait_for_selector("#news:not(:empty)")
    assert own.text("#news").startswith("3 new records are not in the surfaces yet; run `mixlaw fit ")
    own.press("tokens", "ArrowRight", times=4)
    fitted(study, open_study(study).table())
    own.view.wait_for_function("document.querySelector('#subtitle').textContent.includes('21 runs')")
    own.view.wait_for_function("document.querySelector('#news').textContent === ''")
    own.view.wait_for_timeout(1500)
    own.settle()
    shown = own.shown(study)
    assert shown.tokens == round(float(f"{6.6e6 * 10**0.08:.3g}"))
    assert shown.recipe is not None
    assert own.text("#sentence") == expected(study, shown.recipe, shown.target(opened(study).target))[1].sentence


def test_a_broken_study_says_what_is_wrong_and_is_taken_up_when_mended(own: Page, study: Path) -> None:
    toml = (study / "study.toml").read_text()
    (study / "study.toml").write_text(toml.replace("params = 330000", "params = 330000\ncooldwon = 1"))
    own.view.wait_for_selector("#error:not(:empty)")
    assert "unknown key 'target.cooldwon'" in own.text("#error")
    assert "Traceback" not in own.text("body")
    (study / "study.toml").write_text(toml)
    own.view.wait_for_selector("#error:empty", state="attached")
    own.settle()


def test_a_study_without_surfaces_says_so_and_shows_them_when_they_come(browser: Any, study: Path) -> None:
    (study / "surfaces").rename(study / "elsewhere")
    with served(study) as address:
        page = Page(browser, address)
        page.view.wait_for_selector("#error:not(:empty)")
        assert page.text("#error") == f"study {study} has no surfaces; run `mixlaw fit {study}` first"
        (study / "elsewhere").rename(study / "surfaces")
        page.settle()
        assert page.text("#error") == ""
        page.view.close()


def test_what_else_can_be_broken_is_one_sentence(study: Path) -> None:
    def sentence() -> str:
        with pytest.raises(InputError) as refusal:
            opened(study)
        assert "\n" not in str(refusal.value)
        return str(refusal.value)

    record = next(study.glob("runs/*/record.json"))
    whole = record.read_text()
    record.write_text("{")
    assert f"{record} is truncated or damaged" in sentence()
    record.write_text(whole)
    (study / "surfaces" / "surfaces.json").write_text("{")
    assert "surfaces" in sentence()
    toml = study / "study.toml"
    toml.write_text(toml.read_text().replace(TARGET, ""))
    assert sentence().startswith("there is no target; write [target]")


@pytest.mark.parametrize(("width", "mode"), [(1280, "light"), (390, "dark")])
def test_it_reads_on_wide_and_narrow_pages_and_asks_nobody_else(
    browser: Any, made: Path, tmp_path: Path, width: int, mode: str
) -> None:
    with served(made) as address:
        page = Page(browser, address, width=width, mode=mode)
        page.settle()
        for name in ("gains", "schedule", "landscape"):
            page.view.wait_for_selector(f"#figure-{name} .main-svg")
        assert page.view.evaluate("document.documentElement.scrollWidth") <= width
        ink = page.view.evaluate("getComputedStyle(document.querySelector('#figure-gains .xtick text')).fill")
        assert ink == {"light": "rgb(87, 96, 106)", "dark": "rgb(154, 164, 175)"}[mode]
        page.view.screenshot(path=tmp_path / "page.png", full_page=True)
        assert (tmp_path / "page.png").stat().st_size > 50_000
        assert [url for url in page.asked if not url.startswith((address, "data:", "blob:"))] == []
        assert page.complaints == []
        page.view.close()


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
    assert {"Pin this recipe", "Freeze a proposal", "Recipe", "CSV", "PNG", "Start over", "task"} <= reached
    value = page.view.evaluate("document.querySelector('[role=slider]').getAttribute('aria-valuetext')")
    assert value == "330k"


def test_it_listens_on_this_machine_alone_and_to_nobody_led_here(made: Path) -> None:
    server = server_of(made, port=0)
    assert server.host == "127.0.0.1"
    client = server.app.test_client()  # type: ignore[attr-defined]
    assert client.get("/", headers={"Host": f"localhost:{server.port}"}).status_code == 200
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 400
    with pytest.raises(InputError, match="something listens at"):
        server_of(made, port=server.port)
    server.server_close()


def test_an_address_that_makes_no_sense_is_refused_in_one_sentence(made: Path) -> None:
    default = opened(made).view
    for query in ("?params=many", "?weight:nothing=1", "?recipe=xyz", "?cooldown=0.5,0.1", "?eps=-1", "?what=1"):
        with pytest.raises(InputError, match="the address says") as refusal:
            View.read(query, default)
        assert "\n" not in str(refusal.value)


def test_a_view_comes_back_from_its_address(made: Path) -> None:
    study = opened(made)
    recipe = study.ground(study.view).baselines[0]
    view = replace(
        study.view,
        params=123_456,
        cooldown=(0.05, 0.35),
        weights={"task0": 0.0, "task1": 1.5},
        limits={("init", "web"): (0.1, 0.9)},
        eps=0.25,
        task="task1",
        plane=("init", "continue"),
        recipe=recipe,
        pinned=replace(recipe, params=99),
    )
    query = view.query(study.view)
    assert View.read(query, study.view) == view
    assert study.view.query(study.view) == ""
    assert re.search(r"limit:init:web=0.1,0.9", query)
    assert "tokens" not in query
    limited = replace(study.view, limits={("init", "web"): (0.0, 0.5)})
    assert View.read(study.view.query(limited), limited).target(study.target) == study.view.target(study.target)
