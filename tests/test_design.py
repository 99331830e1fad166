from __future__ import annotations

import polars as pl
import pytest
import torch

from mixlaw.analysis.data.design import Design
from mixlaw.errors import InputError


def table() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "run": ["a", "a", "b"],
            "params": [1e6, 1e6, 2e6],
            "progress": [0.5, 1.0, None],
            "tokens:init:text": [60.0, 60.0, 30.0],
            "tokens:init:code": [0.0, 0.0, 30.0],
            "tokens:cooldown:text": [0.0, 30.0, 10.0],
            "tokens:cooldown:code": [0.0, 10.0, None],
        }
    )


def test_a_table_becomes_tensors_with_phases_and_domains_in_order_of_appearance() -> None:
    design = Design.from_table(table(), {"code": 20.0})
    assert design.phases == ("init", "cooldown")
    assert design.domains == ("text", "code")
    assert design.tokens[1].tolist() == [[60.0, 0.0], [30.0, 10.0]]
    assert design.total.tolist() == [60.0, 100.0, 70.0]
    assert design.progress.tolist() == [0.5, 1.0, 1.0]
    assert design.unique[0].tolist() == [float("inf"), 20.0]
    assert torch.allclose(design.shares.sum((1, 2)), torch.ones(3, dtype=torch.float64))


def test_the_final_rate_is_that_of_the_last_phase_with_tokens() -> None:
    design = Design.from_table(table(), {})
    assert design.final_lr.tolist() == [1.0, 0.0, 0.0]


def test_a_column_of_unique_tokens_overrides_the_domains_own() -> None:
    narrow = table().with_columns(pl.lit(7.0).alias("unique:code"))
    assert Design.from_table(narrow, {"code": 20.0}).unique[:, 1].tolist() == [7.0] * 3


def test_selected_rows_keep_their_names() -> None:
    chosen = Design.from_table(table(), {}).select([2, 0])
    assert chosen.runs == ("b", "a")
    assert chosen.params.tolist() == [2e6, 1e6]


def test_axes_are_reordered_by_name() -> None:
    design = Design.from_table(table(), {"code": 5.0})
    turned = design.aligned(("cooldown", "init"), ("code", "text"))
    assert turned.tokens[1].tolist() == [[10.0, 30.0], [0.0, 60.0]]
    assert turned.unique[0].tolist() == [5.0, float("inf")]


def test_tokens_on_an_unknown_domain_are_refused_but_empty_columns_are_dropped() -> None:
    design = Design.from_table(table(), {})
    with pytest.raises(InputError, match="code never measured"):
        design.aligned(design.phases, ("text",))
    assert design.select([0]).aligned(("init",), ("text",)).tokens.shape == (1, 1, 1)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("tokens:init:text", [-1.0, 1.0, 1.0], "row 0 .run a. has a bad tokens:init:text"),
        ("params", [1e6, float("nan"), 1e6], "row 1 .run a. has a bad params"),
        ("params", [1e6, 1e6, 0.0], "row 2 .run b. has params <= 0"),
    ],
)
def test_bad_cells_are_named_by_row_and_column(column: str, values: list[float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Design.from_table(table().with_columns(pl.Series(column, values)), {})


def test_a_table_without_tokens_says_which_column_is_missing() -> None:
    with pytest.raises(InputError, match="tokens:<phase>:<domain>"):
        Design.from_table(pl.DataFrame({"params": [1.0]}), {})
