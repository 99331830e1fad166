"""Seconds of `propose` and `suggest` on fitted surfaces, and how they grow with domains, tasks and draws.

    python benchmarks/propose_speed.py

The case to beat: 7 domains, 3 phases, 8 tasks, 200 draws; a proposal within 10 s, a suggestion of 8 runs within 15 s on
two cores. Run it on a quiet machine. Writes its part of docs/optimizer_benchmarks.md and docs/pictures/.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import plotly.graph_objects as go
from pictures import finished, save
from plotly.subplots import make_subplots
from replay import write_part

from mixlaw.analysis.fit import fit
from mixlaw.optimizer.answers.propose import propose
from mixlaw.optimizer.next_runs.costs import Proxies
from mixlaw.optimizer.next_runs.suggest import suggest
from mixlaw.optimizer.target.target import FLOPS, Target
from mixlaw.plots.style import CYCLE
from mixlaw.recipe import Domain, Kind
from mixlaw.testing.worlds import random_recipes, random_world

KINDS = tuple(Kind)
CASE = {"domains": 7, "tasks": 8, "draws": 200}
GROWTH = {"domains": (3, 7, 16, 32, 64), "tasks": (2, 8, 32, 110), "draws": (16, 64, 200)}
#: Seconds that the case may take.
BARS = {"propose": 10.0, "suggest": 15.0}
SMALL, LARGE, PER_PARAM = 24_000, 94_000, 20
TARGET = Target(330_000, 6_600_000)

Seconds = dict[str, float]


def measured(domains: int, tasks: int, draws: int) -> Seconds:
    """Seconds on the clock for one proposal and one suggestion of 8 runs."""
    sources = tuple(Domain(f"d{i}", KINDS[i % len(KINDS)], 2_000_000 * (1 + i % 3)) for i in range(domains))
    world = random_world(sources, tasks=tasks, seed=0)
    recipes = random_recipes([SMALL, LARGE], PER_PARAM, sources, count=max(30, domains))
    unique = {d.name: float(d.unique_tokens) for d in sources}
    surfaces = fit(world.measure(recipes), units=world.units, unique=unique, resamples=draws, audited=False)
    proxies = Proxies({size: size * PER_PARAM for size in (SMALL, LARGE)}, measured=tuple(recipes))
    budget = 20 * FLOPS * SMALL * SMALL * PER_PARAM
    return {
        "propose": _seconds(lambda: propose(surfaces, TARGET, sources, draws=draws)),
        "suggest": _seconds(lambda: suggest(surfaces, TARGET, sources, proxies, budget=budget, count=8)),
    }


def _seconds(job: Callable[[], object]) -> float:
    begun = time.perf_counter()
    job()
    return time.perf_counter() - begun


def main() -> None:
    """Time the case, then how it grows one axis at a time; print, and write table and picture."""
    rows = ["| domains | tasks | draws | propose, s | suggest of 8, s |", "| --- " * 5 + "|"]
    known: dict[tuple[int, ...], Seconds] = {}
    for what, steps in GROWTH.items():
        for value in steps:
            case = CASE | {what: value}
            key = tuple(case.values())
            if key not in known:
                known[key] = measured(**case)
                rows.append(f"| {' | '.join(map(str, key))} | {' | '.join(f'{s:.1f}' for s in known[key].values())} |")
                print(rows[-1], flush=True)
    write_part("speed", [*rows, "", "![Seconds of a proposal and of a suggestion](pictures/propose-speed.png)"])
    save({"propose-speed": picture(known)})


def picture(known: dict[tuple[int, ...], Seconds]) -> go.Figure:
    """Seconds over each axis, logarithmic both ways; bars as dotted lines in the colour of what they bound."""
    figure = make_subplots(rows=1, cols=len(GROWTH), shared_yaxes=True, horizontal_spacing=0.04)
    for column, (what, steps) in enumerate(GROWTH.items(), 1):
        for i, name in enumerate(BARS):
            seconds = [known[tuple((CASE | {what: value}).values())][name] for value in steps]
            look = {"line": {"color": CYCLE[i]}, "name": name, "legendgroup": name, "showlegend": column == 1}
            figure.add_scatter(x=steps, y=seconds, mode="lines+markers", **look, row=1, col=column)
        figure.update_xaxes(type="log", title_text=what, tickvals=steps, row=1, col=column)
    for i, bar in enumerate(BARS.values()):
        figure.add_hline(y=bar, line={"dash": "dot", "width": 1, "color": CYCLE[i]})
    figure.update_yaxes(type="log", tickvals=[1, 2, 5, 10, 20, 50, 100])
    figure.update_yaxes(title_text="seconds", row=1, col=1)
    return finished(figure, "Seconds of a proposal and of a suggestion; dotted: what they may take", 420)


if __name__ == "__main__":
    main()
