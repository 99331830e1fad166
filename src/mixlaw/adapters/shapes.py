"""What the columns of an unknown table look like: words of their names, their numbers, groups that sum to a whole."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mixlaw.cells import CellLog, numbers, texts
from mixlaw.phases import training_order

Floats = NDArray[np.float64]

SHARE_WORDS = frozenset(
    [
        "pct",
        "percent",
        "share",
        "shares",
        "frac",
        "fraction",
        "ratio",
        "weight",
        "weights",
        "prop",
        "proportion",
        "mix",
        "mixture",
    ]
)
TOKEN_WORDS = frozenset(["token", "tokens", "tok", "toks"])
#: Rows of a table that are looked at.
LOOKED_AT = 500
_NEAR = 0.05  # of one, or of a hundred, within which shares of a row sum


@dataclass(frozen=True)
class Group:
    """Columns that are the parts of a whole, each of one domain.

    Attributes:
        domains: column -> domain.
        phase: what the names have in common, beside words such as share; empty where nothing is left.
        tokens: whether the cells are tokens, not shares.
        percent: whether they are percent.
        whole: whether they sum to one; else a domain without a column has the rest.
    """

    domains: Mapping[str, str]
    phase: str = ""
    tokens: bool = False
    percent: bool = False
    whole: bool = True


def words(name: str) -> list[str]:
    """Words of a name in lower case, a number before letters apart from them.

    Example:
        >>> words("arc-easy_accNorm/bpb")
        ['arc', 'easy', 'acc', 'norm', 'bpb']
    """
    return [part.lower() for part in re.split(r"[^A-Za-z0-9@]+|(?<=[a-z])(?=[A-Z])", name) if part]


def numeric(frame: pl.DataFrame, sizes: bool = True) -> dict[str, Floats]:
    """Columns of which every cell is a number or empty, and one is a number; shape (rows,), NaN where empty."""
    found = {}
    for name in frame.columns:
        log, places = CellLog(), ["row"] * min(frame.height, LOOKED_AT)
        counts = sizes and not any(str(cell).endswith("%") for cell in frame[name].head(LOOKED_AT))
        cells = numbers(frame[name].head(LOOKED_AT), places, name, log=log, sizes=counts, infinite=True)
        if not log.faults and any(cell is not None for cell in cells):
            found[name] = np.array(cells, np.float64)
    return found


def distinct(frame: pl.DataFrame, name: str) -> bool:
    """Whether every row has a cell of its own."""
    cells = texts(frame[name])
    return None not in cells and len(set(cells)) == len(cells)


def groups(columns: Mapping[str, Floats]) -> list[Group]:
    """Groups of columns that share the head or tail of their names, phases in the order of training.

    Whole groups of shares or tokens first, the one with the most columns before others; where there is none, neighbours
    that sum to one in every row; where there are none either, columns whose names say that they are shares.
    """
    left = {name: cells for name, cells in columns.items() if not (cells < 0).any() and np.isfinite(np.nansum(cells))}
    found: list[Group] = []
    while (best := _largest(left)) is not None:
        found.append(best)
        left = {name: cells for name, cells in left.items() if name not in best.domains}
    found = found or _neighbours(left) or _said(left)
    order = training_order([group.phase for group in found])
    return sorted(found, key=lambda group: order.index(group.phase))


def _largest(columns: Mapping[str, Floats]) -> Group | None:
    made = [group for affix, names in _affixes(columns).items() if (group := _group(affix, names, columns))]
    return max(made, key=_preferred, default=None)


def _preferred(group: Group) -> tuple[int, int, int]:
    """The most columns; then the longest phase; then the shortest domains, so that no "pct_" is part of a domain."""
    return len(group.domains), len(group.phase), -sum(map(len, group.domains.values()))


def _affixes(names: Iterable[str]) -> dict[tuple[str, str], dict[str, str]]:
    """Head and tail -> columns that have both -> what is between them."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for name in names:
        cuts = [0, *(match.end() for match in re.finditer(r"[\W_]+", name))]
        ends = [*(match.start() for match in re.finditer(r"[\W_]+", name)), len(name)]
        for cut in cuts:
            for end in ends:
                own = {*words(name[cut:end])}  # "anneal_frac" is the length of a phase, and of no domain
                if own - SHARE_WORDS - TOKEN_WORDS and (cut, end) != (0, len(name)):
                    found.setdefault((name[:cut], name[end:]), {})[name] = name[cut:end].replace(":", ".")
    return {affix: named for affix, named in found.items() if len(named) > 1}


def _group(affix: tuple[str, str], domains: Mapping[str, str], columns: Mapping[str, Floats]) -> Group | None:
    """The group of a head and a tail; None where the cells are no parts of a whole."""
    said = words(" ".join(affix))
    phase = "_".join(word for word in said if word not in SHARE_WORDS | TOKEN_WORDS)
    cells = [columns[name] for name in domains]
    if TOKEN_WORDS & {*said} and all(np.nanmax(values) > 1e5 or np.nanmax(values) == 0 for values in cells):
        return Group(domains, phase, tokens=True)
    total = whole(cells)
    return Group(domains, phase, percent=total == 100) if total else None


def whole(cells: Sequence[Floats], near: float = _NEAR, rows: float = 0.9) -> int:
    """1 or 100, if the cells of most rows sum to that; else 0."""
    sums = np.nansum(cells, axis=0)
    sums = sums[sums > 0]
    fits = [total for total in (1, 100) if sums.size and np.mean(np.abs(sums / total - 1) < near) >= rows]
    return fits[0] if fits else 0


def _neighbours(columns: Mapping[str, Floats]) -> list[Group]:
    """The longest line of neighbours that sum to one in every row, with more than one row to tell."""
    names = list(columns)
    spans = sorted(((i, j) for i in range(len(names)) for j in range(i + 2, min(len(names), i + 60) + 1)), key=_length)
    for i, j in spans:
        cells = [columns[name] for name in names[i:j]]
        if len(cells[0]) > 1 and (total := whole(cells, 0.01, 1.0)) and all(np.nanmax(c) > 0 for c in cells):
            return [Group({name: name.replace(":", ".") for name in names[i:j]}, percent=total == 100)]
    return []


def _length(span: tuple[int, int]) -> int:
    return span[0] - span[1]


def _said(columns: Mapping[str, Floats]) -> list[Group]:
    """Columns called shares that do not sum to one: a domain without a column has the rest."""
    named = {name: said for name in columns if SHARE_WORDS & {*(said := words(name))} and len(said) > 1}
    domains = {name: "_".join(word for word in said if word not in SHARE_WORDS) for name, said in named.items()}
    domains = {name: domain for name, domain in domains.items() if domain}
    sums = np.nansum([columns[name] for name in domains], axis=0) if domains else np.zeros(1)
    if not domains or len({*domains.values()}) < len(domains) or sums.max() > 100 * (1 + _NEAR):
        return []
    return [Group(domains, percent=bool(sums.max() > 1 + _NEAR), whole=False)]
