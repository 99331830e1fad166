"""How import, fit, propose and report grow with runs, tasks and domains: a picture with the exponent of each.

    python benchmarks/growth.py

From 80 runs x 2 tasks x 4 domains on, one number at a time grows. Each command is a process of its own; seconds of
processor. The exponent is the slope from the second to the last point: the first holds most of what a command costs
anyway. docs/pictures/load-growth.png is drawn.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import replace
from pathlib import Path

import plotly.graph_objects as go
from load import Case, mixlaw, study
from pictures import finished, save
from plotly.subplots import make_subplots

from mixlaw.plots.style import CYCLE, OTHER

COMMANDS = ("import", "fit", "propose", "report")
BASE = Case(80, 2, 4)
GROWTH = {"runs": (80, 160, 320, 640), "tasks": (2, 4, 8, 16), "domains": (4, 8, 16)}

Costs = dict[str, dict[str, list[float]]]  # seconds by number that grows, command and its values


def costs(folder: Path, case: Case) -> dict[str, float]:
    """Seconds of processor of every command on one study."""
    path, first = study(folder, case)
    return {"import": first["import"].cpu} | {words: mixlaw(words, path).cpu for words in COMMANDS[1:]}


def exponent(number: str, seconds: list[float]) -> float:
    """Slope of log seconds by the log of a number, from the second point to the last."""
    return math.log(seconds[-1] / seconds[1]) / math.log(GROWTH[number][-1] / GROWTH[number][1])


def grown(folder: Path) -> Costs:
    """Costs of studies that differ from the base in one number; prints a row for each, then the exponents."""
    known: dict[Case, dict[str, float]] = {}
    found: Costs = {}
    print(f"{'':28}" + "".join(f"{name:>10}" for name in COMMANDS) + "   seconds of processor")
    for number, values in GROWTH.items():
        for value in values:
            case = replace(BASE, **{number: value})
            if case not in known:
                known[case] = costs(folder / f"{number}{value}", case)
                row = "".join(f"{known[case][name]:10.1f}" for name in COMMANDS)
                print(f"{f'{case.runs} x {case.tasks} x {case.domains}':28}{row}", flush=True)
            for name in COMMANDS:
                found.setdefault(number, {}).setdefault(name, []).append(known[case][name])
        print(f"{f'exponent in {number}':28}" + "".join(f"{exponent(number, s):10.2f}" for s in found[number].values()))
    return found


def picture(found: Costs) -> go.Figure:
    """Seconds over each number, both axes logarithmic; the exponents stand at the ends of the lines."""
    figure = make_subplots(1, len(found), subplot_titles=list(found), shared_yaxes=True, horizontal_spacing=0.09)
    for i, (number, lines) in enumerate(found.items(), 1):
        x, place = GROWTH[number], {"row": 1, "col": i}
        heights = apart({name: math.log10(y[-1]) for name, y in lines.items()})
        for color, (name, y) in zip(CYCLE, lines.items(), strict=False):
            shown = {"name": name, "legendgroup": name, "showlegend": i == 1, "marker": {"color": color}}
            figure.add_scatter(x=x, y=y, mode="lines+markers", **shown, **place)
            end = {"text": f"{exponent(number, y):.2f}", "x": math.log10(x[-1]), "y": heights[name]}
            figure.add_annotation(**end, xanchor="left", xshift=6, showarrow=False, font={"color": color}, **place)
        straight = [lines["fit"][1] * v / x[1] for v in x]
        dotted = {"color": OTHER, "dash": "dot", "width": 1}
        figure.add_scatter(x=x, y=straight, mode="lines", line=dotted, name="in proportion", showlegend=i == 1, **place)
        figure.update_xaxes(type="log", tickvals=x, **place)
    figure.update_yaxes(type="log", tickvals=[0.5, 1, 2, 5, 10, 20, 50, 100, 200])
    figure.update_yaxes(title_text="processor seconds", col=1)
    return finished(
        figure, f"From {BASE.runs} runs, {BASE.tasks} tasks, {BASE.domains} domains; exponents at the ends", 440
    )


def apart(ends: dict[str, float]) -> dict[str, float]:
    """Heights of labels, log10: at the ends of the lines, but no two nearer than a line of text."""
    made: dict[str, float] = {}
    for name in sorted(ends, key=lambda one: ends[one]):
        made[name] = max(ends[name], max(made.values(), default=-math.inf) + 0.12)
    return made


def main() -> None:
    """Measure and draw."""
    with tempfile.TemporaryDirectory() as name:
        save({"load-growth": picture(grown(Path(name)))})


if __name__ == "__main__":
    main()
