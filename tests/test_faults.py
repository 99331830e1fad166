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
