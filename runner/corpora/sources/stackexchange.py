"""Dumps of Stack Exchange: each document is a question with its answers, best first.

`Posts.xml` of a dump has a `<row/>` for each post, in order of time, so that answers are far from their questions. The
file is read once, and posts are sorted on disk by question.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError, iterparse

from mixlaw.errors import InputError
from mixlaw.runner.corpora.sources.address import Address, Scheme, stats
from mixlaw.runner.corpora.sources.compressed import opened
from mixlaw.runner.corpora.sources.document import Document
from mixlaw.runner.corpora.sources.groups import Groups, Order
from mixlaw.runner.corpora.sources.html_text import plain_text
from mixlaw.runner.corpora.sources.part import Part, name_of

QUESTION, ANSWER = "1", "2"  # PostTypeId; wikis of tags and such have others
NAMES = ("Posts.xml", "Posts.xml.gz", "Posts.xml.zst")


def _read(file: Path, where: str) -> Iterator[Document]:
    with Groups() as groups:
        for row in _rows(file):
            if (post := _post(row)) is not None:
                groups.add(*post)
        for question, posts in groups:
            if len(posts) > 1 and posts[0]["title"] is not None:
                yield Document(_written(posts), f"{where} {question}")


def _rows(file: Path) -> Iterator[Mapping[str, str]]:
    """Attributes of the rows, one at a time; memory holds one."""
    with opened(file) as stream:
        try:
            events = iterparse(stream, events=("start", "end"))
            _, root = next(events)
            for event, element in events:
                if event == "end" and element.tag == "row":
                    yield element.attrib
                    root.clear()
        except ParseError as error:
            raise InputError(
                f"{file} is no dump of Stack Exchange, or was cut off ({error}): unpack it again"
            ) from error


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
    files = [file for path in address.paths() for file in ([path] if path.is_file() else map(path.joinpath, NAMES))]
    dumps = [file for file in files if file.is_file()]
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
