"""The sandbox bounds time, memory, files and environment, and reports how a run ended."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from mixlaw.runner.evaluate.sandbox.run import OUTPUT, Status, run_python


def test_a_program_that_ends_well_is_done_and_its_output_is_returned() -> None:
    outcome = run_python("import sys\nprint(6 * 7)\nprint('note', file=sys.stderr)")
    assert (outcome.status, outcome.code, outcome.stdout, outcome.stderr) == (Status.DONE, 0, "42\n", "note\n")


def test_an_exception_is_a_failure_with_its_traceback() -> None:
    outcome = run_python("1 / 0")
    assert outcome.status is Status.FAILED
    assert "ZeroDivisionError" in outcome.stderr


@pytest.mark.parametrize("code", ["while True: pass", "import time; time.sleep(60)"])
def test_busy_and_idle_endless_programs_are_stopped_in_time(code: str) -> None:
    begin = time.monotonic()
    assert run_python(code, seconds=1).status is Status.TIMEOUT
    assert time.monotonic() - begin < 50


def test_memory_beyond_the_limit_is_refused() -> None:
    outcome = run_python("x = bytearray(2**30)", memory=256 * 2**20)
    assert outcome.status is Status.FAILED
    assert "MemoryError" in outcome.stderr


def test_output_is_bounded() -> None:
    outcome = run_python("print('x' * (64 * 2**20), flush=True)")
    assert outcome.status is Status.FAILED
    assert len(outcome.stdout) <= OUTPUT


def test_environment_folder_and_installed_packages_are_out_of_sight(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MIXLAW_SECRET", "1")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "outside.py").write_text("x = 1")
    monkeypatch.chdir(tmp_path)
    outcome = run_python(
        "import os\nprint('MIXLAW_SECRET' in os.environ, os.path.exists('outside.py'))\nimport outside"
    )
    assert outcome.stdout == "False False\n"
    assert "ModuleNotFoundError" in outcome.stderr


def test_processes_left_behind_are_ended_with_the_program() -> None:
    code = "import subprocess\nprint(subprocess.Popen(['sleep', '60'], stdout=subprocess.DEVNULL).pid, flush=True)"
    outcome = run_python(code)
    if outcome.status is Status.FAILED:  # not root: the limit on processes refuses already
        assert "BlockingIOError" in outcome.stderr
        return
    assert not _runs(int(outcome.stdout))


def _runs(pid: int) -> bool:
    for _ in range(3000):
        state = Path(f"/proc/{pid}/stat")
        if not state.exists() or state.read_text().split()[2] == "Z":
            return False
        time.sleep(0.02)
    return True


def test_files_are_placed_beside_the_program_and_the_folder_is_gone_afterwards() -> None:
    outcome = run_python("import os\nprint(open('data.txt').read(), os.getcwd())", files={"data.txt": "seen"})
    text, folder = outcome.stdout.split()
    assert text == "seen"
    assert not os.path.exists(folder)
