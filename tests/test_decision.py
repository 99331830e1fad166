"""What a decision rests on: risks, a ladder of validation, weights that may move, and what more data would bring."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import polars as pl
import pytest
import torch

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.data.recipes import design_of
from mixlaw.errors import InputError
from mixlaw.optimizer.answers.compare import compare
from mixlaw.optimizer.answers.dependence import Weighting, dependence_of
from mixlaw.optimizer.answers.front import dominated_by, pareto
from mixlaw.optimizer.answers.ladder import rung_sizes
from mixlaw.optimizer.answers.proposal import Proposal
from mixlaw.optimizer.answers.propose import propose
from mixlaw.optimizer.answers.risk import risks_of
from mixlaw.optimizer.answers.sensitivity import Flat, optima_by_draw
from mixlaw.optimizer.answers.verify import verify
from mixlaw.optimizer.goal.goal import Goal, utility_of
from mixlaw.optimizer.goal.values import Interval
from mixlaw.optimizer.search.climb import random_starts, refine_each
from mixlaw.optimizer.search.problem import problem_of
from mixlaw.optimizer.target.target import Target
from mixlaw.recipe import Domain, Kind, Mixture, Recipe
from mixlaw.testing.worlds import World, random_recipes, random_world

DOMAINS = (
    Domain("web", Kind.TEXT, 4_000_000),
    Domain("books", Kind.TEXT, 150_000),
    Domain("python", Kind.CODE, 2_000_000),
)
UNIQUE = {d.name: float(d.unique_tokens) for d in DOMAINS}
TARGET = Target(330_000, 6_600_000, cooldown=(0.15, 0.15), guard=False)


@pytest.fixture(scope="module")
def world() -> World:
    return random_world(DOMAINS, tasks=3, seed=5).uncertain(0.08, seed=2)


@pytest.fixture(scope="module")
def measured(world: World) -> Design:
    return Design.from_table(world.measure(random_recipes([24_000, 94_000], 20, DOMAINS, count=20)), UNIQUE)


@pytest.fixture(scope="module")
def proposal(world: World, measured: Design) -> Proposal:
    return propose(world, TARGET, DOMAINS, measured=measured, draws=32, starts=6, sizes=())


def test_regret_and_worst_case_are_those_of_a_table_of_gains(world: World) -> None:
    # Gains over the baseline in ten draws: the proposal 1 to 10, another recipe 5 in each.
    utility = utility_of(Goal({"task0": 1.0}), world)
    zero = torch.zeros(10, 3, dtype=torch.float64)
    mine, best = zero.clone(), zero.clone()[:, None]
    mine[:, 0], best[:, 0, 0] = -torch.arange(1, 11) / 100, -0.05
    risks = risks_of(utility, {"proposal": mine, "base": zero}, best, zero)
    assert risks["proposal"].regret == pytest.approx((4 + 3 + 2 + 1) / 10)
    assert risks["base"].regret == pytest.approx((5 * 5 + 6 + 7 + 8 + 9 + 10) / 10)
    assert (risks["proposal"].worst, risks["base"].worst) == pytest.approx((1.0, 0.0))


def test_a_proposal_has_less_regret_than_what_it_beats(proposal: Proposal) -> None:
    assert set(proposal.risks) == set(proposal.recipes)
    assert 0 <= proposal.risks["proposal"].regret < proposal.risks[proposal.against].regret
    assert proposal.risks["proposal"].worst < proposal.gain.mean
    assert any(note.startswith("if it is wrong: expected regret") for note in proposal.page().more)


def test_rungs_are_even_steps_between_the_largest_run_and_the_target() -> None:
    assert rung_sizes(1e8, 1.2e8) == ()
    assert rung_sizes(1e8, 9e8) == (300_000_000,)
    one, two, three = rung_sizes(1e8, 8.1e9)
    assert [one / 1e8, two / one, three / two, 8.1e9 / three] == pytest.approx([3, 3, 3, 3], rel=1e-6)
    assert rung_sizes(0, 1e9) == ()


def test_a_rung_repeats_domains_as_often_and_its_mark_is_what_nine_in_ten_pairs_exceed(
    world: World, proposal: Proposal
) -> None:
    (rung,) = proposal.ladder
    assert rung.recipe.params == round((94_000 * 330_000) ** 0.5)
    for one, at_target in ((rung.recipe, proposal.recipe), (rung.baseline, proposal.baselines[proposal.against])):
        for d in DOMAINS:
            epochs = at_target.domain_tokens(d.name) / d.unique_tokens
            assert one.domain_tokens(d.name) / one.unique.get(d.name, 1) == pytest.approx(epochs, rel=1e-3, abs=1e-3)
    pair = [rung.recipe, rung.baseline]
    design = design_of(pair, world.phases, world.domains, {})
    losses = world.uncertain(0.08, seed=77).draws(design, 600).log()
    noise = torch.randn(losses.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * world.noise
    gains = 100 * (losses + noise).diff(dim=1)[:, 0].mean(-1)
    assert float((gains > rung.gain.lo90).double().mean()) == pytest.approx(0.95, abs=0.04)
    assert Proposal.from_json(json.loads(json.dumps(proposal.as_json()))).ladder == proposal.ladder


def test_verify_says_whether_a_rung_passes(world: World, proposal: Proposal) -> None:
    (rung,) = proposal.ladder
    numbered = replace(proposal, number=4)
    table = world.measure([rung.recipe, rung.baseline], seed=3)
    for d in DOMAINS:
        table = table.with_columns(
            pl.Series(f"unique:{d.name}", [float(r.unique.get(d.name, np.inf)) for r in (rung.recipe, rung.baseline)])
        )
    found = verify([numbered], table)
    assert "proposal 4 passes" in found.sentence
    worse = [pl.Series(f"metric:{t}", table[f"metric:{t}"] * np.array([1.2, 1.0])) for t in world.tasks]
    assert "proposal 4 fails" in verify([numbered], table.with_columns(worse)).sentence


def test_a_weight_may_move_until_a_tenth_of_the_tokens_changes() -> None:
    weighting = Weighting("code", {0.25: 0.3, 0.5: 0.08, 2.0: 0.02, 4.0: 0.09})
    assert weighting.range == (0.5, 4.0)
    assert Weighting("code", {0.25: 0.3, 0.5: 0.2, 2.0: 0.12, 4.0: 0.09}).range == (1.0, 1.0)


def test_more_of_what_runs_out_is_worth_more_than_of_what_does_not(world: World, proposal: Proposal) -> None:
    problem = problem_of(world, TARGET, DOMAINS, draws=32)
    more = {"books": 1_000_000, "web": 1_000_000}
    found = dependence_of(problem, proposal.recipe, more)
    by_name = {m.domain: m for m in found.tokens}
    assert by_name["books"].epochs > by_name["web"].epochs
    # The truth: the same search with 1M more unique tokens, by `propose` itself.
    richer = [replace(d, unique_tokens=d.unique_tokens + 1_000_000 * (d.name == "books")) for d in DOMAINS]
    best = propose(world, TARGET, richer, draws=32, starts=6, sizes=())
    unique = [{d.name: float(d.unique_tokens) for d in ds} for ds in (DOMAINS, richer)]
    losses = [
        world.draws(design_of([recipe], world.phases, world.domains, u), 32).log()[:, 0]
        for recipe, u in zip((proposal.recipe, best.recipe), unique, strict=True)
    ]
    gain = float(100 * (losses[0] - losses[1]).mean())
    assert by_name["books"].gain.mean == pytest.approx(gain, abs=0.15)
    assert found.tokens[0].gain.mean == max(m.gain.mean for m in found.tokens)
    assert "What more unique tokens would bring" in str(found)
    assert [w.name for w in found.weights] == list(world.tasks)
    assert all(w.changed[4.0] >= w.changed[2.0] - 0.05 for w in found.weights)
    with pytest.raises(InputError, match="no domain 'audio'"):
        dependence_of(problem, proposal.recipe, {"audio": 5})


def test_head_to_head_has_a_probability_per_task_group_and_over_all(world: World, measured: Design) -> None:
    goal = Goal(groups={"two": ["task0", "task1"], "one": ["task2"]})
    problem = problem_of(world, TARGET, DOMAINS, goal=goal, measured=measured, draws=64)
    one, other = problem.baselines[0], random_recipes([330_000], 20, DOMAINS, count=1, seed=9)[0]
    found = compare(world, (one, other), DOMAINS, names=("ours", "theirs"), goal=goal, problem=problem)
    losses = world.draws(design_of([one, other], world.phases, world.domains, UNIQUE), 64).log()
    gains = 100 * losses.diff(dim=1)[:, 0]
    assert found.gain.by_group["two"].mean == pytest.approx(float(gains[:, :2].mean()))
    assert found.gain.total.mean == pytest.approx(float((gains[:, :2].mean(1) + gains[:, 2]).mean() / 2))
    share = (gains[:, :2].mean(1) > 0).double().mean()
    assert found.gain.better_groups["two"] == pytest.approx(float(share), abs=0.1)
    text = " ".join(str(found).split())
    assert "all of two" in text
    assert found.supported in (False, None) or found.gain.total.lo90 > 0
    assert found.verdict in text
    assert "ours: " in text
    assert "theirs: " in text
    assert "keeps all limits of the target" in text
    assert "does not keep" in text  # its cooldown is not 15 %
    assert "chance of" in found.sentence


def test_one_share_moves_in_a_phase_and_its_range_holds_the_recommendation(world: World, measured: Design) -> None:
    free = TARGET.changed(cooldown=(0.1, 0.3), guard=True)
    found = propose(world, free, DOMAINS, measured=measured, draws=32, starts=6, sizes=())
    assert len({flat.phase for flat in found.flat if flat.what != "length"}) == len(
        [flat for flat in found.flat if flat.what != "length"]
    )
    for flat in found.flat:
        assert flat.low <= flat.at + 1e-9
        assert flat.at <= flat.high + 1e-9


def test_what_the_search_maximises_is_said(world: World, measured: Design) -> None:
    for caution in (0.0, 0.5):
        found = propose(world, TARGET, DOMAINS, measured=measured, draws=32, starts=6, caution=caution, sizes=())
        recipes = [found.recipe, found.baselines[found.against]]
        losses = world.draws(design_of(recipes, world.phases, world.domains, UNIQUE), 32).log().mean(-1)
        gains = 100 * (losses[:, 1] - losses[:, 0])
        assert found.bound == pytest.approx(float(gains.mean() - caution * gains.std()), abs=1e-6)
        assert any(f"a lower bound of the gain, here {found.bound:.3g} % of loss" in note for note in found.page().more)
        assert Proposal.from_json(json.loads(json.dumps(found.as_json()))) == found


def test_the_optima_of_draws_are_those_of_a_longer_search_by_another_method(world: World, measured: Design) -> None:
    (objective,) = problem_of(world, TARGET, DOMAINS, measured=measured, draws=32).objectives
    start = random_starts(objective.allowed, 1, seed=4)
    found = optima_by_draw(objective, start)
    others = [
        refine_each(objective.own, objective.allowed, random_starts(objective.allowed, 32, seed)) for seed in (1, 2)
    ]
    best = torch.stack([value for _, value in others]).amax(0)
    before, reached = objective.own(start.repeat(32)), objective.own(found)
    assert float((reached - before).mean()) >= 0.9 * float((best - before).mean())


def _cornered(recipe: Recipe, ranges: Sequence[tuple[Flat, float]]) -> Recipe:
    """The recipe with shares of these values, everything else of their phases in proportion."""
    for flat, value in ranges:
        shares = dict(next(p for p in recipe.phases if p.name == flat.phase).mixture.items())
        code = {d.name for d in DOMAINS if d.kind.is_code}
        inside = code if flat.what == "code" else {flat.what}
        held = sum(shares.get(name, 0.0) for name in inside)
        own = {name: shares.get(name, 0.0) / held if held else 1 / len(inside) for name in inside}
        rest = {name: share / (1 - held) for name, share in shares.items() if name not in inside}
        mixed = {n: value * s for n, s in own.items()} | {n: (1 - value) * s for n, s in rest.items()}
        recipe = recipe.with_mixture(flat.phase, Mixture.normalised(mixed))
    return recipe


def test_every_corner_of_all_ranges_together_is_equivalent() -> None:
    world = random_world(DOMAINS, tasks=3, seed=5).uncertain(0.3, seed=2)
    measured = Design.from_table(world.measure(random_recipes([24_000, 94_000], 20, DOMAINS, count=60)), UNIQUE)
    found = propose(world, TARGET.changed(guard=True), DOMAINS, measured=measured, draws=32, starts=6, sizes=())
    baseline = found.baselines[found.against]
    assert len(found.flat) >= 2

    def most(part: float) -> tuple[float, float]:
        """What a corner costs over what is noise, and what a task may lose there, % of loss; the worst corners."""
        ends = [[(f, min(1.0, max(0.0, f.at + part * (end - f.at)))) for end in (f.low, f.high)] for f in found.flat]
        recipes = [baseline, found.recipe, *(_cornered(found.recipe, corner) for corner in product(*ends))]
        losses = world.draws(design_of(recipes, world.phases, world.domains, UNIQUE), 32).log().numpy()
        gains = 100 * (losses[:, :1] - losses[:, 1:])
        total = gains.mean(-1)
        cost = total[:, :1] - total[:, 1:]
        noise = np.maximum(np.minimum(cost.std(0, ddof=1), 0.25 * total[:, 0].mean()), 0.05)
        lost = 1.2816 * gains.std(0, ddof=1) - gains.mean(0)
        return float((cost.mean(0) - noise).max()), float(lost.max())

    beyond, lost = most(1.0)
    assert beyond <= 0.01  # shares of a recipe are rounded
    assert lost <= 1.01
    assert most(3.0)[0] > 0.05, "wider ranges do not hold together"


def test_nothing_on_a_front_beats_another_and_the_recommendation_is_tried(world: World, measured: Design) -> None:
    groups = {"a": ["task0"], "b": ["task1"], "c": ["task2"]}
    goal = Goal(groups=groups)
    best = propose(world, TARGET, DOMAINS, goal=goal, measured=measured, draws=32, starts=6, sizes=())
    found = pareto(world, TARGET, DOMAINS, groups, measured=measured, draws=32, evaluations=400, recipes=[best.recipe])
    gains = found.gains()
    assert not dominated_by(gains).any()
    mine = np.array([[best.over[found.against].by_group[name].mean for name in groups]])
    assert (
        dominated_by(np.concatenate([gains, mine]))[:-1].max() == 0
    )  # no recipe of it is beaten by the recommendation


def test_a_free_size_is_told_and_that_it_lies_on_a_bound(world: World) -> None:
    target = Target(330_000, 6_600_000, sizes=(300_000, 400_000), guard=False, max_epochs=100)
    found = propose(world, target, DOMAINS, draws=8, starts=4, sizes=())
    assert any(f"size chosen: {found.recipe.params:,} params" in words for words in found.warnings)
    if found.recipe.params in (300_000, 400_000):
        assert any("the optimum may lie beyond" in words for words in found.warnings)


def test_a_loss_that_is_hardly_known_is_not_printed_below_zero() -> None:
    assert Interval(0.59, 0.12, 2.9).text() == "0.59 (0.12 to 2.90)"
    assert Interval(1.07, 0.81, 1.33).text() == "1.07 ± 0.26"
