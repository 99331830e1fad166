"""Schedules in targets: what runs do not vary is kept, what they have is carried into recipes and found again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.data.recipes import design_of
from mixlaw.errors import InputError
from mixlaw.optimizer.answers.propose import propose
from mixlaw.optimizer.answers.verify import runs_in, runs_of
from mixlaw.optimizer.target.rates import Rates
from mixlaw.optimizer.target.schedule import keep_schedule, usual_rates
from mixlaw.optimizer.target.target import Target, Trained
from mixlaw.recipe import Decay, Domain, Kind, Mixture, Phase, Recipe, Schedule
from mixlaw.records import Measurement, Record, to_table
from mixlaw.settings import validate
from mixlaw.settings.target import target_of
from mixlaw.testing.worlds import random_world

DOMAINS = (Domain("web", Kind.TEXT, 10**9), Domain("code", Kind.CODE, 10**9))
NAMES = ("init", "cooldown")
TARGET: dict[str, Any] = {"params": 10**6, "tokens": 2 * 10**7, "phases": NAMES}


def run(share: float, web: float = 0.5, *, end: float = 0.0, early: float = 1.0, **more: Any) -> Recipe:
    mixture = Mixture({"web": web, "code": 1 - web})
    shape = more.pop("shape", Decay.LINEAR)
    phases = (
        Phase("init", round(2e6 * (1 - share)), mixture, early),
        Phase("cooldown", round(2e6 * share), mixture, end, shape),
    )
    return Recipe(100_000, phases, **more)


def runs(*recipes: Recipe) -> Design:
    return design_of(recipes, NAMES, ("web", "code"), {})


def test_a_length_that_the_runs_never_vary_is_theirs_and_said_so() -> None:
    kept = keep_schedule(Target(**TARGET), runs(run(0.3, 0.2), run(0.3, 0.8)))
    assert kept.target.cooldown == pytest.approx((0.3, 0.3))
    assert kept.notes == (
        "all runs give cooldown 30 % of their tokens, so the effect of another length is not known: "
        "its length is kept at 30 %, not optimised",
    )


def test_a_range_that_leaves_the_runs_length_out_takes_its_nearest_end() -> None:
    kept = keep_schedule(Target(**TARGET, cooldown=(0.05, 0.2)), runs(run(0.3, 0.2), run(0.3, 0.8)))
    assert kept.target.cooldown == (0.2, 0.2)


def test_of_a_prefix_the_length_is_that_of_the_runs_in_tokens() -> None:
    past = (Trained("init", 10**7, Mixture({"web": 1.0})),)
    target = Target(10**6, 2 * 10**7, ("continue", "cooldown"), prefix=past)
    design = design_of([run(0.2, 0.2), run(0.2, 0.8)], ("init", "continue", "cooldown"), ("web", "code"), {})
    kept = keep_schedule(target, design)
    assert kept.target.cooldown == pytest.approx((0.4, 0.4))  # 4 of the 10 million tokens that are left: 20 % of all
    assert "kept at 40 % of the tokens still to be trained" in kept.notes[0]


def test_a_length_that_the_runs_vary_is_free_from_a_tenth_to_six_tenths_with_a_word_on_fine_tuning() -> None:
    kept = keep_schedule(Target(**TARGET), runs(run(0.1), run(0.3), run(0.6)))
    assert kept.target.cooldown == (0.1, 0.6)
    assert "2603.16127" in kept.notes[0]


def test_what_a_target_gives_as_one_number_and_what_has_no_runs_stays() -> None:
    fixed = Target(**TARGET, cooldown=(0.15, 0.15))
    assert keep_schedule(fixed, runs(run(0.3), run(0.3, 0.8))).target == fixed
    assert keep_schedule(Target(**TARGET), None).target == Target(**TARGET)


def test_an_end_that_the_runs_never_vary_is_theirs() -> None:
    free = Target(**TARGET, lr_end=(0.0, 0.5))
    assert keep_schedule(free, runs(run(0.3, end=0.1), run(0.3, 0.8, end=0.1))).target.lr_end == pytest.approx(0.1)
    assert keep_schedule(free, runs(run(0.3, end=0.1), run(0.3, end=0.4))).target.lr_end == (0.0, 0.5)


def test_a_phase_that_no_run_has_keeps_what_the_target_says_of_it() -> None:
    target = Target(**{**TARGET, "phases": ("init", "late", "cooldown")})
    assert usual_rates(target, runs(run(0.3, early=0.5))).rates == Rates(ends={"init": 0.5})


def test_rates_that_a_target_leaves_open_are_the_usual_ones_of_the_runs() -> None:
    half = [run(0.5, web, early=0.5, shape=Decay.ONE_SQRT, lr=0.5) for web in (0.2, 0.5, 0.8)]
    rates = keep_schedule(Target(**TARGET), runs(*half)).target.rates
    assert rates == Rates(lr=0.5, ends={"init": 0.5}, shapes={"cooldown": Decay.ONE_SQRT})
    own = Rates(lr=2.0, ends={"init": 0.8}, shapes={"cooldown": Decay.COSINE})
    assert keep_schedule(Target(**TARGET, rates=own), runs(*half)).target.rates == own
    cosine = [run(0.5, web, early=1.0, schedule=Schedule.COSINE) for web in (0.2, 0.5, 0.8)]
    assert keep_schedule(Target(**TARGET), runs(*cosine)).target.rates == Rates(schedule=Schedule.COSINE)


@pytest.mark.parametrize("change", [{"lr": 1.0}, {"early": 1.0}, {"shape": Decay.LINEAR}])
def test_a_proposal_has_the_schedule_of_the_runs_and_verify_finds_only_runs_that_have_it_too(
    change: dict[str, Any],
) -> None:
    how: dict[str, Any] = {"early": 0.5, "shape": Decay.ONE_SQRT, "lr": 0.5}
    world = random_world(DOMAINS, NAMES, 2, 1)
    measured = runs(*(run(0.3, web, **how) for web in (0.2, 0.5, 0.8)))
    proposal = propose(world, Target(**TARGET), DOMAINS, measured=measured, draws=8, starts=2)
    for recipe in proposal.recipes.values():
        assert [(p.lr_end, p.decay) for p in recipe.phases] == [(0.5, Decay.LINEAR), (0.0, Decay.ONE_SQRT)]
        assert recipe.lr == 0.5
        assert recipe.phases[1].tokens / recipe.tokens == pytest.approx(0.3)
    assert "its length is kept at 30 %" in " ".join(proposal.warnings)
    trained = proposal.recipe
    first, last = trained.phases
    first, last = (
        replace(first, lr_end=change.get("early", 0.5)),
        replace(last, decay=change.get("shape", Decay.ONE_SQRT)),
    )
    other = replace(trained, phases=(first, last), lr=change.get("lr", 0.5))
    table = to_table([Record(r.lineage, r, {"task0": Measurement(1.0)}) for r in (trained, other)])
    assert [*runs_of(trained, runs_in(table))] == [0]


def test_a_study_says_where_phases_end_in_which_shape_and_at_which_rate() -> None:
    phases = [
        {"name": "init", "share": 0.7, "lr_end": 0.5},
        {"name": "cooldown", "share": 0.3, "lr_end": 0.1, "decay": "1-sqrt"},
    ]
    asked = {"params": "1M", "tokens": 20_000_000, "lr": 0.5, "warmup": 1000}
    target = target_of(validate({"version": 1, "phases": phases, "target": asked}, Path("study.toml")))
    assert target.rates == Rates(0.5, 1000, None, {"init": 0.5}, {"cooldown": Decay.ONE_SQRT})
    assert Target.from_json(target.as_json()) == target
    with pytest.raises(InputError, match="lr"):
        Rates(lr=0.0)
    assert Rates(ends={"init": 1.0, "continue": 0.0}).end("continue") == 0
    with pytest.raises(InputError, match=r"between 0 and 1 of its peak, got {'init': 1.5}"):
        Rates(ends={"init": 1.5})


def test_rates_of_a_recipe_make_a_plain_one_like_it() -> None:
    mixture = Mixture({"web": 0.5, "code": 0.5})
    plain = Recipe(100_000, tuple(Phase(name, 10**6, mixture) for name in ("init", "continue", "cooldown")))
    first, second, last = plain.phases
    ends = (replace(first, lr_end=0.7), replace(second, lr_end=0.4, decay=Decay.COSINE))
    own = replace(plain, phases=(*ends, replace(last, decay=Decay.ONE_SQRT)), lr=0.5, warmup=100)
    assert Rates.of(own).applied(plain, 3) == own
    assert Rates.of(own).applied(plain, 2) == replace(own, phases=(first, *own.phases[1:]))


def test_a_table_of_two_falling_phases_is_proposed_as_it_was_trained() -> None:
    # Marin's runs end their first phase at half of the peak.
    table = pl.DataFrame(
        {
            "run": ["a", "b"],
            "params": [1e6, 1e6],
            **{f"tokens:init:{d}": [5e5, 4e5] for d in ("web", "code")},
            **{f"tokens:cooldown:{d}": [5e5, 6e5] for d in ("web", "code")},
            "lr_end:init": [0.5, 0.5],
        }
    )
    rates = keep_schedule(Target(**TARGET), Design.from_table(table, {})).target.rates
    assert rates.ends == {"init": 0.5}


def test_suggested_runs_have_the_usual_rates_of_the_runs() -> None:
    assert usual_rates(Target(**TARGET), runs(run(0.3, lr=0.5), run(0.3, 0.8, lr=0.5))).rates == Rates(lr=0.5)
