"""What a rule for rate and batch costs, against the best of each grid: DeepSeek's, which mixlaw uses, and StepLaw's.

    python benchmarks/rate_rules.py

Public grids of rate and batch at .2 to 1.1B parameters (StepLaw, arXiv:2503.04715, in `../shared/data/scalebench`), and
the ladder's three rates at .025M to .1M. The loss at the grid point nearest to the rule, in logarithms, over that of
the best point, in percent. StepLaw was fitted to the public grids.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from scoreboard_tables import DATA

from mixlaw.runner.models.ladder import batch_rule, hyperparameters

SEQUENCE = 2048  # tokens of a sequence of the public grids
LADDER = Path(__file__).parent / "ladder" / "runs.csv"
BATCH = 1024  # tokens of the ladder's batch
#: Runs of a grid that are enough to have its best point.
ENOUGH = 60


def deepseek(params: float, tokens: float) -> tuple[float, float]:
    """Peak rate and batch in tokens, at 20 tokens for each parameter whatever the run has."""
    batch = batch_rule(round(params))
    return hyperparameters(round(params), round(batch)).learning_rate, batch


def step_law(params: float, tokens: float) -> tuple[float, float]:
    """Equation 1 of arXiv:2503.04715."""
    return 1.79 * params**-0.713 * tokens**0.307, 0.58 * tokens**0.571


def lost(grid: pl.DataFrame, rate: float, batch: float) -> float:
    """Loss at the grid point nearest to a rate and a batch in tokens, over the best, %."""
    at = np.log(grid.select("lr", pl.col("bsz") * SEQUENCE).to_numpy())
    nearest = int(np.square(at - np.log([rate, batch])).sum(1).argmin())
    loss = grid["lm_loss"].to_numpy()
    return float(100 * (loss[nearest] / loss.min() - 1))


def public() -> None:
    """Every size and budget with a full grid."""
    folder = DATA / "scalebench"
    if not folder.exists():
        print("the public grids are not here")
        return
    runs = pl.concat([pl.read_csv(folder / f"lr_bsz_scaling_law_{part}.csv") for part in ("train", "test")])
    figures = []
    print(f"{'params':>15} {'tokens':>16} {'runs':>5}  {'DeepSeek':>8}  {'StepLaw':>8}   % of loss over the best")
    for (params, tokens), grid in sorted(runs.group_by("non_embedding_param_size", "data_size")):
        if grid.height < ENOUGH:
            continue
        figures.append([lost(grid, *rule(params, tokens)) for rule in (deepseek, step_law)])
        cells = "  ".join(f"{value:8.2f}" for value in figures[-1])
        print(f"{params:15,.0f} {tokens:16,.0f} {grid.height:5}  {cells}")
    mean = np.mean(figures, 0)
    print(f"{'mean':>38}  {mean[0]:8.3f}  {mean[1]:8.3f}")


def ours() -> None:
    """The ladder's rates over the rule's, one mixture throughout, and the rate that StepLaw would take."""
    runs = pl.read_csv(LADDER, infer_schema_length=None).with_columns(pl.col("lr").fill_null(1.0))
    tokens = pl.sum_horizontal(c for c in runs.columns if c.startswith("tokens:"))
    losses = [c for c in runs.columns if c.startswith("metric:") and c not in ("metric:capitals", "metric:agreement")]
    cooled = pl.sum_horizontal(c for c in runs.columns if c.startswith("tokens:cooldown")) / tokens
    other = pl.sum_horizontal(c for c in runs.columns if c.startswith("tokens:continue")) > 0
    # Only the balanced mixture, cooled linearly over the same 40 %, has three rates at every size.
    same = runs.with_columns(tokens.alias("tokens"), pl.mean_horizontal(pl.col(losses).log()).alias("loss")).filter(
        ~other,
        (cooled - 0.4).abs() < 0.01,
        pl.col("decay:cooldown").fill_null("linear") == "linear",
        (tokens / pl.col("params")).is_between(18, 26),
    )
    print("\nladder: loss of a 40 % cooldown over the best of three rates, mean, %; StepLaw's rate over the rule's")
    for (params,), grid in sorted(same.group_by("params")):
        if grid["lr"].n_unique() < 3:
            continue
        loss = dict(grid.group_by("lr").agg(pl.col("loss").min()).sort("lr").iter_rows())
        cells = "  ".join(f"{lr:g}: {100 * (value - min(loss.values())):.2f}" for lr, value in loss.items())
        rule = hyperparameters(params, BATCH).learning_rate
        print(f"{params:15,}  {cells}   {step_law(params, grid['tokens'][0])[0] / rule:.1f}")


if __name__ == "__main__":
    public()
    ours()
