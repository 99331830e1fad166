"""Audit: how held-out runs were predicted, against baselines that are hard to beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from torch import Tensor

from mixlaw.analysis.audit.folds import Fold
from mixlaw.analysis.audit.peers import BASELINES, CHOICES
from mixlaw.analysis.data.design import Floats
from mixlaw.analysis.data.observed import Z90, Observed
from mixlaw.printable import Printable

#: Weight, in rows, of what all tasks say about calibration against one task's own rows.
SHARED_ROWS = 40
#: Runs at which half of a narrowing is believed.
NARROW_ROWS = 300
#: A task moves with recipes if held-out errors are below this share of those of its mean.
SIGNAL = 0.9
#: Boosted trees are slow: they stand beside the first tasks only.
TREES_TASKS = 4
OURS, LAW, DIRECT = "surfaces", "law alone", "without link"
NUMBERS = ("error", "spearman", "regret", "coverage", "width")


@dataclass(frozen=True, eq=False)
class Held:
    """What was predicted for the rows of one fold, all in log loss relative to the tasks' centres.

    Attributes:
        fold: which rows.
        mean, law, deviation: predictions and the standard deviation of a new run, (Q, T).
    """

    fold: Fold
    mean: Tensor
    law: Tensor
    deviation: Tensor

    def z(self, observed: Observed) -> Tensor:
        """Standardised errors, NaN where not measured, (Q, T)."""
        error = (observed.target[:, self.fold.test].T - self.mean) / self.deviation
        return torch.where(observed.seen[:, self.fold.test].T, error, torch.nan)


@dataclass(frozen=True, eq=False)
class Audit(Printable):
    """Held-out figures of a fit.

    Attributes:
        table: one row per fold kind, task and method: `rows` held out, `error` (root mean square of relative error of
            the loss), `spearman`, `regret` (how much worse, relative, than the best held-out run is the one that the
            method would have chosen), `coverage` of the 90 % intervals and their median relative `width`; empty where a
            method has none.
        held: what was predicted for the rows of each fold, not yet calibrated.
    """

    table: pl.DataFrame
    held: tuple[Held, ...] = ()

    def has_signal(self, task: str) -> bool:
        """Whether held-out mixtures of a task are predicted better than by its mean; True where none was held out."""
        part = self.table.filter(pl.col("task") == task, pl.col("fold") == "mixtures")
        if not part.height:
            return True
        error = dict(zip(part["method"], part["error"], strict=True))
        return bool(error[OURS] < SIGNAL * error["mean"])

    def of_link(self, task: str) -> tuple[float, float] | None:
        """Held-out error of a linked task through its link and by its own fit; None where none was held out."""
        part = self.table.filter(pl.col("task") == task, pl.col("method").is_in([OURS, DIRECT]))
        found = {method: (rows["error"] ** 2).mean() for (method,), rows in part.group_by("method")}
        if DIRECT not in found:
            return None
        return float(found[OURS]) ** 0.5, float(found[DIRECT]) ** 0.5  # type: ignore[arg-type]

    def __str__(self) -> str:
        if not self.table.height:
            return "audit: too few runs to hold any out"
        lines = ["audit: held-out runs, medians over tasks (error, regret and width relative to the loss)"]
        for (kind,), part in self.table.group_by("fold", maintain_order=True):
            rows = int(part["rows"].max())  # type: ignore[arg-type]
            lines.append(f"  leave {kind} out ({rows} rows)")
            lines.append(f"    {'':14}{'error':>9}{'spearman':>10}{'regret':>9}{'coverage':>10}{'width':>9}")
            lines += [f"    {line}" for line in _lines(part)]
        return "\n".join(lines)


def _lines(part: pl.DataFrame) -> list[str]:
    compared = part.filter(pl.col("method") != DIRECT)  # it has rows of linked tasks alone
    middle = compared.group_by("method", maintain_order=True).agg(pl.col(NUMBERS).median())
    shape = {
        "error": "{:>9.2%}",
        "spearman": "{:>10.3f}",
        "regret": "{:>9.2%}",
        "coverage": "{:>10.0%}",
        "width": "{:>9.2%}",
    }
    lines = []
    for row in middle.iter_rows(named=True):
        cells = [
            shape[n].format(row[n]) if row[n] is not None else " " * int(shape[n][3:].split(".")[0]) for n in NUMBERS
        ]
        lines.append(f"{row['method']:14}" + "".join(cells))
    return lines


def audit(
    observed: Observed,
    held: Sequence[Held],
    calibration: Tensor,
    laws: Mapping[str, Sequence[Held]] | None = None,
    direct: Mapping[str, Sequence[Held]] | None = None,
) -> Audit:
    """Judge held-out predictions beside the baselines' and those of every law tried; folds of one kind together.

    `direct` has, for tasks that are predicted through a link, what their own fit predicted.
    """
    tried = laws if laws is not None and len(laws) > 1 else {}
    rows: list[dict[str, object]] = []
    for kind in dict.fromkeys(h.fold.kind for h in held):
        parts = _of_kind(held, kind)
        for t, task in enumerate(observed.tasks):
            others = {DIRECT: direct[task]} if direct and task in direct else {}
            others = {name: _of_kind(found, kind) for name, found in {**others, **tried}.items()}
            rows += [
                {"fold": kind, "task": task} | row
                for row in _judge_task(observed, parts, others, t, float(calibration[t]))
            ]
    return Audit(audit_table(rows), tuple(held))


def _of_kind(held: Sequence[Held], kind: str) -> list[Held]:
    return [h for h in held if h.fold.kind == kind]


def audit_table(rows: Sequence[dict[str, object]]) -> pl.DataFrame:
    """The audit's columns with their types, also when there are no rows."""
    schema: dict[str, pl.DataType] = dict.fromkeys(("fold", "task", "method"), pl.String()) | {"rows": pl.Int64()}
    return pl.DataFrame(list(rows), schema=schema | dict.fromkeys(NUMBERS, pl.Float64()))


