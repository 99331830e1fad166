"""What a study has on disk for a report: segments, loss curves, and how to reproduce the results."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mixlaw.errors import InputError
from mixlaw.folder import Folder
from mixlaw.plots import Curve, Node
from mixlaw.runner.plan.tree import Segment, plan


def nodes(study: Folder) -> tuple[Node, ...]:
    """The segment tree as the plot needs it; nothing where all runs are foreign."""
    if not study.has_data:
        return ()
    return tuple(
        Node(
            name=segment.lineage,
            parent=segment.parent,
            start=segment.start,
            stop=segment.stop,
            phase=segment.phase,
            params=segment.recipe.params,
            done=(study.runs / segment.lineage / "checkpoint").exists(),
            runs=segment.runs,
            label=segment.lineage if segment.is_run else "",
            mixture=str(next(p.mixture for p in segment.recipe.phases if p.name == segment.phase)),
        )
        for segment in plan(study.recipes()).segments
    )


def reproduce(study: Folder) -> tuple[str, ...]:
    """Hashes and commands that lead to the same results."""
    toml = hashlib.sha256((study.path / "study.toml").read_bytes()).hexdigest()[:12]
    own = study.has_data
    data = [f"data and training settings: {study.setup.identity}"] if own else []
    commands = ["mixlaw prepare STUDY", "mixlaw run STUDY"] if own else ["mixlaw import STUDY RUNS.csv"]
    commands += [f"mixlaw {verb} STUDY" for verb in ("fit", "propose", "verify", "report")]
    return (f"study.toml: sha256 {toml}", *data, *commands)


def suggested(study: Folder) -> tuple[dict[str, Any], ...]:
    """Job lines of the suggestions that were made from the present fit.

    Raises:
        InputError: a value that the report shows is missing.
    """
    fit, _ = study.hashes()
    jobs = {job["run"]: job for job in study.suggested() if job.get("fit") == fit}
    for run, job in jobs.items():
        if missing := {"params", "flops", "brings", "why"} - job.keys():
            raise InputError(f"run {run} in {study.path / 'suggestions'} has no {min(missing)}; restore that line")
    return tuple(jobs.values())


def curves(study: Folder, runs: Sequence[str] = ()) -> tuple[Curve, ...]:
    """Loss of every segment that has a log, parents first; nothing where all runs are foreign.

    Args:
        study: whose runs/<lineage>.training.jsonl are read.
        runs: lineages of the recipes that are wanted, all where none is named.
    """
    if not study.has_data:
        return ()
    wanted = set(runs)
    segments = (s for s in plan(study.recipes()).segments if not wanted or wanted & set(s.runs))
    logs = ((segment, *logged(study.runs / f"{segment.lineage}.training.jsonl")) for segment in segments)
    return tuple(_curve(segment, tokens, loss) for segment, tokens, loss in logs if tokens)


def logged(path: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Tokens and loss of the entries of a log; what was trained again after a kill counts as it was trained last."""
    tokens, loss = list[float](), list[float]()
    for entry in _entries(path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ()):
        while tokens and tokens[-1] >= entry[0]:
            tokens.pop()
            loss.pop()
        tokens.append(entry[0])
        loss.append(entry[1])
    return tuple(tokens), tuple(loss)


def _entries(lines: Iterable[str]) -> Iterable[tuple[float, float]]:
    """Tokens and loss of the lines that have a finite one; one that a kill cut short, or that is damaged, has none."""
    for line in lines:
        try:
            entry = json.loads(line)
            tokens, loss = float(entry["tokens"]), float(entry["loss"])
        except (ValueError, LookupError, TypeError):
            continue
        if math.isfinite(loss):
            yield tokens, loss


def _curve(segment: Segment, tokens: tuple[float, ...], loss: tuple[float, ...]) -> Curve:
    mixture = next(phase.mixture for phase in segment.recipe.phases if phase.name == segment.phase)
    params, runs = segment.recipe.params, segment.runs
    return Curve(segment.lineage, segment.parent, params, segment.phase, str(mixture), runs, tokens, loss)
