"""Pages in a terminal: its width, colours, what is left out and said to be, and errors as JSON."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import struct
import sys
import termios
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mixlaw.cli import main
from mixlaw.documents import Failure
from mixlaw.numbers import share, size
from mixlaw.page import Page
from mixlaw.runner.models.ladder import parse_size
from mixlaw.study import open_study
from mixlaw.tables import Cell, Column, Table
from mixlaw.terminal import console_of, group_of, plain, width_of
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


def test_a_number_is_not_parted_from_its_sign() -> None:
    text = plain(Page("it gains 1.47 ± 0.62 % of loss", notes=["a gain of 1.47 ± 0.62 %"]), width=20)
    assert text.splitlines() == ["- a gain of", "  1.47 ± 0.62 %", "", "it gains", "1.47 ± 0.62 % of", "loss"]


def test_a_table_without_rows_to_show_has_no_heads_and_lines_go_on_below_their_words() -> None:
    empty = Table("points", ["of", "in"], [["web", "init"]], "What a point is worth: 0 effects", shown=0)
    text = plain(Page(head="7B params\n  cooldown: web 50% code 50%, to zero", tables=[empty]), width=22)
    assert text.splitlines() == [
        *("7B params", "  cooldown: web 50%", "  code 50%, to zero", ""),
        *("What a point is worth:", "0 effects", "1 more row: --all"),
    ]


def test_numbers_end_in_one_column_and_a_data_frame_has_their_parts() -> None:
    table = Table("t", ["task", Column("gain", "gain")], [["a", Cell("5", {"": 5.0, "hi90": 6.0})], ["b", Cell("")]])
    assert plain(Page(tables=[table])).splitlines() == ["task  gain", "a        5", "b"]
    assert table.frame().to_dict(as_series=False) == {"task": ["a", "b"], "gain": [5.0, None], "gain_hi90": [6.0, None]}
    assert '<td style="text-align:right">5</td>' in table.html()
    assert "27 more rows</summary>" in WIDE.html()


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
    ours, theirs = pty.openpty()
    for columns, width in ((80, 80), (240, 100), (0, 100)):
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        with open(theirs, "w", closefd=False) as terminal:
            assert width_of(terminal) == width
    os.close(ours)
    os.close(theirs)
    monkeypatch.setenv("COLUMNS", "160")
    assert width_of(io.StringIO()) == 160


@pytest.mark.parametrize("count", [0, 7, 96, 999, 25_248, 999_999, 7_000_000_000, 1_275_000_000, 15e12])
def test_a_size_is_read_as_it_is_written(count: float) -> None:
    assert len(size(count)) <= 6
    assert count in (0, 15e12) or parse_size(size(count)) == pytest.approx(count, rel=5e-3)
    assert [share(part) for part in (0.125, 0.0004, 0, 1)] == ["12.5 %", "<0.1 %", "0.0 %", "100.0 %"]


def ran(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: object) -> tuple[str, str, int]:
    """Run the program in this process: what it printed, what it said beside, and its exit code."""
    monkeypatch.setattr(sys, "argv", ["mixlaw", *map(str, words)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    return said.out, said.err, int(str(ended.value.code or 0))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("fit", "nowhere"), "nowhere"),
        (("fit", "x", "--bogus"), "No such option: --bogus"),
        (("what-if", "{study}", "web=.5,cod=.5"), "there is no domain 'cod'"),
        (("what-if", "{study}", "web=.5,books=.2"), "sum to 0.7, not to 1"),
        (("what-if", "{study}", "first:web=1"), "there is no phase 'first'"),
        (("what-if", "{study}", "web=half"), "write for instance web=.5,code=.5"),
    ],
)
def test_errors_are_json_where_json_was_asked_for(
    study: Path,  # noqa: F811
    words: tuple[str, ...],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, err, code = ran(capsys, monkeypatch, *(word.format(study=study) for word in words), "--json")
    found = Failure.model_validate_json(out)
    assert (found.format, code) == (1, 2)
    assert message in found.error
    assert message in err


def test_a_mixture_in_words_is_the_recipe_of_a_file_and_of_shares(
    study: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened = open_study(study)
    text = "web=.6,stack=.4,cooldown:web=.25,books=.25,stack=.5"
    words = json.loads(ran(capsys, monkeypatch, "what-if", study, text, "--json")[0])
    mixtures = [phase["mixture"] for phase in words["recipe"]["phases"]]
    assert mixtures[:-1] == [{"web": 0.6, "stack": 0.4}] * (len(mixtures) - 1)
    assert mixtures[-1] == {"web": 0.25, "books": 0.25, "stack": 0.5}
    (tmp_path / "recipe.json").write_text(json.dumps(words["recipe"]))
    assert opened.what_if(tmp_path / "recipe.json").as_json()["gains"] == words["gains"]
    shares: dict[str, Any] = {"cooldown": {"web": 0.25, "books": 0.25, "stack": 0.5}, "web": 0.6, "stack": 0.4}
    assert opened.what_if(shares).as_json()["gains"] == words["gains"]
    one, other = "web=.6,stack=.4", "web=.5,stack=.5"
    gain = opened.compare(one, other).gain.total.mean
    assert gain == pytest.approx(-opened.compare(other, one).gain.total.mean)


def test_predictions_go_to_a_pipe_as_csv_and_into_files_by_their_suffix(
    study: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = tmp_path / "recipes.csv"
    open_study(study).table().head(2).write_csv(table)
    printed = ran(capsys, monkeypatch, "predict", study, table)[0]
    rows = pl.read_csv(printed.encode(), schema_overrides={"run": pl.String})
    assert rows.height == 6
    assert len(json.loads(ran(capsys, monkeypatch, "predict", study, table, "--json")[0])["rows"]) == 6
    readers: dict[str, Any] = {"csv": pl.read_csv, "parquet": pl.read_parquet, "ndjson": pl.read_ndjson}
    for suffix, reader in readers.items():
        out = tmp_path / f"p.{suffix}"
        assert ran(capsys, monkeypatch, "predict", study, table, "-o", out)[0] == f"wrote {out}, 6 rows\n"
        assert reader(out)["mean"].to_list() == pytest.approx(rows["mean"].to_list())


def test_quiet_is_the_answer_alone_and_verbose_every_step(
    study: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    whole, beside, _ = ran(capsys, monkeypatch, "propose", study, "--draft", "-v")
    assert re.search(r"^propose: \d+\.\d s, \d+ %: ", beside, re.M)
    assert max(map(len, whole.splitlines())) <= 80
    answer, beside, _ = ran(capsys, monkeypatch, "status", study, "-q")
    assert (answer, beside) == (open_study(study).status().page().answer + "\n", "")
