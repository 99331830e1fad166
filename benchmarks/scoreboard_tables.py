"""Public tables with what is asked of each: rows to learn from, rows to predict, figures beside bars and peers."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mixlaw import import_runs
from mixlaw.analysis.data.design import Design
from mixlaw.analysis.laws import HOFFMANN_2022, MUENNIGHOFF_2023, Law
from mixlaw.study import Study, open_study

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("MIXLAW_DATA", ROOT.parent / "shared" / "data"))
Floats = NDArray[np.float64]
Rows = NDArray[np.bool_]
#: A run whose loss is this many times that of the published data-constrained law has diverged.
DIVERGED = 1.5


@dataclass(frozen=True)
class Split:
    """Rows of a table to learn from and rows to predict; `law` names a law to fit alone, for comparison."""

    name: str
    train: Rows
    test: Rows
    law: str | None = None


@dataclass(frozen=True)
class Answer:
    """What was predicted for the test rows of a split.

    Attributes:
        tasks: names of the columns below.
        mean, lo90, hi90, law_only: in the tasks' units, (rows of the table, T); NaN where nothing was asked.
        seconds: that fit and prediction took.
        means: ends of the 90 % interval of the mean over each family of tasks, (2, rows of the table).
    """

    tasks: tuple[str, ...]
    mean: Floats
    lo90: Floats
    hi90: Floats
    law_only: Floats
    seconds: float
    means: Mapping[str, Floats] = field(default_factory=dict)


Answers = Mapping[str, Answer]


@dataclass(frozen=True)
class Figure:
    """One number of ours, the bar it should clear, and what peers reach."""

    what: str
    value: float
    peers: str = ""
    at_least: float = -math.inf
    at_most: float = math.inf

    @property
    def short(self) -> float:
        """By how much the bar is missed; 0 where it is met."""
        return max(0.0, self.at_least - self.value, self.value - self.at_most)

    @property
    def bar(self) -> str:
        """The bar in words; empty where there is none."""
        ends = [f"{end:.4g}" for end in (self.at_least, self.at_most) if math.isfinite(end)]
        if len(ends) == 2:
            return f"{ends[0]} to {ends[1]}"
        return f"{'≥' if math.isfinite(self.at_least) else '≤'} {ends[0]}" if ends else ""

    @property
    def verdict(self) -> str:
        """Met, or by how much it was missed."""
        if not self.bar:
            return ""
        return "met" if self.short == 0 else f"missed by {self.short:.2g}"


@dataclass(frozen=True)
class Board:
    """A public table: where it is, how it is imported, what is asked and how answers are judged."""

    source: str
    mapping: str
    splits: Callable[[pl.DataFrame], list[Split]]
    judge: Callable[[pl.DataFrame, Answers], list[Figure]]
    families: Callable[[str], set[str]] = lambda task: set()

    @property
    def path(self) -> Path:
        """The file or folder."""
        return DATA / self.source

    def load(self, folder: Path) -> tuple[Study, pl.DataFrame]:
        """Import into a new study; its table with the rows in the order of the file."""
        records = import_runs(
            folder, self.path, mapping=ROOT / "docs" / "mappings" / f"{self.mapping}.toml"
        ).imported.records
        study = open_study(folder)
        order = pl.DataFrame({"run": [record.run for record in records]})
        return study, order.join(study.table(), on="run", how="left", maintain_order="left")


def truth(table: pl.DataFrame, tasks: Sequence[str]) -> Floats:
    """Measured values, (R, T)."""
    return table.select(f"metric:{task}" for task in tasks).to_numpy()


def spearman(x: Floats, y: Floats) -> float:
    """Rank correlation of two vectors."""
    ranks = pl.DataFrame({"x": x, "y": y}).select(pl.all().rank())
    return float(np.corrcoef(ranks["x"], ranks["y"])[0, 1])


def rmse(off: Floats) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(off**2)))


def sizes(table: pl.DataFrame) -> Floats:
    """Parameters of every run, (R,)."""
    return table["params"].to_numpy().astype(np.float64)


# --- RegMix ---------------------------------------------------------------------------------------------------------

REGMIX = {
    "1M": ("test_mixture_1m", 0.992, 0.993, "LightGBM .990, log-linear .963", "LightGBM .990, log-linear .972"),
    "60M": ("test_mixture_60m", 0.990, 0.990, "LightGBM .986, log-linear .958", "LightGBM .984, log-linear .966"),
    "1B": ("test_mixture_1B", 0.985, 0.965, "log-linear .985, LightGBM .962", "LightGBM .948, log-linear .933"),
}


def rows_of(table: pl.DataFrame, prefix: str) -> Rows:
    """Runs whose name begins so."""
    return table["run"].str.starts_with(prefix).to_numpy()


def regmix_splits(table: pl.DataFrame) -> list[Split]:
    """512 runs of 1M parameters; 576 unseen mixtures at 1M, 60M and 1B."""
    train = rows_of(table, "train_mixture_1m")
    return [Split("swarm", train, ~train)]


def regmix_judge(table: pl.DataFrame, answers: Answers) -> list[Figure]:
    """Rank correlations by size, for Pile-CC and in the mean of the 13 losses."""
    found = answers["swarm"]
    measured, figures = truth(table, found.tasks), []
    for size, (prefix, bar_cc, bar_all, peers_cc, peers_all) in REGMIX.items():
        rows = rows_of(table, prefix)
        ranks = [spearman(p, y) for p, y in zip(found.mean[rows].T, measured[rows].T, strict=True)]
        one = ranks[found.tasks.index("pile_cc")]
        figures.append(Figure(f"Spearman at {size}, Pile-CC", one, peers_cc, at_least=bar_cc))
        mean = float(np.mean(ranks))
        figures.append(Figure(f"Spearman at {size}, mean of 13 losses", mean, peers_all, at_least=bar_all))
    return figures


# --- Marin ----------------------------------------------------------------------------------------------------------


def marin_splits(table: pl.DataFrame) -> list[Split]:
    """The five folds that are given: a permutation with seed 42, cut into five."""
    order, made = np.random.RandomState(42).permutation(table.height), []
    for number, held in enumerate(np.array_split(order, 5)):
        test = np.isin(np.arange(table.height), held)
        made.append(Split(f"fold {number + 1}", ~test, test))
    return made


def folded(answers: Answers) -> Answer:
    """Answers to folds that share no row, as one."""
    parts = list(answers.values())
    mean, lo90, hi90, law_only = (
        np.nansum([getattr(part, name) for part in parts], 0) for name in ("mean", "lo90", "hi90", "law_only")
    )
    return Answer(parts[0].tasks, mean, lo90, hi90, law_only, sum(part.seconds for part in parts))


def marin_judge(table: pl.DataFrame, answers: Answers) -> list[Figure]:
    """Errors on all runs and on the best 75 %, coverage, regret."""
    found, figures = folded(answers), []
    bars = {
        "code": (0.029, 0.0035, "GP on shares .029, LightGBM .078", "GP on log shares .0035, quadratic in them .0041"),
        "text": (0.081, 0.0010, "GP on shares .093, GP on log shares .230", "GP on log shares .0010, on shares .0024"),
    }
    for task, (bar_all, bar_best, peers_all, peers_best) in bars.items():
        at = found.tasks.index(task)
        measured, mean = truth(table, [task])[:, 0], found.mean[:, at]
        best = np.argsort(measured)[: round(0.75 * len(measured))]
        inside = float(np.mean((measured >= found.lo90[:, at]) & (measured <= found.hi90[:, at])))
        figures += [
            Figure(f"RMSE of {task} BPB, all runs", rmse(mean - measured), peers_all, at_most=bar_all),
            Figure(f"RMSE of {task} BPB, best 75 %", rmse((mean - measured)[best]), peers_best, at_most=bar_best),
            Figure(f"share of {task} BPB inside 90 % intervals", inside, "GP .92, .85", at_least=0.85, at_most=0.95),
        ]
    measured, mean = truth(table, ["code"])[:, 0], found.mean[:, found.tasks.index("code")]
    regret = float(measured[mean.argmin()] - measured.min())
    return [*figures, Figure("regret of the predicted best, code BPB", regret, at_most=0.004)]


# --- Olmix ----------------------------------------------------------------------------------------------------------

SEEDS = 3
OLMIX = {
    "code": (0.955, "log-linear .948, LightGBM .915, ridge .849"),
    "math": (0.978, "log-linear .975, LightGBM .937, ridge .914"),
    "all": (0.885, "LightGBM .861, log-linear .828, ridge .793"),
}


def olmix_family(task: str) -> set[str]:
    """Families that a task belongs to: as those for which the peers' figures come out again."""
    code = any(part in task for part in ("mbpp", "humaneval", "basic_skills_coding"))
    return {"all"} | ({"code"} if code else set()) | ({"math"} if "minerva" in task else set())


