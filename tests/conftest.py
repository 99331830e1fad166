"""One thread per test process, no GPUs, slow files first, a browser where it is asked for; helpers by name."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch

from mixlaw.machine import collect_rarely, keep_freed_memory

collect_rarely()
keep_freed_memory()
torch.set_num_threads(1)  # tests are small and run side by side
sys.path.insert(0, str(Path(__file__).parent))
hypothesis.settings.register_profile("untimed", deadline=None)  # no test depends on the speed of the machine
hypothesis.settings.load_profile("untimed")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OFFLINE = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--no-first-run"]
REBOUND = "--host-resolver-rules=MAP evil.example 127.0.0.1"  # a foreign name that leads to this machine


def pytest_configure(config: pytest.Config) -> None:
    """The same on every machine: GPUs are hidden but from `-m gpu`, and Ctrl-C reaches what tests start under nohup."""
    if config.getoption("markexpr") != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: then no process is left alone with the longest one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="module", autouse=True)
def _frozen() -> None:
    """Let collections pass over what is there before a file's tests: two million objects of libraries and of pytest.

    Training collects before every segment, which took 0.4 s of 0.5 in a process that had collected all tests.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, for the tests of one file: while playwright drives it, nothing else can run an event loop."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium on the path")
    api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=[*OFFLINE, REBOUND])
        yield opened
        opened.close()
