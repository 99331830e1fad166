"""Seconds of `propose` on fitted surfaces, and how they grow with domains, tasks and draws.

One row is the case to beat: 7 domains, 3 phases, 8 tasks, 200 draws within 10 s on two cores. Run on a quiet machine:
`python benchmarks/propose_speed.py [--out FOLDER]` prints a table and draws `propose_speed.html`; `--quick` leaves out
the largest cases.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mixlaw.analysis.fit import fit
from mixlaw.analysis.style import CYCLE, styled
from mixlaw.optimizer.propose import propose
from mixlaw.optimizer.simulate import random_recipes, random_world
from mixlaw.optimizer.target import Target
from mixlaw.recipe import Domain, Kind

KINDS = tuple(Kind)
CASE = {"domains": 7, "tasks": 8, "draws": 200}
GROWTH = {"domains": (3, 7, 16, 32, 64), "tasks": (2, 8, 32, 110), "draws": (16, 64, 200)}
BAR = 10.0  # seconds


def measured(domains: int, tasks: int, draws: int) -> tuple[float, float]:
    """Seconds on the clock and of all cores for one proposal."""
    sources = tuple(Domain(f"d{i}", KINDS[i % len(KINDS)], 2_000_000 * (1 + i % 3)) for i in range(domains))
    world = random_world(sources, tasks=tasks, seed=0)
    table = world.measure(random_recipes([24_000, 94_000], 20, sources, count=max(30, domains)))
    unique = {d.name: float(d.unique_tokens) for d in sources}
    surfaces = fit(table, units=world.units, unique=unique, resamples=draws, audited=False)
    begun, used = time.perf_counter(), time.process_time()
    propose(surfaces, Target(330_000, 6_600_000), sources, draws=draws)
    return time.perf_counter() - begun, time.process_time() - used


def main() -> None:
    """Time the full case, then how it grows; write a picture and the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/bench"))
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    figure = make_subplots(rows=1, cols=len(GROWTH), shared_yaxes=True, horizontal_spacing=0.04)
    print(f"{'domains':>8}{'tasks':>8}{'draws':>8}{'seconds':>10}{'of all cores':>14}")
    known: dict[tuple[int, int, int], tuple[float, float]] = {}
    for column, (what, steps) in enumerate(GROWTH.items(), 1):
        values = steps[:-1] if arguments.quick else steps
        seconds = []
        for value in values:
            case = {**CASE, what: value}
            key = (case["domains"], case["tasks"], case["draws"])
            if key not in known:
                known[key] = measured(**case)
                print(f"{key[0]:8}{key[1]:8}{key[2]:8}{known[key][0]:10.1f}{known[key][1]:14.1f}", flush=True)
            seconds.append(known[key][0])
        line = {"color": CYCLE[column - 1]}
        figure.add_scatter(x=values, y=seconds, mode="lines+markers", line=line, row=1, col=column, showlegend=False)
        figure.update_xaxes(type="log", title_text=what, tickvals=values, row=1, col=column)
    figure.add_hline(y=BAR, line={"dash": "dot", "width": 1})
    figure.update_yaxes(type="log")
    figure.update_yaxes(title_text="seconds", row=1, col=1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    styled(go.Figure(figure), "Seconds of one proposal").write_html(arguments.out / "propose_speed.html")


if __name__ == "__main__":
    main()
