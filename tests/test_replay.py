"""Replay of tables: what is revealed and what it costs; ours and the others on a table of known truth."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from mixlaw.analysis.fit import fit
from mixlaw.errors import InputError
from mixlaw.testing.replay import Choice, Replay, Seen, Step, needed, replay

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import peers

TOKENS, PARAMS = 1e9, 6e7


def _table(count: int = 40, seed: int = 0) -> pl.DataFrame:
    """Code shares of two phases; the loss is least at .3 and .6, and 1.0 there."""
    first, last = np.random.default_rng(seed).dirichlet([1, 1], (2, count))[:, :, 0]
    columns = {
        f"tokens:{phase}:{domain}": TOKENS / 2 * share
        for phase, code in (("init", first), ("cooldown", last))
        for domain, share in (("code", code), ("web", 1 - code))
    }
    loss = 1 + 0.3 * (first - 0.3) ** 2 + 0.5 * (last - 0.6) ** 2
    runs = {"run": [f"r{i}" for i in range(count)], "params": np.full(count, PARAMS)}
    return pl.DataFrame({**runs, **columns, "metric:code": loss, "metric:points": 2 - loss})


WORLD = Replay.of(_table(), "code", "bits/byte")


def test_the_best_row_has_no_regret_and_the_first_place() -> None:
    best = int(WORLD.values.argmin())
    assert (WORLD.regret(best), WORLD.rank(best)) == (0, 1)
    worst = int(WORLD.values.argmax())
    assert WORLD.regret(worst) == pytest.approx(np.ptp(WORLD.values))
    assert WORLD.rank(worst) == 40


def test_scores_are_better_when_higher() -> None:
    points = Replay.of(_table(), "points", "accuracy")  # 2 - loss: the same order
    assert points.order.tolist() == WORLD.order.tolist()
    taken = points.take([3, 4, 5]).seen
    assert taken.best == WORLD.take([3, 4, 5]).seen.best
    assert points.regret(3) == pytest.approx(WORLD.regret(3))


def test_taking_rows_costs_six_flops_per_parameter_and_token() -> None:
    assert WORLD.cost == 0
    assert WORLD.take([4]).take([7, 9]).cost == pytest.approx(3 * 6 * PARAMS * TOKENS)


def test_a_row_is_taken_once_and_has_to_be_there() -> None:
    begun = WORLD.take([4])
    for rows in ([4], [5, 5], [40], [-1]):
        with pytest.raises(InputError, match=r"take a row of `seen\.left`"):
            begun.take(rows)
    assert 4 not in begun.seen.left
    assert len(begun.seen.left) == 39


def test_a_task_that_nobody_measured_is_named_beside_those_there_are() -> None:
    with pytest.raises(InputError, match="'prose'; name one of code, points"):
        Replay.of(_table(), "prose", "bits/byte")


def test_what_is_seen_is_the_contracts_table_of_the_taken_rows_in_their_order() -> None:
    seen = WORLD.take([9, 2]).seen
    assert seen.table["run"].to_list() == ["r9", "r2"]
    assert seen.table["metric:code"].to_list() == WORLD.values[[9, 2]].tolist()
    assert not [c for c in seen.candidates.columns if c.startswith("metric:")]


def _in_order(seen: Seen, count: int, draw: np.random.Generator) -> Choice:
    """Take rows by number."""
    return Choice(tuple(int(row) for row in seen.left[:count]), seen.best)


def test_a_replay_tells_runs_cost_and_regret_before_every_batch_and_after_the_last() -> None:
    steps = replay(WORLD.take([0]), _in_order, [1, 2], np.random.default_rng(0))
    one = 6 * PARAMS * TOKENS
    assert [step.runs for step in steps] == [1, 2, 4]
    assert [step.cost / one for step in steps] == pytest.approx([1, 2, 4])
    for step, count in zip(steps, (1, 2, 4), strict=True):
        best = int(WORLD.values[:count].argmin())
        assert (step.regret, step.recommended, step.found) == (WORLD.regret(best), WORLD.rank(best), WORLD.rank(best))


def test_a_replay_ends_once_a_good_run_is_found() -> None:
    best = int(WORLD.order[0])
    steps = replay(WORLD.take([best + 1 if best < 39 else 0]), _in_order, [1] * 39, np.random.default_rng(0), enough=1)
    # Rows are taken from 0 on beside the one begun with, so the best one is number best + 1 among them.
    assert steps[-1].found == 1
    assert steps[-1].runs == best + 2
    assert needed(steps, 1) == best + 2
    assert needed(steps[:-1], 1) == float("inf")


def test_a_recommended_good_run_counts_as_the_next_one() -> None:
    steps = [Step(5, 0.0, 0.1, 9, 9), Step(6, 0.0, 0.0, 1, 9), Step(7, 0.0, 0.0, 1, 1)]
    assert needed(steps, 5) == 7
    assert needed([steps[0], steps[2]], 5) == 7


METHODS = peers.methods({})
NEEDS = {"GP, expected improvement": "botorch", "RegMix": "lightgbm", "Optuna TPE": "optuna"}


@pytest.fixture(params=list(METHODS))
def name(request: pytest.FixtureRequest) -> str:
    """Each method whose extra is installed."""
    torch.set_num_threads(1)
    chosen: str = request.param
    if chosen in NEEDS:
        pytest.importorskip(NEEDS[chosen], reason="the group bench is not installed: make bench")
    return chosen


def test_a_method_cannot_know_what_it_has_not_taken(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "SAMPLED", 2_000)  # fewer of the same: the claim is not about them
    begun = WORLD.take(peers.first_runs(WORLD.candidates, {}, 8, np.random.default_rng(0)))
    hidden = np.where(np.isin(np.arange(40), begun.taken), begun.values, 99.0)
    other = replace(begun, values=hidden)
    choices = [METHODS[name](each.seen, 2, np.random.default_rng(1)) for each in (begun, other)]
    assert choices[0] == choices[1]
    assert len({*choices[0].runs, *begun.taken}) == 10


@pytest.mark.parametrize("name", ["mixlaw", "GP, expected improvement"], indirect=True)
def test_models_find_a_better_run_than_chance_does_in_a_smooth_world(name: str) -> None:
    draw = np.random.default_rng(0)
    begun = WORLD.take(peers.first_runs(WORLD.candidates, {}, 6, draw))
    found = replay(begun, METHODS[name], [2, 2, 2], draw)[-1].found
    # Expected regret of the best of 12 random runs of 40: it has place i with C(39 - i, 11) / C(40, 12).
    ordered = np.sort(WORLD.values) - WORLD.values.min()
    expected, still = 0.0, 1.0
    for place in range(29):
        hit = still * 12 / (40 - place)
        expected += hit * ordered[place]
        still -= hit
    assert WORLD.regret(int(WORLD.order[found - 1])) < expected


def test_outcomes_that_are_imagined_leave_no_uncertainty_of_their_own_row() -> None:
    worlds = torch.randn(500, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    worlds[:, 1] = 2 * worlds[:, 0] + 0.1 * worlds[:, 1]
    draws = peers.conditioned(worlds, 0)
    assert float(draws[:, 0].std()) < 1e-9
    assert float(draws[:, 1].std()) == pytest.approx(0.1, rel=0.1)
    assert torch.allclose(draws.mean(0), worlds.mean(0))
    assert float(draws[:, 3].std()) == pytest.approx(float(worlds[:, 3].std()), rel=0.05)


def test_what_the_others_say_of_a_value_is_its_normal_distribution_given_them() -> None:
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(5, 8, generator=generator, dtype=torch.float64)
    covariance, values = root @ root.T, torch.randn(5, generator=generator, dtype=torch.float64)
    scores = peers.left_out(values, covariance)
    for row in range(5):
        rest = [i for i in range(5) if i != row]
        weights = np.linalg.solve(covariance[rest][:, rest].numpy(), covariance[rest, row].numpy())
        variance = covariance[row, row].item() - weights @ covariance[rest, row].numpy()
        assert float(scores[row]) == pytest.approx(
            (values[row].item() - weights @ values[rest].numpy()) / variance**0.5
        )


def test_draws_are_as_wide_as_runs_left_out_are_off() -> None:
    table = _table(12).drop("metric:points")
    member = fit(table, units={"code": "bits/byte"}, unique={}, resamples=2, audited=False).members[0]
    member = replace(member, theta=member.prior.mean[None])
    value, slope = member.form.jacobian(member.theta, member.observed.design)
    x, free = member.residual.x, member.form.free
    scaled = slope[0] * torch.sqrt(member.prior.spread**2 + member.prior.mean_error**2)[free, None]
    covariance = scaled.T @ scaled + member.kernel(x, x)[0] + torch.diag(member.residual.variance[0])
    generator = torch.Generator().manual_seed(0)
    draws = torch.linalg.cholesky(covariance) @ torch.randn(12, 100, generator=generator, dtype=torch.float64)
    for stretch in (0.3, 1.0, 3.0):  # errors in units of the predicted deviation
        targets = value[0] + stretch * draws.T
        widths = [peers.width(replace(member, observed=replace(member.observed, target=y[None]))) for y in targets]
        expected = (peers.PRIOR_RUNS + 12 * stretch**2) / (peers.PRIOR_RUNS + 12)
        assert float(np.square(widths).mean()) == pytest.approx(expected, rel=0.2)


def test_a_spread_design_takes_the_far_corner_first() -> None:
    x = np.array([[0.0, 0.0], [0.1, 0.0], [1.0, 1.0], [0.5, 0.4]])
    assert peers.spread_out(x, [0], 3) == [2, 3, 1]
