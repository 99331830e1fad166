"""Proposals in worlds whose optimum is known."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.data.recipes import design_of
from mixlaw.errors import InputError
from mixlaw.optimizer.answers.proposal import Proposal, load_proposals
from mixlaw.optimizer.answers.propose import propose
from mixlaw.optimizer.goal.baselines import Baseline
from mixlaw.optimizer.goal.goal import Goal, Measure
from mixlaw.optimizer.target.feasible import Infeasible
from mixlaw.optimizer.target.schedule import phase_tokens
from mixlaw.optimizer.target.target import Guard, Target, Trained
from mixlaw.recipe import Domain, Kind, Mixture, Phase, Recipe
from mixlaw.terminal import plain
from mixlaw.testing.worlds import World, random_recipes, random_world

DOMAINS = (
    Domain("web", Kind.TEXT, 4_000_000),
    Domain("books", Kind.TEXT, 300_000),
    Domain("python", Kind.CODE, 2_000_000),
    Domain("readme", Kind.MARKUP, 200_000),
)
TARGET = Target(330_000, 6_600_000, cooldown=(0.1, 0.2), caps={"init": {"books": 0.05}})
UNGUARDED = TARGET.changed(guard=None)
UNIQUE = {d.name: float(d.unique_tokens) for d in DOMAINS}


def _gain(world: World, recipe: Recipe, reference: Recipe, count: int = 1) -> torch.Tensor:
    """True mean gain over tasks in percent, in every world."""
    losses = world.draws(design_of([recipe, reference], world.phases, world.domains, UNIQUE), count).log()
    return 100 * (losses[:, 1] - losses[:, 0]).mean(-1)


def _best_by_slsqp(world: World, reference: Recipe) -> float:
    """The greatest possible gain, by another method: sequential quadratic programming over token shares."""
    names, rows = [d.name for d in DOMAINS], len(TARGET.phases)

    def recipe_loss(v: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, list[float]]:
        x = torch.tensor(v[:-1].reshape(rows, -1), requires_grad=True)
        base = design_of([reference], world.phases, world.domains, UNIQUE)
        design = replace(base, tokens=TARGET.tokens * x[None])
        assert design.domains == tuple(names)
        loss = world.mean(design).log().mean()
        torch.autograd.backward(loss)
        assert x.grad is not None
        return float(loss.detach()), [*x.grad.flatten().tolist(), 0.0]

    def lengths(c: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return np.array([(1 - c) / 2, (1 - c) / 2, c])

    most = np.array([min(1.0, 4 * UNIQUE[name] / TARGET.tokens) for name in names])
    constraints = [
        {"type": "eq", "fun": lambda v: v[:-1].reshape(rows, -1).sum(1) - lengths(v[-1])},
        {"type": "ineq", "fun": lambda v: most - v[:-1].reshape(rows, -1).sum(0)},
        {"type": "ineq", "fun": lambda v: 0.05 * lengths(v[-1])[0] - v[1]},
    ]
    draw, found = np.random.default_rng(0), []
    for _ in range(6):
        start = np.append((draw.dirichlet(np.ones(4), rows) * lengths(0.15)[:, None]).ravel(), 0.15)
        box = [(1e-9, 1.0)] * 12 + [TARGET.cooldown]
        answer = minimize(recipe_loss, start, jac=True, method="SLSQP", bounds=box, constraints=constraints)  # type: ignore[call-overload]
        found += [float(answer.fun)] if answer.success else []
    base = world.mean(design_of([reference], world.phases, world.domains, UNIQUE)).log().mean()
    return 100 * (float(base) - min(found))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_in_a_known_world_the_proposal_is_the_optimum_of_an_independent_method(seed: int) -> None:
    world = random_world(DOMAINS, seed=seed)
    proposal = propose(world, UNGUARDED, DOMAINS, draws=8, starts=12)
    reference = proposal.baselines[proposal.against]
    best = _best_by_slsqp(world, reference)
    assert best > 1  # there is something to gain over the best baseline
    assert float(_gain(world, proposal.recipe, reference)[0]) > best - 0.002 * best
    assert proposal.gain.mean == pytest.approx(float(_gain(world, proposal.recipe, reference)[0]), abs=1e-6)


@pytest.fixture(scope="module")
def uncertain() -> World:
    return random_world(DOMAINS, seed=3).uncertain(0.08, seed=1)


@pytest.fixture(scope="module")
def measured(uncertain: World) -> Design:
    return Design.from_table(uncertain.measure(random_recipes([24_000, 94_000], 20, DOMAINS, count=20)), UNIQUE)


@pytest.fixture(scope="module")
def proposal(uncertain: World, measured: Design) -> Proposal:
    return propose(uncertain, TARGET, DOMAINS, measured=measured, draws=64)


def test_every_limit_holds_exactly(proposal: Proposal) -> None:
    recipe = proposal.recipe
    assert recipe.tokens == TARGET.tokens
    assert all(recipe.domain_tokens(d.name) <= 4 * d.unique_tokens for d in DOMAINS)
    assert recipe.phases[0].mixture.share("books") <= 0.05
    assert 0.1 <= recipe.phases[-1].tokens / recipe.tokens <= 0.2


def test_the_interval_of_the_gain_holds_worlds_that_nobody_has_seen(proposal: Proposal, uncertain: World) -> None:
    # 600 worlds from the same beliefs under another seed: a 90 % interval from 32 of them holds 85 to 95 %.
    truths = _gain(uncertain.uncertain(0.08, seed=99), proposal.recipe, proposal.baselines[proposal.against], 600)
    inside = ((truths > proposal.gain.lo90) & (truths < proposal.gain.hi90)).double().mean()
    assert 0.82 <= float(inside) <= 0.97


def test_a_supported_proposal_says_what_it_gains_and_over_what(proposal: Proposal) -> None:
    assert proposal.supported
    assert proposal.gain.text(" %") in proposal.sentence
    assert proposal.against in proposal.sentence
    assert set(proposal.beats) == {"proportional", "text-only", "balanced->text"}
    assert proposal.beats[proposal.against] == min(proposal.beats.values())


def test_optima_of_single_worlds_lie_around_the_recommendation(proposal: Proposal) -> None:
    for phase in proposal.recipe.phases:
        spread = proposal.spread[phase.name]
        assert all(0 <= low <= high <= 1 for low, high in spread.values())
        assert sum(low for low, _ in spread.values()) <= 1 + 1e-9
        assert sum(high for _, high in spread.values()) >= 1 - 1e-9


def test_it_stays_within_the_trust_radius_of_measured_recipes(proposal: Proposal) -> None:
    assert proposal.distance <= proposal.radius + 0.01
    assert proposal.nearest


def test_far_from_all_runs_it_says_so_rather_than_recommending(uncertain: World) -> None:
    mixtures = [Mixture({"readme": 0.9, name: 0.1}) for name in ("web", "python")]
    phases = {"init": 200_000, "continue": 200_000, "cooldown": 80_000}
    nothing_near = [Recipe(24_000, tuple(Phase(n, c, m) for n, c in phases.items())) for m in mixtures]
    design = Design.from_table(uncertain.measure(nothing_near), UNIQUE)
    found = propose(uncertain, UNGUARDED, DOMAINS, measured=design, draws=8, starts=6)
    assert not found.supported
    assert any("differ from the nearest measured run" in reason for reason in found.reasons)
    assert "No recommendation" in found.sentence or "No clear winner" in found.sentence


def test_where_all_domains_are_alike_nothing_is_recommended_and_all_is_flat() -> None:
    plenty = tuple(replace(d, unique_tokens=10**9) for d in DOMAINS)
    base = random_world(plenty, tasks=2, seed=0)
    alike = replace(base, worth=torch.full_like(base.worth, 0.25), elasticity=torch.ones_like(base.elasticity))
    alike = replace(alike, retention=torch.ones_like(alike.retention)).uncertain(0.02)
    found = propose(alike, Target(330_000, 6_600_000), plenty, baselines=("proportional",), draws=24, starts=6)
    assert not found.supported
    assert "No clear winner" in found.sentence or "Nothing is" in found.sentence
    assert abs(found.gain.mean) < 1
    code = [flat for flat in found.flat if flat.what == "code"]
    assert code
    assert all(flat.high - flat.low > 0.25 for flat in code)


def test_all_weight_on_a_task_serves_that_task(uncertain: World) -> None:
    code_task = int(uncertain.worth[:, 2].argmax())
    name = uncertain.tasks[code_task]
    alone = propose(uncertain, TARGET, DOMAINS, goal=Goal({name: 1.0}), draws=8, starts=6)
    others = {task: 1.0 for task in uncertain.tasks if task != name}
    other = propose(uncertain, TARGET, DOMAINS, goal=Goal(others), draws=8, starts=6)
    assert alone.recipe.mixture.share("python") > other.recipe.mixture.share("python")
    assert alone.forecast("proposal", name).mean < other.forecast("proposal", name).mean


def test_a_target_of_one_phase_is_a_plain_mixture_problem() -> None:
    world = random_world(DOMAINS, phases=("all",), seed=2)
    found = propose(world, Target(330_000, 6_600_000, phases=("all",)), DOMAINS, draws=8, starts=6)
    assert [phase.tokens for phase in found.recipe.phases] == [6_600_000]
    assert found.gain.mean > 0


def test_a_guarded_task_loses_no_more_than_it_may(uncertain: World) -> None:
    goal, worst = Goal({"task0": 1.0}), "task3"
    free = propose(uncertain, TARGET, DOMAINS, goal=goal, draws=48, starts=6)
    assert free.gains[worst].mean < -5  # what is good for one task costs the other
    guard = Guard({worst: 0.5}, than=free.against, sure=0.9)
    held = propose(uncertain, TARGET.changed(guard=guard), DOMAINS, goal=goal, draws=48, starts=6)
    assert 0 < held.gain.mean < free.gain.mean
    # 600 worlds of the same beliefs that nobody has seen: 90 % of them keep the guard, within sampling error.
    design = design_of([held.recipe, held.baselines[free.against]], uncertain.phases, uncertain.domains, UNIQUE)
    losses = uncertain.uncertain(0.08, seed=99).draws(design, 600).log()[..., uncertain.tasks.index(worst)]
    assert float((100 * (losses[:, 0] - losses[:, 1]) <= 0.5).double().mean()) == pytest.approx(0.9, abs=0.06)
    assert held.guarded[worst] == pytest.approx(0.9, abs=0.08)
    assert "chance that the guard holds" in str(held)
    free_hand = held.as_json()["free"]
    assert free_hand["gain"] > held.gain.mean
    assert f"the guard of 0.5 % on {worst}" in free_hand["breaks"]


def test_a_guard_beside_limits_is_kept_against_its_baseline_drawn_inside_them() -> None:
    # One task wants python, the other books, and nothing else serves either; both cannot be served by one token.
    base = random_world(DOMAINS, tasks=3, seed=0)
    only = torch.tensor([[0.01, 0.01, 0.97, 0.01], [0.01, 0.97, 0.01, 0.01], [0.25, 0.25, 0.25, 0.25]])
    torn = replace(base, worth=only.double(), repeats=1e6)
    named: dict[str, Baseline | Mixture | Recipe] = {"code": Mixture({"python": 1.0}), "books": _plain({"books": 1.0})}
    target = TARGET.changed(caps={}, max_epochs=100, guard=Guard({"task0": 0.1, "task1": 90, "task2": 90}, "code"))
    kept = propose(torn, target, DOMAINS, baselines=named, draws=8, starts=6)
    assert kept.recipe.mixture.share("python") > 0.9
    limited = target.changed(floors={"init": {"web": 0.3, "readme": 0.05}})
    found = propose(torn, limited, DOMAINS, baselines=named, draws=8, starts=6)
    code = found.baselines["code"].phases[0].mixture
    assert (code.share("web"), code.share("python")) == pytest.approx((0.3, 0.65), abs=2e-3)
    assert any("baseline code is drawn inside the limits" in words for words in found.warnings)
    assert found.over["code"].by_task["task0"].mean >= -0.1 - 0.02


def _plain(shares: dict[str, float]) -> Recipe:
    tokens = phase_tokens(TARGET, 0.15)
    return Recipe(TARGET.params, tuple(Phase(name, count, Mixture(shares)) for name, count in tokens.items()))


def test_the_worst_task_gains_more_where_it_is_what_counts(uncertain: World) -> None:
    mean = propose(uncertain, TARGET, DOMAINS, draws=16, starts=6)
    worst = propose(uncertain, TARGET, DOMAINS, goal=Goal(worst=True), draws=16, starts=6)
    assert min(g.mean for g in worst.gains.values()) > min(g.mean for g in mean.gains.values()) + 0.5
    assert worst.gain.mean <= min(g.mean for g in worst.gains.values()) + 1e-9


def test_units_change_the_numbers_and_a_function_of_values_may_replace_them() -> None:
    world = random_world(DOMAINS, tasks=2, seed=1)
    one = {"task0": 1.0}
    percent = propose(world, TARGET, DOMAINS, goal=Goal(one), draws=8, starts=6)
    noise = propose(world, TARGET, DOMAINS, goal=Goal(one, Measure.NOISE), draws=8, starts=6)
    value = propose(world, UNGUARDED, DOMAINS, goal=Goal(value=lambda v: -v[..., 0].log()), draws=8, starts=6)
    assert noise.gain.mean == pytest.approx(percent.gain.mean / 100 / float(world.noise[0]), rel=1e-3)
    assert value.gain.mean == pytest.approx(percent.gain.mean / 100, rel=1e-3)
    assert "standard deviations of a run" in noise.sentence
    with pytest.raises(InputError, match="'task0' have no accuracy points"):
        propose(world, TARGET, DOMAINS, goal=Goal(one, Measure.POINTS), draws=8)


def test_a_cooldown_alone_is_chosen_for_a_run_under_way() -> None:
    world = random_world(DOMAINS, seed=3)
    past = tuple(Trained(name, 2_800_000, Mixture({"web": 0.8, "python": 0.2})) for name in ("init", "continue"))
    target = Target(330_000, 6_600_000, ("cooldown",), prefix=past)
    found = propose(world, target, DOMAINS, draws=8, starts=6)
    assert found.recipe.phases[:2] == tuple(part.as_phase() for part in past)
    assert found.recipe.phases[2].tokens == 1_000_000
    assert found.begun == past
    assert {n: round(r.phases[2].mixture.share("web"), 2) for n, r in found.baselines.items()} == {
        "proportional": 0.62,  # 4 of 6.5M unique tokens
        "text-only": 0.93,  # of 4.3M
        "20%-code": 0.74,  # the paper's recipes differ in what is trained already, and are one here
    }
    # No mixture of the cooldown on a grid of 5 % is better: 1771 recipes in the known world.
    grid = [np.array(c) / 20 for c in itertools.product(range(21), repeat=4) if sum(c) == 20]
    names = [d.name for d in DOMAINS]
    tried = [found.recipe.with_mixture("cooldown", Mixture(dict(zip(names, map(float, c), strict=True)))) for c in grid]
    allowed = [r for r in tried if all(r.domain_tokens(d.name) <= 4 * d.unique_tokens for d in DOMAINS)]
    losses = world.mean(design_of([found.recipe, *allowed], world.phases, world.domains, UNIQUE)).log().mean(1)
    assert float(losses[0]) <= float(losses[1:].min())


def test_the_better_of_two_checkpoints_is_branched_from() -> None:
    world = random_world(DOMAINS, tasks=1, seed=3)
    good = DOMAINS[int(world.worth[0].argmax())].name
    bad = DOMAINS[int(world.worth[0].argmin())].name
    branches = tuple((Trained("init", 3_000_000, Mixture({name: 1.0})),) for name in (bad, good))
    target = Target(330_000, 6_600_000, ("continue", "cooldown"), branches=branches, max_epochs=100)
    found = propose(world, target, DOMAINS, draws=8, starts=6)
    assert found.begun == branches[1]
    assert found.recipe.phases[0].mixture.share(good) == 1.0
    assert _reread(found) == found


def test_a_cooldown_from_one_of_several_checkpoints_needs_no_smaller_sizes_and_tells_code_once() -> None:
    known, three = random_world(DOMAINS[:3], tasks=2, seed=3), DOMAINS[:3]
    world = replace(known, worth=torch.full_like(known.worth, 1 / 3)).uncertain(0.5, seed=1)  # mixtures hardly matter
    trunk = Mixture({"web": 0.8, "python": 0.2})
    branches = tuple((Trained("init", tokens, trunk),) for tokens in (5_000_000, 6_000_000))
    target = Target(2_000_000_000, 6_600_000, ("cooldown",), branches=branches, domain_epochs={"books": 8})
    found = propose(world, target, three, draws=8, starts=4)  # 470M would be less than what is trained already
    assert found.way == ()
    assert str(target) == "2B params, 6.6M tokens, at most 4 epochs, 8 of books"
    told = [(flat.phase, flat.low, flat.high) for flat in found.flat if flat.what != "length"]
    assert told
    assert len(set(told)) == len(told)


def _reread(proposal: Proposal) -> Proposal:
    return Proposal.from_json(json.loads(json.dumps(proposal.as_json())))


def test_a_checkpoint_of_unknown_history_is_continued_under_several(uncertain: World) -> None:
    target = Target(330_000, 8_000_000, ("continue", "cooldown"), prefix=(Trained("init", 4_000_000),))
    found = propose(uncertain, target, DOMAINS, draws=24, starts=6)
    assert [phase.name for phase in found.recipe.phases] == ["continue", "cooldown"]
    assert found.recipe.tokens == 4_000_000
    # No code, 17 % and 50 % of it: web and books by unique tokens, python and readme 80 to 20, drawn from other tokens.
    values = []
    for code in (0.0, 0.17, 0.5):
        text = (1 - code) / 4_300_000
        shares = {"web": 4_000_000 * text, "books": 300_000 * text, "python": 0.8 * code, "readme": 0.2 * code}
        unique = {name: round(UNIQUE[name] + 4_000_000 * share) for name, share in shares.items()}
        past = Phase("init", 4_000_000, Mixture({n: s for n, s in shares.items() if s}))
        whole = Recipe(330_000, (past, *found.recipe.phases), unique=unique)
        values.append(float(uncertain.mean(design_of([whole], uncertain.phases, uncertain.domains, UNIQUE))[0, 0]))
    told = found.forecast("proposal", "task0")
    assert told.mean == pytest.approx(np.mean(values), rel=1e-6)
    assert told.lo90 < min(values) < max(values) < told.hi90
    assert "mixture unknown" in str(found)


def test_at_a_budget_of_flops_size_and_mixture_are_optimal_together() -> None:
    # Without repetition, one phase and one domain the world is Chinchilla's: N* = (alpha a / (beta b))^(1 / (alpha +
    # beta)) (C / 6)^(beta / (alpha + beta)) minimises a N^-alpha + b (6 N / C)^beta (Hoffmann et al. 2022, appendix).
    only = (Domain("web", Kind.TEXT, 10**12),)
    world = replace(random_world(only, phases=("all",), tasks=1, seed=2), worth=torch.ones(1, 1, dtype=torch.float64))
    alpha, beta, a, b = (float(v[0]) for v in (world.alpha, world.beta, world.a, world.b))
    budget = 330_000 * 6_600_000
    best = (alpha * a / (beta * b)) ** (1 / (alpha + beta)) * budget ** (beta / (alpha + beta))
    target = Target(330_000, 6_600_000, ("all",), sizes=(10_000, 100_000_000))
    found = propose(world, target, only, baselines=("proportional",), draws=8, starts=6)
    assert found.recipe.params == pytest.approx(best, rel=0.02)
    assert found.recipe.params * found.recipe.tokens == pytest.approx(budget, rel=1e-4)
    ladder = tuple(round(best * factor) for factor in (0.2, 0.8, 2.5))
    rounded = propose(world, target.changed(ladder=ladder), only, baselines=("proportional",), draws=8, starts=6)
    assert rounded.recipe.params == ladder[1]


def test_beside_it_stand_a_free_hand_and_the_way_up_in_size(proposal: Proposal, uncertain: World) -> None:
    free = proposal.free
    assert free is not None
    assert free.gain > proposal.gain.mean
    assert any("epochs of books" in words for words in free.breaks) or any("trust" in words for words in free.breaks)
    truth = float(_gain(uncertain, free.recipe, proposal.baselines[proposal.against], 64).mean())
    assert free.gain == pytest.approx(truth, abs=0.05)
    assert [step.params for step in proposal.way] == [94_000, 330_000]
    for step in proposal.way:
        assert step.tokens == pytest.approx(20 * step.params, rel=0.01)
        assert all(sum(by.values()) == pytest.approx(1) for by in step.shares.values())
    # The target's own step is the proposal, by kind.
    init = proposal.recipe.phases[0].mixture
    assert proposal.way[-1].shares["init"]["text"] == pytest.approx(init.share("web") + init.share("books"), abs=1e-3)


def test_the_same_seed_gives_the_same_proposal(uncertain: World) -> None:
    once, again = (propose(uncertain, TARGET, DOMAINS, draws=8, starts=6, seed=7) for _ in range(2))
    assert once.id == again.id


def test_a_proposal_survives_json_is_frozen_once_and_never_edited(proposal: Proposal, tmp_path: Path) -> None:
    frozen, (path,) = proposal.freeze(tmp_path), tmp_path.glob("*.json")
    assert path.stem == proposal.id
    written = path.stat().st_mtime_ns
    assert proposal.freeze(tmp_path).created == frozen.created != proposal.created
    assert path.stat().st_mtime_ns == written
    assert [(one, one.created) for one in load_proposals(tmp_path)] == [(proposal, frozen.created)]
    (data := json.loads(path.read_text()))["forecasts"][0]["mean"] *= 0.9
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match="changed after it was frozen"):
        load_proposals(tmp_path)


def test_it_prints_the_sentence_last_and_every_task(proposal: Proposal) -> None:
    text, page = str(proposal), proposal._repr_html_()
    assert " ".join(text.split()).endswith(" ".join(proposal.sentence.split()))
    assert page.startswith("<p><b")
    assert max(map(len, text.splitlines())) <= 100
    assert "gain over" in plain(proposal.page(), width=60), "where there is no room, baselines are left out"
    frame = proposal.to_polars()
    means = sorted((gain.mean for gain in proposal.gains.values()), reverse=True)
    assert frame["gain"].to_list()[: len(means)] == means
    assert set(proposal.to_polars("schedule").columns) == {"share of tokens", *(p.name for p in proposal.recipe.phases)}
    assert all(task in text and task in page for task in proposal.gains)
    with pytest.raises(InputError, match="there is no table of Proposal 'task'; did you mean 'tasks'"):
        proposal.to_polars("task")


def test_forecasts_are_the_predictions_of_the_surfaces(proposal: Proposal, uncertain: World) -> None:
    design = design_of([proposal.recipe], uncertain.phases, uncertain.domains, UNIQUE)
    assert proposal.forecast("proposal", "task0").mean == pytest.approx(float(uncertain.mean(design)[0, 0]))
    assert len(proposal.forecasts) == 4 * len(uncertain.tasks)


def test_unknown_tasks_and_impossible_limits_are_refused(uncertain: World) -> None:
    with pytest.raises(InputError, match="'task9'"):
        propose(uncertain, TARGET, DOMAINS, goal=Goal({"task9": 1.0}))
    with pytest.raises(Infeasible, match="epochs of readme"):
        propose(uncertain, TARGET.changed(floors={"continue": {"readme": 0.9}}), DOMAINS)


def test_worlds_that_differ_have_optima_that_differ(uncertain: World, proposal: Proposal) -> None:
    # Where no trust radius holds them, most shares that are not at a limit have a range; the recommendation is near it.
    free = propose(uncertain, TARGET, DOMAINS, draws=64).spread
    assert sum(high - low > 0.01 for by in free.values() for low, high in by.values()) >= 4
    for phase in proposal.recipe.phases:
        for name, (low, high) in proposal.spread[phase.name].items():
            assert low - 0.25 <= phase.mixture.share(name) <= high + 0.25
