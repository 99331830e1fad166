"""Inputs that are wrong on purpose: parts of documents replaced, renamed, taken out or doubled, bytes damaged."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit
from hypothesis import strategies as st

from mixlaw.errors import InputError


@dataclass(frozen=True)
class Fuzzed:
    """What is fuzzed.

    Attributes:
        inputs: strategy, made when it is needed.
        look: takes a folder and an input; raises InputError where the input is refused.
        share: of the inputs of `make fuzz`, beside those of the others.
    """

    inputs: Callable[[], st.SearchStrategy[Any]]
    look: Callable[[Path, Any], None]
    share: float


def one_sentence(error: InputError) -> None:
    """A message for people: one line that says something."""
    assert str(error).strip(), "an error without a word"
    assert not {"\n", "\r"} & set(str(error)), f"more than one line: {error!s}"
    assert "Traceback" not in str(error)


WORDS = st.sampled_from(
    [
        "",
        " ",
        "text",
        "code",
        "init",
        "half",
        "0.1M",
        "1e400",
        "9" * 400,
        "nan",
        "inf",
        "-1",
        "\u2028",
        "a\nb",
        "é",
        "kind:x",
    ]
)
LEAVES = st.one_of(
    WORDS,
    st.text(max_size=8),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.sampled_from([0, 1, -1, 2**31, 2**63 - 1, 2**63, 10**30]),
    st.floats(),
    st.sampled_from([0.5, 1e-300, 1e300, 1 + 1e-9]),
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=5), inner, max_size=3)
)


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all parts of a document."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [place for key, part in items for place in [(*path, key), *places(part, (*path, key))]]


def near(value: Any) -> st.SearchStrategy[Any]:
    """A value of the same kind."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return st.just(value) if not isinstance(value, str) else WORDS
    return st.integers(0, 10**7) if isinstance(value, int) else st.floats(0, 1)


@st.composite
def changed(draw: st.DrawFn, tree: Any) -> Any:
    """A document with one to three parts replaced, renamed, taken out or doubled."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        known = places(tree)
        if not known:
            return tree
        *way, last = draw(st.sampled_from(known))
        parent = tree
        for key in way:
            parent = parent[key]
        how = draw(st.sampled_from(["replace", "replace", "replace", "replace", "rename", "remove", "double"]))
        if how == "replace":
            parent[last] = draw(near(parent[last]) | VALUES)
        elif isinstance(parent, list):
            parent.append(parent[last]) if how == "double" else parent.pop(last)
        else:
            value = parent[last] if how == "double" else parent.pop(last)
            if how != "remove":
                parent[draw(WORDS | st.text(max_size=6))] = value
    return tree


@st.composite
def spoilt(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes with a few places overwritten, cut out or filled in, or the whole cut off."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        how = draw(st.sampled_from(["insert", "overwrite", "cut", "end"]))
        more = draw(
            st.binary(max_size=6) | st.sampled_from([b"\xef\xbb\xbf", b"\xff\xfe", b"\0", b"{", b"[", b'"', b"\n"])
        )
        if how == "end":
            del data[at:]
        else:
            data[at : at + (0 if how == "insert" else 4)] = b"" if how == "cut" else more
    return bytes(data)


def toml(tree: Any) -> bytes:
    """A document as TOML, or as JSON where TOML cannot say it."""
    try:
        return tomlkit.dumps(tree).encode("utf-8", "surrogatepass")
    except (ValueError, TypeError, AttributeError, RecursionError, tomlkit.exceptions.TOMLKitError):
        return as_json(tree)


def as_json(tree: Any) -> bytes:
    """A document as JSON."""
    return json.dumps(tree).encode("utf-8", "surrogatepass")


def document(tree: Any, write: Callable[[Any], bytes]) -> st.SearchStrategy[bytes]:
    """A document with parts of it, or bytes of it, changed; or no document at all."""
    return changed(tree).map(write) | changed(tree).map(write) | spoilt(write(tree)) | st.binary(max_size=30)
