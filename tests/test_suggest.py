"""Suggestions in worlds of known truth: they teach more than chance would, cost what they say, and stop in time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.data.recipes import design_of
from mixlaw.errors import InputError
from mixlaw.numbers import size
from mixlaw.optimizer.goal.posterior import Predicted
from mixlaw.optimizer.next_runs.candidates import scaled
from mixlaw.optimizer.next_runs.costs import Proxies
from mixlaw.optimizer.next_runs.suggest import suggest
from mixlaw.optimizer.next_runs.suggestion import Suggestion
from mixlaw.optimizer.next_runs.value import choose
from mixlaw.optimizer.target.feasible import feasible
from mixlaw.optimizer.target.target import Target, Trained
from mixlaw.recipe import Domain, Kind, Mixture, Phase, Recipe
from mixlaw.runner.plan.tree import plan
from mixlaw.testing.worlds import Known, World, random_recipes, random_world

DOMAINS = (
    Domain("web", Kind.TEXT, 40_000_000),
    Domain("books", Kind.TEXT, 4_000_000),
    Domain("python", Kind.CODE, 30_000_000),
)
UNIQUE = {d.name: float(d.unique_tokens) for d in DOMAINS}
PHASES = ("init", "cooldown")
TARGET = Target(330_000, 6_600_000, phases=PHASES, cooldown=(0.1, 0.2), caps={"init": {"books": 0.3}}, guard=None)
SIZES = {24_000: 480_000, 94_000: 1_880_000}
SMALL = 6.0 * 24_000 * 480_000  # FLOPs of a recipe of the smallest size


def expected_regret_after(world: World, runs: Sequence[Recipe], truths: int = 200) -> float:
    """What the recommendation loses on average, in percent of loss, once these runs were measured.

    By Bayes' rule on 3,000 worlds (a task tells nothing of another), each of `truths` worlds the true one in turn:
    no linear approximation as in the choice of the runs.
    """
    target = random_recipes([330_000], 20, DOMAINS, PHASES, count=150, seed=77)
    generator = torch.Generator().manual_seed(0)
    shown, task_gains = (
        world.draws(design_of(recipes, PHASES, world.domains, UNIQUE), 3000).log() for recipes in (runs, target)
    )
    noise = world.log_noise * torch.randn(truths, len(runs), 2, generator=generator, dtype=torch.float64)
    miss = (shown[None, truths:] - (shown[:truths] + noise)[:, None]) / world.log_noise
    weights = torch.softmax(-0.5 * miss.square().sum(2), 1)
    chosen = torch.einsum("unt,nmt->um", weights, task_gains[truths:]).argmin(1)
    losses = task_gains[:truths].sum(-1)
    return float(50 * (losses[torch.arange(truths), chosen] - losses.amin(1)).mean())


def regrets(seed: int) -> tuple[float, float]:
    """Regret after suggested runs, and after random ones for at least the same FLOPs."""
    known = random_world(DOMAINS, PHASES, tasks=2, seed=seed)
    world = replace(known, noise=torch.full_like(known.noise, 0.02)).uncertain(0.6, seed=seed)
    found = suggest(world, TARGET.changed(caps={}), DOMAINS, Proxies(SIZES), budget=4 * SMALL, count=8)
    size = int(np.ceil(found.cost / SMALL))
    random = [random_recipes([24_000], 20, DOMAINS, PHASES, count=size, seed=1000 * seed + i) for i in range(5)]
    suggested = expected_regret_after(world, [job.recipe for job in found.jobs])
    return suggested, float(np.mean([expected_regret_after(world, recipes) for recipes in random]))


def test_suggested_runs_teach_more_than_random_ones_for_the_same_flops() -> None:
    found = np.array([regrets(seed) for seed in range(4)])
    assert np.median(found[:, 0] / found[:, 1]) < 0.6


@pytest.fixture(scope="module")
def world() -> World:
    return random_world(DOMAINS, PHASES, tasks=3, seed=2).uncertain(0.6, seed=1)


@pytest.fixture(scope="module")
def measured() -> tuple[Recipe, ...]:
    return tuple(random_recipes([24_000], 20, DOMAINS, PHASES, count=8, seed=5))


def ends(recipes: Sequence[Recipe]) -> tuple[tuple[Recipe, int], ...]:
    """Checkpoints at the end of every trunk."""
    return tuple((recipe, recipe.phases[0].tokens) for recipe in recipes)


@pytest.fixture(scope="module")
def found(world: World, measured: tuple[Recipe, ...]) -> Suggestion:
    proxies = Proxies(SIZES, measured=measured, checkpoints=ends(measured))
    return suggest(world, TARGET, DOMAINS, proxies, budget=3 * SMALL, count=8)


def test_trunks_that_are_paid_get_new_cooldowns(found: Suggestion, measured: tuple[Recipe, ...]) -> None:
    lineages = {recipe.lineage for recipe in measured}
    resumed = [job for job in found.jobs if job.start in lineages]
    assert resumed
    assert all(job.paid > 0.5 * SMALL for job in resumed)
    assert sum(bool(job.start) for job in found.jobs) >= 4


def test_larger_budgets_gain_more_and_what_follows_changes_less(found: Suggestion) -> None:
    gains, later = ([getattr(each, name) for each in found.curve] for name in ("gain", "later"))
    assert 0 < gains[0] <= gains[-1] + 1e-9
    assert later == sorted(later, reverse=True)
    assert later[-1] == 0
    assert [each.cost <= each.budget for each in found.curve] == [True] * 3
    assert "later runs change it" in found._repr_html_()


@pytest.mark.parametrize("part", [0.0, 0.9])
def test_a_longer_training_never_gains_without_end(world: World, measured: tuple[Recipe, ...], part: float) -> None:
    # With a prefix, only what is still to come is lengthened.
    trained = (Trained("init", round(part * 6_600_000), Mixture({"web": 0.5, "python": 0.5})),) if part else ()
    target = TARGET.changed(prefix=trained, phases=("cooldown",) if part else PHASES, caps={})
    found = suggest(world, target, DOMAINS, Proxies(SIZES, measured=measured), budget=9 * SMALL, count=4)
    assert found.value is not None
    assert 0 < found.value.longer < 20


def test_costs_are_those_of_the_plan(found: Suggestion, measured: tuple[Recipe, ...]) -> None:
    jobs = [job.recipe for job in found.jobs]
    before, tree = plan(measured), plan([*measured, *jobs])
    trained = {recipe.prefix(1) for recipe in measured}
    records = {recipe.lineage for recipe in measured}
    assert not {*jobs} & {*measured}
    todo = [s for s in tree.needed(records, trained) if s.lineage not in trained]
    assert found.cost == pytest.approx(sum(6.0 * s.recipe.params * s.tokens for s in todo))
    assert not before.needed(records, trained)
    assert found.cost <= found.budget
    for job in found.jobs:
        assert job.cost + job.paid == pytest.approx(6.0 * job.recipe.params * job.recipe.tokens)
        assert job.start_tokens < job.recipe.tokens


def test_suggested_recipes_keep_the_limits_of_the_target(world: World, measured: tuple[Recipe, ...]) -> None:
    anew = suggest(world, TARGET, DOMAINS, Proxies(SIZES, measured=measured), budget=9 * SMALL, count=8)
    new = [job.recipe for job in anew.jobs if "another seed" not in job.why]
    assert len(new) > 4
    for recipe in new:
        assert recipe.phases[0].mixture.share("books") <= 0.3 + 1e-6
        assert 0.1 - 1e-3 <= recipe.phases[-1].tokens / recipe.tokens <= 0.2 + 1e-3


def test_proxies_of_a_run_under_way_begin_as_it_did(world: World, measured: tuple[Recipe, ...]) -> None:
    half = Mixture({"web": 0.5, "python": 0.5})
    begun = TARGET.changed(phases=("cooldown",), caps={}, prefix=(Trained("init", 4_400_000, half),))
    for beliefs in (None, world):
        found = suggest(beliefs, begun, DOMAINS, Proxies(SIZES, measured=measured), budget=9 * SMALL, count=6)
        new = [job.recipe for job in found.jobs if "another seed" not in job.why and job.recipe.params == 24_000]
        assert len(new) > 2
        assert {(r.phases[0].tokens, r.phases[0].mixture) for r in new} == {(320_000, half)}
        assert sum(job.start_tokens == 320_000 for job in found.jobs) >= len(new) - 2  # trained once, for all of them


def test_every_job_says_what_a_trainer_and_a_person_need(found: Suggestion) -> None:
    lines = [json.loads(line) for line in found.lines().splitlines()]
    for line, job in zip(lines, found.jobs, strict=True):
        assert sum(phase["tokens"] for phase in line["phases"]) == line["tokens"] == job.recipe.tokens
        assert all(sum(phase["mixture"].values()) == pytest.approx(1) for phase in line["phases"])
        assert line["why"]
        assert line["run"] == job.recipe.lineage
    text, page = str(found), found._repr_html_()
    assert " ".join(text.split()).endswith(found.sentence)
    assert all(job.why in page and size(job.recipe.tokens) in text for job in found.jobs)
    assert found.to_polars()["params"].to_list() == [job.recipe.params for job in found.jobs]
    pytest.importorskip("pandas", reason="pandas is not installed")
    assert found.to_pandas()["params"].tolist() == found.to_polars()["params"].to_list()
    assert found.sentence in page
    assert json.loads(json.dumps(found.as_json(), allow_nan=False))["flops"] == found.cost


def test_regret_falls_by_what_the_jobs_bring(found: Suggestion) -> None:
    assert found.value is not None
    assert not found.stop
    assert 0.05 < found.value.gain <= found.value.regret
    assert sum(job.brings or 0 for job in found.jobs) == pytest.approx(found.value.gain)


def test_it_stops_where_nothing_is_left_to_learn(world: World, measured: tuple[Recipe, ...]) -> None:
    proxies = Proxies(SIZES, measured=measured)
    known = suggest(world.uncertain(0.005), TARGET, DOMAINS, proxies, budget=3 * SMALL, count=4)
    assert known.stop
    assert known.sentence.startswith("Stop")
    assert not known.pays


def test_where_the_target_is_small_it_says_that_more_runs_do_not_pay(
    world: World, measured: tuple[Recipe, ...]
) -> None:
    proxies = Proxies(SIZES, measured=measured)
    small = suggest(world, TARGET.changed(params=24_000, tokens=480_000), DOMAINS, proxies, budget=9 * SMALL, count=8)
    large = suggest(world, TARGET.changed(params=94_000_000), DOMAINS, proxies, budget=9 * SMALL, count=8)
    assert (small.pays, large.pays) == (False, True)
    assert "Not worth it" in small.sentence
    assert small.value is not None
    assert large.value is not None
    # The same FLOPs are as many more tokens of a model 4,000 times as small.
    assert small.value.longer > 100 * large.value.longer > 0


def test_lengths_and_ends_that_no_run_varies_are_tried_at_both_ends(world: World) -> None:
    whole = random_recipes([24_000, 94_000], 20, DOMAINS, PHASES, count=8, seed=3)
    runs = [replace(r, phases=(r.phases[0], replace(r.phases[1], tokens=r.phases[0].tokens // 4))) for r in whole]
    target = TARGET.changed(cooldown=(0.1, 0.5), lr_end=(0.0, 0.3))
    found = suggest(
        world,
        target,
        DOMAINS,
        Proxies(SIZES, measured=tuple(runs)),
        budget=12 * SMALL,
        count=8,
        measured=Design.from_table(world.measure(runs), UNIQUE),
    )
    tried = [job.recipe for job in found.jobs if "no run varies the" in job.why]
    lengths = {round(recipe.phases[-1].tokens / recipe.tokens, 2) for recipe in tried}
    assert {0.1, 0.5} <= lengths
    # One pair differs in the end of the rate alone.
    without = [replace(r, phases=(r.phases[0], replace(r.phases[1], lr_end=0.0))) for r in tried]
    assert {r.phases[-1].lr_end for r in tried} == {0.0, 0.3}
    assert len(set(without)) == len(tried) - 1


def test_what_is_queued_is_not_suggested_again(world: World, measured: tuple[Recipe, ...], found: Suggestion) -> None:
    queued = tuple(job.recipe for job in found.jobs)
    proxies = Proxies(SIZES, measured=measured, queued=queued, checkpoints=ends(measured))
    then = suggest(world, TARGET, DOMAINS, proxies, budget=3 * SMALL, count=8)
    assert not {job.recipe for job in then.jobs} & {*queued}
    assert then.value is not None
    assert found.value is not None
    assert then.value.regret < 0.7 * found.value.regret  # what the queue will show is counted on


def test_a_first_design_needs_no_beliefs() -> None:
    first = suggest(None, TARGET, DOMAINS, Proxies(SIZES), budget=20 * SMALL, count=8)
    assert first.value is None
    assert (first.stop, first.pays) == (False, None)
    assert len(first.jobs) == 8
    assert first.cost <= 20 * SMALL
    assert "first fit" in first.sentence
    assert first.as_json()["cold_start"]


def test_the_same_seed_suggests_the_same(world: World, measured: tuple[Recipe, ...], found: Suggestion) -> None:
    proxies = Proxies(SIZES, measured=measured, checkpoints=ends(measured))
    assert suggest(world, TARGET, DOMAINS, proxies, budget=3 * SMALL, count=8).id == found.id


@pytest.mark.parametrize(("budget", "count"), [(0.0, 8), (float("nan"), 8), (float("inf"), 8), (1e12, 0)])
def test_budgets_and_counts_that_make_no_sense_are_refused(budget: float, count: int) -> None:
    with pytest.raises(InputError, match="finite budget above 0"):
        suggest(None, TARGET, DOMAINS, Proxies(SIZES), budget=budget, count=count)


def test_a_budget_that_pays_for_nothing_is_refused(world: World, measured: tuple[Recipe, ...]) -> None:
    for beliefs in (None, world):
        with pytest.raises(InputError, match=r"smallest size costs 6\.91e\+10"):
            suggest(beliefs, TARGET, DOMAINS, Proxies(SIZES, measured=measured), budget=1e6)
    with pytest.raises(InputError, match=r"write \[sizes\]"):
        Proxies({})


def test_the_documented_design_is_the_one_that_is_made(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[1] / "docs" / "suggest.md").read_text(encoding="utf-8")
    code, shown = (page.split(f"```{kind}\n")[1].split("```")[0] for kind in ("python", "text"))
    exec(code, {})
    printed = capsys.readouterr().out.splitlines()
    assert printed[:4] == shown.splitlines()[:4]


# --- choosing from a list ---


@pytest.fixture(scope="module")
def candidates(world: World) -> Design:
    return design_of(random_recipes([24_000], 20, DOMAINS, PHASES, count=60, seed=9), PHASES, world.domains, UNIQUE)


def test_choose_takes_rows_of_a_list_within_a_budget(world: World, candidates: Design) -> None:
    found = choose(world, candidates, [1.0] * 60, 5)
    assert len(set(found.chosen)) == 5
    assert found.regret > 0
    assert choose(world, candidates, [1.0] * 60, 5, budget=3.0).cost == 3.0
    again = choose(world, candidates, np.full(60, 1.0).tolist(), 5)
    assert again == found


def test_choose_follows_the_task_that_counts(world: World, candidates: Design) -> None:
    # Of the tasks that do not count nothing is to be learned: making them better known changes nothing.
    sure = replace(world, noise=world.noise * torch.tensor([1.0, 1e-3, 1e-3], dtype=torch.float64))
    alone = [choose(beliefs, candidates, [1.0] * 60, 4, weights={"task0": 1.0}) for beliefs in (world, sure)]
    assert alone[0] == alone[1]
    assert choose(world, candidates, [1.0] * 60, 4, weights={"task1": 1.0}).chosen != alone[0].chosen


def test_choosing_again_and_again_finds_the_best_row_in_fewer_runs_than_chance(candidates: Design) -> None:
    # The loop of a replay: choose, look up, believe, choose. Beliefs are worlds weighted by how well they foretold.
    tries = [_runs_to_best(candidates, seed) for seed in range(7)]
    assert float(np.median(tries)) <= 6  # at random 30 of 60


def _runs_to_best(candidates: Design, seed: int) -> int:
    world = random_world(DOMAINS, PHASES, tasks=1, seed=30 + seed).uncertain(0.8, seed=seed)
    many = world.draws(candidates, 4000)[..., 0].log()
    truth, worlds = many[0], many[1:]
    noise = 0.003
    shown = truth + noise * torch.randn(60, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    seen: list[int] = []
    weights = torch.ones(len(worlds), dtype=torch.float64) / len(worlds)
    while int(truth.argmin()) not in seen:
        picked = torch.multinomial(weights, 64, replacement=True, generator=torch.Generator().manual_seed(len(seen)))
        beliefs = _Listed(worlds[picked], candidates.runs, noise)
        left = [i for i in range(60) if i not in seen]
        chosen = choose(beliefs, candidates.select(left), [1.0] * len(left), 1, recommendations=candidates)
        seen.append(left[chosen.chosen[0]])
        miss = (worlds[:, seen] - shown[seen]) / (noise + 0.01)  # a little wider than the noise keeps worlds alive
        weights = torch.softmax(-0.5 * miss.square().sum(1), 0)
    return len(seen)


@dataclass(frozen=True)
class _Listed:
    """Beliefs about listed recipes, as draws of their log losses, (S, R)."""

    losses: torch.Tensor
    runs: tuple[str, ...]
    noise: float
    tasks: tuple[str, ...] = ("task0",)
    phases: tuple[str, ...] = PHASES
    domains: tuple[str, ...] = tuple(d.name for d in DOMAINS)

    @property
    def units(self) -> dict[str, str]:
        return {"task0": "bits/byte"}

    @property
    def calibration(self) -> torch.Tensor:
        return torch.ones(1, dtype=torch.float64)

    @property
    def log_noise(self) -> torch.Tensor:
        return torch.full((1,), self.noise, dtype=torch.float64)

    def spread(self, design: Design) -> torch.Tensor:
        return self.log_noise.expand(len(design), -1)

    def predict(self, design: Design) -> Predicted:
        values = self.draws(design, len(self.losses))
        ends = torch.quantile(values, torch.tensor([0.05, 0.95], dtype=torch.float64), 0).numpy()
        mean = values.mean(0).numpy()
        return Known(mean, ends[0], ends[1], mean, np.zeros(len(design)))

    def draws(self, design: Design, count: int) -> torch.Tensor:
        rows = [self.runs.index(run) for run in design.runs]
        return self.losses[:count][:, rows, None].exp()


def test_a_run_for_a_checkpoint_of_unknown_mixture_has_a_trunk_all_the_same() -> None:
    target = Target(330_000, 6_600_000, ("cooldown",), prefix=(Trained("init", 6_000_000),))
    allowed = feasible(target, DOMAINS)
    alone = Recipe(330_000, (Phase("cooldown", 600_000, Mixture({DOMAINS[0].name: 1.0}), 0.0),))
    run = scaled(allowed, alone, 33_000, 660_000)
    assert [(phase.name, phase.tokens) for phase in run.phases] == [("init", 600_000), ("cooldown", 60_000)]
    code = sum(run.phases[0].mixture.share(d.name) for d in DOMAINS if d.kind.is_code)
    assert code == pytest.approx(0.17)  # as in Llama 3, arXiv:2407.21783
    assert run.phases[1].mixture == alone.phases[0].mixture
