"""Dumps of Stack Exchange: each document is a question with its answers, best first.

`Posts.xml` of a dump has a `<row/>` for each post, in order of time, so that answers are far from their questions. The
file is read once, and posts are sorted on disk by question.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any
from xml.etree.ElementTree import ParseError, iterparse

from mixlaw.errors import InputError
from mixlaw.runner.corpora.sources.address import Address, Scheme, stats
from mixlaw.runner.corpora.sources.compressed import opened
from mixlaw.runner.corpora.sources.document import Document
from mixlaw.runner.corpora.sources.groups import Groups, Order
from mixlaw.runner.corpora.sources.html_text import plain_text
from mixlaw.runner.corpora.sources.part import Part, name_of

QUESTION, ANSWER = "1", "2"  # PostTypeId; wikis of tags and such have others
NAMES = ("posts.xml", "posts.xml.gz", "posts.xml.zst")  # in lower case
LONGEST_REFERENCE = 32  # bytes
_REFERENCE = re.compile(rb"&#(x[0-9a-fA-F]{1,20}|[0-9]{1,20});")
_CONTROL = bytes(set(range(32)) - {9, 10, 13})


def _read(file: Path, where: str) -> Iterator[Document]:
    with Groups() as groups:
        for row in _rows(file):
            try:
                post = _post(row)
            except (KeyError, ValueError) as error:
                raise InputError(
                    f"{file}: a post has no number as Id, ParentId or Score ({error}): {row!r:.80}"
                ) from error
            if post is not None:
                groups.add(*post)
        for question, posts in groups:
            if len(posts) > 1 and posts[0]["title"] is not None:
                yield Document(_written(posts), f"{where} {question}")


def _rows(file: Path) -> Iterator[Mapping[str, str]]:
    """Attributes of the rows, one at a time; memory holds one."""
    with opened(file) as stream:
        try:
            events = iterparse(_Legal(stream), events=("start", "end"))
            _, root = next(events)
            for event, element in events:
                if event == "end" and element.tag == "row":
                    yield element.attrib
                    root.clear()
        except ParseError as error:
            raise InputError(
                f"{file} is no dump of Stack Exchange, or was cut off ({error}): unpack it again"
            ) from error


class _Legal:
    """A file of XML without the characters that XML 1.0 forbids, which published dumps hold, mostly as references."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._rest = stream, b""
        self._legal: Callable[[bytes], bytes] = _legal

    def read(self, size: int = -1) -> bytes:
        """About `size` bytes; none at the end."""
        while block := self._stream.read(size):
            if block.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
                self._legal = bytes
            block = self._rest + block
            cut = block.rfind(b"&", max(0, len(block) - LONGEST_REFERENCE))  # it may go on in the next block
            cut = len(block) if cut < 0 or b";" in block[cut:] else cut
            self._rest, block = block[cut:], self._legal(block[:cut])
            if block:
                return block
        rest, self._rest = self._rest, b""
        return rest


def _legal(xml: bytes) -> bytes:
    return _REFERENCE.sub(_legal_reference, xml.translate(None, _CONTROL))


def _legal_reference(match: re.Match[bytes]) -> bytes:
    """A reference to a character, nothing where XML 1.0 forbids it (section 2.2 of the recommendation)."""
    code = int(match[1][1:], 16) if match[1][:1] == b"x" else int(match[1])
    legal = code in (9, 10, 13) or 32 <= code < 0xD800 or 0xE000 <= code < 0xFFFE or 0x10000 <= code < 0x110000
    return match[0] if legal else b""


def _post(row: Mapping[str, str]) -> tuple[int, Order, Any] | None:
    """Question's id, order in its group, and text of a post; None where it is no question or answer.

    The question comes first, answers by score, the older first where scores are equal.
    """
    body = row.get("Body", "")
    if row.get("PostTypeId") == QUESTION:
        return int(row["Id"]), (0, 0, 0), {"title": row.get("Title", ""), "body": body}
    if row.get("PostTypeId") == ANSWER and "ParentId" in row:
        return int(row["ParentId"]), (1, -int(row.get("Score", 0)), int(row["Id"])), {"title": None, "body": body}
    return None


def _written(posts: list[Any]) -> str:
    question, *answers = posts
    blocks = [f"# {question['title']}", plain_text(question["body"])]
    for answer in answers:
        blocks += ["## Answer", plain_text(answer["body"])]
    return "\n\n".join(blocks) + "\n"


def _files(address: Address) -> list[Path]:
    paths = address.paths()
    files = [file for path in paths for file in ([path] if path.is_file() else sorted(path.iterdir()))]
    dumps = [file for file in files if file.is_file() and (file in paths or file.name.lower() in NAMES)]
    if not dumps:
        raise InputError(f"{address.source!r} holds no Posts.xml: unpack the dump of a site (7z x) and name its folder")
    return dumps


def _parts(address: Address) -> list[Part]:
    return [
        Part(where, partial(_read, file, where), file.stat().st_size)
        for file in _files(address)
        for where in (name_of(file, address.root),)
    ]


def _identity(address: Address) -> object:
    return {"files": stats(_files(address))}


STACK_EXCHANGE = Scheme(_parts, _identity)
