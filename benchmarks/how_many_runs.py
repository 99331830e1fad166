"""How many runs it takes: share of the possible gain by number of runs, in simulated worlds and on the ladder.

    python benchmarks/how_many_runs.py [WORLDS]

Worlds: three or seven domains, three phases, four tasks, a target of 8 times the largest proxy; each of the four
families of `simulated.py` in turn. The runs are the first design of `mixlaw suggest`, at two sizes; fits are without an
audit. Ladder: real runs at 0.025M, 0.05M and 0.1M of some of its recipes, which then rank all of them at 0.22M. Prints
the tables and draws the picture of docs/how_many_runs.md; what was played is kept in out/how_many_runs.json.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import plotly.graph_objects as go
import polars as pl
import torch
from ladder import MIXTURES, TABLE, grid, name_of
from ladder_figures import LOSSES, markdown
from ladder_predictions import UNIQUE
from pictures import finished, save
from plotly.subplots import make_subplots
from scipy.stats import spearmanr
from scoreboard_tables import ROOT
from simulated import DOMAINS, GUARDED, PROXIES, SMALL, Trial, flops_of_run

from mixlaw import fit
from mixlaw.analysis.data.design import Design
from mixlaw.optimizer.answers.propose import propose
from mixlaw.optimizer.next_runs.first_design import first_design
from mixlaw.optimizer.target.feasible import feasible
from mixlaw.plots.style import CYCLE, faded
from mixlaw.recipe import Domain

KEPT = ROOT / "out" / "how_many_runs.json"
WORLDS = 4
RUNS = (8, 16, 32, 64)
#: Domains of the worlds: text, books and code alone, or all seven.
SIDES: dict[str, tuple[Domain, ...]] = {"3 domains": DOMAINS[:3], "7 domains": DOMAINS}
#: Recipes of the ladder that are trained at three sizes; subsets of a number.
RECIPES, SUBSETS = (6, 12, 18, 36), 2
SIZES, TOP = ("0.025M", "0.05M", "0.1M"), "0.22M"


def simulated(trial: Trial, runs: int) -> dict[str, float]:
    """First design of runs of a number, fit, propose: share of the possible gain, and what the proposal promises."""
    unique = {domain.name: float(domain.unique_tokens) for domain in trial.domains}
    allowed = feasible(GUARDED, trial.domains)
    design = first_design(allowed, PROXIES, runs * flops_of_run(SMALL), runs, seed=trial.number)
    table = trial.world.measure([c.recipe for c in design], seed=trial.number)
    surfaces = fit(table, units=trial.world.units, unique=unique, resamples=16, audited=False, seed=trial.number)
    proposal = propose(surfaces, GUARDED, trial.domains, draws=16, starts=8, sizes=[], seed=trial.number)
    loss = trial.losses(proposal.recipe).mean()
    over = 100 * float(trial.losses(proposal.baselines[proposal.against]).mean() - loss)
    return {
        "runs": float(len(design)),
        "gain": 100 * float(trial.baseline.mean() - loss),
        "possible": 100 * trial.possible[True],
        "half": (proposal.gain.hi90 - proposal.gain.lo90) / 2,
        "inside": float(proposal.gain.lo90 <= over <= proposal.gain.hi90),
        "supported": float(proposal.supported),
    }


def of_ladder(table: pl.DataFrame, recipes: int, seed: int) -> dict[str, float]:
    """Runs of some recipes at three sizes rank every recipe of the grid at the fourth."""
    names = {
        size: [name_of(recipe) for recipe in grid(size)] for size in (*SIZES, TOP)
    }  # in the same order at each size
    base = list(MIXTURES).index("balanced")
    others = [place for place in range(len(names[TOP])) if place != base]
    kept = [base, *np.random.default_rng(seed).permutation(others)[: recipes - 1]]
    train = table.filter(pl.col("recipe").is_in([names[size][place] for size in SIZES for place in kept]))
    drop = [c for c in table.columns if c in ("lr", "recipe") or c.startswith(("unique:", "decay:"))]
    units = dict.fromkeys(LOSSES, "bits/byte") | {"capitals": "choice-prob", "agreement": "choice-prob"}
    surfaces = fit(train.drop(drop), units=units, unique=UNIQUE, resamples=16, audited=False)
    rows = table.filter(pl.col("recipe").is_in(names[TOP]))
    found = surfaces.predict(Design.from_table(rows.drop(drop), UNIQUE))
    predicted = np.log(found.mean[:, [surfaces.tasks.index(task) for task in LOSSES]]).mean(1)
    measured = np.log(rows.select([f"metric:{task}" for task in LOSSES]).to_numpy()).mean(1)
    gain = 100 * (measured[rows["recipe"].to_list().index(names[TOP][base])] - measured)
    return {
        "runs": float(train.height),
        "gain": float(gain[predicted.argmin()]),
        "possible": float(gain.max()),
        "rank": float(spearmanr(predicted, measured).statistic),
    }


def played(worlds: int) -> dict[str, dict[str, float]]:
    """Every figure by its key; what was played before is not played again."""
    torch.set_num_threads(1)
    table = pl.read_csv(TABLE, infer_schema_length=None).with_columns(pl.col("lr").fill_null(1.0))
    subsets = [(count, seed) for count in RECIPES for seed in range(SUBSETS if count < RECIPES[-1] else 1)]
    jobs: dict[str, Callable[[], dict[str, float]]] = {
        f"ladder/{count}/{seed}": partial(of_ladder, table, count, seed) for count, seed in subsets
    }
    for number in range(worlds):
        for name, domains in SIDES.items():
            trial = Trial(number, domains)
            jobs |= {f"{name}/{runs}/{number}": partial(simulated, trial, runs) for runs in RUNS}
    found: dict[str, dict[str, float]] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    for key, job in jobs.items():
        if key not in found:
            found[key] = job()
            KEPT.parent.mkdir(exist_ok=True)
            KEPT.write_text(json.dumps(found))
            print(key, {what: round(value, 3) for what, value in found[key].items()}, flush=True)
    return {key: found[key] for key in jobs}


def missed(found: Mapping[str, Mapping[str, float]], side: str, runs: int) -> list[float]:
    """What the recipe loses against the best one, percent of loss, in every world or subset."""
    return [v["possible"] - v["gain"] for key, v in found.items() if key.startswith(f"{side}/{runs}/")]


def tables(found: Mapping[str, Mapping[str, float]], worlds: int) -> str:
    """Both parts as Markdown."""
    cells = []
    for side in SIDES:
        possible = [v["possible"] for key, v in found.items() if key.startswith(f"{side}/{RUNS[0]}/")]
        medians = [f"{np.median(missed(found, side, runs)):.1f}" for runs in RUNS]
        cells.append([side, f"{np.median(possible):.1f}", *medians])
    head = ["simulated", "without a fit", *(f"{runs} runs" for runs in RUNS)]
    first = markdown(f"Loss against the true optimum, %, median of {worlds} worlds", head, cells)
    cells = []
    for count in RECIPES:
        some = [v for key, v in found.items() if key.startswith(f"ladder/{count}/")]
        lost, rank = np.mean(missed(found, "ladder", count)), np.mean([v["rank"] for v in some])
        cells.append([str(count), f"{some[0]['runs']:.0f}", f"{lost:.1f}", f"{rank:.2f}"])
    head = ["recipes", "runs, at three sizes", "loss against the best of 36", "rank correlation of all 36"]
    title = f"The ladder: predictions for {TOP}; without a fit the balanced mixture loses {some[0]['possible']:.1f} %"
    return f"{first}\n{markdown(title, head, cells)}"


def figure(found: Mapping[str, Mapping[str, float]]) -> go.Figure:
    """What is lost by number of runs, in worlds and on the ladder."""
    drawn = make_subplots(1, 2, subplot_titles=["simulated worlds", "the ladder, real runs"], horizontal_spacing=0.1)
    for column, sides in enumerate((list(SIDES), ["ladder"]), 1):
        for side in sides:
            colour = CYCLE[(*SIDES, "ladder").index(side)]
            counts = RUNS if side in SIDES else RECIPES
            lost = [missed(found, side, count) for count in counts]
            x = counts if side in SIDES else [len(SIZES) * count for count in counts]
            place = {"row": 1, "col": column}
            for number in range(max(map(len, lost))):
                y = [some[number] if number < len(some) else None for some in lost]
                line = {"color": faded(colour, 0.35), "width": 1}
                drawn.add_scatter(x=x, y=y, mode="lines", line=line, showlegend=False, **place)
            name = "the ladder" if side == "ladder" else side
            middle = [float(np.median(some)) for some in lost]
            drawn.add_scatter(
                x=x, y=middle, mode="lines+markers", line={"color": colour, "width": 3}, name=name, **place
            )
        drawn.update_xaxes(title_text="runs", type="log", tickvals=[8, 16, 32, 64, 128], row=1, col=column)
    drawn.update_yaxes(rangemode="tozero")
    drawn.update_yaxes(title_text="loss against the best recipe, %", col=1)
    return finished(drawn, "What is lost by number of runs: a thin line for each world or subset of recipes", 420)


def main(worlds: int) -> None:
    """Play, print the tables, draw the picture."""
    found = played(worlds)
    print(tables(found, worlds))
    save({"how-many-runs": figure(found)})


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else WORLDS)
