"""One default configuration over public tables, each figure beside the peers' and the bar.

    python benchmarks/scoreboard.py [TABLE ...]

Tables: regmix marin olmix datablations ladder open_lm; data in $MIXLAW_DATA or ../shared/data. Only the mapping onto
the exchange format differs between tables; `fit` is called with its defaults.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mixlaw.analysis.design import Design
from mixlaw.analysis.fit import fit
from mixlaw.analysis.laws import HOFFMANN_2022, MUENNIGHOFF_2023
from mixlaw.analysis.surface import Prediction

DATA = Path(os.environ.get("MIXLAW_DATA", Path(__file__).parents[2] / "shared" / "data"))
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Figure:
    """One number of ours beside the bar and the best peer; `low` tells that small is good."""

    table: str
    what: str
    value: float
    bar: float
    peer: str
    low: bool = False

    def __str__(self) -> str:
        met = self.value <= self.bar if self.low else self.value >= self.bar
        verdict = "met" if met else "MISSED"
        return f"{self.table:14}{self.what:42}{self.value:>9.4f}{self.bar:>9.4f}  {verdict:7} {self.peer}"


def spearman(x: Floats, y: Floats) -> float:
    """Rank correlation of two vectors."""
    ranks = pl.DataFrame({"x": x, "y": y}).select(pl.all().rank())
    return float(np.corrcoef(ranks["x"], ranks["y"])[0, 1])


def metrics(table: pl.DataFrame) -> Floats:
    """Measured values of a table, shape (rows, tasks)."""
    return table.select([c for c in table.columns if c.startswith("metric:")]).to_numpy()


def learn(
    table: pl.DataFrame, unit: str, new: pl.DataFrame, unique: dict[str, float] | None = None, audited: bool = False
) -> Prediction:
    """Fit with defaults and predict; an audit (for calibration) only where intervals are judged."""
    units = {c.removeprefix("metric:"): unit for c in table.columns if c.startswith("metric:")}
    surfaces = fit(table, units=units, unique=unique or {}, resamples=24, audited=audited)
    return surfaces.predict(Design.from_table(new, unique or {}))


def one_phase(
    names: list[str], params: Floats, shares: Floats, tokens: Floats, domains: list[str], values: dict[str, Floats]
) -> pl.DataFrame:
    """A table of single-phase runs in the exchange format."""
    columns = {f"tokens:train:{d}": shares[:, i] * tokens for i, d in enumerate(domains)}
    return pl.DataFrame({"run": names, "params": params} | columns | {f"metric:{k}": v for k, v in values.items()})


def regmix_table(split: str, size: str, params: float, tokens: float) -> pl.DataFrame:
    """One split and size of RegMix as a table of one phase."""
    mixture = pl.read_csv(DATA / "regmix" / f"{split}_mixture_{size}.csv").drop("index")
    loss = pl.read_csv(DATA / "regmix" / f"{split}_pile_loss_{size}.csv").drop("index")
    shares = mixture.to_numpy() / mixture.to_numpy().sum(1, keepdims=True)
    full = np.full(len(shares), 1.0)
    values = {c.removeprefix("metric/the_pile_").removesuffix("_val_loss"): loss[c].to_numpy() for c in loss.columns}
    domains = [c.removeprefix("train_the_pile_") for c in mixture.columns]
    return one_phase([f"{size}-{i}" for i in range(len(shares))], params * full, shares, tokens * full, domains, values)


def regmix() -> list[Figure]:
    """Fit 512 runs of 1M parameters; rank correlation on unseen mixtures at 1M, 60M and 1B."""
    train = regmix_table("train", "1m", 1e6, 1e9)
    cases = (
        ("1M", regmix_table("test", "1m", 1e6, 1e9), 0.992, 0.993, "LightGBM .990 | .990"),
        ("60M", regmix_table("test", "60m", 6e7, 1e9), 0.990, 0.990, "LightGBM .986 | .984"),
        ("1B", regmix_table("test", "1B", 1e9, 25e9), 0.985, 0.965, "log-linear .985 | LightGBM .948"),
    )
    found = learn(train, "nats/token", pl.concat([c[1] for c in cases]))
    figures, first = [], 0
    for size, test, bar_cc, bar_all, peer in cases:
        truth, predicted = metrics(test), found.mean[first : first + test.height]
        first += test.height
        ranks = [spearman(p, y) for p, y in zip(predicted.T, truth.T, strict=True)]
        figures.append(Figure("regmix", f"Spearman {size}, Pile-CC", ranks[found.tasks.index("pile_cc")], bar_cc, peer))
        figures.append(Figure("regmix", f"Spearman {size}, mean of 13 losses", float(np.mean(ranks)), bar_all, peer))
    return figures


def marin() -> list[Figure]:
    """Five folds over the 143 two-phase runs: error, coverage, regret of the predicted best."""
    raw = pl.read_csv(DATA / "marin" / "two_phase_starcoder_143.csv")
    code, half = [raw[f"phase_{i}_starcoder"].to_numpy() for i in (0, 1)], 5e8
    columns = {f"tokens:phase{i}:web": (1 - s) * half for i, s in enumerate(code)}
    columns |= {f"tokens:phase{i}:code": s * half for i, s in enumerate(code)}
    names = {"code": "eval/paloma/dolma_100_programing_languages/bpb", "text": "eval/paloma/macro_bpb"}
    values = {f"metric:{k}": raw[v].to_numpy() for k, v in names.items()}
    table = pl.DataFrame(
        {"run": [f"r{i}" for i in range(raw.height)], "params": np.full(raw.height, 6e7)} | columns | values
    )
    order = np.random.RandomState(42).permutation(raw.height)
    truth = metrics(table)
    mean, low, high = (np.zeros_like(truth) for _ in range(3))
    for held in np.array_split(order, 5):
        kept = np.setdiff1d(order, held)
        found = learn(table[kept], "bits/byte", table[held], {"code": 1e9 / 26.3}, audited=True)
        mean[held], low[held], high[held] = found.mean, found.lo90, found.hi90
    best = [np.argsort(y)[: round(0.75 * len(y))] for y in truth.T]
    inside = float(((truth >= low) & (truth <= high)).mean())

    def rmse(task: int, rows: NDArray[np.int64] | slice) -> float:
        return float(np.sqrt(np.mean((mean[rows, task] - truth[rows, task]) ** 2)))

    regret = float(truth[mean[:, 0].argmin(), 0] - truth[:, 0].min())
    every = slice(None)
    return [
        Figure("marin", "code RMSE, all", rmse(0, every), 0.029, "GP on shares .029", low=True),
        Figure("marin", "code RMSE, best 75 %", rmse(0, best[0]), 0.0035, "GP on log shares .0035", low=True),
        Figure("marin", "text RMSE, all", rmse(1, every), 0.081, "exposure law .081", low=True),
        Figure("marin", "text RMSE, best 75 %", rmse(1, best[1]), 0.0010, "GP on log shares .0010", low=True),
        Figure("marin", "coverage of 90 % (.85 to .95), distance", abs(inside - 0.9), 0.05, "GP .92", low=True),
        Figure("marin", "regret of the predicted best, code", regret, 0.004, "", low=True),
    ]


def olmix() -> list[Figure]:
    """Random halves of the 512 runs: rank correlation of the mean over each family of tasks."""
    ratios, values = (pl.read_csv(DATA / "olmix" / f"full_recomputation_{n}.csv") for n in ("ratios", "metrics"))
    domains = [c for c in ratios.columns if c not in ("", "run", "name", "index")]
    tasks = [c for c in values.columns if c not in ("", "run", "name", "index")]
    both = ratios.join(values, on="run", suffix="_metric")
    shares = both.select(domains).to_numpy()
    shares = shares / shares.sum(1, keepdims=True)
    ones = np.ones(both.height)
    table = one_phase(
        both["run"].to_list(), 3e7 * ones, shares, 3e9 * ones, domains, {t: both[t].to_numpy() for t in tasks}
    )
    family = {
        "code": [i for i, t in enumerate(tasks) if "mbpp" in t or "humaneval" in t],
        "math": [i for i, t in enumerate(tasks) if "minerva" in t],
        "all": list(range(len(tasks))),
    }
    bars = {"code": (0.955, "log-linear .948"), "math": (0.978, "log-linear .975"), "all": (0.885, "LightGBM .861")}
    ranks: dict[str, list[float]] = {name: [] for name in family}
    for seed in range(int(os.environ.get("MIXLAW_OLMIX_SEEDS", "3"))):
        order = np.random.default_rng(seed).permutation(both.height)
        found = learn(table[order[:256]], "bits/byte", table[order[256:]])
        truth = metrics(table)[order[256:]]
        for name, index in family.items():
            ranks[name].append(spearman(found.mean[:, index].mean(1), truth[:, index].mean(1)))
    return [Figure("olmix", f"Spearman, {n} tasks", float(np.mean(r)), *bars[n]) for n, r in ranks.items()]


def datablations() -> list[Figure]:
    """Fit runs under 1.5B parameters, predict the larger; runs over 1.5 times the published law's loss are left out."""
    raw = pl.read_csv(DATA / "datablations" / "c4_data_constrained_runs.csv")
    table = pl.DataFrame(
        {"run": [f"r{i}" for i in range(raw.height)], "params": raw["params"], "tokens:train:c4": raw["tokens"]}
        | {"unique:c4": raw["unique_tokens"], "metric:c4": raw["val_loss_c4"]}
    )
    design = Design.from_table(table, {})
    truth, published = raw["val_loss_c4"].to_numpy(), MUENNIGHOFF_2023(design).numpy()
    sound = truth < 1.5 * published  # diverged runs are flagged by this rule alone
    large = raw["params"].to_numpy() >= 1.5e9
    judged, repeated = sound & large, sound & large & (raw["epochs"].to_numpy() > 4)
    predicted = learn(table.filter(pl.Series(sound & ~large)), "nats/token", table).mean[:, 0]

    def error(values: Floats, rows: NDArray[np.bool_]) -> float:
        return float(np.sqrt(np.mean(np.log(values[rows] / truth[rows]) ** 2)))

    half = error(HOFFMANN_2022(design).numpy(), repeated) / 2
    ours, peer = error(predicted, judged), error(published, judged)
    return [
        Figure("datablations", "relative error, runs >= 1.5B", ours, peer, "published coefficients", low=True),
        Figure(
            "datablations", "the same, over 4 epochs", error(predicted, repeated), half, "half Chinchilla", low=True
        ),
    ]


