"""Where a segment logs its progress: a JSON line per entry, and TensorBoard or Weights & Biases by their clients."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mixlaw.errors import InputError
from mixlaw.runner.plan.tree import Segment

Entry = Mapping[str, Any]
Sink = Callable[[Entry | None], None]  # None: that was all


def opened(names: Sequence[str], runs: Path, segment: Segment) -> list[Sink]:
    """Sinks of a segment: `<lineage>.training.jsonl` in `runs`, and those named.

    Args:
        names: "tensorboard" writes beside `runs` into tensorboard/<lineage>, "wandb" into the project of the study's
            name, by its own settings and variables (WANDB_MODE=offline keeps it on disk).
        runs: folder of the study's runs.
        segment: what is trained; one that is taken up again goes on in the same place.

    Raises:
        InputError: a client is not installed.
    """
    check(names)
    runs.mkdir(parents=True, exist_ok=True)
    makers, lineage = {"tensorboard": _tensorboard, "wandb": _wandb}, segment.lineage
    about = {"lineage": lineage, "phase": segment.phase, "recipe": segment.recipe.as_json()}
    return [_lines(runs / f"{lineage}.training.jsonl"), *(makers[name](runs.parent, lineage, about) for name in names)]


def check(names: Sequence[str]) -> None:
    """Find out whether the clients of sinks are here.

    Raises:
        InputError: one is not installed.
    """
    for name in names:
        if find_spec(name) is None:
            raise InputError(f"training.sinks names {name}, which is not installed: pip install {name}")


def _lines(path: Path) -> Sink:
    file = path.open("a", encoding="utf-8")

    def write(entry: Entry | None) -> None:
        if entry is None:
            file.close()
        else:
            file.write(json.dumps(entry) + "\n")
            file.flush()

    return write


def _numbers(entry: Entry) -> dict[str, float]:
    return {name: float(value) for name, value in entry.items() if isinstance(value, int | float) and name != "step"}


def _tensorboard(study: Path, lineage: str, about: Mapping[str, Any]) -> Sink:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(study / "tensorboard" / lineage))
    writer.add_text("about", json.dumps(about))

    def write(entry: Entry | None) -> None:
        if entry is None:
            writer.close()
            return
        for name, value in _numbers(entry).items():
            writer.add_scalar(name, value, entry["step"])

    return write


def _wandb(study: Path, lineage: str, about: Mapping[str, Any]) -> Sink:
    import wandb

    run = wandb.init(
        project=study.resolve().name,
        id=lineage,
        name=lineage,
        config=dict(about),
        dir=str(study),
        resume="allow",
        reinit="create_new",  # the driver of a Ray cluster logs several at once
        settings=wandb.Settings(console="off"),  # a worker's stdout is its talk with its driver
    )

    def write(entry: Entry | None) -> None:
        if entry is None:
            run.finish()
        else:
            run.log(_numbers(entry), step=entry["step"])

    return write
