"""Progress where people sit: in a terminal, in a log, and in a real notebook kernel, which shows results too."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from mixlaw import import_runs, progress
from mixlaw.study.plots import Plots
from studies import DOMAINS, study

WORK = """
from mixlaw.progress import progress_bar
with progress_bar("fit") as tell:
    tell(0.25, "audit of a law")
    {end}
"""
VERBS = {"prepare", "plan", "dry_run", "run", "table", "fit", "predict", "propose", "suggest", "pareto", "what_if"}
VERBS |= {"verify", "plots", "report", "export"}


def test_a_terminal_gets_a_bar_with_what_is_being_done_and_the_time_left() -> None:
    ours, theirs = pty.openpty()
    code = WORK.format(end="import time; time.sleep(0.4)")
    environment = {**os.environ, "COLUMNS": "100", "TERM": "xterm"}
    done = subprocess.run([sys.executable, "-c", code], stderr=theirs, stdout=subprocess.PIPE, env=environment)
    os.close(theirs)
    said = os.read(ours, 100_000).decode()
    os.close(ours)
    assert (done.returncode, done.stdout) == (0, b"")
    assert "fit" in said
    assert "audit of a law" in said
    assert "━" in said
    assert "0:00:0" in said


def test_a_command_shows_its_result_with_the_answer_in_bold_at_the_width_of_the_terminal(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    study().proposal.freeze(tmp_path / "study" / "proposals")
    (tmp_path / "study" / "study.toml").write_text('[domains]\nweb = { kind = "text", unique_tokens = 9 }\n')
    environment = {**os.environ, "COLUMNS": "60", "TERM": "xterm"}
    command = [sys.executable, "-m", "mixlaw", "verify", str(tmp_path / "study")]
    done = subprocess.run(command, stdout=theirs, stderr=subprocess.PIPE, env=environment, text=True)
    os.close(theirs)
    said = os.read(ours, 100_000).decode()
    os.close(ours)
    assert done.returncode == 0, done.stderr
    assert said.startswith("\x1b[1mNothing to verify yet: none of the predicted recipes has\x1b[0m\r\n")
    assert max(map(len, re.sub(r"\x1b\[\d+m", "", said).splitlines())) <= 60


def test_a_log_gets_a_line_now_and_then_with_the_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SILENCE", -1.0)
    with progress.progress_bar("fit") as tell:
        tell(0.25, "audit of a law")
    said = capsys.readouterr()
    assert said.err.splitlines()[-1] == "fit: 25 %, about 0 s left: audit of a law"
    assert said.out == ""


def test_a_script_is_told_nothing_and_a_caller_what_he_asked_for() -> None:
    heard: list[tuple[float, str]] = []
    with progress.progress_or_bar("fit", lambda share, what: heard.append((share, what))) as tell:
        tell(0.5, "half")
    code = 'from mixlaw.progress import progress_or_bar\nwith progress_or_bar("fit", None) as tell: tell(0.5, "half")'
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert heard == [(0.5, "half")]
    assert (done.stdout, done.stderr) == ("", "")


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NotebookClient]:
    """A kernel in a folder with a study of foreign runs, its surfaces and a proposal."""
    folder, small = tmp_path_factory.mktemp("kernel"), study()
    small.table.write_csv(folder / "runs.csv")
    told = (f'[domains.{d.name}]\nkind = "{d.kind.value}"\nunique_tokens = {d.unique_tokens}\n' for d in DOMAINS)
    (folder / "domains.toml").write_text("".join(told))
    import_runs(folder / "study", folder / "runs.csv", unit="bits/byte", domains=folder / "domains.toml")
    small.surfaces.save(folder / "study" / "surfaces")
    small.proposal.freeze(folder / "study" / "proposals")
    v4: Any = nbformat.v4
    client = NotebookClient(v4.new_notebook(), timeout=600, resources={"metadata": {"path": str(folder)}})
    with client.setup_kernel():
        yield client


def ran(kernel: NotebookClient, code: str) -> Any:
    """A cell after it was run."""
    v4: Any = nbformat.v4
    cell = v4.new_code_cell(code)
    kernel.nb.cells.append(cell)
    kernel.execute_cell(cell, len(kernel.nb.cells) - 1)
    return cell


def test_a_notebook_gets_a_bar_that_goes_when_the_work_is_done(kernel: NotebookClient) -> None:
    begun = ran(
        kernel,
        'from mixlaw.progress import progress_or_bar as bar_of\nbar = bar_of("fit", None)\ntell = bar.__enter__()',
    )
    ran(kernel, 'tell(0.25, "audit of <a> law")')
    (shown,) = begun.outputs
    assert '<progress value="0.2500" max="1">' in shown.data["text/html"]
    assert "fit: 25 %, about" in shown.data["text/html"]
    assert "audit of &lt;a&gt; law" in shown.data["text/html"]
    ran(kernel, "bar.__exit__(None, None, None)")
    assert (shown.data["text/html"], shown.data["text/plain"]) == ("", "")


def test_a_notebook_shows_results_with_the_sentence_that_matters_first(kernel: NotebookClient) -> None:
    first = ran(kernel, 'import mixlaw\nstudy = mixlaw.open_study("study")\nstudy').outputs[-1].data
    assert "nothing is measured" not in first["text/html"]
    assert first["text/html"].startswith("<p><b>study study: 18 runs measured, surfaces fitted, 1 proposal; next: ")
    assert "\nstudy study: 18 runs measured" in first["text/plain"]
    sentence = study().proposal.sentence
    shown = ran(kernel, "study.proposals()[-1]").outputs[-1].data
    assert re.match(rf"<p><b[^>]*>{re.escape(escape(sentence))}</b></p><p>proposal 1 .*<table>", shown["text/html"])
    surface = ran(kernel, "study.surfaces()").outputs[-1].data["text/html"]
    assert surface.index("can be optimised for") < surface.index("<table>")
    assert study().surfaces.status["task0"].value in surface
    recipe = ran(kernel, "study.proposals()[-1].recipe").outputs[-1].data["text/plain"]
    assert "learning rate to zero" in recipe


def test_tab_shows_the_whole_workflow_and_every_plot(kernel: NotebookClient) -> None:
    from jupyter_core.utils import run_sync

    async def completed(code: str) -> Any:
        client: Any = kernel.kc
        return await client.complete(code, reply=True, timeout=300)

    ran(kernel, 'import mixlaw\nstudy = mixlaw.open_study("study")')
    for code, names in (("study.", VERBS), ("study.plots.", {"response", "ternary", "losses", "dark"})):
        reply = run_sync(completed)(code)
        offered = {match.rpartition(".")[2] for match in reply["content"]["matches"]}
        assert names <= offered, names - offered
    assert {"response", "ternary", "losses", "dark"} <= set(vars(Plots))
