"""Pages in a terminal: its width, colours, what is left out and said to be, and errors as JSON."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mixlaw.cli import app
from mixlaw.numbers import share, size
from mixlaw.page import Page
from mixlaw.runner.models.ladder import parse_size
from mixlaw.study import open_study
from mixlaw.tables import Cell, Column, Table
from mixlaw.terminal import console_of, group_of, plain, width_of
from test_cli import document, mixlaw
from test_front_cli import study  # noqa: F401

WIDE = Table(
    "tasks",
    ["task", *(Column(f"figure {i}", f"f{i}") for i in range(12)), Column("rare", extra=True)],
    [
        [f"task{t}", *(Cell(f"{t + i}.25 ± 0.50", {"": t + i, "lo90": t - i}) for i in range(12)), "x"]
        for t in range(30)
    ],
    shown=3,
)


def test_what_has_no_room_is_named_and_all_of_it_can_be_had() -> None:
    page = Page("The answer.", tables=[WIDE], notes=["a note that is long enough to be broken " * 4], more=["a detail"])
    text = plain(page, width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert "27 more rows: --all" in text
    assert "no room for: figure 5" in text
    assert "1 more note: --all" in text
    assert "task3" not in text
    assert text.endswith("\n\nThe answer.")
    everything = plain(page, everything=True, width=80)
    assert max(map(len, everything.splitlines())) <= 80
    assert all(word in everything for word in ("task29", "figure 11", "40.25 ± 0.50", "rare", "a detail"))


def test_numbers_end_in_one_column_and_a_data_frame_has_their_parts() -> None:
    table = Table("t", ["task", Column("gain", "gain")], [["a", Cell("5", {"": 5.0, "hi90": 6.0})], ["b", Cell("")]])
    assert plain(Page(tables=[table])).splitlines() == ["task  gain", "a        5", "b"]
    assert table.frame().to_dict(as_series=False) == {"task": ["a", "b"], "gain": [5.0, None], "gain_hi90": [6.0, None]}
    assert '<td style="text-align:right">5</td>' in table.html()


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page("It loses.", "worse", tables=[Table("t", [Column("gain")], [[Cell("+1", 1.0, "better")]])])
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def shown(stream: io.StringIO) -> str:
        console_of(stream).print(group_of(page))
        return stream.getvalue()

    assert "\x1b[32m  +1" in shown(Terminal())
    assert "\x1b[1;31mIt loses." in shown(Terminal())
    assert "\x1b" not in shown(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[32m" not in shown(Terminal())


def test_the_width_is_that_of_the_terminal_up_to_a_hundred_or_what_was_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert width_of(io.StringIO()) == 100
    monkeypatch.setenv("COLUMNS", "160")
    assert width_of(io.StringIO()) == 160


@pytest.mark.parametrize("count", [0, 7, 96, 999, 25_248, 999_999, 7_000_000_000, 1_275_000_000, 15e12])
def test_a_size_is_read_as_it_is_written(count: float) -> None:
    assert len(size(count)) <= 6
    assert count in (0, 15e12) or parse_size(size(count)) == pytest.approx(count, rel=5e-3)
    assert [share(part) for part in (0.125, 0.0004, 0, 1)] == ["12.5 %", "<0.1 %", "0.0 %", "100.0 %"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("fit", "nowhere"), "nowhere"),
        (("fit", "x", "--bogus"), "No such option: --bogus"),
        (("what-if", "{study}", "web=.5,cod=.5"), "there is no domain 'cod'"),
        (("what-if", "{study}", "web=.5,books=.2"), "sum to 0.7, not to 1"),
        (("what-if", "{study}", "first:web=1"), "there is no phase 'first'"),
    ],
)
def test_errors_are_json_where_json_was_asked_for(
    study: Path,  # noqa: F811
    words: tuple[str, ...],
    message: str,
) -> None:
    done = mixlaw(*(word.format(study=study) for word in words), "--json", code=2)
    found = json.loads(done.stdout)
    assert found["format"] == 1
    assert message in found["error"]
    assert message in done.stderr


def test_a_mixture_in_words_is_the_recipe_of_a_file_and_of_shares(study: Path, tmp_path: Path) -> None:  # noqa: F811
    opened = open_study(study)
    proposal = opened.propose(draft=True)
    words = document("what-if", study, "web=.6,stack=.4,cooldown:web=.25,books=.25,stack=.5")
    mixtures = [phase["mixture"] for phase in words["recipe"]["phases"]]
    assert mixtures[:-1] == [{"web": 0.6, "stack": 0.4}] * (len(mixtures) - 1)
    assert mixtures[-1] == {"web": 0.25, "books": 0.25, "stack": 0.5}
    (tmp_path / "recipe.json").write_text(json.dumps(words["recipe"]))
    assert document("what-if", study, tmp_path / "recipe.json")["gains"] == words["gains"]
    shares: dict[str, Any] = {"cooldown": {"web": 0.25, "books": 0.25, "stack": 0.5}, "web": 0.6, "stack": 0.4}
    assert opened.what_if(shares).as_json()["gains"] == words["gains"]
    one = opened.compare("web=.6,stack=.4", "web=.5,stack=.5")
    assert one.gain.total.mean == pytest.approx(-opened.compare("web=.5,stack=.5", "web=.6,stack=.4").gain.total.mean)
    assert proposal.recipe.tokens == sum(phase["tokens"] for phase in words["recipe"]["phases"])


def test_predictions_go_to_a_pipe_as_csv_and_into_files_by_their_suffix(
    study: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    table = open_study(study).table().head(2)
    table.write_csv(tmp_path / "recipes.csv")
    printed = mixlaw("predict", study, tmp_path / "recipes.csv").stdout
    rows = pl.read_csv(printed.encode(), schema_overrides={"run": pl.String})
    assert rows.height == document("predict", study, tmp_path / "recipes.csv")["rows"].__len__() == 6
    readers: dict[str, Any] = {"csv": pl.read_csv, "parquet": pl.read_parquet, "ndjson": pl.read_ndjson}
    for suffix, reader in readers.items():
        app(
            ["predict", str(study), str(tmp_path / "recipes.csv"), "-o", str(tmp_path / f"p.{suffix}")],
            standalone_mode=False,
        )
        assert reader(tmp_path / f"p.{suffix}")["mean"].to_list() == pytest.approx(rows["mean"].to_list())


def test_quiet_is_the_answer_alone_and_verbose_every_step(study: Path) -> None:  # noqa: F811
    quiet = subprocess.run(
        [sys.executable, "-m", "mixlaw", "propose", str(study), "--draft", "-q"], capture_output=True, text=True
    )
    assert (quiet.stdout.count("\n"), quiet.stderr) == (1, "")
    verbose = subprocess.run(
        [sys.executable, "-m", "mixlaw", "propose", str(study), "--draft", "-v"],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "80"},
    )
    assert re.search(r"^propose: \d+\.\d s, \d+%: ", verbose.stderr, re.M)
    assert max(map(len, verbose.stdout.splitlines())) <= 80
    assert " ".join(verbose.stdout.split()).endswith(quiet.stdout.strip())
