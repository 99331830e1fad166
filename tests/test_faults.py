"""A few of the faults of tests/faults.py, the same ones each time; `make faults` tries many, others each time."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mixlaw.errors import of_machine
from mixlaw.report.evidence import logged
from mixlaw.runner.plan.setup import Setup
from mixlaw.runner.train.speed import known_speeds


def test_what_was_stopped_ends_after_a_repeat_as_if_nothing_had_happened() -> None:
    words = ["--share", "0.05", "--seed", "1", "--no-files", "--only", "import", "export"]
    script = Path(__file__).with_name("faults.py")
    done = subprocess.run([sys.executable, script, *words], capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| all |" in done.stdout


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a/b"), "a/b cannot be read or written: No space left"),
        (
            RuntimeError("I/O error: No space left on device (os error 28)"),
            "^a file cannot .* No space",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "a"),
            "^a cannot .*denied; change its",
        ),
        (ValueError("a bug"), "^$"),
        (FileNotFoundError(errno.ENOENT, "a bug", "a"), "^$"),
    ],
)
def test_what_the_machine_refuses_is_one_sentence(error: Exception, sentence: str) -> None:
    assert re.search(sentence, of_machine(error))


def test_what_can_be_had_again_is_left_out_where_it_is_damaged(tmp_path: Path) -> None:
    log = tmp_path / "a.training.jsonl"
    log.write_bytes(
        b'{"tokens": 8, "loss": 2.5}\n{"tokens": 16, "lo\xff\n{"tokens": 24, "lors": 2}\n{"tokens": 32, "loss": 2}\n'
    )
    assert logged(log) == ((8.0, 32.0), (2.5, 2.0))
    setup = Setup(data="no data", data_hash="", vocabulary=300, sequence=32, tasks=(), batch=4, warmup_tokens=1000)
    speeds = tmp_path / "calibration.json"
    for damaged in ('{"a": 1', "[]", '{"a": "b"}'):
        speeds.write_text(damaged)
        assert known_speeds([], setup, speeds) == {}
