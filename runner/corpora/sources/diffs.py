"""Diffs as git writes them: sections, a file each, and which of them are worth reading."""

from __future__ import annotations

import re

from mixlaw.runner.corpora.sources.languages import VENDORED, WRITTEN

HEAD = "diff --git "
BINARY = ("Binary files ", "GIT binary patch")


def is_wanted(name: str) -> bool:
    """Whether a changed file, by its name, is neither vendored nor generated."""
    return not (VENDORED.search(name) or WRITTEN.search(name))


def name_in(head: str) -> str:
    """Name of the changed file in the first line of a section."""
    return head.rpartition(" b/")[2].rstrip('"\n')


def cleaned(diff: str) -> str:
    """A diff without the sections of binary, vendored and generated files."""
    sections = re.split(rf"^(?={HEAD})", diff, flags=re.MULTILINE)
    return "".join(section for section in sections if _is_kept(section))


def _is_kept(section: str) -> bool:
    head, *rest = section.splitlines() or [""]
    return head.startswith(HEAD) and is_wanted(name_in(head)) and not any(line.startswith(BINARY) for line in rest)