def olmix_splits(table: pl.DataFrame) -> list[Split]:
    """Random halves of the 512 runs."""
    made = []
    for seed in range(SEEDS):
        test = np.zeros(table.height, dtype=bool)
        test[np.random.default_rng(seed).permutation(table.height)[table.height // 2 :]] = True
        made.append(Split(f"half {seed + 1}", ~test, test))
    return made


def olmix_judge(table: pl.DataFrame, answers: Answers) -> list[Figure]:
    """Rank correlation of the mean over each family of tasks, averaged over the halves."""
    figures = []
    for family, (bar, peers) in OLMIX.items():
        ranks = []
        for found in answers.values():
            index = [i for i, task in enumerate(found.tasks) if family in olmix_family(task)]
            asked = np.isfinite(found.mean[:, 0])
            mean = found.mean[asked][:, index].mean(1)
            ranks.append(spearman(mean, truth(table, found.tasks)[asked][:, index].mean(1)))
        figures.append(Figure(f"Spearman of the mean of {family} tasks", float(np.mean(ranks)), peers, at_least=bar))
    inside = [covered(table, found, "code") for found in answers.values() if found.means]
    if not inside:
        return figures
    what, peers = "share of means over code tasks inside 90 % intervals", "tasks drawn as if independent .559"
    return [*figures, Figure(what, float(np.mean(inside)), peers, at_least=0.85, at_most=0.97)]


def covered(table: pl.DataFrame, found: Answer, family: str) -> float:
    """Share of the rows asked for whose mean over a family of tasks lies inside its interval."""
    low, high = found.means[family]
    mean = truth(table, [task for task in found.tasks if family in olmix_family(task)]).mean(1)
    asked = np.isfinite(low)
    return float(np.mean((mean >= low)[asked] & (mean <= high)[asked]))


# --- scaling tables -------------------------------------------------------------------------------------------------


def published(table: pl.DataFrame, law: Law) -> Floats:
    """What published coefficients say of every run, (R,)."""
    return law(Design.from_table(table, {})).numpy()


def sound(table: pl.DataFrame) -> Rows:
    """Runs that did not diverge."""
    return truth(table, ["c4"])[:, 0] < DIVERGED * published(table, MUENNIGHOFF_2023)


def datablations_splits(table: pl.DataFrame) -> list[Split]:
    """Sound runs under 1.5B parameters; all runs are predicted, also by Chinchilla fitted to the same."""
    train = sound(table) & (sizes(table) < 1.5e9)
    every = np.ones(table.height, dtype=bool)
    return [Split("ours", train, every), Split("Chinchilla", train, every, "Chinchilla")]


def epochs(table: pl.DataFrame) -> Floats:
    """Tokens over unique tokens, (R,)."""
    seen = table["tokens:init:c4"].to_numpy() / table["unique:c4"].to_numpy()
    return np.asarray(seen, dtype=np.float64)


def datablations_judge(table: pl.DataFrame, answers: Answers) -> list[Figure]:
    """Relative errors of the larger runs, all and those of more than four epochs."""
    measured = truth(table, ["c4"])[:, 0]
    judged = sound(table) & (sizes(table) >= 1.5e9)
    repeated = judged & (epochs(table) > 4)

    def error(values: Floats, rows: Rows) -> float:
        return rmse(np.log(values[rows] / measured[rows]))

    ours, refitted = answers["ours"].mean[:, 0], answers["Chinchilla"].law_only[:, 0]
    muennighoff, hoffmann = published(table, MUENNIGHOFF_2023), published(table, HOFFMANN_2022)
    bar = error(muennighoff, judged)
    peers = f"published data-constrained {bar:.4f}, Chinchilla refitted {error(refitted, judged):.4f}"
    figures = [Figure("relative error from 1.5B on, all epochs", error(ours, judged), peers, at_most=bar)]
    for name, values in (("refitted on the same runs", refitted), ("as published", hoffmann)):
        said = (
            f"Chinchilla {error(values, repeated):.4f}, published data-constrained {error(muennighoff, repeated):.4f}"
        )
        what = f"the same over 4 epochs; half of Chinchilla {name}"
        figures.append(Figure(what, error(ours, repeated), said, at_most=error(values, repeated) / 2))
    return figures


def large(table: pl.DataFrame) -> Rows:
    """Runs of more than 2B parameters."""
    return sizes(table) > 2e9


def ladder_splits(table: pl.DataFrame) -> list[Split]:
    """Runs up to 1.3B parameters; all are predicted, those of 3.2B count."""
    return [Split("ladder", ~large(table), np.ones(table.height, dtype=bool))]


def ladder_judge(table: pl.DataFrame, answers: Answers) -> list[Figure]:
    """Median errors of BPB and accuracy over tasks and runs."""
    found = answers["ladder"]
    measured = truth(table, found.tasks)
    bpb, accuracy = ([t.startswith(kind) for t in found.tasks] for kind in ("bpb/", "acc/"))
    relative = np.abs(np.log(found.mean / measured))[large(table)][:, bpb]
    points = 100 * np.abs(found.mean - measured)[large(table)][:, accuracy]
    peers = "authors, 7B and 13B: within 2 points on 4 tasks"
    return [
        Figure("median relative BPB error at 3.2B", float(np.median(relative)), at_most=0.01),
        Figure("median accuracy error at 3.2B, points", float(np.median(points)), peers, at_most=1.5),
    ]


def corpora(table: pl.DataFrame) -> dict[str, Rows]:
    """Rows of each corpus."""
    names = [c.removeprefix("tokens:init:") for c in table.columns if c.startswith("tokens:init:")]
    return {name: (table[f"tokens:init:{name}"].fill_null(0) > 0).to_numpy() for name in sorted(names)}


def open_lm_splits(table: pl.DataFrame) -> list[Split]:
    """Each corpus up to 1.4B parameters; all its runs are predicted, those of 6.9B count."""
    return [Split(name, rows & ~large(table), rows) for name, rows in corpora(table).items()]


def loss_errors(table: pl.DataFrame, found: Answer) -> Floats:
    """Log of predicted over measured loss, (R, losses), NaN where nothing was asked."""
    losses = [task for task in found.tasks if task.startswith("loss/")]
    mean = found.mean[:, [found.tasks.index(task) for task in losses]]
    return np.asarray(np.log(mean / truth(table, losses)), dtype=np.float64)


def open_lm_judge(table: pl.DataFrame, answers: Answers) -> list[Figure]:
    """Median relative error of the losses, by corpus and over all."""
    figures, errors = [], []
    for corpus, found in answers.items():
        off = loss_errors(table, found)
        errors.append(np.abs(off[large(table) & np.isfinite(off[:, 0])]).ravel())
        middle = float(np.median(errors[-1]))
        figures.append(Figure(f"median relative loss error at 6.9B, {corpus}", middle, at_most=0.01))
    whole = float(np.median(np.concatenate(errors)))
    return [*figures, Figure("median relative loss error at 6.9B, all corpora", whole, at_most=0.01)]


#: In the order of cost, so that two processes end at about the same time.
BOARDS = {
    "olmix": Board("olmix/full_recomputation_ratios.csv", "olmix", olmix_splits, olmix_judge, olmix_family),
    "regmix": Board("regmix", "regmix", regmix_splits, regmix_judge),
    "marin": Board("marin/two_phase_starcoder_143.csv", "marin", marin_splits, marin_judge),
    "datablations": Board(
        "datablations/c4_data_constrained_runs.csv", "datablations", datablations_splits, datablations_judge
    ),
    "olmo_ladder": Board("olmo_ladder/tidy_final_rows.csv", "olmo_ladder", ladder_splits, ladder_judge),
    "open_lm": Board("open_lm/tidy_openlm_runs.csv", "open_lm", open_lm_splits, open_lm_judge),
}
