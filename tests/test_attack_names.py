"""Names of domains, tasks and runs that mean harm: no page runs them, no terminal and no spreadsheet obeys them."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

import polars as pl
import pytest

from mixlaw.adapters.reading import read_table
from mixlaw.cells import csv_of
from mixlaw.cli import main
from mixlaw.errors import printable
from mixlaw.page import Page
from mixlaw.printable import Printable
from mixlaw.progress import progress_bar
from mixlaw.tables import Table

WIPES, TITLE, TURNS, C1 = "\x1b[2J", "\x1b]0;owned\x07", "\u202ecod", "\x9b31m"
HOSTILE = [f"a{WIPES}", f"b{TITLE}", f"c{TURNS}", f"d{C1}", "e\x00", "f\r", "g\x08"]
HOSTILE += ["<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "<!--<script>"]


class Result(Printable):
    """All parts of a page, of hostile names."""

    def page(self) -> Page:
        words = " ".join(HOSTILE)
        table = Table("names", HOSTILE, [HOSTILE], title=words, note=words)
        return Page(words, head=words, tables=[table], notes=[words], more=[words])


def test_no_part_of_a_page_reaches_a_terminal_unescaped() -> None:
    from mixlaw.terminal import plain

    for text in (str(Result()), plain(Result().page(), everything=True, width=400)):
        assert all(letter.isprintable() or letter == "\n" for letter in text)
    assert "\\u001b[2J" in str(Result())
    assert printable("a\tb\u00a0é\n") == "a\tb\u00a0é\n"


def test_a_notebook_shows_names_and_runs_none_of_them() -> None:
    shown = Result()._repr_html_()
    assert not re.search(r"<(script|img|svg|!)", shown)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown


def test_a_step_of_progress_is_no_markup_and_no_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", said := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar("fit") as report:
        report(0.5, f"reading [/nothing] {TITLE}")
    assert "[/nothing] \\u001b]0;owned" in said.getvalue()


def test_commands_and_their_errors_print_names_of_a_table_escaped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(f"{TITLE}.csv").write_text(f"run,params,tokens:train:web{TURNS},metric:loss{WIPES}\nx{C1},1e6,1e7,2\n")

    def said(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["mixlaw", *words])
        with pytest.raises(SystemExit):
            main()
        text = "".join(capsys.readouterr())
        assert all(letter.isprintable() or letter in "\n\t" for letter in text), text
        return text

    assert "loss\\u001b[2J" in said("import", "study", f"{TITLE}.csv", "--unit", "bits/byte")
    shown = json.loads(said("show", "study", f"x{C1}", "--json"))
    assert list(shown["values"]) == [f"loss{WIPES}"]
    assert "x\\x1b[2J' is neither a run" in said("show", "study", f"x{WIPES}")


FORMULAS = ["=cmd|'/C calc'!A0", "+1+1", "-2+3", "@SUM(1)", "'=1", "''-x", "plain", "it's", "'quoted'", "a=b"]


def test_a_spreadsheet_finds_no_formula_in_csv_and_what_is_read_back_is_the_same(tmp_path: Path) -> None:
    frame = pl.DataFrame({"run": FORMULAS, "gain": [-1.5] * len(FORMULAS)})
    (tmp_path / "out.csv").write_text(csv_of(frame))
    cells = [line.split(",")[0].strip('"') for line in csv_of(frame).splitlines()[1:]]
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in cells)
    assert cells[:2] == ["'=cmd|'/C calc'!A0", "'+1+1"]
    assert cells[-4:] == FORMULAS[-4:]
    assert csv_of(frame).count(",-1.5\n") == len(FORMULAS)  # numbers stay numbers
    assert read_table(tmp_path / "out.csv")["run"].to_list() == FORMULAS
