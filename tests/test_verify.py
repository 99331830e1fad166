"""Frozen predictions against measured values: gains in pairs, then levels."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from mixlaw.errors import InputError
from mixlaw.optimizer.answers.proposal import Proposal, load_proposals
from mixlaw.optimizer.answers.propose import propose
from mixlaw.optimizer.answers.verify import verify
from mixlaw.optimizer.target.target import Target
from mixlaw.recipe import Decay, Domain, Kind, Mixture, Phase, Recipe
from mixlaw.study import open_study
from mixlaw.testing.worlds import World, random_recipes, random_world
from studies import on_disk

DOMAINS = (Domain("web", Kind.TEXT, 4_000_000), Domain("python", Kind.CODE, 2_000_000))


@pytest.fixture(scope="module")
def world() -> World:
    return random_world(DOMAINS, tasks=3, seed=4).uncertain(0.05)


@pytest.fixture(scope="module")
def proposal(world: World) -> Proposal:
    return propose(world, Target(330_000, 6_600_000, guard=False), DOMAINS, draws=32, starts=4, sizes=())


def pair(proposal: Proposal) -> list[Recipe]:
    """The proposal and the baseline that gains refer to."""
    return [proposal.recipe, proposal.baselines[proposal.against]]


def test_nine_in_ten_gains_and_levels_lie_inside_their_intervals(world: World, proposal: Proposal) -> None:
    # 150 pairs, each in a posterior sample of its own: 450 gains and 900 levels, standard errors 1.4 and 1 %.
    inside = levels = 0
    for seed in range(150):
        truth = replace(world, doubt=0.05, seed=1000 + seed)
        table = world.measure(pair(proposal), seed=seed)
        design = _sample(truth, pair(proposal), table)
        found = verify([proposal], design)
        (one,) = found.pairs
        inside += sum(gain.inside for gain in one.gains)
        levels += sum(check.inside for check in found.checks)
    assert inside / 450 == pytest.approx(0.9, abs=0.05)
    assert levels / 900 == pytest.approx(0.9, abs=0.05)


def _sample(world: World, recipes: list[Recipe], table: pl.DataFrame) -> pl.DataFrame:
    """The same runs where the truth is one posterior sample: values move by what it differs from the mean."""
    from mixlaw.analysis.data.recipes import design_of

    design = design_of(recipes, world.phases, world.domains, {d.name: float(d.unique_tokens) for d in DOMAINS})
    shift = (world.draws(design, 1)[0] / world.mean(design)).numpy()
    columns = [(pl.col(f"metric:{t}") * pl.Series(shift[:, i])).alias(f"metric:{t}") for i, t in enumerate(world.tasks)]
    return table.with_columns(columns)


def test_a_gain_is_the_difference_of_mean_log_losses_over_seeds(world: World, proposal: Proposal) -> None:
    mine, other = pair(proposal)
    table = world.measure([mine, mine, other, other, other], seed=2)
    (one,) = verify([proposal], table).pairs
    logs = table["metric:task1"].log().to_numpy()
    gain = next(g for g in one.gains if g.task == "task1")
    assert gain.measured == pytest.approx(100 * (logs[2:].mean() - logs[:2].mean()))
    # Independent seeds: variance of a mean is that of one over their number.
    assert gain.noise == pytest.approx(100 * float(world.noise[1]) * (1 / 2 + 1 / 3) ** 0.5, rel=1e-6)
    assert one.runs == (2, 3)
    assert one.total is not None
    assert one.total.measured == pytest.approx(sum(g.measured for g in one.gains) / 3)
    frozen = proposal.gains["task1"]
    assert gain.predicted.hi90 - gain.predicted.mean > frozen.hi90 - frozen.mean


@pytest.mark.parametrize(
    ("factors", "words"),
    [
        ((0.9, 0.9, 0.9), "The proposal beats"),
        ((1.1, 1.1, 1.1), "The proposal loses to"),
        ((0.7, 1.1, 1.1), "worse on 2 (task"),
    ],
)
def test_the_verdict_says_who_won_and_on_which_tasks_it_lost(
    world: World, proposal: Proposal, factors: tuple[float, ...], words: str
) -> None:
    mine, other = (world.measure([recipe], seed=0) for recipe in pair(proposal))
    metrics = [pl.Series(f"metric:{t}", other[f"metric:{t}"] * f) for t, f in zip(world.tasks, factors, strict=True)]
    found = verify([proposal], pl.concat([mine.with_columns(metrics), other]))
    assert words in found.sentence
    assert f"over {proposal.against}" in found._repr_html_()
    clear = [gain for gain in found.pairs[0].gains if gain.sign > 0]
    assert len(clear) == sum(factor < 1 for factor in factors)
    assert all(word in found._repr_html_() for word in ("MISSED", "worse" if 1.1 in factors else "better"))


def test_a_gain_beyond_the_guard_is_named(world: World) -> None:
    target = Target(330_000, 6_600_000)
    guarded = propose(world, target, DOMAINS, draws=32, starts=4, sizes=())
    mine, other = (world.measure([recipe], seed=0) for recipe in pair(guarded))
    lost = mine.with_columns(pl.Series("metric:task2", other["metric:task2"] * 1.05))
    (one,) = verify([guarded], pl.concat([lost, other])).pairs
    assert "task2" in one.beyond_guard
    assert "beyond its guard on task2" in one.sentence


def test_every_pair_and_every_run_counts_once_however_often_it_was_proposed(world: World, proposal: Proposal) -> None:
    table = world.measure(pair(proposal), seed=1)
    again = [proposal, replace(proposal, fit="another"), replace(proposal, fit="a third")]
    once, thrice = verify([proposal], table), verify(again, table)
    assert len(once.pairs) == len(thrice.pairs) == 1
    assert len(once.checks) == len(thrice.checks) == 6
    assert thrice.pairs[0].proposal == proposal.id


def test_a_level_of_the_baseline_belongs_to_the_proposal_that_was_trained(world: World, proposal: Proposal) -> None:
    # The first one was only checked at the proxies' sizes, and another proposed in its place.
    elsewhere = replace(proposal.recipe, params=2 * proposal.recipe.params)
    superseded = replace(proposal, recipe=elsewhere)
    found = verify([superseded, proposal], world.measure(pair(proposal)))
    assert {check.proposal for check in found.checks} == {proposal.id}
    assert {name for name, _ in found.measured(proposal.id)} == {"proposal", proposal.against}
    assert found.pending == (), "nobody will train what another has replaced"


def test_a_run_belongs_to_the_nearest_of_the_proposals_that_it_would_do_for(world: World, proposal: Proposal) -> None:
    def moved(share: float) -> Proposal:
        """The same but for a share of its tokens, less than the 1 % below which two recipes are one."""
        phases = [(p, p.mixture["web"] - share) for p in proposal.recipe.phases]
        mixed = [replace(p, mixture=Mixture({"web": web, "python": 1 - web})) for p, web in phases]
        return replace(proposal, recipe=replace(proposal.recipe, phases=tuple(mixed)))

    first, second, third = moved(0), moved(0.004), moved(0.008)
    for trained in (first, second, third):
        found = verify([first, second, third], world.measure(pair(trained)))
        assert [one.proposal for one in found.pairs] == [trained.id]
        assert {check.proposal for check in found.checks} == {trained.id}
        assert {name for name, _ in found.pending} == {third.id} - {trained.id}  # the last one alone waits
        assert ("1 recipe waits for a run" in str(found)) is (trained is not third)
    other = replace(third, target=third.target.changed(tokens=2 * third.target.tokens))
    found = verify([first, second, other], world.measure(pair(second)))
    assert {name for name, _ in found.pending} == {other.id}, "a proposal for another model replaces none"


def test_only_what_was_measured_after_freezing_counts(world: World, proposal: Proposal) -> None:
    table = world.measure(pair(proposal), seed=1)
    mine, other = table["run"].to_list()
    known = replace(proposal, known=(mine, other))
    assert verify([known], table).pairs == ()
    assert verify([known], table).checks == ()
    assert "Nothing to verify" in verify([known], table).sentence
    # The baseline may have been measured before: what was predicted is what the proposal gains over it.
    (one,) = verify([replace(proposal, known=(other,))], table).pairs
    assert one.earlier
    assert {check.run for check in verify([replace(proposal, known=(other,))], table).checks} == {mine}


def test_another_baseline_is_compared_where_it_is_trained(world: World, proposal: Proposal) -> None:
    table = world.measure([proposal.recipe, *proposal.baselines.values()], seed=1)
    names = [p.against for p in verify([proposal], table).pairs]
    assert names[0] == proposal.against
    assert set(names) == set(proposal.baselines)
    (one,) = verify([proposal], table, baseline="text-only").pairs
    assert one.against == "text-only"
    assert [g.predicted.mean for g in one.gains] == [g.mean for g in proposal.over["text-only"].by_task.values()]


def test_a_missed_level_is_called_a_miss(world: World, proposal: Proposal) -> None:
    table = world.measure([proposal.recipe], seed=1).with_columns(pl.col("metric:task1") * 1.5)
    found = verify([proposal], table)
    missed = {check.forecast.task for check in found.checks if not check.inside}
    assert "task1" in missed
    assert found.coverage is None
    assert "No gain can be verified yet" in found.sentence
    assert proposal.against in found.sentence
    assert "MISSED" in str(found)


def test_what_has_not_been_trained_is_pending(world: World, proposal: Proposal) -> None:
    found = verify([proposal], world.measure(random_recipes([24_000], 20, DOMAINS, count=5)))
    assert found.checks == ()
    assert found.coverage is None
    assert set(found.pending) == {(proposal.id, "proposal"), (proposal.id, proposal.against)}
    assert "Nothing to verify" in found.sentence
    assert found.to_polars().is_empty()


def test_a_run_of_whole_sequences_is_still_the_recipe_and_one_that_differs_is_not(
    world: World, proposal: Proposal
) -> None:
    def trained(recipe: Recipe) -> Recipe:
        phases = [Phase(p.name, p.tokens - p.tokens % 512, p.mixture, p.lr_end, p.decay) for p in recipe.phases]
        return Recipe(recipe.params, tuple(phases), seed=3, data="shards")

    last = proposal.recipe.phases[-1]
    others = [
        proposal.recipe.with_mixture("continue", Mixture({"python": 1.0})),
        replace(proposal.recipe, phases=(*proposal.recipe.phases[:-1], replace(last, lr_end=0.5))),
    ]
    found = verify([proposal], world.measure([trained(proposal.recipe), *others]))
    assert {check.forecast.recipe for check in found.checks} == {"proposal"}
    assert len(found.checks) == 3
    shapes = world.measure([proposal.recipe]).with_columns(pl.lit(Decay.COSINE.value).alias("decay:cooldown"))
    assert verify([proposal], shapes).checks == ()
    few = world.measure([proposal.recipe]).with_columns(pl.lit(100_000.0).alias("unique:web"))
    unique = {d.name: float(d.unique_tokens) for d in DOMAINS}
    assert verify([proposal], few, unique=unique).checks == ()
    assert len(verify([proposal], world.measure([proposal.recipe]), unique=unique).checks) == 3
    # A warm-up that is not told may be the same; one that is another is another recipe.
    warm = replace(proposal, recipe=replace(proposal.recipe, warmup=500_000))
    for told, checks in ((None, 3), (500_000, 3), (100_000, 0)):
        table = world.measure([proposal.recipe]).with_columns(pl.lit(told, dtype=pl.Int64).alias("warmup"))
        assert len(verify([warm], table).checks) == checks


def test_an_unfinished_run_and_an_empty_cell_are_no_evidence(world: World, proposal: Proposal) -> None:
    table = world.measure([proposal.recipe])
    assert verify([proposal], table.with_columns(progress=pl.lit(0.5))).checks == ()
    holes = table.with_columns(pl.lit(None, dtype=pl.Float64).alias("metric:task2"))
    assert [check.forecast.task for check in verify([proposal], holes).checks] == ["task0", "task1"]


def test_proposals_have_numbers_and_say_what_they_were_made_from(tmp_path: Path) -> None:
    study = open_study(on_disk(tmp_path, "[target]\nparams = 330000\ntokens = 6600000\n"))
    first = study.propose()
    again, other = study.propose(), study.propose(baseline="uniform")
    assert (first.number, again.number, other.number) == (1, 1, 2)
    assert first.id == again.id != other.id
    assert all(len(proposal.fit) == len(proposal.data) == 12 for proposal in (first, other))
    assert first.known == ()
    for moment, number in ((1, 2), (2, 1)):  # copies of a study have other times, never other numbers
        file = study.path / "proposals" / f"{(first, other)[number - 1].id}.json"
        os.utime(file, (moment, moment))
    assert [proposal.number for proposal in load_proposals(study.path / "proposals")] == [1, 2]
    assert "Nothing to verify" in study.verify().sentence
    with pytest.raises(InputError, match="no proposal was compared with 'nobody'"):
        study.verify("nobody")
    draft = study.propose(baseline="unimax", draft=True)
    assert (draft.number, draft.created) == (0, "")
    assert len(study.proposals()) == 2
    with pytest.raises(InputError, match="a draft is not frozen"):
        study.propose(draft=True, queue=True)
    with pytest.raises(InputError, match="nothing could verify its runs"):
        study.propose(draft=True, check=True)
