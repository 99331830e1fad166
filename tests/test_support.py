"""When the data support a recommendation, and what the headline says about it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import scipy
import torch

from mixlaw.analysis.audit.result import Audit, audit_table
from mixlaw.analysis.data.design import Design
from mixlaw.errors import InputError
from mixlaw.optimizer.answers.propose import propose
from mixlaw.optimizer.goal.evidence import Direction, directions_of, near_runs, radius_of
from mixlaw.optimizer.goal.gains import Gain, apart, gain_of
from mixlaw.optimizer.goal.goal import Goal, Measure, utility_of, weights_by_task
from mixlaw.optimizer.goal.values import Interval
from mixlaw.optimizer.goal.verdict import Evidence
from mixlaw.optimizer.policy import LARGEST_RADIUS, LEAST_RADIUS
from mixlaw.optimizer.target.feasible import feasible
from mixlaw.optimizer.target.target import DEFAULT_GUARD, Target, Trained
from mixlaw.recipe import Domain, Kind, Mixture, Phase, Recipe
from mixlaw.testing.worlds import World, random_recipes, random_world
from studies import DOMAINS as STUDY_DOMAINS
from studies import fitted

DOMAINS = (
    Domain("web", Kind.TEXT, 4_000_000),
    Domain("books", Kind.TEXT, 300_000),
    Domain("python", Kind.CODE, 2_000_000),
    Domain("readme", Kind.MARKUP, 200_000),
)
UNIQUE = {d.name: float(d.unique_tokens) for d in DOMAINS}


# --- what counts -----------------------------------------------------------------------------------------------------


def test_eleven_language_tasks_do_not_outvote_two_of_code() -> None:
    language, code = [f"l{i}" for i in range(11)], ["c0", "c1"]
    groups = {"language": language, "code": code}
    even = weights_by_task(Goal(groups=groups), [*language, *code])
    assert sum(even[task] for task in language) == pytest.approx(0.5)
    assert even["c0"] == pytest.approx(0.25)
    given = weights_by_task(Goal({"language": 1, "code": 3}, groups=groups), [*language, *code])
    assert given["c1"] == pytest.approx(3 / 8)
    assert given["l3"] == pytest.approx(1 / 44)


def test_tasks_without_a_signal_stay_out_unless_they_are_named() -> None:
    goal = Goal(groups={"language": ["a", "b"], "code": ["c"]}, without_signal=("b",))
    assert weights_by_task(goal, ["a", "b", "c"]) == {"a": 0.5, "b": 0.0, "c": 0.5}
    assert weights_by_task(replace(goal, weights={"b": 1.0}), ["a", "b", "c"])["b"] == 1
    assert weights_by_task(replace(goal, weights={"language": 1.0}), ["a", "b", "c"])["a"] == 1
    with pytest.raises(InputError, match="group 'code' has a weight, but none of its tasks c has a signal"):
        weights_by_task(replace(goal, weights={"code": 1.0}, without_signal=("c",)), ["a", "b", "c"])
    with pytest.raises(InputError, match="no task has a signal above seed noise"):
        weights_by_task(Goal(without_signal=("a", "b")), ["a", "b"])


def test_a_gain_is_taken_apart_by_task_and_group() -> None:
    world = random_world(DOMAINS, tasks=3, seed=0)
    goal = Goal({"task0": 2.0, "task1": 1.0, "task2": 1.0}, groups={"two": ["task1", "task2"]})
    # Log losses in two draws: gains of 4 and 2, 1 and 3, -8 and -8 percent.
    mine = torch.tensor([[-0.04, -0.01, 0.08], [-0.02, -0.03, 0.08]], dtype=torch.float64)
    gain = gain_of(utility_of(goal, world), mine, torch.zeros_like(mine))
    assert gain.total.mean == pytest.approx(0.5 * 3 + 0.25 * 2 - 0.25 * 8)
    assert gain.by_group["two"].mean == pytest.approx((2 - 8) / 2)
    assert gain.parts == pytest.approx({"task0": 1.5, "task1": 0.5, "task2": -2.0})
    assert gain.without["task2"].mean == pytest.approx((0.5 * 3 + 0.25 * 2) / 0.75)
    assert gain.losing == ("task2",)
    worst = gain_of(utility_of(replace(goal, worst=True), world), mine, torch.zeros_like(mine))
    assert (worst.parts, worst.without) == ({}, {})


# --- the default guard -----------------------------------------------------------------------------------------------


def test_by_default_no_task_that_counts_loses_a_percent(world: World) -> None:
    assert Target(1, 10).guard == DEFAULT_GUARD == Target(1, 10, guard=True).guard
    assert Target(1, 10, guard=False).guard is None
    free = propose(
        world, Target(330_000, 6_600_000, cooldown=(0.1, 0.2), guard=False), DOMAINS, draws=32, starts=4, sizes=()
    )
    held = propose(world, Target(330_000, 6_600_000, cooldown=(0.1, 0.2)), DOMAINS, draws=32, starts=4, sizes=())
    assert min(gain.mean for gain in free.gains.values()) < -1
    assert min(gain.mean for gain in held.gains.values()) > -1
    assert min(held.guarded.values()) > 0.87
    assert held.gain.mean < free.gain.mean
    points = Goal(measure=Measure.NOISE)
    noise = propose(
        world, Target(330_000, 6_600_000, cooldown=(0.1, 0.2)), DOMAINS, goal=points, draws=32, starts=4, sizes=()
    )
    worst = min(g.mean * float(n) * 100 for g, n in zip(noise.gains.values(), world.log_noise, strict=True))
    assert worst > -1  # a percent of loss, whatever gains are measured in


@pytest.fixture(scope="module")
def world() -> World:
    return random_world(DOMAINS, tasks=4, seed=4).uncertain(0.1, seed=4)


def test_tasks_without_weight_are_not_guarded_but_named_where_they_lose(world: World) -> None:
    goal = Goal({"task0": 1.0})
    found = propose(
        world, Target(330_000, 6_600_000, cooldown=(0.1, 0.2)), DOMAINS, goal=goal, draws=16, starts=4, sizes=()
    )
    assert set(found.guarded) == {"task0"}
    losing = found.over[found.against].losing
    assert losing
    assert losing[0] in found.sentence.partition("Expected to lose: ")[2]


def test_a_sure_gain_that_breaks_the_guard_is_not_recommended() -> None:
    gain = Gain(Interval(3.0, 2.0, 4.0), {"a": Interval(8.0, 6.0, 9.0), "b": Interval(-2.0, -3.0, -1.0)}, 0.99, {})
    evidence = Evidence(gain, "%", "ours", guarded={"a": 0.99, "b": 0.6})
    assert not evidence.supported
    assert evidence.sentence.startswith(
        "No recommendation: the predicted gain is 3.0 ± 1.0 % over ours, but the guard is not kept for b."
    )


# --- how far measured runs speak --------------------------------------------------------------------------------------


def test_one_outlier_does_not_open_the_trust_radius() -> None:
    draw = torch.distributions.Dirichlet(torch.full((3, 4), 30.0, dtype=torch.float64))
    torch.manual_seed(0)
    near = draw.sample((30,))
    alone = torch.tensor([[[0.0, 0.0, 0.0, 1.0]] * 3], dtype=torch.float64)
    assert radius_of(torch.cat([near, alone])) <= radius_of(near) + 0.02
    assert radius_of(near) >= LEAST_RADIUS


@pytest.mark.parametrize(("recipes", "within"), [(400, 1e-9), (4000, 0.05)])
def test_nine_in_ten_recipes_have_a_neighbour_within_the_radius(recipes: int, within: float) -> None:
    shares = np.random.default_rng(0).dirichlet(np.full(16, 1.0), recipes)
    nearest, _ = scipy.spatial.cKDTree(shares).query(shares, k=[2], p=1)  # the first is the recipe itself
    expected = np.quantile(np.asarray(nearest) / 2, 0.9, method="lower")
    assert LEAST_RADIUS < expected < LARGEST_RADIUS
    assert radius_of(torch.tensor(shares)[:, None]) == pytest.approx(expected, rel=within)


def test_distance_is_that_of_the_phase_that_differs_most_however_short_it_is() -> None:
    one = torch.tensor([[[0.5, 0.5], [0.2, 0.8]]], dtype=torch.float64)
    other = torch.tensor([[[0.5, 0.5], [0.8, 0.2]]], dtype=torch.float64)
    assert float(apart(one, other)) == pytest.approx(0.6)


def test_a_cooldown_of_domains_that_no_cooldown_had_is_not_supported(world: World) -> None:
    # Cooldowns of web and python alone, and a target with a cooldown of 5 %: books and readme are 100 % of it away.
    def run(seed: int) -> Recipe:
        share = 0.3 + 0.05 * seed
        mixture = Mixture({"web": share, "python": 1 - share})
        early = Mixture({"web": 0.4, "python": 0.2, "books": 0.2, "readme": 0.2})
        phases = (Phase("init", 10**6, early), Phase("continue", 10**6, early), Phase("cooldown", 10**5, mixture, 0.0))
        return Recipe(94_000, phases)

    measured = Design.from_table(world.measure([run(i) for i in range(9)]), UNIQUE)
    target = Target(330_000, 6_600_000, cooldown=(0.05, 0.05), floors={"cooldown": {"books": 0.6, "readme": 0.4}})
    found = propose(world, target, DOMAINS, measured=measured, draws=8, starts=4, sizes=())
    assert found.distance == pytest.approx(1.0)
    assert not found.supported
    assert any("100 % of the tokens of a phase differ" in reason for reason in found.reasons)


def test_a_checkpoint_is_no_neighbour_of_what_is_proposed(world: World) -> None:
    runs = Design.from_table(world.measure(random_recipes([94_000], 20, DOMAINS, count=6, seed=5)), UNIQUE)
    half = replace(runs, progress=torch.tensor([1.0, 0.5, 1.0, 0.9, 1.0, 0.999], dtype=torch.float64))
    allowed = feasible(Target(330_000, 6_600_000, phases=runs.phases), DOMAINS)
    assert near_runs(allowed, runs)[1] == list(runs.runs)
    assert near_runs(allowed, half)[1] == list(runs.runs[::2])


@pytest.mark.parametrize("known", [True, False])
def test_support_does_not_depend_on_how_a_history_is_labelled(world: World, known: bool) -> None:
    # A checkpoint of 4M tokens of one mixture: all of it `init`, or part of it `continue`.
    runs = random_recipes([94_000, 200_000], 20, DOMAINS, count=20, seed=5)
    measured = Design.from_table(world.measure(runs), UNIQUE)
    trunk = Mixture({"web": 0.7, "python": 0.3}) if known else None
    long = (Trained("init", 5_000_000, trunk),)
    two = (Trained("init", 3_000_000, trunk), Trained("continue", 2_000_000, trunk))
    found = []
    for prefix in (long, two):
        target = Target(330_000, 6_000_000, ("cooldown",), prefix=prefix)
        found.append(propose(world, target, DOMAINS, measured=measured, draws=24, starts=4, sizes=()))
    assert found[0].supported == found[1].supported
    near = [near_runs(feasible(p.target, DOMAINS), measured)[0] for p in found]
    assert torch.equal(*near)
    assert found[0].radius == found[1].radius
    here, there = (p.recipe.phases[-1].mixture for p in found)
    assert sum(abs(here.share(d.name) - there.share(d.name)) for d in DOMAINS) / 2 < 0.2
    one, other = (p.gain for p in found)
    assert one.lo90 < other.mean < one.hi90


# --- what the audit says ----------------------------------------------------------------------------------------------


def audit_of(coverage: dict[str, float], rows: int = 5) -> Audit:
    """An audit of two tasks with these coverages by kind of fold."""
    methods = ("surfaces", "law alone")
    return Audit(
        audit_table(
            [
                {"fold": kind, "task": task, "method": method, "rows": rows, "error": 0.01}
                | dict.fromkeys(("gains", "coverage"), value if method == "surfaces" else None)
                for kind, value in coverage.items()
                for task in ("task0", "task1")
                for method in methods
            ]
        )
    )


def test_directions_count_values_of_the_tasks_that_count() -> None:
    audit = audit_of({"mixtures": 0.9, "largest size": 0.2})
    both = directions_of(audit, ["task0", "task1"], larger=True)
    assert [(d.kind, d.values) for d in both] == [("mixtures", 10), ("largest size", 10)]
    assert [d.coverage for d in both] == pytest.approx([0.9, 0.2])
    assert [d.broken for d in both] == [False, True]
    assert [d.kind for d in directions_of(audit, ["task0"], larger=False)] == ["mixtures"]
    assert not Direction("largest size", 0.2, 7).broken  # too few to say so
    levels = replace(audit, table=audit.table.with_columns(gains=pl.lit(0.9)))
    largest = directions_of(levels, ["task0", "task1"], larger=True)[1]
    assert not largest.broken  # a gain is of two recipes of one size, and levels cancel in it
    assert str(largest) == (
        "leaving largest size out, 90 % of 10 gains were inside their 90 % intervals (of the losses themselves 20 %)"
    )
    assert directions_of(None, ["task0"], larger=True) == ()
    rows = pl.col("rows") + 5  # enough values of one task
    by_task = pl.when(pl.col("task") == "task1").then(0.25).otherwise(1.0)
    uneven = replace(audit, table=audit.table.with_columns(rows=rows, gains=by_task))
    one = directions_of(uneven, ["task0", "task1"], larger=False)[0]
    assert (one.few, one.coverage, one.broken) == ({"task1": 0.25}, 0.625, True)
    assert str(one).endswith("; by far the fewest of task1 25 %")
    assert directions_of(uneven, ["task0"], larger=False)[0].few == {}


def test_a_direction_that_is_broken_is_in_the_headline_and_nothing_is_supported() -> None:
    surfaces = fitted()
    target = Target(330_000, 6_600_000, guard=False)
    sound = replace(surfaces, audit=audit_of({"mixtures": 0.9, "largest size": 0.8}))
    broken = replace(surfaces, audit=audit_of({"mixtures": 0.9, "largest size": 0.0}))
    yes, no = (propose(s, target, STUDY_DOMAINS, draws=16, starts=4, sizes=()) for s in (sound, broken))
    assert no.recipe == yes.recipe
    assert yes.supported
    assert not no.supported
    words = "leaving largest size out, 0 % of 10 gains were inside their 90 % intervals"
    assert words in no.sentence
    assert words not in yes.sentence
    # At a measured size nobody asks about larger ones.
    smaller = propose(broken, Target(94_000, 1_880_000, guard=False), STUDY_DOMAINS, draws=16, starts=4, sizes=())
    assert words not in smaller.sentence


def test_a_size_far_beyond_what_was_measured_is_not_supported(world: World) -> None:
    measured = Design.from_table(world.measure(random_recipes([24_000], 20, DOMAINS, count=30)), UNIQUE)
    target = Target(2_400_000, 48_000_000, max_epochs=100)
    found = propose(world, target, DOMAINS, measured=measured, draws=8, starts=4, sizes=())
    assert "100 times the parameters of the largest measured run" in " ".join(found.reasons)


def test_the_task_that_carries_the_gain_is_named_with_what_is_left_without_it() -> None:
    tasks = {"synthetic": Interval(29.6, 4.1, 55.1), "code": Interval(-3.9, -14.5, 6.7), "prose": Interval(1.1, 0, 2)}
    parts = {task: gain.mean / 3 for task, gain in tasks.items()}
    without = {"synthetic": Interval(-1.4, -4.0, 1.2)}
    better = {"synthetic": 0.98, "code": 0.3, "prose": 0.9}
    gain = Gain(Interval(8.9, 5.0, 12.8), tasks, 0.99, better, parts=parts, without=without)
    others = {"balanced": 0.99, "text-only": 0.991}
    sentence = Evidence(gain, "% of loss", "proportional", others).sentence
    assert sentence.startswith("The proposal gains 8.9 ± 3.9 % of loss over proportional, the best of 3 baselines")
    assert "synthetic carries all of it: without it the gain is -1.4 ± 2.6, and there is no clear winner." in sentence
    assert "Expected to lose: code -4 ± 11." in sentence
    rest = Evidence(replace(gain, without={"synthetic": Interval(1.4, 0.2, 2.6)}), "% of loss", "proportional").sentence
    assert "without it the gain is 1.4 ± 1.2." in rest, "others win, too"
    unsure = Evidence(replace(gain, probability=0.6), "% of loss", "proportional").sentence
    assert "No clear winner" in unsure
    assert "carries" not in unsure, "noise"


def test_a_baseline_that_is_harder_to_beat_is_named() -> None:
    gain = Gain(Interval(2.0, -3.0, 7.0), {}, 0.74, {})
    others = {"text-only": 0.63, "balanced": 0.9}
    sentence = Evidence(gain, "% of loss", "proportional", others).sentence
    assert "beats proportional, on average the best of 3 baselines, by" in sentence
    assert sentence.endswith("Harder to beat: text-only (63 %).")
    # One that was asked for is not called the best.
    asked = Evidence(gain, "% of loss", "balanced", {"text-only": 0.8, "proportional": 0.9}, best=False).sentence
    assert "beats balanced, by" in asked
    assert "Harder to beat" not in asked
