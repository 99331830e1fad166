"""Bytes as text: UTF-8 with or without a byte order mark; anything else is refused by its name, or by the byte."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import IO, Any

from mixlaw.errors import InputError
from mixlaw.files import kind_of, not_text

BLOCK = 2**16
REPEAT = "convert it to UTF-8, or fetch it again"

_BETWEEN = re.compile(r"[\s,\[\]]*")


def decoded(raw: bytes, where: str) -> str:
    """UTF-8 as text, a byte order mark taken off.

    Args:
        raw: the bytes.
        where: file, and line where it is one; for the error.

    Raises:
        InputError: it is something else.
    """
    if b"\0" in raw[:4] and (what := kind_of(raw[:16])):  # which may be UTF-8, with zeros
        raise not_text(what, where)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise refusal(raw[:16], where, error) from error


def refusal(head: bytes, where: str, error: UnicodeDecodeError, before: int = 0) -> InputError:
    """What to say of bytes that are not UTF-8; `before` bytes were read before those of the error."""
    if what := kind_of(head):
        return not_text(what, where)
    byte = error.object[error.start]
    return InputError(
        f"{where} is not UTF-8 text ({error.reason} 0x{byte:02x} at byte {before + error.start}): {REPEAT}"
    )


def parsed(line: bytes, where: str) -> Any:
    """The value of one line of JSON.

    Raises:
        InputError: it is not UTF-8, or not JSON.
    """
    text = decoded(line, where)
    try:
        return json.loads(text)
    except RecursionError:
        raise InputError(f"{where} is JSON nested too deeply: leave it out") from None
    except ValueError as error:
        end = "" if line.endswith(b"\n") else ", and the file ends there"
        raise InputError(f"{where} is not JSON ({error}{end}): fetch the file again, or fix the line") from error


def values(stream: IO[bytes], where: str, fix: str) -> Iterator[Any]:
    """Values of a JSON file one at a time: of an array or of several, one after another or a line each.

    Args:
        stream: the bytes.
        where: the file; for the error.
        fix: what to do about a damaged one.

    Raises:
        InputError: it is not UTF-8, or not JSON from some place on.
    """
    decoder, blocks = json.JSONDecoder(), _blocks(stream, where)
    buffer, at, more = "", 0, True
    while more or at < len(buffer):
        at = _BETWEEN.match(buffer, at).end()  # type: ignore[union-attr]  # it matches nothing, too
        try:
            value, end = decoder.raw_decode(buffer, at)
        except (ValueError, RecursionError) as error:
            block, size = "", max(BLOCK, len(buffer) - at)
            while len(block) < size and (piece := next(blocks, "")):
                block += piece
            if not block and at < len(buffer):
                raise InputError(f"{where} is no JSON from {buffer[at : at + 30]!r} on ({error}): {fix}") from error
            buffer, at, more = buffer[at:] + block, 0, bool(block)
            continue
        if end == len(buffer) and more:  # a number may go on
            if piece := next(blocks, ""):
                buffer, at = buffer[at:] + piece, 0
                continue
            more = False
        yield value
        at = end


def _blocks(stream: IO[bytes], where: str) -> Iterator[str]:
    decoder, read, head = codecs.getincrementaldecoder("utf-8-sig")(), 0, b""
    while True:
        raw = stream.read(BLOCK)
        head, read = head or raw[:16], read + len(raw)
        try:
            text = decoder.decode(raw, not raw)
        except UnicodeDecodeError as error:
            raise refusal(head, where, error, read - len(error.object)) from error
        if kind_of(head) == "UTF-16":  # without a byte order mark, it is UTF-8 with zeros
            raise not_text("UTF-16", where)
        if text:
            yield text
        if not raw:
            return
