"""The pages of the documentation as stories: their fenced blocks, and the command lines in these."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<info>\S*)(?: title=\"(?P<title>[^\"]*)\")?\n(?P<body>.*?)^ *```$", re.M | re.S
)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        language, title, text: of the block.
        line: of the page where the text begins.
        follows: only empty lines separate it from the block before it.
        cut: "(and ... more.)" is below it: it shows the beginning of an output.
    """

    language: str
    title: str
    text: str
    line: int
    follows: bool
    cut: bool


@dataclass(frozen=True)
class Story:
    """Blocks that run in one folder: those of a page, or of a section of README."""

    page: Path
    section: str
    blocks: tuple[Block, ...]

    @property
    def file(self) -> str:
        return str(self.page.relative_to(ROOT)).removeprefix("docs/")

    @property
    def name(self) -> str:
        return self.section or self.file


def blocks(text: str, first: int = 1) -> Iterator[Block]:
    end: int | None = None
    for found in FENCE.finditer(text):
        follows, end = end is not None and not text[end : found.start()].strip(), found.end()
        body = "".join(line.removeprefix(found["indent"]) for line in found["body"].splitlines(keepends=True))
        line, cut = first + text[: found.start("body")].count("\n"), text[end:].lstrip().startswith("(and ")
        yield Block(found["info"], found["title"] or "", body, line, follows, cut)


def stories() -> Iterator[Story]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if page.parent != ROOT:
            yield Story(page, "", tuple(blocks(text)))
            continue
        line = 1
        for part in re.split(r"(?m)^(?=## )", text):
            yield Story(page, part.split("\n")[0].removeprefix("## "), tuple(blocks(part, line)))
            line += part.count("\n")


def commands(text: str) -> Iterator[list[str]]:
    """The command lines of a shell block, as words, without comments."""
    for line in text.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            yield words
