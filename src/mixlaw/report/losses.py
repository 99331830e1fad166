"""The loss curves of a study, out of what training logged of every segment."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mixlaw.plots import Curve
from mixlaw.runner.plan.tree import Segment, plan

if TYPE_CHECKING:
    from mixlaw.study import Study


def curves(study: Study, runs: Sequence[str] = ()) -> tuple[Curve, ...]:
    """Loss of every segment that has a log, parents first; nothing where all runs are foreign.

    Args:
        study: whose runs/<lineage>.training.jsonl are read.
        runs: lineages of the recipes that are wanted, all where none is named.
    """
    if not (study.data / "manifest.json").exists():
        return ()
    wanted = set(runs)
    segments = (s for s in plan(study.recipes()).segments if not wanted or wanted & set(s.runs))
    found = ((segment, *logged(study.runs / f"{segment.lineage}.training.jsonl")) for segment in segments)
    return tuple(_curve(segment, tokens, loss) for segment, tokens, loss in found if tokens)


def logged(path: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Tokens and loss of the entries of a log; what was trained again after a kill counts as it was trained last."""
    tokens, loss = list[float](), list[float]()
    for entry in _entries(path.read_text(encoding="utf-8").splitlines() if path.exists() else ()):
        while tokens and tokens[-1] >= entry[0]:
            tokens.pop()
            loss.pop()
        tokens.append(entry[0])
        loss.append(entry[1])
    return tuple(tokens), tuple(loss)


def _entries(lines: Iterable[str]) -> Iterable[tuple[float, float]]:
    """Tokens and loss of the lines that have a finite one; a line that a kill cut short has none."""
    for line in lines:
        try:
            told = json.loads(line)
        except json.JSONDecodeError:
            continue
        if "tokens" in told and math.isfinite(float(told["loss"])):
            yield float(told["tokens"]), float(told["loss"])


def _curve(segment: Segment, tokens: tuple[float, ...], loss: tuple[float, ...]) -> Curve:
    mixture = next(phase.mixture for phase in segment.recipe.phases if phase.name == segment.phase)
    params, runs = segment.recipe.params, segment.runs
    return Curve(segment.lineage, segment.parent, params, segment.phase, str(mixture), runs, tokens, loss)
