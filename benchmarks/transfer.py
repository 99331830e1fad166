"""Does the best rate of a small model hold for a wide one? Plain initial weights and rates against CompleteP.

    python benchmarks/transfer.py STUDY [STEPS]

Three widths of two layers, on the prose of a prepared study (as `mixlaw demo` makes one), each at rates twofold apart:
mean loss of the last fifth of the steps. Where the rate transfers, the best one is the same in all columns.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mixlaw.runner.batches.shards import open_shards
from mixlaw.runner.models.architecture import Architecture
from mixlaw.runner.models.ladder import Shape, hyperparameters
from mixlaw.runner.models.llama import initialise, optimizer_of
from mixlaw.runner.models.loss import LossModule
from mixlaw.runner.train.step import train_step

WIDTHS, DEPTH, SEQUENCE, ROWS = (32, 64, 128), 2, 64, 8
RATES = [2.0**-power for power in (9, 8, 7, 6, 5, 4)]
BASE = "0.025M"  # width 32, two layers
RULES: dict[str, Architecture] = {"plain": Architecture(), "CompleteP": Architecture(complete_p=BASE)}


def batches(tokens: np.ndarray, steps: int) -> list[torch.Tensor]:
    """The same windows for every run, each of shape (ROWS, SEQUENCE + 1)."""
    starts = np.random.default_rng(0).integers(0, len(tokens) - SEQUENCE - 1, (steps, ROWS))
    return [torch.tensor(np.stack([tokens[s : s + SEQUENCE + 1] for s in row]).astype(np.int64)) for row in starts]


def final(width: int, rate: float, architecture: Architecture, vocabulary: int, data: list[torch.Tensor]) -> float:
    """Loss at the end: a tenth of warm-up, then a linear decay."""
    model: Any = initialise(Shape(width, DEPTH), vocabulary, SEQUENCE, seed=0, architecture=architecture)
    rules = replace(hyperparameters(25_000, ROWS * SEQUENCE), learning_rate=rate, beta2=0.99)
    losses, adamw = LossModule(model), optimizer_of(model, rules, architecture=architecture)
    seen = []
    for step, tokens in enumerate(data):
        share = (step + 1) / len(data)
        seen.append(train_step(losses, adamw, tokens, rate * min(10 * share, (1 - share) / 0.9 + 1e-3)).loss)
    return float(np.mean(seen[-len(seen) // 5 :]))


def main(study: str, steps: str = "400") -> None:
    """Print a table for each rule."""
    shards = open_shards(Path(study) / "data")
    data = batches(np.array(shards["prose"].tokens[:2_000_000]), int(steps))
    for name, architecture in RULES.items():
        print(f"{name:>10}" + "".join(f"{f'width {width}':>12}" for width in WIDTHS))
        table = np.full((len(RATES), len(WIDTHS)), np.nan)
        for row, rate in enumerate(RATES):
            for column, width in enumerate(WIDTHS):
                table[row, column] = final(width, rate, architecture, shards.manifest.vocabulary, data)
            best = "".join(f"{value:12.4f}" for value in table[row])
            print(f"{rate:10.5f}{best}", flush=True)
        print("best rates", *(f"2^{np.log2(RATES[int(row)]):.0f}" for row in np.nanargmin(table, axis=0)))


if __name__ == "__main__":
    main(*sys.argv[1:])
