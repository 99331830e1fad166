"""Git repositories as code-adjacent text: a document a commit, its message and its diff, through git itself."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO

from mixlaw.errors import InputError
from mixlaw.runner.corpora.sources.address import Address, Scheme
from mixlaw.runner.corpora.sources.diffs import BINARY, HEAD, is_wanted, name_in
from mixlaw.runner.corpora.sources.document import Document
from mixlaw.runner.corpora.sources.part import Part, name_of

SLICE = 2000  # commits of a part
LONGEST = 2**16  # bytes of a line read at once

#: What a user's own configuration could change is set; no program that a repository names is run.
_LOG = (
    *("log", "--patch", "--no-merges", "--no-color", "--no-ext-diff", "--no-textconv", "--no-notes", "--find-renames"),
    *("--no-show-signature", "--src-prefix=a/", "--dst-prefix=b/", "--unified=3", "--diff-algorithm=myers"),
    *("-O/dev/null", "--encoding=UTF-8", "--submodule=short", "--format=%x00%H%n%B%n%x00"),
)


@dataclass
class _Commit:
    """A commit on its way: its message, and the sections of its diff, a file each, up to `limit` bytes."""

    limit: int
    hash: str = ""
    message: bytearray = field(default_factory=bytearray)
    sections: list[bytearray] = field(default_factory=list)
    size: int = 0
    wanted: bool = False

    def add(self, line: bytes) -> None:
        """Add a line of the diff; beyond the limit, lines are only counted."""
        if line.startswith(HEAD.encode()):
            self.sections.append(bytearray())
            self.wanted = is_wanted(name_in(line.decode("utf-8", "replace")))
        if not self.sections or not self.wanted:
            return
        if line.startswith(tuple(map(str.encode, BINARY))):
            self.size -= len(self.sections.pop())
            self.wanted = False
            return
        self.size += len(line)
        if self.size <= self.limit:
            self.sections[-1] += line

    def document(self, where: str) -> Document | None:
        """Message and diff; None where nothing is left of the diff, or too much, or it is not UTF-8."""
        message = self.message.decode("utf-8", "replace").strip()
        try:
            diff = b"".join(self.sections).decode("utf-8")
        except UnicodeDecodeError:
            return None
        complete = diff.strip() and message and self.size <= self.limit
        return Document(f"{message}\n\n{diff}", f"{where} {self.hash}") if complete else None


def _commits(lines: IO[bytes], limit: int) -> Iterator[_Commit]:
    """Commits of the output of git; memory holds one, up to its limit."""
    commit, in_message, fresh = _Commit(limit), False, True
    while line := lines.readline(LONGEST):
        if fresh and line.startswith(b"\0"):
            if not in_message:
                yield commit
                commit = _Commit(limit, line[1:].decode().strip())
            in_message = not in_message
        elif in_message and len(commit.message) < limit:
            commit.message += line
        elif not in_message:
            commit.add(line)
        fresh = line.endswith(b"\n")
    yield commit


def _read(repository: Path, where: str, arguments: tuple[str, ...], limit: int) -> Iterator[Document]:
    with _output(repository, *arguments) as lines:
        for commit in _commits(lines, limit):
            if (document := commit.document(where)) is not None:
                yield document


@contextmanager
def _output(repository: Path, *arguments: str) -> Iterator[IO[bytes]]:
    """What git prints.

    Raises:
        InputError: git is not installed, or it fails; the message quotes it.
    """
    command = ["git", "--no-pager", "-c", "core.quotePath=false", "-C", str(repository), *arguments]
    environment = {**os.environ, "GIT_ALLOW_PROTOCOL": "none", "GIT_NO_LAZY_FETCH": "1", "GIT_TERMINAL_PROMPT": "0"}
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, env=environment
            )
        except FileNotFoundError as error:
            raise InputError("sources that begin with git: are read by git, which is not installed") from error
        finished = False
        try:
            assert process.stdout is not None
            with process.stdout as lines:
                yield lines
                finished = not lines.read(1)
        finally:
            if not finished:  # the reader stopped early
                process.kill()
            code = process.wait()
        if finished and code:
            errors.seek(0)
            message = " ".join(errors.read().decode("utf-8", "replace").split())
            raise InputError(f"git cannot read {repository}: {message}")


def _line_of(repository: Path, *arguments: str) -> str:
    with _output(repository, *arguments) as lines:
        return lines.read().decode().strip()


def _repositories(address: Address) -> dict[Path, str]:
    """Repositories and the commit of the HEAD of each.

    Raises:
        InputError: the place is not a repository, or has no commit.
    """
    heads = {}
    for path in address.paths():
        if not (path / ".git").exists() and not (path / "objects").is_dir():
            raise InputError(f"{path} (source {address.source!r}) is no git repository: name one, or a glob of several")
        heads[path] = _line_of(path, "rev-parse", "--verify", "HEAD")
    return heads


def _parts(address: Address) -> list[Part]:
    paths, limit = address.words("paths"), address.number("max_bytes")
    parts = []
    for path, head in _repositories(address).items():
        where = name_of(path, address.root)
        count = int(_line_of(path, "rev-list", "--count", "--no-merges", head, "--", *paths))
        for begin in range(0, count, SLICE):
            slice_of = (*_LOG, f"--skip={begin}", f"--max-count={SLICE}", head, "--", *paths)
            parts.append(Part(f"{where}@{begin}", partial(_read, path, where, slice_of, limit)))
    if not parts:
        raise InputError(f"{address.source!r} gives no commit: correct the place or paths=")
    return parts


def _identity(address: Address) -> object:
    return {"heads": {name_of(path, address.root): head for path, head in _repositories(address).items()}}


REPOSITORY = Scheme(_parts, _identity, {"paths": "", "max_bytes": 65_536})
