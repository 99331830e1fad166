"""Results in marimo: tables as HTML, by the formatters of marimo itself; `pip install --group marimo` brings it."""

from __future__ import annotations

import pytest

from mixlaw.optimizer.answers.verify import verify
from studies import study


def test_marimo_shows_tables_of_results() -> None:
    formatting = pytest.importorskip("marimo._output.formatting", reason="marimo is not installed")
    small = study()
    for result in (small.proposal, small.surfaces, small.surfaces["task0"].law, verify([small.proposal], small.table)):
        shown = formatting.try_format(result)
        assert shown.exception is None
        assert shown.mimetype == "text/html"
        assert result.page().answer[:30] in shown.data
        assert ("<table>" in shown.data) == bool(result.page().tables)
