"""How fast a segment trains and how far it is: tokens/s, model FLOPs over the device's peak, memory, time left."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import lru_cache

import torch

from mixlaw.machine import peak_memory
from mixlaw.runner.train.gpus import GPUS
from mixlaw.runner.train.parallel import Ranks
from mixlaw.runner.train.sinks import Entry, Sink
from mixlaw.runner.train.step import Step

SECONDS = 10.0  # between two entries
MARKS = 25  # entries that a segment makes at least, so that short ones leave a curve too


class Meter:
    """Logs a segment; only the first rank's is used.

    Args:
        ranks: the processes that train it.
        sinks: where entries go.
        flops_per_token: training FLOPs of the model.
        step_tokens: tokens per step.
        steps: first step to be trained, and the one after the last.
    """

    def __init__(
        self, ranks: Ranks, sinks: Sequence[Sink], flops_per_token: float, step_tokens: int, steps: tuple[int, int]
    ) -> None:
        self.ranks, self.sinks = ranks, sinks
        self.flops_per_token, self.step_tokens, self.steps = flops_per_token, step_tokens, steps
        self.began = self.told = time.monotonic()
        self.at, self.losses = steps[0], list[float]()
        self.mark = max(1, (steps[1] - steps[0]) // MARKS)

    def tick(self, step: int, seen: Step, learning_rate: float) -> None:
        """Count a step; every ten seconds, at each of the marks, and at the end, make an entry."""
        self.losses.append(seen.loss)
        if not seen.made:
            self._tell({"step": step, "event": "left out", "loss": repr(seen.loss), "norm": repr(seen.norm)})
        now = time.monotonic()
        marked = (step + 1 - self.steps[0]) % self.mark == 0
        if now - self.told < SECONDS and not marked and step + 1 < self.steps[1]:
            return
        speed = (step + 1 - self.at) * self.step_tokens / max(now - self.told, 1e-9)
        entry = {
            "step": step + 1,
            "tokens": (step + 1) * self.step_tokens,
            "loss": sum(self.losses) / len(self.losses),
            "learning_rate": learning_rate,
            "gradient_norm": seen.norm,
            "tokens_per_second": speed,
            "mfu": speed * self.flops_per_token / (peak(self.ranks.device) * self.ranks.world),
            "memory_bytes": memory(self.ranks.device),
            "eta_seconds": (self.steps[1] - step - 1) * self.step_tokens / speed,
        }
        self.told, self.at, self.losses = now, step + 1, []
        self._tell({name: repr(v) if isinstance(v, float) and v - v != 0 else v for name, v in entry.items()})

    def turned_back(self, step: int, to: int, loss: float) -> None:
        """Say that the weights were spoilt and training goes on from an earlier checkpoint."""
        self._tell({"step": step, "event": "turned back", "to": to, "loss": repr(loss)})

    def _tell(self, entry: Entry) -> None:
        for sink in self.sinks if self.ranks.first else ():
            sink(entry)

    def close(self) -> None:
        """Close the sinks."""
        for sink in self.sinks:
            sink(None)


def memory(device: torch.device) -> int:
    """Peak bytes so far: of the accelerator's tensors, or of this process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return peak_memory()


@lru_cache(maxsize=4)
def peak(device: torch.device) -> float:
    """FLOPs per second that a device can do: dense bf16 by its data sheet, else the best of a few matrix products."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        known = [gpu for key, gpu in sorted(GPUS.items(), key=lambda item: len(item[0])) if key in name.split()]
        if known:
            return known[-1].peak
    size, kind = (768, torch.float32) if device.type == "cpu" else (8192, torch.bfloat16)
    one, best = torch.ones(size, size, device=device, dtype=kind), float("inf")
    for _ in range(4):
        began = time.perf_counter()
        float((one @ one)[0, 0])
        best = min(best, time.perf_counter() - began)
    return float(2 * size**3 / best)
