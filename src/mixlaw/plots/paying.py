"""Plot of what a recommendation is predicted to gain and to lose: one bar a task."""

from __future__ import annotations

from mixlaw.optimizer.answers.proposal import Proposal
from mixlaw.optimizer.goal.values import Interval
from mixlaw.plots.style import CYCLE, OTHER, Plain, drawn

#: Clear of zero on either side, or not.
TONES = {"better": CYCLE[2], "worse": CYCLE[1], "": OTHER}


def plain_paying(proposal: Proposal) -> Plain:
    """A bar per task, the greatest gain first, with its 90 % interval and numbers to the right.

    Green and orange are clear of zero, grey is not; all tasks by weight are on top, tasks without weight in brackets.
    """
    gain = proposal.over[proposal.against]
    rows: list[tuple[str, Interval]] = [("<b>all, by weight</b>", gain.total)]
    for task, each in sorted(gain.by_task.items(), key=lambda item: -item[1].mean):
        rows.append((task if proposal.weights.get(task, 1.0) else f"({task})", each))
    names, values = [name for name, _ in rows], [each for _, each in rows]
    bar = {
        "type": "bar", "orientation": "h", "y": names, "x": [each.mean for each in values], "showlegend": False,
        "marker": {"color": [TONES[each.tone] for each in values]}, "width": 0.55,
        "error_x": {
            "array": [each.hi90 - each.mean for each in values],
            "arrayminus": [each.mean - each.lo90 for each in values],
            "thickness": 1.4, "width": 4, "color": OTHER,
        },
        "customdata": [each.text() for each in values],
        "hovertemplate": f"%{{y}}<br>gain %{{customdata}} {proposal.unit}<extra></extra>",
    }  # fmt: skip
    notes = [
        {"xref": "paper", "x": 1, "xanchor": "left", "xshift": 8, "y": name, "text": each.text(), "showarrow": False,
         "font": {"color": TONES[each.tone]}}
        for name, each in rows
    ]  # fmt: skip
    layout = {
        "title": {"text": ""}, "height": 70 + 28 * len(rows), "autosize": True, "annotations": notes,
        "xaxis": {"title": {"text": f"gain over {proposal.against}, {proposal.unit} →"}, "zeroline": True},
        "yaxis": {"autorange": "reversed", "ticks": "", "showgrid": False, "showline": False},
        "margin": {"t": 8, "b": 50, "r": 14 + 7 * max(len(each.text()) for each in values)},
    }  # fmt: skip
    return {"data": [bar], "layout": layout}


paying = drawn(plain_paying)
