"""Shares and amounts of domains in a foreign table: percent or parts of one, rounded, or with one domain left out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mixlaw.adapters.mapped import Mapped
from mixlaw.adapters.mapping import PhaseMap, claimed, starred
from mixlaw.errors import InputError

Floats = NDArray[np.float64]
#: What is left of one after shares were subtracted from it, where nothing is.
ROUNDED = 1e-9
_PERCENT = re.compile(r"pct|percent|%", re.IGNORECASE)
Columns = Mapping[str, tuple[Floats, str]]  # domain -> tokens of each row, name of the column they come from


def amounts(mapped: Mapped, phase: PhaseMap, columns: Sequence[str]) -> Columns:
    """Tokens per domain where columns hold tokens."""
    return {
        name: (cells, column)
        for name, (cells, column) in _columns(mapped, phase.domain_tokens, columns, sizes=True).items()
    }


def shared(mapped: Mapped, phase: PhaseMap, columns: Sequence[str], tokens: Floats, tolerance: float) -> Columns:
    """Tokens per domain where columns hold shares of a total, or one domain has all of it.

    Args:
        mapped: the table.
        phase: what the mapping says of the phase.
        columns: of the table that have no meaning yet.
        tokens: of the phase, shape (rows,).
        tolerance: how far shares may be from summing to one.

    Raises:
        InputError: a share is negative, or a row's shares sum to something else than one; names row and column.
    """
    if phase.domain is not None:
        return _by_name(mapped, phase.domain, tokens, phase.domain)
    sources = _columns(mapped, phase.shares, columns)
    shares = np.nan_to_num(np.stack([cells for cells, _ in sources.values()], 1))
    unit = _unit(mapped, phase, shares, tolerance, [column for _, column in sources.values()])
    parts = shares / unit
    parts = np.where((parts < 0) & (parts > -ROUNDED), 0.0, parts)
    total = parts.sum(1)
    rest = 1 - total if phase.rest is not None else np.zeros_like(total)
    columns_used = [column for _, column in sources.values()]
    _refuse_negative(mapped, parts, columns_used)
    wrong = total > 1 + tolerance if phase.rest is not None else np.abs(total - 1) > tolerance
    # A row without tokens in the phase needs no shares.
    _refuse_sum(mapped, phase, total, wrong & ((np.nan_to_num(tokens) > 0) | (total > 0)), columns_used, tolerance)
    # Shares that sum to one within rounding of floats stay as they are, to the bit.
    scale = np.where((np.abs(total - 1) > 1e-9) & ((rest <= 0) | (total > 1)) & (total > 0), total, 1.0)
    off = int(np.sum(np.abs(scale - 1) > 1e-6))
    if off:
        low, high = total[np.abs(scale - 1) > 1e-6].min(), total[np.abs(scale - 1) > 1e-6].max()
        mapped.notes.append(
            f"{mapped.source.name}: shares of {off} of {len(total)} rows sum to {low:.4g} to {high:.4g} in phase "
            f"{phase.name}; scaled to one, as all are within {tolerance:g}"
        )
    made = {domain: (tokens * parts[:, i] / scale, column) for i, (domain, (_, column)) in enumerate(sources.items())}
    remainder = {} if phase.rest is None else _by_name(mapped, phase.rest, tokens * np.maximum(rest, 0), "rest")
    if both := made.keys() & remainder.keys():
        raise InputError(f"phase {phase.name!r}: {sorted(both)[0]!r} has shares and is the rest; take one of them out")
    return made | remainder


def _columns(
    mapped: Mapped, globs: Mapping[str, str], columns: Sequence[str], sizes: bool = False
) -> dict[str, tuple[Floats, str]]:
    """Columns that globs match, by domain."""
    sources: dict[str, tuple[Floats, str]] = {}
    for column, (glob, parts) in claimed(globs, columns, "domains").items():
        domain = starred(globs[glob], parts)
        if domain in sources:
            raise InputError(
                f"{column!r} and {sources[domain][1]!r} are both domain {domain!r}; tell them apart by name"
            )
        sources[domain] = (mapped.numbers(column, sizes=sizes), column)
    return sources


def _by_name(mapped: Mapped, template: str, tokens: Floats, source: str) -> dict[str, tuple[Floats, str]]:
    """All tokens of each row for the domain that the row names.

    Raises:
        InputError: a row names none.
    """
    names = mapped.names(template)
    if "" in names:
        raise InputError(
            f"{mapped.source.places[names.index('')]}, column {template.strip('{}')!r}: the cell is empty; fill it"
        )
    rows = np.array(names)
    return {name: (np.where(rows == name, tokens, 0.0), source) for name in dict.fromkeys(names)}


def _unit(mapped: Mapped, phase: PhaseMap, shares: Floats, tolerance: float, columns: Sequence[str]) -> float:
    """100 where shares are percent: as the mapping says, or as most rows sum.

    Raises:
        InputError: a rest hides the sum, and the name of a column says percent where its cells could be parts of one.
    """
    if phase.percent is not None:
        return 100.0 if phase.percent else 1.0
    sums = shares.sum(1)
    likely = np.median(sums[sums > 0]) if phase.rest is None and (sums > 0).any() else shares.max(initial=0.0)
    percent = bool(likely > 1 + max(tolerance, 0.05)) if phase.rest is not None else bool(abs(likely / 100 - 1) < 0.1)
    if phase.rest is not None and not percent:
        if named := [column for column in columns if _PERCENT.search(column)]:
            raise InputError(
                f"column {named[0]!r} of phase {phase.name!r} may be percent or parts of one, as no cell is above "
                f"{shares.max(initial=0.0):g} and the rest is not there: set percent = true or false in the mapping"
            )
        mapped.notes.append(
            f"{mapped.source.name}: shares of phase {phase.name} are read as parts of one, the largest is "
            f"{shares.max(initial=0.0):g} (percent = true if they are percent)"
        )
    if percent:
        mapped.notes.append(f"{mapped.source.name}: shares of phase {phase.name} are percent")
    return 100.0 if percent else 1.0


def _refuse_negative(mapped: Mapped, parts: Floats, columns: Sequence[str]) -> None:
    negative = np.argwhere(parts < 0)
    if len(negative):
        row, column = negative[0]
        raise InputError(
            f"{mapped.source.places[row]}, column {columns[column]!r}: a share of {parts[row, column]:g} is negative; "
            "correct the cell"
        )


def _refuse_sum(
    mapped: Mapped, phase: PhaseMap, total: Floats, wrong: NDArray[np.bool_], columns: Sequence[str], tolerance: float
) -> None:
    if wrong.any():
        row = int(np.argmax(wrong))
        named = f"column {columns[0]!r}" if len(columns) == 1 else f"columns {columns[0]!r} to {columns[-1]!r}"
        raise InputError(
            f"{mapped.source.places[row]}, {named}: the shares of phase {phase.name!r} sum to {total[row]:.6g}, "
            f"not to 1 within {tolerance:g}; fix the row, or set tolerance, rest or percent in the mapping"
        )
