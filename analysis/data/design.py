"""Design: the numeric view of recipes that laws, surfaces and the optimizer share."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from mixlaw.cells import EMPTY, CellLog, as_frame, numbers, texts
from mixlaw.errors import InputError
from mixlaw.phases import training_order
from mixlaw.recipe import Decay, Schedule

Floats = NDArray[np.float64]
#: Sizes closer than this to a neighbour, in log parameters, are one size.
SAME_SIZE = 0.02
#: Shares are the same mixture up to this.
SAME_SHARE = 1e-3
#: Shape of a phase's decay -> its code in a design.
SHAPES = {shape.value: float(code) for code, shape in enumerate(Decay)}
#: Code of a phase that is a part of one cosine over the whole run.
WHOLE_COSINE = float(len(SHAPES))
_TOKENS = re.compile(r"^tokens:([^:]+):(.+)$")


@dataclass(frozen=True, eq=False)
class Design:
    """R recipes as float64 tensors; differentiable when `tokens` or `params` require a gradient.

    Attributes:
        params: non-embedding parameters, (R,).
        tokens: tokens trained on, repeats included, (R, P, K) for P phases and K domains.
        progress: share of the learning-rate schedule done, 1 = finished, (R,).
        lr_end: learning rate at the end of each phase over the peak, 1 = constant, 0 = decayed, (R, P); of a phase
            without tokens, 1.
        unique: unique tokens the run could draw from per domain, infinity where unlimited, (R, K).
        phases, domains: names of the axes, phases in order of training.
        runs: name of the training run of each row; rows of one run are its checkpoints.
        lr: peak learning rate over that of the rule, (R,); 1 where not given.
        decay: shape of the fall to each `lr_end`, a code of `SHAPES` or `WHOLE_COSINE`, (R, P); linear where not given.
    """

    params: Tensor
    tokens: Tensor
    progress: Tensor
    lr_end: Tensor
    unique: Tensor
    phases: tuple[str, ...]
    domains: tuple[str, ...]
    runs: tuple[str, ...]
    lr: Tensor = field(default_factory=lambda: torch.ones(0))
    decay: Tensor = field(default_factory=lambda: torch.zeros(0))

    def __post_init__(self) -> None:
        if len(self.lr) != len(self.runs):
            object.__setattr__(self, "lr", torch.ones(len(self.runs), dtype=torch.float64))
        if len(self.decay) != len(self.runs):
            object.__setattr__(self, "decay", torch.zeros_like(self.lr_end))

    @classmethod
    def from_table(cls, table: pl.DataFrame, unique: Mapping[str, float], phases: Sequence[str] = ()) -> Design:
        """Read a table of records; a column `unique:<domain>` overrides `unique`, a domain in neither is unlimited.

        Phases are in the order given, else in that of `mixlaw.phases.training_order`.

        Raises:
            InputError: no token or params column, a value that is missing, negative or not finite, an unknown shape.
        """
        table = as_frame(table)
        named, domains = axes(table.columns)
        phases = training_order(named, phases)
        tokens = np.stack([[_column(table, f"tokens:{p}:{d}", 0.0) for d in domains] for p in phases]).transpose(
            2, 0, 1
        )
        lr_end, decay = _schedule(table, phases, tokens.sum(2))
        pool = [_column(table, f"unique:{d}", float(unique.get(d, np.inf)), inf=True) for d in domains]
        _refuse(table, tokens.sum((1, 2)) <= 0, "has no tokens", "give tokens:<phase>:<domain> > 0")
        params = _column(table, "params", None)
        _refuse(table, params <= 0, "has params <= 0", "give non-embedding parameters")
        return cls(
            torch.tensor(params),
            torch.tensor(np.ascontiguousarray(tokens)),
            torch.tensor(_column(table, "progress", 1.0)),
            torch.tensor(lr_end),
            torch.tensor(np.stack(pool, 1)),
            phases,
            domains,
            tuple(str(run) for run in (texts(table["run"]) if "run" in table.columns else range(table.height))),
            torch.tensor(_column(table, "lr", 1.0)),
            torch.tensor(decay),
        )

    def __len__(self) -> int:
        return len(self.runs)

    def select(self, index: Sequence[int] | Tensor) -> Design:
        """Return the rows at `index`, in that order."""
        rows = torch.as_tensor(index, dtype=torch.long)
        parts = {f.name: getattr(self, f.name)[rows] for f in fields(self) if f.name in TENSORS}
        return replace(self, **parts, runs=tuple(self.runs[i] for i in rows.tolist()))

    def aligned(self, phases: tuple[str, ...], domains: tuple[str, ...]) -> Design:
        """Return the same recipes with the axes in this order; a phase or domain left out gets zero tokens.

        Raises:
            InputError: the recipes put tokens on a phase or domain that is not among the names.
        """
        if (self.phases, self.domains) == (phases, domains):
            return self
        by_domain = self.tokens.sum(1)
        unknown = [p for i, p in enumerate(self.phases) if p not in phases and bool((self.tokens[:, i] > 0).any())]
        unknown += [d for i, d in enumerate(self.domains) if d not in domains and bool((by_domain[:, i] > 0).any())]
        if unknown:
            raise InputError(
                f"{', '.join(unknown)} never measured: the surfaces know the phases {', '.join(phases)} "
                f"and the domains {', '.join(domains)}; train proxies with it, or leave it out"
            )
        tokens = _take(_take(self.tokens, self.phases, phases, 1, 0.0), self.domains, domains, 2, 0.0)
        lr_end = _take(self.lr_end, self.phases, phases, 1, 1.0)
        decay = _take(self.decay, self.phases, phases, 1, 0.0)
        unique = _take(self.unique, self.domains, domains, 1, float("inf"))
        named = replace(self, phases=phases, domains=domains)
        return replace(named, tokens=tokens, lr_end=lr_end, decay=decay, unique=unique)

    @property
    def total(self) -> Tensor:
        """Tokens of each run, (R,)."""
        return self.tokens.sum((1, 2))

    @property
    def shares(self) -> Tensor:
        """Share of each phase and domain in all tokens of the run, (R, P, K), summing to 1 over both."""
        return self.tokens / self.total[:, None, None]

    @property
    def mixture(self) -> Tensor:
        """Share of each domain in all tokens of the run, phases ignored, (R, K)."""
        return self.shares.sum(1)

    @property
    def repeated(self) -> Tensor:
        """Epochs of each domain beyond the first, 0 where nothing repeats, (R, K)."""
        return (self.tokens.sum(1) / self.unique - 1).clamp(min=0)

    @cached_property
    def size_index(self) -> Tensor:
        """Number of the model size of each row, ascending from 0, (R,)."""
        log_params, order = self.params.detach().log().sort()
        index = torch.zeros_like(order)
        index[order[1:]] = (log_params.diff() > SAME_SIZE).cumsum(0)
        return index

    @property
    def sizes(self) -> int:
        """How many model sizes there are."""
        return int(self.size_index.max()) + 1 if len(self) else 0

    @property
    def at_largest(self) -> Tensor:
        """Whether a row is of the largest model size, (R,)."""
        return self.size_index == self.size_index.max()

    @cached_property
    def mixture_index(self) -> Tensor:
        """Number of the mixture by phase of each row, whatever its size and budget, (R,)."""
        return same_shares(self.shares.flatten(1))

    @cached_property
    def recipe_index(self) -> Tensor:
        """Number of the recipe of each row; rows that share it are repeats: only their seeds differ, (R,)."""
        single = torch.stack([self.params, self.progress, self.lr], 1)
        parts = [single, self.tokens.flatten(1), self.lr_end, self.decay, self.repeated]
        return _number(torch.cat(parts, 1).detach())

    @property
    def run_index(self) -> Tensor:
        """Number of the run of each row, (R,)."""
        number = {run: i for i, run in enumerate(dict.fromkeys(self.runs))}
        return torch.tensor([number[run] for run in self.runs])

    @property
    def final_lr(self) -> Tensor:
        """Learning rate over the peak at the end of the last phase that has tokens, (R,)."""
        used = (self.tokens.sum(2) > 0).to(torch.float64) * torch.arange(1, len(self.phases) + 1)
        return self.lr_end.gather(1, used.argmax(1, keepdim=True)).squeeze(1)


def tenfolds(design: Design, measured: Design) -> Tensor:
    """Tenfolds of parameters or of tokens, the larger of the two, outside the measured ones, (R,)."""
    away = []
    for value, known in ((design.params, measured.params), (design.total, measured.total)):
        log, ends = value.log10(), known.detach().log10()
        away.append((log - ends.max()).clamp(min=0) + (ends.min() - log).clamp(min=0))
    return torch.maximum(*away)


def same_shares(shares: Tensor) -> Tensor:
    """Number of the distinct row that each row of shares (R, n) is, up to rounding, (R,)."""
    return _number((shares.detach() * (1 / SAME_SHARE)).round())


def _number(rows: Tensor) -> Tensor:
    """Number of the distinct row that each row (R, n) is, (R,)."""
    number: Tensor = torch.unique(rows, dim=0, return_inverse=True)[1]
    return number


#: Fields of a design that have a row per recipe.
TENSORS = ("params", "tokens", "progress", "lr_end", "unique", "lr", "decay")


def axes(columns: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Phases and domains named by `tokens:<phase>:<domain>` columns, each in order of appearance.

    Raises:
        InputError: there is no such column.
    """
    pairs = [match.groups() for match in map(_TOKENS.match, columns) if match]
    if not pairs:
        raise InputError("the table has no tokens:<phase>:<domain> column; add one per phase and domain, in tokens")
    return tuple(dict.fromkeys(p for p, _ in pairs)), tuple(dict.fromkeys(d for _, d in pairs))


