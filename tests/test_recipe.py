"""Mixtures, phases, recipes and lineages."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixlaw.errors import InputError, InvalidMixture, InvalidRecipe
from mixlaw.recipe import Decay, Kind, Mixture, Phase, Recipe, Schedule

DOMAINS = ("text", "code", "markup", "commits")
HALF = Mixture({"text": 0.5, "code": 0.5})
INIT, COOLDOWN = Phase("init", 4096, HALF), Phase("cooldown", 1024, Mixture({"code": 1.0}), lr_end=0.0)
RECIPE = Recipe(24_000, (INIT, COOLDOWN), seed=3, unique={"code": 700}, data="shards")

weights = st.dictionaries(st.sampled_from(DOMAINS), st.floats(0, 1e3), min_size=1).filter(
    lambda found: math.fsum(found.values()) > 1e-3
)
mixtures = weights.map(Mixture.normalised)
phases = st.builds(
    Phase,
    st.sampled_from(["init", "continue", "cooldown"]),
    st.integers(1, 10**15),
    mixtures,
    st.none() | st.floats(0, 1),
)
recipes = st.builds(
    Recipe,
    st.integers(1, 10**12),
    st.lists(phases, min_size=1, max_size=3, unique_by=lambda phase: phase.name).map(tuple),
    st.integers(0, 10**6),
    st.dictionaries(st.sampled_from(DOMAINS), st.integers(1, 10**12)),
    st.text(max_size=8),
    st.sampled_from(Schedule),
)


@pytest.mark.parametrize(
    "shares",
    [
        {"text": 0.7, "code": 0.5},
        {"text": 0.5, "code": 0.4},
        {"text": 0.5, "code": 0.499},  # near the simplex is not on it
        {"text": 0.5, "code": 0.500002},
        {"text": 1.5, "code": -0.5},
        {"text": math.nan, "code": 1.0},
        {"text": math.inf},
        {},
    ],
)
def test_shares_that_are_no_point_of_the_simplex_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(InvalidMixture):
        Mixture(shares)


def test_the_refusal_names_what_the_shares_sum_to_and_what_to_do() -> None:
    with pytest.raises(InputError, match=r"sum to 1, got 1\.2 .*correct one share"):
        Mixture({"text": 0.7, "code": 0.5})


@pytest.mark.parametrize("raw", [{"text": 0.0}, {}, {"text": math.nan}, {"text": -1.0, "code": 0.5}])
def test_weights_without_a_positive_total_are_refused(raw: dict[str, float]) -> None:
    with pytest.raises(InvalidMixture):
        Mixture.normalised(raw)


@given(weights, st.randoms(use_true_random=False))
def test_equal_mixtures_are_equal_whatever_the_order_and_the_zero_shares(raw: dict[str, float], random: Any) -> None:
    total = math.fsum(raw.values())
    shares = {name: weight / total for name, weight in raw.items()}
    items = [*shares.items(), ("never", 0.0)]
    random.shuffle(items)
    assert Mixture(dict(items)) == Mixture(shares)
    assert hash(Mixture(dict(items))) == hash(Mixture(shares))
    assert "never" not in Mixture(dict(items))
    assert Mixture(dict(items)).share("never") == 0.0


def test_a_mixture_is_read_as_a_mapping_and_cannot_be_changed() -> None:
    assert dict(HALF) == {"code": 0.5, "text": 0.5}
    assert len(HALF) == 2
    assert str(Mixture({"text": 0.25, "code": 0.75})) == "code 75.0 %, text 25.0 %"
    with pytest.raises(TypeError):
        HALF.shares["code"] = 1.0  # type: ignore[index]


@pytest.mark.parametrize(
    ("name", "tokens", "lr_end"),
    [
        ("", 10, 1.0),
        ("a:b", 10, 1.0),
        ("init", 0, 1.0),
        ("init", -5, 1.0),
        ("init", 10.5, 1.0),
        ("init", True, 1.0),
        ("init", 2**63, 1.0),
        ("init", math.nan, 1.0),
        ("init", math.inf, 1.0),
        ("init", 10, 1.5),
        ("init", 10, -0.1),
        ("init", 10, math.nan),
    ],
)
def test_a_phase_that_cannot_be_trained_is_refused(name: str, tokens: Any, lr_end: float) -> None:
    with pytest.raises(InvalidRecipe):
        Phase(name, tokens, HALF, lr_end)


@pytest.mark.parametrize(
    "change",
    [
        {"params": 0},
        {"params": -1},
        {"params": 1.5},
        {"params": math.nan},
        {"phases": ()},
        {"phases": (INIT, INIT)},
        {"seed": -1},
        {"seed": 0.5},
        {"unique": {"code": 0}},
        {"unique": {"code": 0.5}},
    ],
)
def test_a_recipe_that_cannot_be_trained_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidRecipe):
        replace(RECIPE, **change)


@settings(max_examples=40)
@given(recipes)
def test_a_recipe_survives_json_with_its_lineage(recipe: Recipe) -> None:
    again = Recipe.from_json(json.loads(json.dumps(recipe.as_json())))
    assert again == recipe
    assert again.lineage == recipe.lineage
    assert hash(again) == hash(recipe)


def test_numbers_that_are_equal_give_equal_lineages_whatever_their_type() -> None:
    loose: dict[str, Any] = {"params": 24_000.0, "seed": 3.0, "unique": {"code": 700.0}}
    whole = replace(RECIPE, phases=(INIT, replace(COOLDOWN, lr_end=0)), **loose)
    assert whole == RECIPE
    assert whole.lineage == RECIPE.lineage
    assert Phase("init", 4096.0, HALF, 1).as_json() == INIT.as_json()  # type: ignore[arg-type]


CHANGES: dict[str, Recipe] = {
    "params": replace(RECIPE, params=25_000),
    "seed": replace(RECIPE, seed=4),
    "data": replace(RECIPE, data="others"),
    "unique tokens": replace(RECIPE, unique={"code": 701}),
    "unique domain": replace(RECIPE, unique={"text": 700}),
    "schedule": replace(RECIPE, schedule=Schedule.COSINE),
    "mixture": RECIPE.with_mixture("init", Mixture({"text": 0.51, "code": 0.49})),
    "tokens": replace(RECIPE, phases=(replace(INIT, tokens=4097), COOLDOWN)),
    "phase name": replace(RECIPE, phases=(replace(INIT, name="start"), COOLDOWN)),
    "lr_end": replace(RECIPE, phases=(INIT, replace(COOLDOWN, lr_end=0.1))),
    "lr_end unknown": replace(RECIPE, phases=(INIT, replace(COOLDOWN, lr_end=None))),
    "order of phases": replace(RECIPE, phases=(COOLDOWN, INIT)),
    "fewer phases": replace(RECIPE, phases=(INIT,)),
}


def test_every_ingredient_changes_the_lineage() -> None:
    lineages = [RECIPE.lineage, *(changed.lineage for changed in CHANGES.values())]
    assert len(set(lineages)) == len(lineages)


def test_spelling_does_not_change_the_lineage() -> None:
    spelt = Mixture({"markup": 0.0, "code": 0.5, "text": 0.5})
    other = Recipe(24_000, (replace(INIT, mixture=spelt), COOLDOWN), 3, {"code": 700}, "shards", Schedule("wsd"))
    assert other.lineage == RECIPE.lineage


@settings(max_examples=40)
@given(recipes)
def test_the_prefix_of_a_recipe_is_the_lineage_of_the_recipe_that_ends_there(recipe: Recipe) -> None:
    recipe = replace(recipe, schedule=Schedule.WSD)
    for length in range(1, len(recipe.phases) + 1):
        assert recipe.prefix(length) == replace(recipe, phases=recipe.phases[:length]).lineage
    last = recipe.phases[-1]
    shorter = replace(last, tokens=max(1, last.tokens // 2))
    cut = recipe.prefix(len(recipe.phases), shorter.tokens)
    assert cut == replace(recipe, phases=(*recipe.phases[:-1], shorter)).lineage


def test_cosine_recipes_share_no_prefix_when_their_ends_differ() -> None:
    long = replace(RECIPE, schedule=Schedule.COSINE)
    longer = replace(long, phases=(INIT, replace(COOLDOWN, tokens=2048)))
    assert long.prefix(1) != longer.prefix(1)
    assert RECIPE.prefix(1) == replace(longer, schedule=Schedule.WSD).prefix(1)


def test_the_lineage_is_the_same_in_every_process() -> None:
    code = (
        "import json, sys; from mixlaw.recipe import Recipe; "
        "print(Recipe.from_json(json.loads(sys.stdin.read())).lineage)"
    )
    for seed in ("0", "1", "4242"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            input=json.dumps(RECIPE.as_json()),
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == RECIPE.lineage


@settings(max_examples=50)
@given(recipes)
def test_tokens_and_shares_of_a_recipe_add_up(recipe: Recipe) -> None:
    assert recipe.tokens == sum(phase.tokens for phase in recipe.phases)
    drawn = math.fsum(recipe.domain_tokens(domain) for domain in recipe.domains)
    assert math.isclose(drawn, recipe.tokens, rel_tol=1e-6)
    for domain in recipe.domains:
        assert math.isclose(recipe.mixture.share(domain), recipe.domain_tokens(domain) / drawn, rel_tol=1e-9)


def test_the_mixture_over_all_phases_weighs_them_by_tokens() -> None:
    # 4096 half and half, then 1024 code: text 2048 of 5120.
    assert math.isclose(RECIPE.mixture["text"], 0.4)
    assert RECIPE.with_mixture("cooldown", HALF).mixture == HALF


def test_code_counts_markup_and_what_stands_beside_code_but_not_mathematics() -> None:
    assert {kind for kind in Kind if kind.is_code} == {
        Kind.CODE,
        Kind.MARKUP,
        Kind.CODE_ADJACENT,
        Kind.SYNTHETIC_CODE,
    }


def test_a_recipe_prints_a_line_per_phase() -> None:
    assert len(str(RECIPE).splitlines()) == 3
    foreign = Recipe(1000, (INIT, replace(COOLDOWN, lr_end=None), Phase("more", 10, HALF, 0.25, Decay.COSINE)))
    assert [line.split(", ")[-1] for line in str(foreign).splitlines()[1:]] == [
        "constant learning rate",
        "learning rate not known",
        "learning rate to 0.25 of its peak (cosine)",
    ]
    assert Phase("most", 2**63 - 1, HALF).tokens == 2**63 - 1


def test_training_on_other_shards_of_one_domain_is_not_shared() -> None:
    one, other = (replace(RECIPE, shards={"text": "t", "code": code}) for code in ("c", "d"))
    assert {"text", "code"} <= set(RECIPE.phases[0].mixture)
    assert (one.shared_tokens(other), one.shared_tokens(one)) == (0, one.tokens)


def test_a_shape_of_decay_is_part_of_the_lineage_where_the_rate_falls() -> None:
    text = Mixture({"text": 1.0})

    def lineage(end: float, decay: Decay, schedule: Schedule = Schedule.WSD) -> str:
        return Recipe(1000, (Phase("init", 100, text, end, decay),), schedule=schedule).lineage

    assert len({lineage(0.0, decay) for decay in Decay}) == len(Decay)
    assert len({lineage(1.0, decay) for decay in Decay}) == 1, "a constant phase has no shape, and is shared"
    ends = {lineage(end, Decay.LINEAR, Schedule.COSINE) for end in (0.0, 0.1, 0.5)}
    assert len(ends) == 3


def test_lineages_of_recipes_without_a_shape_stay_what_they_were() -> None:
    # Written down when phases had no shape yet: runs of older studies keep their names.
    text, half = Mixture({"text": 1.0}), Mixture({"text": 0.5, "code": 0.5})
    old = Recipe(25_000, (Phase("init", 800, half), Phase("cooldown", 200, text, 0.0)), seed=3, unique={"text": 500})
    assert (old.lineage, old.prefix(1, 100)) == ("20a83cdbabbf793e", "c34927e5c2fb8a90")
    assert Recipe(25_000, old.phases, schedule=Schedule.COSINE).lineage == "a96621096411c2b7"


def test_a_constant_phase_after_a_decayed_one_is_shared_whole_or_not_at_all() -> None:
    one, other = (Recipe(1000, (COOLDOWN, Phase("on", tokens, HALF))) for tokens in (100, 300))
    assert one.shared_tokens(other) == COOLDOWN.tokens
    assert one.shared_tokens(replace(one, phases=(*one.phases, INIT))) == one.tokens


def test_of_two_lengths_of_a_constant_phase_the_shorter_is_shared_and_of_cosines_of_two_ends_nothing() -> None:
    one, other = (Recipe(1000, (Phase("init", tokens, HALF), COOLDOWN)) for tokens in (100, 300))
    assert one.shared_tokens(other) == other.shared_tokens(one) == 100
    low, high = (Recipe(1000, (INIT, replace(COOLDOWN, lr_end=end)), schedule=Schedule.COSINE) for end in (0.0, 0.1))
    assert (low.shared_tokens(high), low.shared_tokens(low)) == (0, low.tokens)


def test_a_peak_rate_and_a_warm_up_of_its_own_make_another_run() -> None:
    fast = replace(RECIPE, lr=2.0, warmup=512)
    assert replace(RECIPE, lr=1, warmup=None).lineage == RECIPE.lineage  # the rule's are not written down
    assert replace(RECIPE, warmup=0).lineage != RECIPE.lineage, "without a warm-up"
    assert len({RECIPE.lineage, fast.lineage, replace(fast, warmup=None).lineage}) == 3
    assert (fast.shared_tokens(RECIPE), fast.shared_tokens(fast)) == (0, RECIPE.tokens)
    assert Recipe.from_json(json.loads(json.dumps(fast.as_json()))) == fast
    assert "2 times the rule's peak rate, warm-up over 512 tokens" in str(fast)


@pytest.mark.parametrize("wrong", [{"lr": 0.0}, {"lr": -1.0}, {"lr": math.inf}, {"lr": math.nan}, {"warmup": -1}])
def test_a_rate_that_trains_nothing_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRecipe, match=f"{next(iter(wrong))}"):
        replace(RECIPE, **wrong)
