"""Results at a prompt and in a notebook, shown by IPython itself."""

from __future__ import annotations

from IPython.core.formatters import HTMLFormatter, PlainTextFormatter

from mixlaw.dashboard.serve import Listening
from mixlaw.optimizer.answers.verify import verify
from studies import study


def test_a_prompt_shows_what_print_shows_and_not_fields() -> None:
    small = study()
    for result in (small.proposal, small.surfaces, verify([small.proposal], small.table), Listening("http://x")):
        assert PlainTextFormatter()(result) == str(result)


def test_a_notebook_shows_tables_where_there_are_some_and_text_where_not() -> None:
    assert HTMLFormatter()(Listening("<odd>")) == "<pre>the dashboard is at &lt;odd&gt;; Ctrl-C stops it</pre>"
    assert "<table>" in HTMLFormatter()(study().proposal)