def cosine_ends(tokens: Floats, end: Floats) -> Floats:
    """Learning rate at the end of each phase of (R, P) tokens, on one half wave over all of them to `end` (R,)."""
    done = tokens.cumsum(1) / tokens.sum(1, keepdims=True)
    return np.asarray(end[:, None] + (1 - end[:, None]) * 0.5 * (1 + np.cos(np.pi * done)))


def _schedule(table: pl.DataFrame, phases: Sequence[str], tokens: Floats) -> tuple[Floats, Floats]:
    """Learning rate at the end and shape of each phase, (R, P) each, for tokens (R, P).

    Without a column, phases hold their rate and the run ends decayed: warmup-stable-decay, or one cosine.
    """
    ends = np.stack([_column(table, f"lr_end:{p}", float(i + 1 < len(phases))) for i, p in enumerate(phases)], 1)
    shapes = np.stack([_code(table, f"decay:{p}", SHAPES) for p in phases], 1)
    used = tokens > 0
    whole = _code(table, "schedule", {Schedule.WSD.value: 0.0, Schedule.COSINE.value: 1.0}) > 0
    if whole.any():
        last = (used * np.arange(1, len(phases) + 1)).argmax(1)
        end = ends[np.arange(len(ends)), last]
        ends = np.where(whole[:, None], cosine_ends(tokens, np.where(end == 1, 0.0, end)), ends)
        shapes = np.where(whole[:, None], WHOLE_COSINE, shapes)
    return np.where(used, ends, 1.0), np.where(used & (whole[:, None] | (ends < 1)), shapes, 0.0)