def ladder() -> list[Figure]:
    """Fit up to 1.3B, predict the 3.2B runs: BPB and accuracies."""
    raw = pl.read_csv(DATA / "olmo_ladder" / "tidy_final_rows.csv", infer_schema_length=None)
    tokens = (raw["_step"] * raw["batch_size_in_tokens"]).to_numpy().astype(float)
    large = (raw["n"] > 2e9).to_numpy()

    def held_out(columns: list[str], unit: str) -> tuple[Floats, Floats]:
        values = {c: raw[c].to_numpy() for c in columns}
        table = one_phase(
            raw["run"].to_list(), raw["n"].to_numpy().astype(float), np.ones((raw.height, 1)), tokens, ["dolma"], values
        )
        found = learn(table.filter(pl.Series(~large)), unit, table.filter(pl.Series(large)))
        return found.mean, metrics(table)[large]

    bpb, bpb_truth = held_out([c for c in raw.columns if "_bpb/" in c], "bits/byte")
    accuracy = [c for c in raw.columns if c.startswith("eval/downstream/")]
    points, points_truth = held_out(accuracy, "accuracy")
    relative = float(np.median(np.abs(np.log(bpb / bpb_truth))))
    off = float(100 * np.median(np.abs(points - points_truth)))
    return [
        Figure("ladder", "median relative BPB error, 3.2B", relative, 0.01, "", low=True),
        Figure("ladder", "median accuracy error, 3.2B, points", off, 1.5, "ladder about 2", low=True),
    ]


