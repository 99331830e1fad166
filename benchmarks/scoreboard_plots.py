"""Pictures of the scoreboard: predicted against measured, and errors by size and epochs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import plotly.graph_objects as go
import polars as pl
from pictures import finished
from plotly.subplots import make_subplots
from scoreboard_tables import (
    OLMIX,
    REGMIX,
    Answers,
    Floats,
    Rows,
    epochs,
    folded,
    large,
    loss_errors,
    olmix_family,
    published,
    rows_of,
    sizes,
    sound,
    spearman,
    truth,
)

from mixlaw.analysis.laws import MUENNIGHOFF_2023
from mixlaw.plots.style import CYCLE, OTHER, count, faded

DOT = {"size": 5, "opacity": 0.7}


def panels(titles: list[str], gap: float = 0.08) -> go.Figure:
    """Empty panels side by side."""
    return make_subplots(1, len(titles), subplot_titles=titles, horizontal_spacing=gap)


def diagonal(figure: go.Figure, ends: list[float], column: int) -> None:
    """The line on which predictions are right."""
    line = {"color": OTHER, "width": 1, "dash": "dot"}
    figure.add_scatter(x=ends, y=ends, mode="lines", line=line, showlegend=False, row=1, col=column)


def ranks(values: Floats) -> Floats:
    """Ranks from 1."""
    return np.asarray(values.argsort().argsort() + 1, dtype=np.float64)


def regmix(table: pl.DataFrame, answers: Answers) -> go.Figure:
    """Ranks of unseen mixtures at three sizes, Pile-CC."""
    found = answers["swarm"]
    measured, mean = truth(table, ["pile_cc"])[:, 0], found.mean[:, found.tasks.index("pile_cc")]
    parts = {size: rows_of(table, asked[0]) for size, asked in REGMIX.items()}
    said = [
        f"{size}: {rows.sum()} mixtures, ρ = {spearman(mean[rows], measured[rows]):.4f}" for size, rows in parts.items()
    ]
    figure = panels(said)
    for i, rows in enumerate(parts.values(), 1):
        diagonal(figure, [1, rows.sum()], i)
        marker = {**DOT, "color": CYCLE[0]}
        place = {"row": 1, "col": i}
        x, y = ranks(measured[rows]), ranks(mean[rows])
        figure.add_scatter(x=x, y=y, mode="markers", marker=marker, showlegend=False, **place)
        figure.update_xaxes(title_text="measured rank", **place)
    figure.update_yaxes(title_text="predicted rank", col=1)
    return finished(figure, "RegMix: Pile-CC loss of unseen mixtures, learned from 512 runs of 1M parameters", 400)


def marin(table: pl.DataFrame, answers: Answers) -> go.Figure:
    """Held-out runs with their intervals, code and text."""
    found, figure = folded(answers), panels(["code, bits/byte", "text, bits/byte"])
    for i, task in enumerate(("code", "text"), 1):
        at = found.tasks.index(task)
        measured, place = truth(table, [task])[:, 0], {"row": 1, "col": i}
        mean, low, high = (values[:, at] for values in (found.mean, found.lo90, found.hi90))
        inside = (measured >= low) & (measured <= high)
        ends = [float(min(measured.min(), mean.min())) * 0.97, float(max(measured.max(), mean.max())) * 1.03]
        diagonal(figure, ends, i)
        for rows, colour, name in ((inside, CYCLE[0], "inside its 90 % interval"), (~inside, CYCLE[1], "outside")):
            bar = {"array": (high - mean)[rows], "arrayminus": (mean - low)[rows], "width": 0, "thickness": 1}
            figure.add_scatter(
                x=measured[rows],
                y=mean[rows],
                error_y={**bar, "color": faded(colour, 0.45)},
                mode="markers",
                marker={**DOT, "color": colour},
                name=name,
                showlegend=i == 1,
                **place,
            )
        figure.layout.annotations[i - 1].text += f": {inside.mean():.0%} of 143 runs inside"
        ticks = {"type": "log", "tickvals": [0.8, 0.9, 1, 1.1, 1.2, 1.4, 1.6, 2, 2.5, 3, 4]}
        figure.update_xaxes(title_text="measured", **ticks, **place)
        figure.update_yaxes(range=np.log10(ends), **ticks, **place)
    figure.update_yaxes(title_text="predicted without the run", col=1)
    return finished(figure, "Marin: two phases of code and text, each run predicted from the other four folds", 460)


def olmix(table: pl.DataFrame, answers: Answers) -> go.Figure:
    """Family means of the half that was not learned from, first seed."""
    found = next(iter(answers.values()))
    asked, parts = np.isfinite(found.mean[:, 0]), {}
    for family in OLMIX:
        index = [i for i, task in enumerate(found.tasks) if family in olmix_family(task)]
        means = found.mean[asked][:, index].mean(1), truth(table, found.tasks)[asked][:, index].mean(1)
        parts[f"{len(index)} tasks: {family}, ρ = {spearman(*means):.4f}"] = means
    figure = panels(list(parts))
    for i, (mean, measured) in enumerate(parts.values(), 1):
        diagonal(figure, [float(measured.min()), float(measured.max())], i)
        marker, place = {**DOT, "color": CYCLE[0]}, {"row": 1, "col": i}
        figure.add_scatter(x=measured, y=mean, mode="markers", marker=marker, showlegend=False, **place)
        figure.update_xaxes(title_text="measured, bits/byte", **place)
    figure.update_yaxes(title_text="predicted, bits/byte", col=1)
    return finished(figure, "Olmix: 64 domains, learned from a random half of 512 runs, the other half predicted", 400)


def datablations(table: pl.DataFrame, answers: Answers) -> go.Figure:
    """Relative error of the large runs over epochs, beside both published laws."""
    measured, figure = truth(table, ["c4"])[:, 0], go.Figure()
    rows = sound(table) & (sizes(table) >= 1.5e9)
    shown = {
        "Chinchilla, refitted on the same runs": (answers["Chinchilla"].law_only[:, 0], CYCLE[4], "triangle-up"),
        "data-constrained, as published": (published(table, MUENNIGHOFF_2023), CYCLE[2], "square"),
        "mixlaw": (answers["ours"].mean[:, 0], CYCLE[0], "circle"),
    }
    for name, (values, colour, symbol) in shown.items():
        marker = {"size": 8, "opacity": 0.75, "color": colour, "symbol": symbol}
        off = 100 * (values[rows] / measured[rows] - 1)
        figure.add_scatter(x=epochs(table)[rows], y=off, mode="markers", marker=marker, name=name)
    figure.add_hline(0, line_width=1, line_dash="dot")
    figure.update_xaxes(title_text="epochs over the unique tokens", type="log", tickvals=[1, 2, 4, 7, 14, 28, 44, 100])
    figure.update_yaxes(title_text="predicted over measured loss − 1, %")
    title = f"Datablations: {rows.sum()} runs from 1.5B parameters on, learned from smaller ones"
    return finished(figure, title, 440)


def by_size(figure: go.Figure, x: Floats, off: Floats, held: Rows, column: int) -> None:
    """Median and middle 80 % of relative errors at each size; held-out sizes in colour."""
    seen: set[bool] = set()
    for size in sorted(set(x)):
        errors, out = 100 * off[x == size].ravel(), bool(held[x == size].all())
        low, middle, high = np.quantile(errors, [0.1, 0.5, 0.9])
        colour = CYCLE[1] if out else OTHER
        figure.add_scatter(
            x=[size],
            y=[middle],
            error_y={"array": [high - middle], "arrayminus": [middle - low], "width": 4, "color": colour},
            mode="markers",
            marker={"size": 8, "color": colour},
            name="not learned from" if out else "learned from",
            legendgroup=str(out),
            showlegend=column == 1 and out not in seen,
            row=1,
            col=column,
        )
        seen.add(out)
    ticks = [size for size in sorted(set(x)) if size > 0]
    apart = (ticks[-1] / ticks[0]) ** 0.13  # nearer labels would touch
    kept = [t for i, t in enumerate(ticks) if i == len(ticks) - 1 or ticks[i + 1] / t > apart]
    figure.update_xaxes(type="log", tickvals=kept, ticktext=[count(t) for t in kept], row=1, col=column)
    figure.add_hline(0, line_width=1, line_dash="dot", row=1, col=column)


def olmo_ladder(table: pl.DataFrame, answers: Answers) -> go.Figure:
    """Errors of BPB and of accuracies by size."""
    found, figure = answers["ladder"], panels(["BPB, relative error in %", "accuracy, error in points"], 0.1)
    measured, x = truth(table, found.tasks), sizes(table)
    kinds = {"bpb/": np.log(found.mean / measured), "acc/": found.mean - measured}
    for i, (kind, off) in enumerate(kinds.items(), 1):
        by_size(figure, x, off[:, [task.startswith(kind) for task in found.tasks]], large(table), i)
    figure.update_xaxes(title_text="parameters")
    figure.update_yaxes(title_text="predicted − measured", col=1)
    return finished(figure, "OLMo ladder: median over tasks and runs, bars hold the middle 80 %", 420)


def open_lm(table: pl.DataFrame, answers: Answers) -> go.Figure:
    """Errors of the losses by size, for each corpus."""
    figure = panels([name.removesuffix("_original") for name in answers], 0.06)
    for i, found in enumerate(answers.values(), 1):
        off = loss_errors(table, found)
        rows = np.isfinite(off[:, 0])
        by_size(figure, sizes(table)[rows], off[rows], large(table)[rows], i)
        figure.update_xaxes(title_text="parameters", tickangle=0, row=1, col=i)
    figure.update_yaxes(title_text="predicted over measured loss − 1, %", col=1)
    return finished(figure, "open_lm: median over 8 losses and all runs of a size, bars hold the middle 80 %", 420)


PLOTS: dict[str, Callable[[pl.DataFrame, Answers], go.Figure]] = {
    plot.__name__: plot for plot in (regmix, marin, olmix, datablations, olmo_ladder, open_lm)
}
