"""HTML as plain text in the manner of Markdown: paragraphs, lists, quotes, code in fences; links keep their words."""

from __future__ import annotations

import re
from html.parser import HTMLParser

_BLOCKS = {
    *(
        "p",
        "div",
        "ul",
        "ol",
        "table",
        "tr",
        "blockquote",
        "section",
        "article",
        "details",
        "summary",
        "dl",
        "dt",
        "dd",
    ),
    *("h1", "h2", "h3", "h4", "h5", "h6"),
}
_HIDDEN = {"script", "style"}


def plain_text(html: str) -> str:
    """The text of a piece of HTML; malformed HTML is read as browsers do, no error is raised."""
    parser = _Text()
    parser.feed(html)
    parser.close()
    return "\n\n".join(parser.finished())


class _Text(HTMLParser):
    """Gathers blocks, each a text that blank lines set off."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._blocks: list[str] = []
        self._words: list[str] = []
        self._prefix = ""  # of the block under way: a list's mark, a heading's
        self._numbers: list[int] = []  # of the lists that are open: the next item's, 0 where it has none
        self._quotes = self._hidden = 0
        self._pre = False

    def finished(self) -> list[str]:
        """All blocks."""
        self._end()
        return self._blocks

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin a block, a list's item, or code."""
        if tag in _BLOCKS or tag in ("pre", "hr", "li"):
            self._end()
        if tag in ("ul", "ol"):
            self._numbers.append(1 if tag == "ol" else 0)
        elif tag == "li":
            self._begin_item()
        elif re.fullmatch("h[1-6]", tag):
            self._prefix = f"{'#' * int(tag[1])} "
        self._quotes += tag == "blockquote"
        self._hidden += tag in _HIDDEN
        self._pre = self._pre or tag == "pre"
        if tag == "br":
            self._words.append("\n")
        elif tag == "code" and not self._pre:
            self._words.append("`")

    def handle_endtag(self, tag: str) -> None:
        """End what the tag began."""
        if tag == "code" and not self._pre:
            self._words.append("`")
        elif tag in ("td", "th"):
            self._words.append(" ")
        if tag in _BLOCKS or tag in ("pre", "li"):
            self._end()
        if tag == "li" or re.fullmatch("h[1-6]", tag):
            self._prefix = ""
        if tag in ("ul", "ol") and self._numbers:
            self._numbers.pop()
        self._quotes -= tag == "blockquote" and self._quotes > 0
        self._hidden -= tag in _HIDDEN and self._hidden > 0
        self._pre = self._pre and tag != "pre"

    def handle_data(self, data: str) -> None:
        """Keep text; outside of code, white space is one space."""
        if not self._hidden:
            self._words.append(data if self._pre else _spaced(data))

    def _begin_item(self) -> None:
        depth, number = len(self._numbers), self._numbers[-1] if self._numbers else 0
        self._prefix = "  " * max(depth - 1, 0) + (f"{number}. " if number else "- ")
        if number:
            self._numbers[-1] += 1

    def _end(self) -> None:
        """Close the block under way."""
        text = "".join(self._words)
        self._words.clear()
        if self._pre:
            block = "```\n" + text.strip("\n") + "\n```" if text.strip() else ""
        else:
            block = "\n".join(line.strip() for line in text.split("\n")).strip()
        if not block:
            return
        lines = (self._prefix + block.replace("\n", "\n" + " " * len(self._prefix))).split("\n")
        self._prefix = " " * len(self._prefix) if self._prefix.strip() else self._prefix
        quote = "> " * self._quotes
        self._blocks.append("\n".join(f"{quote}{line}".rstrip() for line in lines))


def _spaced(text: str) -> str:
    """Text with every run of white space as one space."""
    before, after = (" " if end.isspace() else "" for end in (text[:1], text[-1:]))
    return before + " ".join(text.split()) + after if not text.isspace() else " "
