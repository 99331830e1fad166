"""A few inputs of every target of tests/fuzzing.py, the same ones each time; `make fuzz` takes many others."""

from __future__ import annotations

import pytest

from fuzzing import ALONE, TARGETS, fuzz


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_is_written_is_a_result_or_one_sentence(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in ALONE.items():
        monkeypatch.setenv(variable, value)
    figures = fuzz(name, 25)
    assert figures.counts.total() >= 20
    assert figures.counts["refused"]
