"""What the ladder's table shows: gains over sizes, schedules, order of phases, repeats, seeds.

python benchmarks/ladder_figures.py       # prints the tables of docs/ladder.md, from benchmarks/ladder/runs.csv
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl
from ladder import LENGTHS, MIXTURES, TABLE, TOKENS, cooled, grid, name_of, near, phased, repeats, seeds
from numpy.typing import NDArray
from scipy.stats import spearmanr

from mixlaw.numbers import percent
from mixlaw.recipe import Decay, Recipe
from mixlaw.runner.models.ladder import shape

Floats = NDArray[np.float64]
#: Losses in bits per byte; the two tasks that are scores tell recipes of these sizes apart by noise alone.
LOSSES = ("prose", "facts", "code", "markup", "docstrings", "synthetic", "humaneval", "cloze")
SIZES = tuple(TOKENS)
PAGE = TABLE.parents[2] / "docs" / "ladder.md"
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"


class Table:
    """Log losses by recipe, (T,), NaN where a recipe is not trained yet."""

    def __init__(self) -> None:
        table = pl.read_csv(TABLE, infer_schema_length=None)
        values = np.log(table.select([f"metric:{task}" for task in LOSSES]).to_numpy())
        self.by_recipe = dict(zip(table["recipe"], values, strict=True))

    def __call__(self, recipe: Recipe) -> Floats:
        """Log losses of a recipe."""
        return np.asarray(self.by_recipe.get(name_of(recipe), np.full(len(LOSSES), np.nan)))

    def gains(self, recipes: Sequence[Recipe], against: Recipe) -> Floats:
        """Percent of loss that recipes save against another, (R, T)."""
        return np.asarray(100 * (self(against) - np.array([self(recipe) for recipe in recipes])))


def markdown(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """One table with its title."""
    cells = "".join(f"\n| {' | '.join(row)} |" for row in rows)
    return f"\n**{title}**\n\n| {' | '.join(head)} |\n|{' --- |' * len(head)}{cells}\n"


def over_sizes(table: Table) -> str:
    """How gains over the balanced mixture at one size compare with those at another."""
    gains = {}
    for size in SIZES:
        recipes = list(grid(size))
        balanced = recipes[list(MIXTURES).index("balanced")]
        gains[size] = table.gains([r for r in recipes if r is not balanced], balanced)
    rows = []
    for small, large in [(a, b) for i, a in enumerate(SIZES) for b in SIZES[i + 1 :]]:
        x, y = gains[small], gains[large]
        both = np.isfinite(x).all(1) & np.isfinite(y).all(1)
        if both.sum() < 8:
            continue
        x, y = x[both], y[both]
        slope = (x * y).sum(0) / (x * x).sum(0)
        rank = [spearmanr(a, b).statistic for a, b in zip(x.T, y.T, strict=True)]
        cells = [f"{np.median(slope):.2f}", f"{slope.min():.2f} to {slope.max():.2f}", f"{np.median(rank):.3f}"]
        rows.append([small, large, str(int(both.sum())), *cells])
    head = ["from", "to", "recipes", "median slope of gains", "over tasks", "median rank"]
    return markdown("Gains over the balanced mixture, 8 losses", head, rows)


def schedules(table: Table) -> str:
    """Mean gain of cooldowns of one mixture over a linear one of 20 % at the same rate."""
    rows = []
    for size in SIZES:
        for lr in (0.5, 1.0, 2.0):
            base = replace(cooled(size, 0.2), lr=lr)
            lengths = [0.0, *LENGTHS] if lr == 1 else LENGTHS
            gain = {s: table.gains([replace(cooled(size, s), lr=lr)], base).mean() for s in lengths}
            rule = table.gains([base], cooled(size, 0.2)).mean()
            if np.isfinite(rule):
                cells = [f"{gain[s]:+.2f}" if s in gain and np.isfinite(gain[s]) else "" for s in (0.0, *LENGTHS)]
                rows.append([size, f"{lr:g}", f"{rule:+.2f}", *cells])
    head = ["size", "rate", "20 % over the rule's", "none", *(percent(s) for s in LENGTHS)]
    lengths_table = markdown("One mixture throughout: mean gain, %, of a linear cooldown over one of 20 %", head, rows)
    rows = []
    for size in SIZES:
        parts = {
            "1-sqrt, 10 %": (cooled(size, 0.1, decay=Decay.ONE_SQRT), 0.1),
            "1-sqrt, 20 %": (cooled(size, 0.2, decay=Decay.ONE_SQRT), 0.2),
            "1-sqrt, 40 %": (cooled(size, 0.4, decay=Decay.ONE_SQRT), 0.4),
            "cosine, 20 %": (cooled(size, 0.2, decay=Decay.COSINE), 0.2),
            "to a tenth, 20 %": (cooled(size, 0.2, end=0.1), 0.2),
            "to 30 %, 20 %": (cooled(size, 0.2, end=0.3), 0.2),
        }
        cells = [table.gains([recipe], cooled(size, length)).mean() for recipe, length in parts.values()]
        if np.isfinite(cells).any():
            rows.append([size, *(f"{cell:+.2f}" for cell in cells)])
    title = "Shapes and ends against a linear cooldown to zero of the same length, mean gain, %"
    return lengths_table + markdown(title, ["size", *parts], rows)


def order(table: Table) -> str:
    """What the order of two phases is worth as training becomes longer."""
    pairs = (
        ("code code prose_first", "code prose_first code"),
    )  # of the same totals: the last phases have equal lengths
    rows = []
    for ratio in (10, 22, 40, 80):
        tokens = None if ratio == 22 else ratio * shape("0.05M").params
        for early, late in pairs:
            a, b = (phased("0.05M", [MIXTURES[n] for n in names.split()], tokens) for names in (early, late))
            gain = table.gains([a], b)[0]
            if np.isfinite(gain).all():
                largest = LOSSES[int(np.abs(gain).argmax())]
                cells = [f"{np.sqrt(np.mean(gain**2)):.1f}", f"{gain[np.abs(gain).argmax()]:+.1f} ({largest})"]
                rows.append([str(ratio), f"{early} / {late}", *cells])
    head = ["tokens per parameter", "phases", "root mean square over losses, %", "largest, %"]
    return markdown("The same tokens in another order, at 0.05M", head, rows)


def repeated(table: Table) -> str:
    """What pools of fewer unique tokens cost."""
    recipes, rows = list(repeats("0.05M")), []
    for number, (name, task) in enumerate((("balanced", None), ("code", "code"), ("prose_first", "prose"))):
        fresh = phased("0.05M", [MIXTURES[name]] * 3)
        for epochs, recipe in zip((2, 4, 8, 16, 32), recipes[5 * number :], strict=False):
            gain = table.gains([recipe], fresh)[0]
            own = "" if task is None else f"{gain[LOSSES.index(task)]:+.2f}"
            if np.isfinite(gain).all():
                rows.append([name, task or "every domain", str(epochs), f"{gain.mean():+.2f}", own])
    return markdown(
        "Repeats at 0.05M: gain, %, over fresh data", ["mixture", "repeated", "epochs", "mean", "own loss"], rows
    )


def noise(table: Table) -> str:
    """How far seeds move losses beside recipes."""
    rows = []
    for size in SIZES:
        values = np.array([[table(recipe) for recipe in group] for group in trios(size)])
        if np.isfinite(values).all():
            seed = 100 * np.sqrt(values.var(1, ddof=1).mean(0))
            recipes = 100 * np.nanstd([table(recipe) for recipe in grid(size)], axis=0)
            cells = [f"{np.median(seed):.2f}", f"{seed.max():.2f}", f"{np.median(recipes):.1f}"]
            rows.append([size, *cells, f"{np.median(recipes / seed):.0f}"])
    head = ["size", "seeds, median %", "seeds, largest %", "recipes, median %", "ratio"]
    return markdown("Standard deviations over three seeds and over the recipes of the grid, 8 losses", head, rows)


def luck(table: Table) -> str:
    """How much of what a seed does is the same for two recipes: near ones at 0.025M, two far ones at every size."""
    less_code = list(near("0.025M"))[:12]
    groups = {
        "balanced and four near it, 0.025M": [[trios("0.025M")[0], *(less_code[i : i + 3] for i in range(0, 12, 3))]]
    }
    groups["balanced and code first, all sizes"] = [trios(size) for size in SIZES]
    rows = []
    for name, sizes in groups.items():
        both, alone = np.zeros(len(LOSSES)), np.zeros(len(LOSSES))
        for trio in sizes:
            values = np.array([[table(recipe) for recipe in recipes] for recipes in trio])
            apart = values - values.mean(1, keepdims=True)
            square = (apart**2).sum(1).mean(0)
            both += ((apart.sum(0) ** 2).sum(0) / len(trio) - square) / (len(trio) - 1)
            alone += square
        rows.append([name, *(f"{share:.2f}" for share in both / alone)])
    title = "Correlation over seeds of what a seed does to two recipes"
    return markdown(title, ["recipes", *LOSSES], rows)


def trios(size: str) -> list[list[Recipe]]:
    """Two recipes with three seeds each."""
    firsts = [["balanced"] * 3, ["code", "prose_first", "verified"]]
    runs = list(seeds(size))
    return [
        [phased(size, [MIXTURES[name] for name in names]), *runs[2 * i : 2 * i + 2]] for i, names in enumerate(firsts)
    ]


def main() -> None:
    """Write the tables into the page, and print them."""
    table = Table()
    figures = "".join(part(table) for part in (over_sizes, schedules, order, repeated, noise, luck))
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(text.split(BEGIN)[0] + BEGIN + "\n" + figures + "\n" + END + text.split(END)[1], encoding="utf-8")
    print(figures)


if __name__ == "__main__":
    main()