def _code(table: pl.DataFrame, name: str, codes: Mapping[str, float]) -> Floats:
    """One column of words as numbers, 0 where empty or absent.

    Raises:
        InputError: a word that has no number.
    """
    if name not in table.columns:
        return np.zeros(table.height)
    words = [None if word is None or word.lower() in EMPTY else word for word in texts(table[name])]
    values = np.array([0.0 if word is None else codes.get(word, np.nan) for word in words])
    _refuse(table, np.isnan(values), f"has a bad {name}", f"give one of {', '.join(codes)}")
    return values


def _take(values: Tensor, have: Sequence[str], want: Sequence[str], dim: int, fill: float) -> Tensor:
    """Reorder one axis by name, padding names that are absent with `fill`."""
    blank = torch.full_like(values.select(dim, 0), fill)
    return torch.stack([values.select(dim, have.index(n)) if n in have else blank for n in want], dim)


def _column(table: pl.DataFrame, name: str, default: float | None, inf: bool = False) -> Floats:
    """One column as float64 with its default filled in.

    Raises:
        InputError: it is required and absent, or holds a value that is negative or not finite.
    """
    if name not in table.columns:
        if default is None:
            raise InputError(f"the table has no {name} column; add it")
        return np.full(table.height, default)
    values = cells_of(table, name)
    if default is not None:
        values = np.where(np.isnan(values), default, values)
    most = 1.0 if name == "progress" or name.startswith("lr_end:") else np.inf
    bad = ~((values >= 0) & (values <= most) & (np.isfinite(values) | inf))
    _refuse(table, bad, f"has a bad {name}", "give a finite number >= 0" + (" and <= 1" if most == 1 else ""))
    return values


def cells_of(table: pl.DataFrame, name: str) -> Floats:
    """One column as float64, NaN where empty; numbers may be text, and counts of tokens and parameters sizes.

    Raises:
        InputError: a cell is no number; names all such cells.
    """
    column = table[name]
    if column.dtype.is_numeric():
        return column.cast(pl.Float64).to_numpy().astype(np.float64)
    log, runs = CellLog(), texts(table["run"]) if "run" in table.columns else [None] * table.height
    places = [f"row {row} (run {row if run is None else run})" for row, run in enumerate(runs)]
    sizes = name == "params" or name.startswith(("tokens:", "unique:"))
    found = numbers(column, places, name, log=log, sizes=sizes, infinite=True)
    log.check()
    return np.array(found, dtype=np.float64)


def _refuse(table: pl.DataFrame, bad: NDArray[np.bool_], problem: str, remedy: str) -> None:
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        name = table["run"][row] if "run" in table.columns else row
        raise InputError(f"row {row} (run {name}) {problem}; {remedy}")
