"""The response of a task to the share of one domain, in every phase or in one."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixlaw.errors import InputError
from mixlaw.study import open_study
from test_front_cli import study  # noqa: F401


def test_any_domain_and_any_phase_has_a_response(study: Path) -> None:  # noqa: F811
    opened = open_study(study)
    run = opened.records()[0]
    figure = opened.plots.response("task0", run.run, domain="books", phase=run.recipe.phases[-1].name)
    last = run.recipe.phases[-1]
    assert figure.layout.xaxis.title.text == f"books share of {last.name}"
    (line,) = (trace for trace in figure.data if trace.name == last.name)
    (ring,) = (trace for trace in figure.data if trace.mode == "markers" and trace.marker.symbol == "circle-open")
    assert ring.x[0] == pytest.approx(last.mixture.share("books"))
    at = min(range(len(line.x)), key=lambda i: abs(line.x[i] - ring.x[0]))
    assert line.y[at] == pytest.approx(ring.y[0], rel=0.02)
    every = opened.plots.response("task0", run.run, domain="books")
    assert {phase.name for phase in run.recipe.phases} <= {trace.name for trace in every.data}
    with pytest.raises(InputError, match="did you mean 'books'"):
        opened.plots.response("task0", run.run, domain="bokks")
    with pytest.raises(InputError, match="there is no phase 'late'"):
        opened.plots.response("task0", run.run, phase="late")
