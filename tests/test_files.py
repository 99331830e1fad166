"""Files are whole or absent."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from mixlaw.files import replacing, write_json, write_text
from processes import wait_until


def test_a_failed_write_leaves_the_old_file_and_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    write_text(path, "old")
    with suppress(RuntimeError), replacing(path) as draft:
        draft.write_text("half of the n")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_a_file_can_be_read_by_other_users(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "x")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644


def test_json_keeps_the_order_of_keys_and_refuses_what_is_no_number(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"z": "ä", "a": [1, 2.5]})
    assert path.read_text(encoding="utf-8").startswith('{\n "z": "ä"')
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"z": float("nan")})
    assert path.read_text(encoding="utf-8").startswith('{\n "z": "ä"')


WRITER = """
import sys
from pathlib import Path
from mixlaw.files import write_text
print("ready", flush=True)
for letter in "abcdefgh" * 10_000:
    write_text(Path(sys.argv[1]), letter * 3_000_000)
"""


def test_a_process_killed_while_writing_leaves_a_whole_file(tmp_path: Path) -> None:
    path, rng = tmp_path / "file", np.random.default_rng(0)
    for _ in range(5):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        wait_until(path.exists)  # the first takes long on a busy machine
        time.sleep(rng.uniform(0.01, 0.1))
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        text = path.read_text()
        assert len(text) == 3_000_000
        assert len(set(text)) == 1
