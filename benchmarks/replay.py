"""Replay of choosing runs: how soon a good one is found among 143 two-phase runs of Marin and 512 runs of RegMix.

    python benchmarks/replay.py [SEEDS [METHOD ...]]

Every method starts from the same runs, sees the value of a run only once it has taken it, and recommends a run after
every batch. Traces are kept in out/replay.json and taken from there: delete it to begin anew. Writes the tables and the
picture of docs/optimizer_benchmarks.md. Data in $MIXLAW_DATA or ../shared/data.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import polars as pl
import torch
from numpy.typing import NDArray
from peers import first_runs, methods
from pictures import finished, save
from plotly.subplots import make_subplots
from scoreboard_tables import BOARDS, DATA, ROOT, Figure

from mixlaw.plots.style import CYCLE, OTHER, SHARES, faded
from mixlaw.testing.replay import Replay, Step, needed, replay

SEEDS = 20
KEPT = ROOT / "out" / "replay.json"
OURS = "mixlaw"
#: Least regret that is drawn.
FLOOR = 4e-4
LESS = 0.999
SELDOM = ("RegMix", "Olmix")
Traces = Mapping[str, Sequence[Sequence[Step]]]
PAGE = ROOT / "docs" / "optimizer_benchmarks.md"


@dataclass(frozen=True)
class Game:
    """A table to choose from.

    Attributes:
        board, task: where it is and what is measured.
        prefix: of the runs that take part.
        start: runs of the start.
        batches: sizes of the batches after it.
        seldom: the same for a method whose runs do not depend on its recommendation, and which is slow to recommend.
        enough: places from the top that end the game; 0 plays to the end.
    """

    board: str
    task: str
    prefix: str
    start: int
    batches: tuple[int, ...]
    seldom: tuple[int, ...]
    enough: int

    def load(self) -> tuple[Replay, dict[str, float]]:
        """The environment, and unique tokens of the domains."""
        with tempfile.TemporaryDirectory() as folder:
            study, table = BOARDS[self.board].load(Path(folder) / "study")
            table = table.filter(pl.col("run").str.starts_with(self.prefix))
            return Replay.of(table, self.task, study.units[self.task]), dict(study.unique)


GAMES = {
    "marin": Game("marin", "code", "", 6, (2,) * 5 + (4,) * 4, (10, 16), 0),
    "regmix": Game("regmix", "pile_cc", "train_mixture_1m", 6, (1,) * 90, (18, 72), 5),
}


def traces(game: str, seeds: int, names: Sequence[str] = ()) -> tuple[Replay, dict[str, list[list[Step]]]]:
    """The environment, and steps of every (or every named) method and seed; what was played is not played again."""
    torch.set_num_threads(1)
    played: dict[str, list[dict[str, float]]] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    world, unique = GAMES[game].load()
    steps: dict[str, list[list[Step]]] = {}
    for seed in range(seeds):
        for name, method in methods(unique).items():
            if names and name not in names:
                continue
            key = f"{game}/{name}/{seed}"
            if key not in played:
                draw = np.random.default_rng(seed)
                start = world.take(first_runs(world.candidates, unique, GAMES[game].start, draw))
                batches = GAMES[game].seldom if name in SELDOM else GAMES[game].batches
                played[key] = [asdict(step) for step in replay(start, method, batches, draw, GAMES[game].enough)]
                KEPT.parent.mkdir(exist_ok=True)
                KEPT.write_text(json.dumps(played))
                print(key, played[key][-1], flush=True)
            steps.setdefault(name, []).append([Step(**step) for step in played[key]])  # type: ignore[arg-type]
    return world, steps


def regrets(world: Replay, steps: Sequence[Sequence[Step]], runs: int, believed: bool = False) -> NDArray[np.float64]:
    """Regret by seed, of the best of the first `runs` runs, or of the one that the method recommends."""
    last = [next(step for step in reversed(trace) if step.runs <= runs) for trace in steps]
    best = [world.regret(int(world.order[step.found - 1])) for step in last]
    return np.array([step.regret for step in last] if believed else best)


def main(seeds: int, names: Sequence[str] = ()) -> int:
    """Play, print, and write tables and picture; of named methods, print the tables alone."""
    if not DATA.exists():
        print(f"replay: no public tables in {DATA}; set MIXLAW_DATA to the folder that holds them")
        return 0
    (world, marin), (_, regmix) = traces("marin", seeds, names), traces("regmix", seeds, names)
    if names:
        print("\n".join([*marin_table(world, marin), "", *regmix_table(regmix)]))
        return 0
    parts = [as_table(figures(world, marin, regmix)), marin_table(world, marin), regmix_table(regmix)]
    lines = [f"{seeds} seeds.", *(line for part in parts for line in ("", *part))]
    print("\n".join(lines))
    write_part("replay", [*lines, "", "![Regret of the best run against runs trained](pictures/replay.png)"])
    save({"replay": picture(world, marin, regmix)})
    return 0


def figures(world: Replay, marin: Traces, regmix: Traces) -> list[Figure]:
    """Figures beside their bars."""
    enough = GAMES["regmix"].enough
    runs = {name: float(np.median([needed(trace, enough) for trace in trials])) for name, trials in regmix.items()}
    other, name = min((count, name) for name, count in runs.items() if name != OURS)
    marin_figures = []
    for count, bar in ((16, 0.005), (32, 0.0035)):
        best, believed = (float(np.median(regrets(world, marin[OURS], count, by))) for by in (False, True))
        what = f"Marin: median regret after {count} runs, code BPB"
        marin_figures += [Figure(f"{what}: best run trained", best, at_most=bar)]
        marin_figures += [Figure(f"{what}: run believed best", believed, at_most=bar)]
    return [
        *marin_figures,
        Figure("RegMix: median runs to one of the best 1 %", runs[OURS], at_most=24),
        Figure("RegMix: the same over the best other method's", runs[OURS] / other, f"{name} {other:g}", at_most=LESS),
    ]


def as_table(figures: Sequence[Figure]) -> list[str]:
    """Rows of Markdown."""
    rows = [f"| {f.what} | {f.value:.4g} | {f.bar} | {f.verdict} | {f.peers} |" for f in figures]
    return ["| figure | mixlaw | bar | | peers |", "| --- | --- | --- | --- | --- |", *rows]


def marin_table(world: Replay, traces: Traces) -> list[str]:
    """Median regret and its quartiles, by method and runs."""
    rows = ["| Marin: median regret (quartiles), .001 code BPB | 8 runs | 16 | 24 | 32 | believed, 16 | 32 |"]
    rows.append("| --- " * 7 + "|")
    columns = [*((count, False) for count in (8, 16, 24, 32)), (16, True), (32, True)]
    for name, steps in traces.items():
        cells = [1e3 * np.quantile(regrets(world, steps, *each), [0.5, 0.25, 0.75]) for each in columns]
        rows.append(f"| {name} | " + " | ".join("{:.1f} ({:.1f} to {:.1f})".format(*cell) for cell in cells) + " |")
    return rows


def regmix_table(traces: Traces) -> list[str]:
    """Runs to one of the best 1 %, by method."""
    rows = ["| RegMix: runs to one of the best 1 % | median | quartiles | never in 96 |", "| --- " * 4 + "|"]
    for name, steps in traces.items():
        runs = np.array([needed(trace, GAMES["regmix"].enough) for trace in steps])
        low, high = np.quantile(runs, [0.25, 0.75], method="inverted_cdf")
        rows.append(f"| {name} | {np.median(runs):g} | {low:g} to {high:g} | {np.isinf(runs).sum()} |")
    return [row.replace("inf", "over 96") for row in rows]


def picture(world: Replay, marin: Traces, regmix: Traces) -> go.Figure:
    """Regret over runs with the middle half of the seeds as a band; seeds that have found a good run."""
    titles = ["Marin: regret of the best run trained, code BPB", "RegMix: seeds with one of the best 1 %"]
    figure = make_subplots(1, 2, subplot_titles=titles, horizontal_spacing=0.09)
    for i, name in reversed([*enumerate(marin)]):
        colour, dash = (
            (OTHER, "dot") if name == "random" else (CYCLE[i % len(CYCLE)], "dash" if i >= len(CYCLE) else "solid")
        )
        look = {"color": colour, "width": 3 if name == OURS else 1.6, "dash": dash}
        runs = sorted({step.runs for trace in marin[name] for step in trace})
        low, middle, high = np.quantile([regrets(world, marin[name], n) for n in runs], [0.25, 0.5, 0.75], axis=1)
        if name in (OURS, "GP, expected improvement"):
            band = {"x": [*runs, *runs[::-1]], "y": np.maximum([*high, *low[::-1]], FLOOR), "hoverinfo": "skip"}
            figure.add_scatter(**band, fill="toself", fillcolor=faded(colour, 0.16), line_width=0, showlegend=False)
        mode = "lines+markers" if name == "RegMix" else "lines"
        shown = {"mode": mode, "line": look, "name": name, "legendgroup": name, "legendrank": i}
        figure.add_scatter(x=runs, y=np.maximum(middle, FLOOR), **shown, row=1, col=1)
        runs_needed = np.sort([needed(trace, GAMES["regmix"].enough) for trace in regmix[name]])
        runs_needed = runs_needed[np.isfinite(runs_needed)]
        steps = {"x": [0, *runs_needed, 96], "y": [0, *np.arange(1, len(runs_needed) + 1), len(runs_needed)]}
        steps["y"] = [count / len(regmix[name]) for count in steps["y"]]
        line = {**look, "shape": "hv"}
        figure.add_scatter(**steps, **{**shown, "mode": "lines", "line": line}, showlegend=False, row=1, col=2)
    ticks = {"tickvals": [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2]}
    figure.update_yaxes(type="log", tickformat="~f", range=[np.log10(FLOOR), np.log10(0.4)], **ticks, col=1)
    figure.update_yaxes(range=[0, 1.02], **SHARES, col=2)
    figure.update_xaxes(title_text="runs trained")
    figure.update_xaxes(range=[5, 32], col=1).update_xaxes(range=[0, 96], col=2)
    return finished(figure, "Choosing runs from tables of real ones: median over seeds, band: middle half", 460)


def write_part(name: str, lines: Sequence[str], page: Path = PAGE) -> None:
    """Replace what stands between two markers of the page."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    head, rest = page.read_text(encoding="utf-8").split(begin)
    page.write_text("\n".join([head + begin, "", *lines, "", end + rest.split(end)[1]]), encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]) if len(sys.argv) > 1 else SEEDS, sys.argv[2:]))
