"""Parquet files that are damaged: one sentence, whatever the reader does, and nothing printed."""

from __future__ import annotations

import io
import os
import random
from pathlib import Path

import polars as pl
import pytest

from mixlaw import InputError, parquet
from mixlaw.adapters.reading import read_table
from mixlaw.runner.corpora.sources.files import read_file


def damaged(frame: pl.DataFrame, seed: int) -> bytes:
    """A file with some bytes changed, most of them in what describes it, which is at its end."""
    buffer, chance = io.BytesIO(), random.Random(seed)
    frame.write_parquet(buffer)
    content = bytearray(buffer.getvalue())
    for _ in range(chance.choice([1, 2, 5, 20])):
        last = min(500, len(content)) if chance.random() < 0.7 else len(content)
        content[-1 - chance.randrange(last)] = chance.randrange(256)
    return bytes(content)


def test_damaged_files_are_refused_and_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    table = pl.DataFrame({"run": ["a", "b", "c"] * 300, "text": [f"text {number}" for number in range(900)]})
    path, said = tmp_path / "runs.parquet", []
    for seed in range(80):
        path.write_bytes(damaged(table, seed))
        try:
            read_table(path) if seed % 2 else list(read_file(path, "text"))
        except InputError as error:
            said.append(str(error))
    assert len(said) > 40
    assert all(text.startswith(f"{path} cannot be read ") and "\n" not in text for text in said)
    assert capfd.readouterr() == ("", "")
    table.write_parquet(path)
    assert read_table(path).equals(table)


def test_a_reader_serves_many_files_and_is_replaced_when_it_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = pl.DataFrame({"a": [1, None], "b": ["x", "é"]})
    for name, rows in (("one", frame), ("two", frame.reverse())):
        (tmp_path / name).mkdir()
        rows.write_parquet(tmp_path / name / "a.parquet")
        monkeypatch.chdir(tmp_path / name)  # which the process that reads does not follow
        assert read_table(Path("a.parquet")).equals(rows)
    process = parquet._idle[os.getpid()]
    process.kill()
    process.wait()
    assert read_table(Path("a.parquet")).equals(frame.reverse())
    assert parquet._idle[os.getpid()] is not process
