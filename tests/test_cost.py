"""What a plan costs, against counting by hand; and a study's training settings, which decide it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixlaw.errors import InputError
from mixlaw.recipe import Mixture, Phase, Recipe
from mixlaw.runner.models.ladder import hyperparameters, shape
from mixlaw.runner.plan.devices import GPUS, Machine, devices_for
from mixlaw.runner.plan.placement import Requirement, schedule
from mixlaw.runner.plan.price import Assumptions, Plan
from mixlaw.runner.plan.setup import Overrides, Setup
from mixlaw.runner.plan.tree import plan

TEXT, CODE = Mixture({"text": 1.0}), Mixture({"code": 1.0})
SETUP = Setup(data="data", data_hash="abc", vocabulary=300, sequence=32, tasks=("text",), batch=4)
SMALL = shape("0.025M").params


def planned(*recipes: Recipe, measured: frozenset[str] = frozenset(), trained: frozenset[str] = frozenset()) -> Plan:
    return Plan(plan(recipes), SETUP, measured, trained, {SMALL: 1000.0}, [Machine("a", 2)])


def branches() -> list[Recipe]:
    phases = [(Phase("init", 12_800, TEXT), Phase("cooldown", 2560, mixture, 0.0)) for mixture in (TEXT, CODE)]
    return [Recipe(SMALL, pair) for pair in phases]


def test_flops_of_the_tree_count_the_trunk_once() -> None:
    # Width 32, depth 2, inner width 88: 2 (4 32^2 + 3 32 88) + 300 32 weights that multiply, attention of 32 tokens.
    each = 6 * (2 * (4 * 32**2 + 3 * 32 * 88) + 300 * 32) + 12 * 2 * 32 * 32
    found = planned(*branches())
    assert found.tokens_shared == 12_800 + 2 * 2560
    assert found.flops_shared == each * (12_800 + 2 * 2560)
    assert found.flops_separate == each * 2 * (12_800 + 2560)


def test_time_is_that_of_the_trunk_and_the_branches_side_by_side() -> None:
    found = planned(*branches())
    assert math.isclose(found.seconds, (12_800 + 2560) / 1000)
    assert math.isclose(replace(found, machines=[Machine("a", 1)]).seconds, (12_800 + 2 * 2560) / 1000)


def test_what_is_trained_costs_no_time() -> None:
    one, two = branches()
    trunk = one.prefix(1)
    half = planned(one, two, measured=frozenset({one.lineage}), trained=frozenset({trunk, one.lineage}))
    assert [segment.lineage for segment in half.pending] == [two.lineage]
    assert math.isclose(half.seconds, 2.56)
    done = planned(one, two, measured=frozenset({one.lineage, two.lineage}))
    assert (done.pending, done.seconds) == ([], 0.0)


def test_disk_holds_weights_and_two_moments_of_every_segment() -> None:
    assert planned(*branches()).disk_bytes == 3 * 12 * (SMALL + 300 * 32)


forests = st.lists(st.tuples(st.integers(-1, 5), st.integers(1, 9)), min_size=1, max_size=6).map(
    lambda raw: {
        str(i): (str(parent) if 0 <= parent < i else None, float(length)) for i, (parent, length) in enumerate(raw)
    }
)


def shortest(jobs: dict[str, tuple[str | None, float]], workers: int) -> float:
    """Shortest makespan over all orders of handing out jobs."""
    best = math.inf
    for order in permutations(jobs):
        end: dict[str | None, float] = {None: 0.0}
        free = [0.0] * workers
        for job in order:
            parent, length = jobs[job]
            if parent not in end:
                break
            free.sort()
            end[job] = free[0] = max(free[0], end[parent]) + length
        else:
            best = min(best, max(free))
    return best


@settings(max_examples=25, deadline=None)
@given(forests, st.integers(1, 3))
def test_the_makespan_lies_between_the_best_order_and_grahams_bound(
    jobs: dict[str, tuple[str | None, float]], workers: int
) -> None:
    # Graham 1969: list scheduling is at most 2 - 1/workers times the optimum; one worker is never idle.
    slots = schedule({name: Requirement(parent, 1, s) for name, (parent, s) in jobs.items()}, [Machine("a", workers)])
    found, best = max(slot.end for slot in slots), shortest(jobs, workers)
    assert best - 1e-9 <= found <= (2 - 1 / workers) * best + 1e-9


def test_adopting_rounds_to_whole_batches_of_a_model_on_the_ladder() -> None:
    wish = Recipe(26_000, (Phase("init", 1000, TEXT), Phase("cooldown", 10, CODE, 0.0)))
    adopted = SETUP.adopt(wish)
    assert adopted.params == SMALL
    assert [phase.tokens for phase in adopted.phases] == [1024, 128], "8 batches of 4 x 32, and at least one"
    assert adopted.data == SETUP.identity
    assert SETUP.adopt(adopted) == adopted


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({"data": "elsewhere"}, False),
        ({"tasks": ()}, False),
        ({"checkpoint_seconds": 1.0}, False),
        ({"data_hash": "abd"}, False),
        ({"tokenizer_hash": "abd"}, True),
        ({"vocabulary": 301}, True),
        ({"sequence": 64}, True),
        ({"batch": 8}, True),
        ({"learning_rate": 0.1}, True),
        ({"warmup_tokens": 0}, True),
        ({"beta2": 0.9}, True),
    ],
)
def test_identity_changes_with_what_changes_the_weights_and_with_nothing_else(
    change: dict[str, object], differs: bool
) -> None:
    assert (replace(SETUP, **change).identity != SETUP.identity) is differs  # type: ignore[arg-type]


def test_overrides_go_before_the_rules() -> None:
    rule = hyperparameters(SMALL, SETUP.step_tokens(SMALL))
    assert SETUP.hyperparameters(SMALL) == rule
    given_ = replace(SETUP, learning_rate=0.5, warmup_tokens=0, beta2=0.9).hyperparameters(SMALL)
    assert (given_.learning_rate, given_.warmup_tokens, given_.beta2) == (0.5, 0, 0.9)
    assert replace(SETUP, batch=None).sequences(SMALL) >= 1


def test_a_setup_survives_json() -> None:
    assert Setup.from_json(SETUP.as_json()) == SETUP


def test_what_is_set_for_one_size_holds_there_alone_and_changes_no_other_lineage() -> None:
    small, large = shape("0.1M").params, shape("2.8B").params
    own = Overrides(large, gpus=8, learning_rate=3e-4, batch=7, weight_decay=0.0, clip=0.5)
    setup = replace(SETUP, beta2=0.9, sizes=(own,))
    found, other = setup.hyperparameters(large), setup.hyperparameters(small)
    assert (found.learning_rate, found.weight_decay, found.clip, found.beta2) == (3e-4, 0.0, 0.5, 0.9)
    assert (other.weight_decay, other.clip) == (0.1, 1.0)
    assert setup.step_tokens(large) == 7 * setup.sequence
    assert Setup.from_json(json.loads(json.dumps(setup.as_json()))) == setup
    before = replace(setup, sizes=())
    assert setup.identity_of(small) == before.identity_of(small) == before.identity
    assert setup.identity_of(large) != before.identity_of(large)
    assert replace(setup, sizes=(Overrides(large, gpus=8),)).identity_of(large) == before.identity, "no other result"
    node = Machine("a", 8, "cuda", GPUS["H100"].memory)
    assert (devices_for(setup, large, [node]), devices_for(before, large, [node])) == (8, 1)
    assert devices_for(setup, large, [Machine("a", 2)]) == 1, "cores are no GPUs"
    with pytest.raises(InputError, match=r"training\.sizes wants 8 GPUs .* there are 4"):
        devices_for(setup, large, [replace(node, devices=4)])


@pytest.mark.parametrize(("size", "gpus"), [("470M", 1), ("2.8B", 8)])
def test_the_price_of_a_large_plan_follows_from_its_formulas(size: str, gpus: int) -> None:
    """Six FLOPs a weight and token, the head's weights among them, and full attention; 40 % of 989 TFLOP/s."""
    setup = Setup("data", "abc", 32_768, 2048, ())
    form = shape(size)
    recipe = setup.adopt(Recipe(form.params, (Phase("init", 20 * form.params, TEXT),)))
    terms = Assumptions(str(gpus), "H100", 0.4, 3.0)
    plan_ = Plan(
        plan([recipe]), setup, frozenset(), frozenset(), {form.params: terms.speed(setup, form.params)},
        terms.machines(), price=terms.price,
    )  # fmt: skip
    matrices = form.params - (2 * form.depth + 1) * form.width  # all but the gains of the norms
    per_token = 6 * (matrices + 32_768 * form.width) + 12 * form.depth * form.width * 2048
    assert plan_.flops_pending == pytest.approx(per_token * recipe.tokens, rel=1e-12)
    hours = per_token * recipe.tokens / (0.4 * 989e12) / 3600
    assert plan_.busy_hours == pytest.approx(hours)
    assert plan_.as_json()["bill"] == pytest.approx(3.0 * hours), "all GPUs are busy all the time"
    assert plan_.seconds == pytest.approx(hours * 3600 / gpus), "idle GPUs widen the one segment"
    assert plan_.disk_bytes == 12 * (form.params + 32_768 * form.width)


def test_scoring_during_training_takes_a_third_of_training_on_its_tokens() -> None:
    setup = Setup(
        "", "", 300, 32, ("text", "code", "items"), batch=4, evaluate_at=(0.25, 0.5, 0.8), held_out_tokens=900
    )
    (recipe,) = [setup.adopt(Recipe(SMALL, (Phase("init", 50 * 128, TEXT), Phase("cooldown", 50 * 128, TEXT, 0.0))))]
    tree, held_out = plan([recipe]), {"text": 600, "code": 5000, "unused": 10**6}
    found = Plan(tree, setup, frozenset(), frozenset(), {SMALL: 10.0}, [Machine("a", 1)], held_out=held_out)
    # At steps 25 and 50, the end of the trunk, and 80: 600 and 900 tokens each time.
    assert [(slot.end - slot.begin) * 10 for slot in found.slots] == pytest.approx(
        [50 * 128 + 2 * 1500 / 3, 50 * 128 + 1500 / 3]
    )
    assert "4.5K tokens of held-out text while training" in str(found)
    assert setup.moments(recipe, 0, recipe.tokens) == {25, 50, 80}
