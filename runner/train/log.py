"""The log of a segment: speed, loss and time left, as JSON lines and by the clients of trackers.

Drivers use the sinks too, so torch is imported only where a device is asked.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixlaw.errors import InputError
from mixlaw.machine import peak_memory
from mixlaw.runner.plan.devices import gpu_named
from mixlaw.runner.plan.tree import Segment

if TYPE_CHECKING:
    import torch

    from mixlaw.runner.train.parallel import Ranks
    from mixlaw.runner.train.step import StepResult

ENTRY_SECONDS = 10.0  # between two entries
ENTRIES = 25  # that a segment has at least, so that short ones have a curve too

Entry = Mapping[str, Any]
Sink = Callable[[Entry | None], None]  # None closes it


class Meter:
    """Logs the training of a segment; entries of other ranks than the first go nowhere.

    Args:
        ranks: this process among those that train it.
        sinks: where entries go.
        flops_per_token: training FLOPs of the model.
        step_tokens: tokens per step.
        steps: first step to be trained, and the one after the last.
        domains: names of the recipe's, whose losses are logged as `loss:NAME`.
    """

    def __init__(
        self,
        ranks: Ranks,
        sinks: Sequence[Sink],
        flops_per_token: float,
        step_tokens: int,
        steps: tuple[int, int],
        domains: Sequence[str] = (),
    ) -> None:
        self.ranks, self.sinks = ranks, sinks
        self.flops_per_token, self.step_tokens, self.steps = flops_per_token, step_tokens, steps
        self.last = time.monotonic()
        self.domains, self.at = domains, steps[0]
        self._clear()
        self.mark = max(1, (steps[1] - steps[0]) // ENTRIES)

    def tick(self, step: int, result: StepResult, learning_rate: float) -> None:
        """Count a step; write an entry every ten seconds, at each 25th of the segment, and at its end."""
        self.losses.append(result.loss)
        for name, (loss, tokens) in zip(self.domains, result.domains, strict=False):
            before = self.by_domain.get(name, (0.0, 0.0))
            self.by_domain[name] = before[0] + loss, before[1] + tokens
        if result.skipped:
            self._write({"step": step, "event": "skipped", "loss": repr(result.loss), "norm": repr(result.norm)})
        now = time.monotonic()
        marked = (step + 1 - self.steps[0]) % self.mark == 0
        if now - self.last < ENTRY_SECONDS and not marked and step + 1 < self.steps[1]:
            return
        speed = (step + 1 - self.at) * self.step_tokens / max(now - self.last, 1e-9)
        entry = {
            "step": step + 1,
            "tokens": (step + 1) * self.step_tokens,
            "loss": sum(self.losses) / len(self.losses),
            **{f"loss:{name}": loss / tokens for name, (loss, tokens) in self.by_domain.items() if tokens},
            "learning_rate": learning_rate,
            "gradient_norm": result.norm,
            "tokens_per_second": speed,
            "mfu": speed * self.flops_per_token / (peak(self.ranks.device) * self.ranks.world),
            "memory_bytes": memory(self.ranks.device),
            "eta_seconds": (self.steps[1] - step - 1) * self.step_tokens / speed,
        }
        self.last, self.at = now, step + 1
        self._clear()
        self._write({name: repr(v) if isinstance(v, float) and v - v != 0 else v for name, v in entry.items()})

    def resumed(self, step: int, to: int, event: str, **why: Any) -> None:
        """Log that training resumes from the checkpoint after `to` steps, and why."""
        self._write({"step": step, "event": event, "to": to, **why})
        self.last, self.at = time.monotonic(), to
        self._clear()

    def _clear(self) -> None:
        """Begin another entry."""
        self.losses = list[float]()
        self.by_domain = dict[str, tuple[float, float]]()

    def _write(self, entry: Entry) -> None:
        for sink in self.sinks if self.ranks.first else ():
            sink(entry)

    def close(self) -> None:
        """Close the sinks."""
        for sink in self.sinks:
            sink(None)


def memory(device: torch.device) -> int:
    """Peak bytes so far: of the GPU's tensors, or of this process."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    return peak_memory()


@lru_cache(maxsize=4)
def peak(device: torch.device) -> float:
    """FLOPs per second of a device: dense bf16 by its data sheet, else the best of a few matrix products."""
    import torch

    if device.type == "cuda":
        gpu = gpu_named(torch.cuda.get_device_name(device))
        if gpu is not None:
            return gpu.peak
    size, kind = (768, torch.float32) if device.type == "cpu" else (8192, torch.bfloat16)
    one, best = torch.ones(size, size, device=device, dtype=kind), float("inf")
    for _ in range(4):
        began = time.perf_counter()
        float((one @ one)[0, 0])
        best = min(best, time.perf_counter() - began)
    return float(2 * size**3 / best)


def open_sinks(names: Sequence[str], runs: Path, segment: Segment) -> list[Sink]:
    """Sinks of a segment: `<lineage>.training.jsonl` in `runs`, and those named.

    Args:
        names: "tensorboard" writes beside `runs` into tensorboard/<lineage>; "wandb", "mlflow" and "trackio" into the
            project or experiment named after the study, by their own settings and variables (WANDB_MODE=offline,
            MLFLOW_TRACKING_URI, TRACKIO_DIR).
        runs: folder of the study's runs.
        segment: what is trained; one that resumes appends to its log.

    Raises:
        InputError: a client is not installed.
    """
    check_sinks(names)
    runs.mkdir(parents=True, exist_ok=True)
    makers = {"tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow, "trackio": _trackio}
    lineage = segment.lineage
    about = {"lineage": lineage, "phase": segment.phase, "recipe": segment.recipe.as_json()}
    return [_lines(runs / f"{lineage}.training.jsonl"), *(makers[name](runs.parent, lineage, about) for name in names)]


def check_sinks(names: Sequence[str]) -> None:
    """Find out whether the clients of sinks are installed.

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
        settings=wandb.Settings(console="off"),  # a worker's stdout belongs to its driver
    )
    run.define_metric("*", step_metric="step")

    def write(entry: Entry | None) -> None:
        if entry is None:
            run.finish()
        else:
            step = int(entry["step"])  # its own never goes back, as training does after a rollback
            run.log({**_numbers(entry), "step": step}, step=step if step >= run.step else None, commit=True)

    return write


def _mlflow(study: Path, lineage: str, about: Mapping[str, Any]) -> Sink:
    from mlflow.tracking import MlflowClient

    client, name = MlflowClient(), study.resolve().name
    experiment = client.get_experiment_by_name(name)
    place = experiment.experiment_id if experiment else client.create_experiment(name)
    known = client.search_runs([place], f"tags.lineage = '{lineage}'")  # of a segment that resumes
    run = (known[0] if known else client.create_run(place, run_name=lineage, tags={"lineage": lineage})).info.run_id
    if not known:
        client.set_tag(run, "recipe", json.dumps(about["recipe"]))
        client.log_param(run, "phase", about["phase"])

    def write(entry: Entry | None) -> None:
        if entry is None:
            client.set_terminated(run)
            return
        for key, value in _numbers(entry).items():  # its names have no colon on some systems
            client.log_metric(run, key.replace(":", "/"), value, step=int(entry["step"]))

    return write


def _trackio(study: Path, lineage: str, about: Mapping[str, Any]) -> Sink:
    import trackio

    run = trackio.init(project=study.resolve().name, name=lineage, config=dict(about), resume="allow")

    def write(entry: Entry | None) -> None:
        if entry is None:
            run.finish()
        else:
            run.log(_numbers(entry), step=int(entry["step"]))

    return write
