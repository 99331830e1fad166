"""A domain's source, one string: a path, glob or URL of files, or `scheme:place?option=value` (`tree:src?languages=c`).

A new kind of source is a file beside this one that defines a `Scheme`, and a line in `SCHEMES`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mixlaw.errors import InputError
from mixlaw.runner.batches.manifest import TokenSource
from mixlaw.runner.corpora.sources.address import Address, Scheme, exists, parsed, stats
from mixlaw.runner.corpora.sources.document import Document
from mixlaw.runner.corpora.sources.files import file_parts, left_out, matching
from mixlaw.runner.corpora.sources.functions import PYTHON
from mixlaw.runner.corpora.sources.git import REPOSITORY
from mixlaw.runner.corpora.sources.hub import HUB
from mixlaw.runner.corpora.sources.notebooks import NOTEBOOKS
from mixlaw.runner.corpora.sources.part import Part
from mixlaw.runner.corpora.sources.pulls import PULL_REQUESTS
from mixlaw.runner.corpora.sources.remote import URL, remote_identity, remote_parts
from mixlaw.runner.corpora.sources.stackexchange import STACK_EXCHANGE
from mixlaw.runner.corpora.sources.teacher import TEACHER
from mixlaw.runner.corpora.sources.tokens import TOKENS, token_files, tokenizer_of
from mixlaw.runner.corpora.sources.trees import TREE

#: Kinds of sources besides plain paths.
SCHEMES = {
    "hf": HUB,
    "tree": TREE,
    "git": REPOSITORY,
    "pulls": PULL_REQUESTS,
    "notebooks": NOTEBOOKS,
    "stackexchange": STACK_EXCHANGE,
    "teacher": TEACHER,
    "python": PYTHON,
    "tokens": TOKENS,
}


def partitions(source: str, root: Path) -> list[Part]:
    """Parts of a source, in a fixed order; paths are relative to `root`, the study folder.

    Raises:
        InputError: the source is unknown, has an unknown option, needs a package that is not installed, or names no
            file.
    """
    if _is_remote(source):
        return remote_parts(source)
    if (scheme := _scheme(source, root)) is not None:
        return scheme.parts(_address(source, scheme, root))
    return file_parts(source, root)


def read(source: str, root: Path) -> Iterator[Document]:
    """Documents of a source, part after part, without empty ones (which a build counts).

    Raises:
        InputError: as `partitions`; or the content of a file does not fit its suffix.
    """
    return (document for part in partitions(source, root) for document in part.read() if document.text)


def identity(source: str, root: Path) -> dict[str, object]:
    """Plain data that change when a source does, without reading it: versions, options, sizes and times of files.

    Raises:
        InputError: as `partitions`.
    """
    if _is_remote(source):
        return {"source": source, "files": remote_identity(source)}
    if (scheme := _scheme(source, root)) is not None:
        address = _address(source, scheme, root)
        return {"source": source, "state": scheme.identity(address), "packages": scheme.packages(address)}
    return {"source": source, "files": stats(matching(source, root))}


def packages(source: str, root: Path) -> dict[str, str]:
    """Version by name of the distributions that decide what is read.

    Raises:
        InputError: as `partitions`.
    """
    scheme = _scheme(source, root)
    return scheme.packages(_address(source, scheme, root)) if scheme else {}


def notes(source: str, root: Path) -> list[str]:
    """What a source leaves out that a reader of its folder would not expect, in words."""
    return left_out(source, root) if not _is_remote(source) and _scheme(source, root) is None else []


def tokens_of(source: str, root: Path) -> tuple[Path, list[TokenSource]] | None:
    """The tokenizer that a source of tokens names, and its files; None for another source.

    Raises:
        InputError: as `partitions`.
    """
    if (scheme := _scheme(source, root)) is not TOKENS:
        return None
    address = _address(source, scheme, root)
    return tokenizer_of(address), token_files(address)


def _is_remote(source: str) -> bool:
    """Whether a source is the URL of documents; tokens may be at a URL too."""
    return URL in source and not source.startswith("tokens:")


def _scheme(source: str, root: Path) -> Scheme | None:
    """The kind of a source, None where it is a path.

    Raises:
        InputError: the string begins with an unknown kind.
    """
    if _is_remote(source):
        return None
    name, colon, _ = source.partition(":")
    if name in SCHEMES:
        return SCHEMES[name]
    if colon and name.isalpha() and len(name) > 1 and not exists(source, root):
        known = ", ".join(f"{known}:" for known in SCHEMES)
        raise InputError(f"there is no kind of source {name!r} ({source!r}): there are {known} and paths")
    return None


def _address(source: str, scheme: Scheme, root: Path) -> Address:
    place, options = parsed(source, scheme.options, root)
    return Address(source, place, options, root)