def open_lm() -> list[Figure]:
    """Fit each corpus up to 1.4B, predict 6.9B."""
    raw = pl.read_csv(DATA / "open_lm" / "tidy_openlm_runs.csv", infer_schema_length=None)
    losses, errors = [c for c in raw.columns if c.startswith("loss_")], []
    for corpus in sorted(set(raw["train_data"])):
        part = raw.filter(pl.col("train_data") == corpus)
        table = one_phase(
            part["name"].to_list(),
            part["params_no_embed"].to_numpy().astype(float),
            np.ones((part.height, 1)),
            part["tokens"].to_numpy().astype(float),
            [corpus],
            {c: part[c].to_numpy() for c in losses},
        )
        large = (part["params"] > 2e9).to_numpy()
        found = learn(table.filter(pl.Series(~large)), "nats/token", table.filter(pl.Series(large)))
        errors.append(np.abs(np.log(found.mean / metrics(table)[large])).ravel())
    median = float(np.median(np.concatenate(errors)))
    return [Figure("open_lm", "median relative loss error, 6.9B", median, 0.01, "", low=True)]


TABLES: dict[str, Callable[[], list[Figure]]] = {
    f.__name__: f for f in (regmix, marin, datablations, ladder, open_lm, olmix)
}


def main() -> None:
    """Print the figures of the named tables, or of all, beside their bars."""
    if not DATA.exists():
        print(f"scoreboard: no public tables in {DATA}; set MIXLAW_DATA to the folder that holds them")
        return
    print(f"{'table':14}{'figure':42}{'ours':>9}{'bar':>9}  {'':7} peers")
    for name in sys.argv[1:] or TABLES:
        began = time.perf_counter()
        for figure in TABLES[name]():
            print(figure)
        print(f"{'':14}({time.perf_counter() - began:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
