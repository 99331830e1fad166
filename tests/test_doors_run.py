"""Doors of a run: a command that is not there, a Ray cluster that is gone, and text in the page of a report."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import plotly.graph_objects as go
import pytest

from mixlaw.report.page import HoverTexts, page, plot
from mixlaw.runner.execute.local import LocalExecutor
from mixlaw.runner.execute.machines import backend_of
from mixlaw.study import open_study
from small_study import prepare
from test_cli import contents, refused_here

LAUNCH = {
    "srun-that-is-not-here -n 2": "there is no command 'srun-that-is-not-here' on PATH, nor in",
    "/no/such/torchrun --standalone": "there is no command '/no/such/torchrun'",
    "'' -n 2": "there is no command ''",
    "'an unclosed quote": "--launch takes a command, got",
}


@pytest.mark.parametrize("launch", LAUNCH)
def test_a_command_that_is_not_there_is_refused_before_anything_starts(launch: str, study: Path) -> None:
    assert LAUNCH[launch] in refused_here(study, "run", study, "--workers", "1", "--launch", launch)


def test_a_command_beside_python_is_found_though_it_is_not_on_path(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(study))
    backend = backend_of("local", launch="torchrun --standalone --nproc-per-node=2")
    executor = backend.executor(open_study(study).setup, study / "runs", lambda _: None)
    assert isinstance(executor, LocalExecutor)
    assert executor.launch == (str(Path(sys.executable).parent / "torchrun"), "--standalone", "--nproc-per-node=2")


@pytest.mark.slow
@pytest.mark.parametrize(
    "address", ["127.0.0.1:{port}", "localhost:{port}", "ray://127.0.0.1:{port}", "127.0.0.1:99999"]
)
def test_a_ray_address_where_nothing_listens_is_refused_within_seconds(address: str, study: Path) -> None:
    pytest.importorskip("ray")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    before = contents(study)
    environment = {**os.environ, "RAY_ADDRESS": address.format(port=port)}
    began = time.monotonic()
    command = [sys.executable, "-m", "mixlaw", "run", str(study), "--executor", "ray"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2, done.stderr
    assert f"no Ray cluster answers at '{address.format(port=port)}', which RAY_ADDRESS names" in done.stderr
    assert done.stderr.count("\n") == 1
    assert time.monotonic() - began < 200  # Ray itself tries for 14 minutes
    assert contents(study) == before


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("run") / "study")


@pytest.mark.parametrize("name", ["<!--", "</script><img src=x>", "<script>", "a<!--<script>b", "\u2028<", "&lt;"])
def test_what_a_page_holds_is_json_in_the_browser_whatever_names_are(name: str) -> None:
    texts = HoverTexts()
    figure = go.Figure(go.Scatter(x=[1], y=[1], hovertext=[name], name=name), layout={"height": 100, "title": name})
    html = page(name, plot(figure, name, texts), texts)
    scripts = re.findall(r'<script[^>]*type="application/json">(.*?)</script>', html, re.DOTALL)
    assert len(scripts) == 3
    for script in scripts:
        assert not re.search(r"<!--|</", script)  # no comment, and no end of the script, begins in it
        json.loads(script)
    assert json.loads(scripts[0])["layout"]["title"]["text"] == name
    assert name in json.loads(scripts[1])
