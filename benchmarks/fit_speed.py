"""Wall time and peak memory of the default `fit` with its audit, and how time grows.

    python benchmarks/fit_speed.py [--growth]

Simulated runs of three sizes and three phases with three checkpoints each: 1,500 rows x 8 tasks x 7 domains, against
bars of 3 minutes and 6 GiB. With --growth, rows, tasks, domains and resamples vary one at a time, and
docs/pictures/fit-growth.png is drawn. Each fit is a process of its own, so that its memory is.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

SIZES, PROGRESS, PHASES = (2e5, 1e6, 5e6), (0.4, 0.7, 1.0), ("init", "continue", "cooldown")
SECONDS, GIB = 180, 6


@dataclass(frozen=True)
class Case:
    """Size of a fit."""

    rows: int = 300
    tasks: int = 4
    domains: int = 5
    resamples: int = 64


FULL = Case(1500, 8, 7)
GROWTH = {
    "rows": (150, 300, 600, 1200),
    "tasks": (2, 4, 8, 16),
    "domains": (3, 5, 10, 20),
    "resamples": (32, 64, 128, 256),
}


def simulated(case: Case) -> pl.DataFrame:
    """Runs of a Chinchilla-like law whose data term is a weighted CES of tokens, 1 % noise, seeded."""
    rng = np.random.default_rng(0)
    runs = -(-case.rows // len(PROGRESS))
    params = np.repeat(rng.choice(SIZES, runs), len(PROGRESS))[: case.rows]
    progress = np.tile(PROGRESS, runs)[: case.rows]
    shares = np.repeat(rng.dirichlet(np.full(case.domains, 0.7), (runs, len(PHASES))), len(PROGRESS), 0)[: case.rows]
    # Phases of 60, 30 and 10 % of 20 tokens per parameter, one after the other.
    ends = np.clip(progress[:, None] - np.array([0, 0.6, 0.9]), 0, [0.6, 0.3, 0.1])
    tokens = (20 * params)[:, None, None] * ends[..., None] * shares
    worth = rng.dirichlet(np.ones(case.domains), case.tasks)
    amount = np.einsum("rk,tk->rt", np.sqrt(tokens.sum(1)), worth) ** 2
    loss = 0.7 + 30 * params[:, None] ** -0.33 + 60 * amount**-0.3
    loss *= (1 + 0.1 * (1 - progress[:, None])) * np.exp(0.01 * rng.normal(size=loss.shape))
    columns = {f"tokens:{p}:d{k}": tokens[:, i, k] for i, p in enumerate(PHASES) for k in range(case.domains)}
    columns |= {f"metric:task{t}": loss[:, t] for t in range(case.tasks)}
    names = [f"run{row // len(PROGRESS)}" for row in range(case.rows)]
    return pl.DataFrame({"run": names, "params": params, "progress": progress} | columns)


def measured(case: Case) -> dict[str, float]:
    """Fit in this process: seconds by the wall and of processor, peak memory in GiB."""
    from mixlaw.analysis.fit import fit

    table, units = simulated(case), {f"task{t}": "bits/byte" for t in range(case.tasks)}
    began, busy = time.perf_counter(), time.process_time()
    fit(table, units=units, unique={}, resamples=case.resamples)
    seconds, cpu = time.perf_counter() - began, time.process_time() - busy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"seconds": seconds, "cpu": cpu, "peak": peak}


def apart(case: Case) -> dict[str, float]:
    """The same in a process of its own."""
    command = [sys.executable, str(Path(__file__)), "--case", json.dumps(asdict(case))]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def grown() -> dict[str, list[tuple[int, float]]]:
    """Seconds of fits that differ from the base case in one number, by the name of that number."""
    found: dict[str, list[tuple[int, float]]] = {}
    print(f"\n{'':12}{'':>8}{'wall s':>9}{'cpu s':>9}{'GiB':>7}   others: {Case()}")
    for name, values in GROWTH.items():
        for value in values:
            one = apart(replace(Case(), **{name: value}))
            print(f"{name:12}{value:8}{one['seconds']:9.1f}{one['cpu']:9.1f}{one['peak']:7.2f}", flush=True)
            found.setdefault(name, []).append((value, one["cpu"]))
    return found


def picture(found: dict[str, list[tuple[int, float]]]) -> go.Figure:
    """Processor seconds over each number, both axes logarithmic."""
    from pictures import finished

    from mixlaw.plots.style import CYCLE, OTHER

    figure = make_subplots(1, len(found), subplot_titles=list(found), shared_yaxes=True, horizontal_spacing=0.03)
    for i, points in enumerate(found.values(), 1):
        x, y = zip(*points, strict=True)
        place = {"row": 1, "col": i}
        line = {"color": OTHER, "dash": "dot", "width": 1}
        straight = [y[0] * v / x[0] for v in x]
        figure.add_scatter(x=x, y=straight, mode="lines", line=line, name="in proportion", showlegend=i == 1, **place)
        figure.add_scatter(x=x, y=y, mode="lines+markers", marker={"color": CYCLE[0]}, showlegend=False, **place)
        figure.update_xaxes(type="log", tickvals=x, **place)
    figure.update_yaxes(type="log", tickvals=[1, 2, 5, 10, 20, 50, 100, 200, 500])
    figure.update_yaxes(title_text="processor seconds", col=1)
    base = Case()
    title = (
        f"Default fit with audit; {base.rows} rows, {base.tasks} tasks, {base.domains} domains, {base.resamples} draws"
    )
    return finished(figure, title, 400)


def main(arguments: list[str]) -> None:
    """Measure the full case, and the growth if asked."""
    if arguments[:1] == ["--case"]:
        print(json.dumps(measured(Case(**json.loads(arguments[1])))))
        return
    one = apart(FULL)
    verdict = "met" if one["seconds"] <= SECONDS and one["peak"] <= GIB else "MISSED"
    print(f"{FULL}: {one['seconds']:.0f} s by the wall, {one['cpu']:.0f} s of processor, peak {one['peak']:.2f} GiB; "
          f"bars {SECONDS} s and {GIB} GiB: {verdict}", flush=True)  # fmt: skip
    if "--growth" in arguments:
        from pictures import save

        save({"fit-growth": picture(grown())})


if __name__ == "__main__":
    main(sys.argv[1:])
