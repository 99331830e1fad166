from __future__ import annotations

import polars as pl
import pytest
import torch

from mixlaw.analysis.data.design import SHAPES, WHOLE_COSINE, Design
from mixlaw.analysis.data.recipes import design_of, largest_run
from mixlaw.analysis.laws.identify import rate_notes
from mixlaw.errors import InputError
from mixlaw.recipe import Decay, Mixture, Phase, Recipe, Schedule
from mixlaw.records import Measurement, Record, to_table


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


def scheduled() -> list[Recipe]:
    text, code = Mixture({"text": 1.0}), Mixture({"code": 1.0})
    return [
        Recipe(1000, (Phase("init", 800, text), Phase("cooldown", 200, code, 0.1, Decay.ONE_SQRT)), lr=2.0),
        Recipe(1000, (Phase("init", 500, text), Phase("cooldown", 500, code)), schedule=Schedule.COSINE),
        Recipe(1000, (Phase("init", 1000, text, 0.5, Decay.COSINE),)),
    ]


def test_a_design_has_rates_and_shapes_whether_it_is_read_from_recipes_or_from_their_table() -> None:
    recipes = scheduled()
    names = ("init", "cooldown"), ("code", "text")
    table = to_table([Record(r.lineage, r, {"bpb": Measurement(1.0)}) for r in recipes])
    for design in (design_of(recipes, *names, {}), Design.from_table(table, {}).aligned(*names)):
        assert design.lr.tolist() == [2.0, 1.0, 1.0]
        assert design.decay.tolist() == [
            [0.0, SHAPES["1-sqrt"]],
            [WHOLE_COSINE] * 2,
            [SHAPES["cosine"], 0.0],
        ]
        # Half of a half wave is half of its height.
        assert torch.allclose(design.lr_end, torch.tensor([[1.0, 0.1], [0.5, 0.0], [0.5, 1.0]], dtype=torch.float64))


def test_recipes_that_differ_in_rate_or_shape_alone_are_no_repeats() -> None:
    base = scheduled()[0]
    linear = Recipe(1000, (base.phases[0], Phase("cooldown", 200, base.phases[1].mixture, 0.1)), lr=2.0)
    slow = Recipe(1000, base.phases)
    design = design_of([base, base, linear, slow], ("init", "cooldown"), ("code", "text"), {})
    assert len(set(design.recipe_index.tolist())) == 3
    assert design.recipe_index[0] == design.recipe_index[1]


@pytest.mark.parametrize("number", [0, 1])
def test_the_largest_run_of_a_design_keeps_rate_shape_and_schedule(number: int) -> None:
    recipe = scheduled()[number]
    largest = largest_run(design_of([recipe], ("init", "cooldown"), ("code", "text"), {}))
    assert (largest.lr, largest.schedule) == (recipe.lr, recipe.schedule)
    if recipe.schedule is Schedule.WSD:
        assert largest.phases == recipe.phases


def test_sizes_and_recipes_of_other_peak_rates_are_named() -> None:
    phases = (Phase("init", 1000, Mixture({"text": 1.0})),)
    rates = {1000: (1.0, 1.0), 10_000: (1.0, 1.0), 100_000: (0.1, 0.1)}
    recipes = [Recipe(size, phases, seed, lr=lr) for size, by in rates.items() for seed, lr in enumerate(by)]
    (note,) = rate_notes(design_of(recipes, ("init",), ("text",), {}))
    assert note.startswith("The largest size (100,000 parameters) was trained at 0.1 of the others' peak rate")
    recipes = [Recipe(1000, phases, lr=lr) for lr in (1.0, 1.0, 1.0, 0.5, 2.0)]
    (note,) = rate_notes(design_of(recipes, ("init",), ("text",), {}))
    assert note == "Runs of one size differ in their peak rate, from 0.5 to 2 times its usual one."
    assert rate_notes(design_of(recipes[:3], ("init",), ("text",), {})) == ()
