"""Predict a size of the ladder from smaller ones, defaults alone: the first test of every change of a law.

    python benchmarks/ladder_predictions.py [SIZE [SMALLER ...]]     # 0.1M from 0.025M and 0.05M
    python benchmarks/ladder_predictions.py epochs     # where code is scarce: proxies that repeat it, or do not
    python benchmarks/ladder_predictions.py near       # small changes of a mixture: far proxies, or a third near it

The 36 recipes of the grid and the repeated seeds. Gains are over the balanced mixture, which three seeds measured, in
log loss; an interval of a gain is that of newly trained runs, as `verify` compares them. Write every look at 0.22M into
dev/LOG.md: a figure on rows that were looked at while something was chosen is not one on unseen rows.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import polars as pl
import torch
from ladder import MIXTURES, NEAR, TABLE, TOKENS, grid, matched, name_of, near, phased, seeds
from ladder_figures import LOSSES, markdown
from numpy.typing import NDArray
from scipy.stats import spearmanr

from mixlaw import fit
from mixlaw.analysis.data.design import Design
from mixlaw.recipe import Recipe
from mixlaw.runner.models.ladder import shape

Floats = NDArray[np.float64]
#: Unique tokens of the demo's corpora when the table was made; recipes of the grid repeat two of them a little.
UNIQUE = {
    "prose": 4_338_393, "facts": 2_996_068, "code": 5_430_739, "markup": 370_628, "docstrings": 2_238_867,
    "synthetic": 1_209_834,
}  # fmt: skip
UNITS = dict.fromkeys(LOSSES, "bits/byte") | {"capitals": "choice-prob", "agreement": "choice-prob"}
METRICS = [f"metric:{task}" for task in LOSSES]
DRAWS, Z90 = 64, 1.645
DESIGNS = 3  # drawn from the grid


def rows(table: pl.DataFrame, size: str) -> pl.DataFrame:
    """The grid and its repeated seeds at a size."""
    names = [name_of(recipe) for recipe in [*grid(size), *seeds(size)]]
    return table.filter(pl.col("recipe").is_in(names))


def predict(table: pl.DataFrame, size: str, smaller: list[str]) -> pl.DataFrame:
    """A row per loss: slope and rank of measured on predicted gains, errors, coverage and half widths in percent."""
    drop = [c for c in table.columns if c in ("lr", "recipe") or c.startswith(("unique:", "decay:"))]
    train = pl.concat([rows(table, one) for one in smaller])
    test = rows(table, size)
    balanced = {name_of(r) for r in (phased(size, [MIXTURES["balanced"]] * 3), *balanced_seeds(size))}
    base = test["recipe"].is_in(balanced).to_numpy()
    surfaces = fit(train.drop(drop), units=UNITS, unique=UNIQUE, resamples=DRAWS)
    design = Design.from_table(test.drop(drop), UNIQUE)
    found = surfaces.predict(design)
    runs = surfaces.new_runs(design, 4 * DRAWS).log().numpy()
    out = []
    for task in LOSSES:
        t = surfaces.tasks.index(task)
        y, mean = np.log(test[f"metric:{task}"].to_numpy()), np.log(found.mean[:, t])
        low, high = np.log(found.lo90[:, t]), np.log(found.hi90[:, t])
        gain, said = y[base].mean() - y[~base], mean[base].mean() - mean[~base]
        draws = runs[:, base, t].mean(1, keepdims=True) - runs[:, ~base, t]
        half = Z90 * draws.std(0)
        out.append({
            "task": task,
            "slope": float(gain @ said / (said @ said)),
            "rank": float(spearmanr(gain, said).statistic),
            "level error": 100 * float(np.median(np.abs(y - mean))),
            "levels inside": float(((y >= low) & (y <= high)).mean()),
            "level half width": 100 * float(np.median(high - low)) / 2,
            "gain error": 100 * float(np.sqrt(np.mean((gain - said) ** 2))),
            "gains inside": float((np.abs(gain - said) <= half).mean()),
            "gain half width": 100 * float(np.median(half)),
        })  # fmt: skip
    return pl.DataFrame(out)


def with_scarce_code(table: pl.DataFrame) -> pl.DataFrame:
    """0.1M with little code, from smaller runs of the same recipes that read whole pools, as many epochs, or both."""
    size, smaller = "0.1M", ("0.025M", "0.05M")
    drop = [c for c in table.columns if c in ("lr", "recipe") or c.startswith("decay:")]
    scarce = [recipe for one in smaller for recipe in matched(one)]
    whole = [replace(recipe, unique={}) for recipe in scarce]
    test, pools = named(table, matched(size)), UNIQUE | dict(next(matched(size)).unique)
    design, measured = Design.from_table(test.drop(drop), pools), gains_of(np.log(test.select(METRICS).to_numpy()))
    out = []
    for name, recipes in {"whole pools": whole, "as many epochs": scarce, "both": whole + scarce}.items():
        read = [pl.col(f"unique:{domain}").fill_null(float(count)) for domain, count in UNIQUE.items()]
        train = named(table, recipes).with_columns(read).drop(drop)
        surfaces = fit(train, units=UNITS, unique=pools, resamples=DRAWS)
        tasks = [surfaces.tasks.index(task) for task in LOSSES]
        said = gains_of(np.log(surfaces.predict(design).mean[:, tasks]))
        runs = surfaces.new_runs(design, 4 * DRAWS).log().numpy()[:, :, tasks]
        half = Z90 * gains_of(runs).std(0)
        mean, wanted = said.mean(1), measured.mean(1)
        out.append({
            "proxies": name,
            "runs": len(train),
            "gain error": rms(measured - said),
            "error of the mean": rms(wanted - mean),
            "slope": float(wanted @ mean / (mean @ mean)),
            "rank": float(spearmanr(wanted, mean).statistic),
            "gains inside": float((np.abs(measured - said) <= half).mean()),
            "gain half width": float(np.median(half)),
            "regret": float(max(wanted.max(), 0) - max(wanted[mean.argmax()], 0)),
        })  # fmt: skip
    return pl.DataFrame(out)


def near_mixtures(table: pl.DataFrame) -> pl.DataFrame:
    """Gains of recipes near the balanced one at 0.1M, from 18 recipes at three sizes: far ones, or a third near it.

    Errors are root mean squares over recipes, medians over losses, means over designs drawn from the grid.
    """
    sizes, drop = ("0.025M", "0.05M", "0.1M"), [c for c in table.columns if c in ("lr", "recipe") or "decay:" in c]
    table = table.drop(c for c in table.columns if c.startswith("unique:"))
    recipes = {size: list(near(size)) for size in sizes}
    less, others = recipes["0.1M"][:-NEAR], recipes["0.1M"][-NEAR // 2 :]
    test = named(table, [phased("0.1M", [MIXTURES["balanced"]] * 3), *balanced_seeds("0.1M"), *less, *others])
    logs, design = np.log(test.select(METRICS).to_numpy()), Design.from_table(test.drop(drop), UNIQUE)
    out = []
    for name, count in {"far alone": 0, "a third near": 6}.items():
        found = []
        for draw in range(DESIGNS):
            far = np.random.default_rng(draw).permutation(len(list(grid("0.1M"))))[: 17 - count]
            train = [phased(size, [MIXTURES["balanced"]] * 3) for size in sizes]
            train += [list(grid(size))[i] for size in sizes for i in far.tolist()]
            train += [recipe for size in sizes for recipe in recipes[size][-NEAR:][:count]]
            surfaces = fit(named(table, dict.fromkeys(train)).drop(drop), units=UNITS, unique=UNIQUE, resamples=DRAWS)
            tasks = [surfaces.tasks.index(task) for task in LOSSES]
            runs = surfaces.new_runs(design, 4 * DRAWS).log().numpy()[:, :, tasks]
            error = gains_of(logs, 3) - gains_of(np.log(surfaces.predict(design).mean[:, tasks]), 3)
            half = Z90 * gains_of(runs, 3).std(0)
            each = [np.sqrt(np.mean(part**2, 0)) for part in (error[: len(less)], error[len(less) :])]
            inside = float((np.abs(error) <= half).mean())
            found.append([*map(np.median, each), each[0][LOSSES.index("code")], inside, np.median(half)])
        columns = ("half the code", "other changes", "half the code: code", "inside", "half width")
        out.append({"proxies": name, **dict(zip(columns, np.mean(found, 0).tolist(), strict=True))})
    return pl.DataFrame(out)


def named(table: pl.DataFrame, recipes: Iterable[Recipe]) -> pl.DataFrame:
    """The rows of recipes, in their order."""
    order = pl.DataFrame({"recipe": [name_of(recipe) for recipe in recipes]})
    return order.join(table, on="recipe", how="left", maintain_order="left")


def gains_of(losses: Floats, first: int = 1) -> Floats:
    """Gains over the mean of the first recipes, %, from log losses (..., R, T): (..., R - first, T)."""
    gains: Floats = 100 * (losses[..., :first, :].mean(-2, keepdims=True) - losses[..., first:, :])
    return gains


def rms(values: Floats) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(values**2)))


def balanced_seeds(size: str) -> list[Recipe]:
    """The balanced mixture throughout, with its other seeds."""
    return [r for r in seeds(size) if r.phases[0].mixture == phased(size, [MIXTURES["balanced"]] * 3).phases[0].mixture]


def main(size: str = "0.1M", *smaller: str) -> None:
    """Print the table with its medians."""
    torch.set_num_threads(1)
    table = pl.read_csv(TABLE, infer_schema_length=None).with_columns(pl.col("lr").fill_null(1.0))
    if size == "near":
        found = near_mixtures(table)
        cells = [[row[0], *(f"{value:.2f}" for value in row[1:])] for row in found.iter_rows()]
        print(markdown(f"Near the balanced mixture at 0.1M: 8 losses, %, {DESIGNS} designs", found.columns, cells))
        return
    if size == "epochs":
        found = with_scarce_code(table)
        cells = [[row[0], str(row[1]), *(f"{value:.2f}" for value in row[2:])] for row in found.iter_rows()]
        print(markdown("0.1M with scarce code from 0.025M and 0.05M: 8 losses, %", found.columns, cells))
        return
    below = list(smaller) or [one for one in TOKENS if shape(one).params < shape(size).params]
    found = predict(table, size, below)
    whole = pl.concat([found, found.select(pl.lit("median").alias("task"), pl.all().exclude("task").median())])
    cells = [[row[0], *(f"{value:.2f}" for value in row[1:])] for row in whole.iter_rows()]
    print(markdown(f"{size} from {', '.join(below)}: 8 losses, errors and half widths in %", whole.columns, cells))


if __name__ == "__main__":
    main(*sys.argv[1:])