def calibrate(observed: Observed, held: Sequence[Held]) -> Tensor:
    """Factor per task on interval widths that puts 90 % of the held-out rows inside; tasks are partially pooled."""
    if not held:
        return torch.ones(len(observed.tasks), dtype=torch.float64)
    size = torch.cat([h.z(observed) for h in held]).abs()
    runs = len(set(observed.design.runs))
    # Tasks share their runs: the pooled figure is as sure as there are runs, and starts from "already calibrated".
    # Few runs may widen intervals but hardly narrow them: too narrow does more harm than too wide.
    pooled = (torch.nanquantile(size, 0.9) / Z90).clamp(min=1e-3)
    pooled = pooled ** (runs / (runs + (SHARED_ROWS if pooled > 1 else NARROW_ROWS)))
    own = torch.nanquantile(size, 0.9, dim=0) / Z90
    count = (~size.isnan()).sum(0)
    own = own.nan_to_num(1.0).clamp(min=1e-3).log()
    doubt = torch.where(own > pooled.log(), SHARED_ROWS, NARROW_ROWS)
    shrunk = (count * own + doubt * pooled.log()) / (count + doubt)
    return shrunk.exp().clamp(0.6, 4.0)


def _judge_task(
    observed: Observed, parts: Sequence[Held], laws: Mapping[str, Sequence[Held]], t: int, factor: float
) -> list[dict[str, object]]:
    seen = [observed.seen[t, h.fold.test] for h in parts]
    if sum(int(s.sum()) for s in seen) < 3:
        return []
    truth = _join([observed.target[t, h.fold.test][s] for h, s in zip(parts, seen, strict=True)])
    mean = _join([h.mean[s, t] for h, s in zip(parts, seen, strict=True)])
    law = _join([h.law[s, t] for h, s in zip(parts, seen, strict=True)])
    half = Z90 * factor * _join([h.deviation[s, t] for h, s in zip(parts, seen, strict=True)])
    ours = _figures(truth, mean) | {
        "coverage": float(np.mean(np.abs(truth - mean) <= half)),
        "width": float(np.median(2 * half)),
    }
    found = [{"method": OURS} | ours, {"method": LAW} | _figures(truth, law)]
    for name, tried in laws.items():
        alone = _join([h.mean[s, t] for h, s in zip(tried, seen, strict=True)])
        found.append({"method": name} | _figures(truth, alone))
    for name in BASELINES:
        if name == "LightGBM" and t >= TREES_TASKS:
            continue
        predicted = np.concatenate([_apply(observed, h, t, s, name) for h, s in zip(parts, seen, strict=True)])
        if np.isfinite(predicted).all():
            found.append({"method": name} | _figures(truth, predicted))
    return found + _chosen_blindly(
        observed, torch.cat([h.fold.test[s] for h, s in zip(parts, seen, strict=True)]), truth
    )


def _chosen_blindly(observed: Observed, rows: Tensor, truth: Floats) -> list[dict[str, object]]:
    """Regret of the mixtures that nobody needs a fit for; nothing where there is but one mixture."""
    if len(observed.design.domains) < 2:
        return []
    apart = {name: choice(observed.design.select(rows)) for name, choice in CHOICES.items()}
    return [
        dict.fromkeys(NUMBERS) | {"method": name, "rows": len(truth), "regret": _regret(truth, values)}
        for name, values in apart.items()
        if np.isfinite(values).all()
    ]


def _apply(observed: Observed, held: Held, t: int, seen: Tensor, name: str) -> Floats:
    train = held.fold.train[observed.seen[t, held.fold.train]]
    new = observed.design.select(held.fold.test[seen])
    return BASELINES[name](observed.design.select(train), observed.target[t, train].numpy(), new)


def _figures(truth: Floats, predicted: Floats) -> dict[str, object]:
    """Error, rank correlation and regret; the scale is log loss, so all are relative."""
    return {
        "rows": len(truth),
        "error": float(np.sqrt(np.mean((predicted - truth) ** 2))),
        "spearman": _spearman(truth, predicted),
        "regret": _regret(truth, predicted),
        "coverage": None,
        "width": None,
    }


def _regret(truth: Floats, predicted: Floats) -> float:
    """How much worse than the best is the row that looks best; rows that look alike count in the mean."""
    return float(truth[predicted <= predicted.min() + 1e-9].mean() - truth.min())


def _spearman(x: Floats, y: Floats) -> float | None:
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    ranks = pl.DataFrame({"x": x, "y": y}).select(pl.all().rank())
    return float(np.corrcoef(ranks["x"], ranks["y"])[0, 1])


def _join(parts: Sequence[Tensor]) -> Floats:
    joined: Floats = torch.cat(list(parts)).detach().numpy()
    return joined
