"""The parts of source strings, `scheme:place?option=value&option=value`; a place is a path, a glob or a name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from mixlaw.errors import InputError
from mixlaw.runner.corpora.sources.part import Part

Value = str | int
Options = Mapping[str, Value] | Callable[[str, Path], Mapping[str, Value]]


@dataclass(frozen=True)
class Address:
    """Where a source is.

    Attributes:
        source: the whole string, for messages.
        place: the text between the scheme and the options.
        options: all options that the scheme knows, given or by default.
        root: folder that paths are relative to.
    """

    source: str
    place: str
    options: Mapping[str, Value]
    root: Path

    def text(self, option: str) -> str:
        """An option as text."""
        return str(self.options[option])

    def words(self, option: str) -> tuple[str, ...]:
        """The words of an option, separated by commas."""
        return tuple(word for word in self.text(option).split(",") if word)

    def number(self, option: str) -> int:
        """An option as a number."""
        return int(self.options[option])

    def paths(self) -> list[Path]:
        """Files and folders of the place, sorted.

        Raises:
            InputError: there is nothing.
        """
        return named(self.place, self.root)


@dataclass(frozen=True)
class Scheme:
    """A kind of source.

    Attributes:
        parts: parts of a source of this kind.
        identity: JSON that changes when the source does, computed without reading it.
        options: option -> default; where that is a number the option takes a whole number. A function of place and
            root where they depend on the place.
        packages: version by name of the distributions that decide what is read.
    """

    parts: Callable[[Address], list[Part]]
    identity: Callable[[Address], object]
    options: Options = field(default_factory=dict)
    packages: Callable[[Address], dict[str, str]] = lambda _: {}


def parsed(source: str, options: Options, root: Path) -> tuple[str, dict[str, Value]]:
    """Place and options of a source; `options` are the known ones with their defaults.

    Raises:
        InputError: there is no place, or an option is unknown, or not a whole number where it must be one.
    """
    address, _, query = source.partition("?")
    place = unquote(address.partition(":")[2])
    if not place:
        raise InputError(f"the source {source!r} names nothing: write {_shown(address)}PLACE")
    known = options(place, root) if callable(options) else options
    given: dict[str, Value] = {}
    for pair in query.split("&") if query else ():
        option, _, value = pair.partition("=")
        if option not in known:
            names = ", ".join(known) or "none"
            raise InputError(
                f"the source {source!r} has the unknown option {option!r}: {_shown(address)} knows {names}"
            )
        given[option] = _value(source, option, unquote(value), known[option])
    return place, {**known, **given}


def _shown(text: str) -> str:
    return text if text.isprintable() else repr(text)


def _value(source: str, option: str, value: str, default: Value) -> Value:
    if isinstance(default, str):
        return value
    if not value.isdecimal():
        raise InputError(f"the source {source!r} sets {option} to {value!r}: it must be a whole number")
    return int(value)


def at_home(path: str) -> Path:
    """A path whose ~ is a home folder; as it is where there is none of that name."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def located(pattern: str, root: Path) -> tuple[Path, str]:
    """Folder that a path or glob begins at, and the rest of it."""
    absolute = at_home(pattern)
    if absolute.is_absolute():
        return Path(absolute.anchor), str(absolute.relative_to(absolute.anchor))
    return root, str(absolute)


def exists(place: str, root: Path) -> bool:
    """Whether a text, taken as it is, is the path of something."""
    try:
        base, rest = located(place, root)
        return (base / rest).exists()
    except (OSError, ValueError, RuntimeError):  # too long, a zero byte, the home of an unknown user
        return False


def named(pattern: str, root: Path) -> list[Path]:
    """Files and folders that a path or glob names, relative to `root`, sorted; a glob matches no hidden ones.

    Raises:
        InputError: there is none.
    """
    try:
        base, rest = located(pattern, root)
        if exists(pattern, root):
            return [base / rest]
        paths = sorted(path for path in base.glob(rest) if "/." in f"/{rest}" or not _is_hidden(path, base))
    except (OSError, ValueError, NotImplementedError, RuntimeError, IndexError) as error:
        raise InputError(f"the source {pattern!r} is no path and no glob ({error}): name a file or folder") from error
    if not paths:
        raise InputError(f"no file matches the source {pattern!r} below {root}: name an existing path or glob")
    return paths


def _is_hidden(path: Path, base: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(base).parts)


def below(paths: Sequence[Path]) -> list[Path]:
    """Those paths that are files, and all files below the others that are not hidden there, each once, sorted."""
    return sorted(set(_files(paths)) - hidden(paths))


def hidden(paths: Sequence[Path]) -> set[Path]:
    """Files below these folders that are hidden, or in a hidden folder: what git, editors and systems keep there."""
    return {file for path in paths if path.is_dir() for file in _files([path]) if _is_hidden(file, path)}


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    return (file for path in paths for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file())


def stats(files: Sequence[Path]) -> list[list[Value]]:
    """Path, size and time of files, which show without reading them whether they have changed."""
    return [[str(file), stat.st_size, stat.st_mtime_ns] for file in files for stat in (file.stat(),)]
