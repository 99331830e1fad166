"""The dashboard of a study that changes while its page is open."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

pytest.importorskip("dash", reason="needs the package dash")

from dashboards import TARGET, Page, expected, served
from mixlaw import import_runs
from mixlaw.dashboard.view import packed
from mixlaw.dashboard.watched import Watched, opened
from mixlaw.errors import InputError
from mixlaw.study import open_study
from mixlaw.testing.worlds import random_recipes, random_world
from studies import DOMAINS, on_disk, quick_fit


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of foreign runs with surfaces and a target; tests leave it sound, one larger, some with proposals."""
    return on_disk(tmp_path_factory.mktemp("dashboard"), TARGET)


@pytest.fixture(scope="module")
def tab(browser: Any, study: Path) -> Iterator[Page]:
    """The dashboard of the study, in a tab that tests use one after the other."""
    with pytest.MonkeyPatch.context() as patch, served(study) as address:
        patch.setattr("mixlaw.dashboard.page.STUDY_TIMER", 300)  # milliseconds, so that tests need not wait
        tab = Page(browser, address)
        yield tab
        tab.view.close()


@pytest.fixture
def page(tab: Page) -> Page:
    """The dashboard at the study's own view."""
    tab.start()
    return tab


def test_a_broken_study_says_what_is_wrong_and_is_taken_up_when_fixed(page: Page, study: Path) -> None:
    toml = (study / "study.toml").read_text()
    (study / "study.toml").write_text(toml.replace("params = 330000", "params = 330000\ncooldwon = 1"))
    page.view.wait_for_selector("#error:not(:empty)")
    assert "unknown key 'target.cooldwon'" in page.text("#error")
    assert "Traceback" not in page.text("body")
    (study / "study.toml").write_text(toml)
    page.view.wait_for_selector("#error:empty", state="attached")
    page.settle()


def test_a_study_without_surfaces_says_so_and_shows_them_when_they_come(tab: Page, study: Path) -> None:
    (study / "surfaces").rename(study / "elsewhere")
    tab.open()
    tab.view.wait_for_selector("#error:not(:empty)")
    assert tab.text("#error") == f"study {study} has no surfaces; run mixlaw fit {study} first"
    (study / "elsewhere").rename(study / "surfaces")
    tab.settle()
    assert tab.text("#error") == ""


def test_what_else_can_be_broken_is_one_sentence(study: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(study, tmp_path / "study")

    def sentence() -> str:
        with pytest.raises(InputError) as refusal:
            opened(copy)
        assert "\n" not in str(refusal.value)
        return str(refusal.value)

    record = next(copy.glob("runs/*/record.json"))
    whole = record.read_text()
    record.write_text("{")
    with pytest.raises(InputError, match=re.escape(f"{record} is truncated or damaged")):
        Watched(copy).news()
    record.write_text(whole)
    (copy / "surfaces" / "surfaces.json").write_text("{")
    assert "surfaces" in sentence()
    toml = copy / "study.toml"
    toml.write_text(toml.read_text().replace(TARGET, ""))
    assert sentence().startswith("there is no target; write [target]")


def test_a_proposal_is_frozen_for_the_view(page: Page, study: Path) -> None:
    before = {proposal.id for proposal in open_study(study).proposals()}
    page.press("tokens", *["ArrowLeft"] * 5)
    page.settle()
    page.view.click("#do-freeze")
    page.view.wait_for_function("document.querySelector('#frozen').textContent.includes('Frozen as')")
    (seen,) = (proposal for proposal in open_study(study).proposals() if proposal.id not in before)
    assert seen.recipe == page.shown(study).recipe, "just what was on the page"
    assert seen.sentence == page.text("#sentence")
    assert [[task, gain.text()] for task, gain in seen.gains.items()] == [
        [row[0], row[-1]] for row in page.cells()[1:-1]
    ]
    page.view.click("#do-propose")
    page.view.wait_for_function("was => !document.querySelector('#frozen').textContent.includes(was)", arg=seen.id)
    page.view.wait_for_function("document.querySelector('#frozen').textContent.includes('Frozen as')")
    proposal = open_study(study).proposals()[-1]
    assert proposal.recipe == seen.recipe, "the page had searched as `propose` does"
    assert proposal.id in page.text("#frozen")
    assert proposal.sentence in page.text("#frozen")
    assert proposal.target == page.shown(study).target(open_study(study).target())
    page.view.wait_for_function("packed => location.search.includes(packed)", arg=packed(proposal.recipe))


def test_a_study_that_grows_is_followed(page: Page, study: Path) -> None:
    assert page.text("#subtitle") == "2 tasks fitted on 18 runs over 3 domains"
    world = random_world(DOMAINS, seed=1, tasks=2)
    more = random_recipes([48_000], 20, DOMAINS, count=3, seed=7)
    world.measure(more).with_columns(run="more-" + pl.col("run")).write_csv(study / "more.csv")
    import_runs(study, study / "more.csv")
    page.view.wait_for_selector("#news:not(:empty)")
    assert page.text("#news").startswith("3 new runs are not in the fit yet. Run mixlaw fit ")
    page.press("tokens", *["ArrowRight"] * 4)
    grown, moves = open_study(study), len(page.answered)
    quick_fit(grown.table(), grown.units, grown.unique).save(study / "surfaces")
    page.view.wait_for_function("document.querySelector('#subtitle').textContent.includes('21 runs')")
    page.view.wait_for_function("document.querySelector('#news').textContent === ''")
    page.until(lambda: len(page.answered) > moves)
    page.settle()
    shown = page.shown(study)
    assert shown.tokens == round(float(f"{6.6e6 * 10**0.08:.3g}"))
    assert shown.recipe is not None
    assert page.text("#sentence") == expected(study, shown.recipe, shown.target(opened(study).target)).sentence


def test_it_follows_the_last_proposal_at_the_figures_of_the_proposal(page: Page, study: Path) -> None:
    page.open(page.home.partition("?")[0])
    page.settle()
    proposal = open_study(study).propose()
    page.view.wait_for_function(
        "document.querySelector('#state').textContent === 'the last proposal, as it was found and frozen'"
    )
    assert page.text("#sentence") == proposal.sentence
    assert [[task, gain.text()] for task, gain in proposal.gains.items()] == [
        [row[0], row[-1]] for row in page.cells()[1:-1]
    ]
