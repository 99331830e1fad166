"""What every kind of source has: a place that must be there, options that are known, a word in the documentation."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixlaw.errors import InputError
from mixlaw.runner.corpora.sources.registry import SCHEMES, partitions

DOCS = Path(__file__).parents[1] / "docs" / "data.md"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_source_without_a_place_is_refused(scheme: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"the source '{scheme}:' names nothing"):
        partitions(f"{scheme}:", tmp_path)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_source_that_is_not_there_or_has_an_unknown_option_is_refused(scheme: str, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        partitions(f"{scheme}:nowhere?nonsense=1", tmp_path)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_kind_of_source_is_documented(scheme: str) -> None:
    assert f"`{scheme}:" in DOCS.read_text(encoding="utf-8")
