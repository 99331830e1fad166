"""Names that are nearly others: columns that are not read, and names that only look the same."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from mixlaw.adapters.sheet import PLAIN, PREFIXES, TOKENS, Sheet
from mixlaw.errors import InputError


def refuse_near_misses(sheet: Sheet) -> None:
    """Refuse a column that is not read, but called nearly like one that is.

    Raises:
        InputError: names it, and the one that was probably meant.
    """
    kinds = [prefix.removesuffix(":") for prefix in PREFIXES]
    for name in sheet.ignored:
        kind, colon, rest = name.partition(":")
        if colon and (close := _nearly(kind, kinds)):
            raise InputError(f"column {name!r} is not read; did you mean '{close}:{rest}'? rename or remove it")
        if not sheet.mapped and not colon and (close := _nearly(name, PLAIN)) and close not in sheet.frame.columns:
            raise InputError(f"column {name!r} is not read; did you mean {close!r}? rename or remove it")
        if not sheet.mapped and (meant := _otherwise_separated(name, sheet.frame.columns)):
            raise InputError(f"column {name!r} is not read; did you mean {meant!r}? rename or remove it")


#: A column of the contract with something else than colons between its parts.
_OTHERWISE = re.compile(r"(tokens|lr_end|decay|unique|metric|noise|stderr|count)[\s./;|_-]+(.+)", re.IGNORECASE)


def _otherwise_separated(name: str, columns: Sequence[str]) -> str:
    """The column of the contract that another is but for its separators; empty where it is none.

    What follows must be a phase, domain or task that another column has; behind metric, anything.
    """
    pairs = [match for column in columns if (match := TOKENS.fullmatch(column))]
    phases, domains = [match[1] for match in pairs], [match[2] for match in pairs]
    tasks = [column.removeprefix("metric:") for column in columns if column.startswith("metric:")]
    if name == "lr_end" and phases:
        return f"lr_end:{phases[-1]}"
    if not (match := _OTHERWISE.fullmatch(name)):
        return ""
    kind, rest = match[1].lower(), match[2]
    if kind == "tokens":
        for phase in phases:
            if match := re.fullmatch(rf"{re.escape(phase)}[\s./;|:_-]+(.+)", rest):
                return f"tokens:{phase}:{match[1]}"
        for domain in domains:
            if match := re.fullmatch(rf"(.+?)[\s./;|:_-]+{re.escape(domain)}", rest):
                return f"tokens:{match[1]}:{domain}"
        return ""
    owners = {"lr_end": phases, "decay": phases, "unique": domains, "metric": [rest]}.get(kind, tasks)
    return f"{kind}:{rest}" if rest in owners else ""


def _nearly(name: str, known: Sequence[str]) -> str:
    """The known name that another is but for a letter or capitals; empty where it is none or not so near."""
    from difflib import get_close_matches

    word = name.strip().lower()
    close = [k for k in get_close_matches(word, known, 1, 0.8) if len(k) > 4 and word[:1] == k[:1]]
    return word if word in known else "".join(close)


#: What a reader of tables puts behind the name of a column that is there twice.
_AGAIN = re.compile(r"(\.[1-9]|_duplicated_\d+|_[xy]|_right| \([1-9]\))$")
#: What a spreadsheet calls a line below the others.
_SUMMARY = re.compile(r"(grand[\s_-]*)?(total|sum|mean|average|avg|median|std|stdev|min|max|count)s?:?", re.IGNORECASE)


def doubled(what: str, names: Iterable[str]) -> Iterator[str]:
    """Warnings of names that are another with what is put behind a column that is there twice."""
    there = list(names)
    for name in there:
        if (stem := _AGAIN.sub("", name)) != name and any(
            stem in (other, _AGAIN.sub("", other)) for other in there if other != name
        ):
            yield (
                f"{what} {name!r} is called like a column that was there twice and counts as another {what} than "
                f"{stem!r}; remove one if they are the same"
            )


def summaries(runs: Iterable[str]) -> Iterator[str]:
    """Warnings of runs that are called like the line of a spreadsheet that sums up the others."""
    for name in dict.fromkeys(runs):
        if _SUMMARY.fullmatch(name.strip()):
            yield f"run {name!r} is called like a summary of the other rows; leave it out if it is no run"


def twins(what: str, names: Iterable[str], known: Iterable[str] = ()) -> Iterator[str]:
    """Warnings of names that look the same, or nearly so.

    Args:
        what: they are of.
        names: of a table.
        known: names that the study has.
    """
    seen = {_looks(name): name for name in known}
    for name in dict.fromkeys(names):
        if (like := seen.setdefault(_looks(name), name)) != name:
            yield (
                f"{what}s {like!a} and {name!a} differ in capitals, blanks or marks alone and count as two; "
                "rename one if they are the same"
            )


def _looks(name: str) -> str:
    """A name as the eye takes it: without capitals, invisible letters, and the choice of a separator."""
    plain = unicodedata.normalize("NFKC", name).casefold()
    seen = "".join(letter for letter in plain if unicodedata.category(letter) != "Cf")
    return re.sub(r"[\s._-]+", " ", seen).strip()
