"""Audit: how held-out runs were predicted, against peers that are hard to beat."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from mixlaw.analysis.audit.held import Held
from mixlaw.analysis.audit.peers import CHOICES, MEAN, TREES, peers
from mixlaw.analysis.audit.result import DIRECT, LAW, NUMBERS, OURS, Audit, audit_table
from mixlaw.analysis.data.design import Floats
from mixlaw.analysis.data.observed import Z90, Observed

#: Boosted trees are slow: they are fitted to the first tasks only.
TREES_TASKS = 4
#: Fewer rows than this that measure a task are not assessed.
FEWEST = 3


def audit(
    observed: Observed,
    held: Sequence[Held],
    calibration: Tensor,
    laws: Mapping[str, Sequence[Held]] | None = None,
    direct: Mapping[str, Sequence[Held]] | None = None,
) -> Audit:
    """Assess held-out predictions beside those of the peers and of every law tried; folds of one kind together.

    `direct` has predictions of the direct fit of tasks that are predicted through a link.
    """
    tried = laws if laws is not None and len(laws) > 1 else {}
    rows: list[dict[str, object]] = []
    for kind in dict.fromkeys(h.fold.kind for h in held):
        for t, task in enumerate(observed.tasks):
            others = {DIRECT: direct[task]} if direct and task in direct else {}
            by_name = {OURS: held, **others, **tried}
            parts = {name: [h for h in fits if h.fold.kind == kind] for name, fits in by_name.items()}
            figures = _assess(observed, parts, t, float(calibration[t]))
            rows += [{"fold": kind, "task": task} | row for row in figures]
    return Audit(audit_table(rows), tuple(held))


def _assess(observed: Observed, parts: Mapping[str, Sequence[Held]], t: int, factor: float) -> list[dict[str, object]]:
    """Figures of the surfaces, the law alone, other fits, peers and fixed mixtures on one task."""
    ours = parts[OURS]
    seen = [observed.seen[t, h.fold.test] for h in ours]
    rows = torch.cat([h.fold.test[s] for h, s in zip(ours, seen, strict=True)])
    if len(rows) < FEWEST:
        return []

    def join(fits: Sequence[Held], values: Callable[[Held], Tensor]) -> Floats:
        joined: Floats = torch.cat([values(h)[s, t] for h, s in zip(fits, seen, strict=True)]).detach().numpy()
        return joined

    truth = observed.target[t, rows].numpy()
    mean, half = join(ours, lambda h: h.mean), Z90 * factor * join(ours, lambda h: h.deviation)
    gains = torch.cat([h.gains(observed, torch.full((len(observed.tasks),), factor))[:, t] for h in ours])
    inside = {"coverage": float(np.mean(np.abs(truth - mean) <= half)), "width": float(np.median(2 * half))}
    inside["gains"] = float(gains.nanmean())
    predicted = {OURS: mean, LAW: join(ours, lambda h: h.law)}
    predicted |= {name: join(fits, lambda h: h.mean) for name, fits in parts.items() if name != OURS}
    predicted |= _peers(observed, ours, seen, t)
    figures = [{"method": name} | _figures(truth, values) for name, values in predicted.items()]
    figures[0] |= inside
    for row in figures:
        if row["method"] == MEAN:  # it ranks nothing: only folds differ in it
            row["spearman"] = None
    return figures + _fixed_mixtures(observed, rows, truth)


def _peers(observed: Observed, held: Sequence[Held], seen: Sequence[Tensor], t: int) -> dict[str, Floats]:
    """Predictions of all peers, refitted for every fold; those that need more runs are omitted."""
    parts: dict[str, list[Floats]] = {}
    for h, s in zip(held, seen, strict=True):
        train = h.fold.train[observed.seen[t, h.fold.train]]
        design, new = observed.design.select(train), observed.design.select(h.fold.test[s])
        for name, peer in peers(len(train)).items():
            if len(new) and (name != TREES or t < TREES_TASKS):
                parts.setdefault(name, []).append(peer.fit(design, observed.target[t, train].numpy()).predict(new))
    rows = sum(int(s.sum()) for s in seen)
    joined = {name: np.concatenate(values) for name, values in parts.items()}
    return {name: values for name, values in joined.items() if len(values) == rows}


def _fixed_mixtures(observed: Observed, rows: Tensor, truth: Floats) -> list[dict[str, object]]:
    """Regret of mixtures chosen without any fit; nothing where there is but one mixture."""
    if len(observed.design.domains) < 2:
        return []
    distance = {name: choice(observed.design.select(rows)) for name, choice in CHOICES.items()}
    return [
        dict.fromkeys(NUMBERS) | {"method": name, "rows": len(truth), "regret": _regret(truth, values)}
        for name, values in distance.items()
        if np.isfinite(values).all()
    ]


def _figures(truth: Floats, predicted: Floats) -> dict[str, object]:
    """Error, rank correlation and regret; the scale is log loss, so all are relative."""
    constant = np.ptp(truth) == 0 or np.ptp(predicted) == 0
    return {
        "rows": len(truth),
        "error": float(np.sqrt(np.mean((predicted - truth) ** 2))),
        "spearman": None if constant else float(spearmanr(truth, predicted).statistic),
        "regret": _regret(truth, predicted),
        "coverage": None,
        "width": None,
    }


def _regret(truth: Floats, predicted: Floats) -> float:
    """How much worse than the best row is the one predicted to be best; ties count by their mean."""
    return float(truth[predicted <= predicted.min() + 1e-9].mean() - truth.min())
