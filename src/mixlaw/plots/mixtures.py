"""Plot of several recipes as stacked bars, a row for each phase."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mixlaw.numbers import percent
from mixlaw.plots.style import SHARES, Plain, domain_colours, drawn, on
from mixlaw.recipe import Domain, Recipe

LEGIBLE = 0.12  # least share that has room for its number, on a phone too


def plain_mixtures(recipes: Mapping[str, Recipe], domains: Sequence[Domain], title: str = "") -> Plain:
    """Mixture of every phase of some recipes, a row each; text in blues, code in oranges.

    Args:
        recipes: by name, top to bottom.
        domains: all domains in the order of the stack.
        title: over the figure.
    """
    paint = domain_colours(domains)
    rows = [(name, phase) for name, recipe in recipes.items() for phase in recipe.phases]
    height = 74 + 24 * len(rows) + 10 * len(recipes)
    labels = [[name for name, _ in rows], [phase.name for _, phase in rows]]
    shown = [d for d in sorted(domains, key=lambda d: d.kind.is_code) if any(p.mixture.share(d.name) for _, p in rows)]
    bars = [
        {
            "type": "bar", "orientation": "h", "name": domain.name, "y": labels,
            "x": [phase.mixture.share(domain.name) for _, phase in rows],
            "text": [_label(phase.mixture.share(domain.name)) for _, phase in rows],
            "textposition": "inside", "insidetextanchor": "middle", "textangle": 0, "constraintext": "none",
            "textfont": {"color": on(paint[domain.name]), "size": 10},
            "marker": {"color": paint[domain.name], "line": {"width": 0.6, "color": "white"}},
            "hovertemplate": f"%{{y}}<br>{domain.name} %{{customdata}}<extra></extra>",
            "customdata": [percent(phase.mixture.share(domain.name), 1) for _, phase in rows],
        }
        for domain in shown
    ]  # fmt: skip
    layout = {
        "title": {"text": title}, "height": height, "autosize": True, "barmode": "stack", "bargap": 0.14,
        "xaxis": {"range": [0, 1], **SHARES, "showgrid": False},
        "yaxis": {
            "autorange": "reversed", "ticks": "", "showline": False, "dividerwidth": 0, "tickfont": {"size": 11.5},
            "automargin": True,
        },
        "legend": {"traceorder": "normal", "y": -34 / (height - 70)}, "margin": {"t": 40 if title else 8, "b": 66},
    }  # fmt: skip
    return {"data": bars, "layout": layout}


mixtures = drawn(plain_mixtures)


def _label(share: float) -> str:
    return percent(share) if share >= LEGIBLE else ""
