"""Folds, calibration, peers and figures of the audit, each against a case worked by hand."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from mixlaw.analysis.audit.audit import audit
from mixlaw.analysis.audit.folds import folds
from mixlaw.analysis.audit.held import LARGEST, Fold, Held, calibrate
from mixlaw.analysis.audit.peers import TREES, TREES_NEED, peers
from mixlaw.analysis.audit.result import Audit, audit_table
from mixlaw.analysis.data.design import Design
from mixlaw.analysis.data.observed import Observed, observe
from mixlaw.analysis.laws import Exposure
from mixlaw.analysis.surface.member import fit_member

ROWS = 240


def observed(rows: int = ROWS, tasks: int = 2, noise: float = 0.01) -> Observed:
    """Runs of two domains at one size and one measured loss by task, all noise."""
    rng = np.random.default_rng(0)
    share = rng.uniform(0.05, 0.95, rows)
    values = {f"metric:task{t}": np.exp(noise * rng.normal(size=rows)) for t in range(tasks)}
    tokens = {"tokens:train:a": 1e9 * share, "tokens:train:b": 1e9 * (1 - share)}
    table = pl.DataFrame({"run": [f"r{i}" for i in range(rows)], "params": np.full(rows, 1e7)} | tokens | values)
    return observe(table, {f"task{t}": "bits/byte" for t in range(tasks)}, {})


def predicted(data: Observed, test: Tensor, mean: Tensor, deviation: Tensor, kind: str = "mixtures") -> Held:
    """Predictions for the test rows, learned from the others."""
    rows = torch.arange(len(data.design))
    train = rows[~torch.isin(rows, test)]
    return Held(Fold(kind, train, test), mean[test], mean[test], deviation[test])


def checkpoints(sizes: tuple[float, ...] = (1e6, 4e6, 2e7)) -> Design:
    """Eight mixtures at each size, each trained twice, each run with two checkpoints whose mixtures differ."""
    rows = []
    for size in sizes:
        for mixture in range(8):
            for repeat in range(2):
                for done, drift in ((0.5, 0.02), (1.0, 0.0)):
                    share = (mixture + 1) / 10 + drift
                    tokens = {"tokens:train:a": share * done * 1e9, "tokens:train:b": (1 - share) * done * 1e9}
                    run = f"{size:g}/{mixture}/{repeat}"
                    rows.append({"run": run, "params": size, "progress": done} | tokens)
    return Design.from_table(pl.DataFrame(rows), {})


def test_no_run_and_no_mixture_is_both_learned_from_and_predicted() -> None:
    design = checkpoints()
    mixtures = [fold for fold in folds(design, 0) if fold.kind == "mixtures"]
    assert len(mixtures) == 5
    assert torch.cat([fold.test for fold in mixtures]).sort().values.tolist() == list(range(len(design)))
    for fold in mixtures:
        train, test = design.select(fold.train), design.select(fold.test)
        assert not set(train.runs) & set(test.runs)
        final = [{tuple(row) for row in part.mixture[part.progress == 1].tolist()} for part in (train, test)]
        assert not final[0] & final[1]


def test_where_all_runs_have_one_mixture_runs_are_held_out_and_said_to_be() -> None:
    data = observed(rows=20)
    one = replace(
        data, design=Design.from_table(pl.DataFrame({"params": [1e7] * 20, "tokens:train:a": [1e9] * 20}), {})
    )
    assert {fold.kind for fold in folds(data.design, 0)} == {"mixtures"}
    parts = folds(one.design, 0)
    assert [(fold.kind, len(fold.test)) for fold in parts] == [("runs", 4)] * 5
    deviation = torch.full((20, 2), 0.01, dtype=torch.float64)
    held = [predicted(one, fold.test, one.target.T, deviation, fold.kind) for fold in parts]
    found = audit(one, held, calibrate(one, held))
    assert found.sentence.startswith("leaving runs out, the error is ")
    assert found.tables()[0].title.startswith("audit: leave runs out (20 rows)")


def test_one_fold_holds_out_exactly_the_largest_size() -> None:
    design = checkpoints()
    (largest,) = [fold for fold in folds(design, 0) if fold.kind == "largest size"]
    assert set(design.params[largest.test].tolist()) == {2e7}
    assert set(design.params[largest.train].tolist()) == {1e6, 4e6}
    assert largest.extrapolates
    (of_two,) = [fold for fold in folds(checkpoints((1e6, 4e6)), 0) if fold.kind == "largest size"]
    assert not of_two.extrapolates


def in_phases(*orders: tuple[float, float, float]) -> Design:
    """Runs (share of a in the first phase, in the last, length of the last), the rest being b."""
    rows = [
        {"run": f"{i}", "params": 1e6}
        | {"tokens:first:a": a * (1 - length), "tokens:first:b": (1 - a) * (1 - length)}
        | {"tokens:last:a": z * length, "tokens:last:b": (1 - z) * length}
        for i, (a, z, length) in enumerate(orders)
    ]
    return Design.from_table(pl.DataFrame(rows), {})


def test_of_orders_with_equal_totals_every_second_is_held_out_and_one_mixture_throughout_is_one_order() -> None:
    halves = [(a, 1 - a, 0.5) for a in (0.0, 0.1, 0.2, 0.3, 0.7, 0.8, 0.9, 1.0)]
    steady = [(0.5, 0.5, length) for length in (0.1, 0.2, 0.3, 0.4, 0.6)]
    (fold,) = [fold for fold in folds(in_phases(*halves, *steady), 0) if fold.kind == "phase order"]
    held = set(fold.test.tolist())
    assert len(held & set(range(8))) == 4
    assert not held & set(range(8, 13))
    assert "phase order" not in {fold.kind for fold in folds(in_phases(*[(1.0, 1.0, x / 20) for x in range(1, 16)]), 0)}


def test_sizes_a_percent_apart_are_one_size() -> None:
    assert checkpoints((1e6, 1.01e6, 2e6)).sizes == 2


def test_calibration_learns_how_much_too_narrow_intervals_are_and_tasks_share_it() -> None:
    data = observed()
    test, mean = torch.arange(ROWS), torch.zeros(ROWS, 2, dtype=torch.float64)
    factor = calibrate(data, [predicted(data, test, mean, torch.full_like(mean, 0.005))])
    assert torch.allclose(factor, torch.tensor(2.0, dtype=torch.float64), rtol=0.2)
    deviation = torch.tensor([0.005, 0.01]).expand(ROWS, 2).double()
    alone = [calibrate(replace(data, seen=_only(data, t)), [predicted(data, test, mean, deviation)])[t] for t in (0, 1)]
    both = calibrate(data, [predicted(data, test, mean, deviation)])
    assert float(both[0]) < float(alone[0])
    assert float(both[1]) > float(alone[1])


def test_the_largest_size_calibrates_only_where_nothing_else_does() -> None:
    data = observed()
    test, mean = torch.arange(ROWS), torch.zeros(ROWS, 2, dtype=torch.float64)
    right = predicted(data, test, mean, torch.full_like(mean, 0.01))
    narrow = predicted(data, test, mean, torch.full_like(mean, 0.005), LARGEST)
    assert torch.equal(calibrate(data, [right, narrow]), calibrate(data, [right]))
    assert torch.allclose(calibrate(data, [narrow]), torch.tensor(2.0, dtype=torch.float64), rtol=0.2)


def _only(data: Observed, task: int) -> Tensor:
    """As if one task alone had been measured."""
    seen = torch.zeros_like(data.seen)
    seen[task] = data.seen[task]
    return seen


def test_the_audit_prints_coverage_regret_and_rank_of_what_was_predicted() -> None:
    data = observed(60, 1)
    test = torch.arange(0, 60, 2)
    truth, deviation = data.target.T, torch.full((60, 1), 0.01, dtype=torch.float64)
    off = torch.tensor([3.0, 0.5]).double()[torch.arange(60) // 2 % 2][:, None]
    held = {"right": predicted(data, test, truth + off * deviation, deviation)}
    held["reversed"] = predicted(data, test, -truth, deviation)
    for name, made in held.items():
        table = audit(data, [made], torch.ones(1, dtype=torch.float64)).table
        row = table.filter(pl.col("method") == "surfaces").row(0, named=True)
        wanted = truth[test, 0].numpy()
        if name == "right":
            assert row["coverage"] == 0.5
            assert row["width"] == pytest.approx(2 * 1.645 * 0.01, rel=1e-3)
            chosen = int((made.mean[:, 0]).argmin())
            assert row["regret"] == pytest.approx(wanted[chosen] - wanted.min())
        else:
            assert row["spearman"] == pytest.approx(-1)
            assert row["regret"] == pytest.approx(wanted.max() - wanted.min())


def test_levels_that_are_off_alike_leave_the_coverage_of_gains() -> None:
    data, rows = observed(60), torch.arange(60)
    truth = data.target.T
    narrow = torch.full_like(truth, 0.05)
    parts = [rows[rows % 3 == k] for k in range(3)]
    # Every level a tenth too low: outside of its interval; differences between recipes are right within .02.
    fold = [predicted(data, part, truth - 0.1, narrow) for part in parts]
    told = [replace(h, apart=torch.full_like(h.mean, 0.02)) for h in fold]
    (row,) = (
        audit(data, told, torch.ones(2, dtype=torch.float64))
        .table.filter(pl.col("method") == "surfaces", pl.col("task") == "task0")
        .to_dicts()
    )
    assert (row["coverage"], row["gains"]) == (0.0, 1.0)
    wrong = [replace(h, mean=h.mean + 0.1 * (torch.arange(20)[:, None] % 2)) for h in told]
    table = audit(data, wrong, torch.ones(2, dtype=torch.float64)).table
    assert table.filter(pl.col("method") == "surfaces")["gains"].to_list() == [0.0, 0.0]


def test_a_method_of_fewer_tasks_is_compared_on_these_alone() -> None:
    figures = {"rows": 9, "spearman": 0.5, "regret": 0.0, "coverage": None, "width": None, "gains": None}
    errors = {("surfaces", "a"): 0.01, ("surfaces", "b"): 0.03, ("surfaces", "c"): 0.05, (TREES, "a"): 0.02}
    rows = [figures | {"fold": "mixtures", "task": t, "method": m, "error": e} for (m, t), e in errors.items()]
    text = str(Audit(audit_table(rows)))
    assert re.search(r"surfaces +3\.00 %", text)
    assert re.search(r"surfaces \(1 of 3 tasks\) +1\.00 %", text)
    assert re.search(r"boosted trees \(1 of 3 tasks\) +2\.00 %", text)


@pytest.mark.parametrize(("error", "said"), [(0.008, True), (0.0095, False)])
def test_a_regression_that_is_clearly_ahead_is_named(error: float, said: bool) -> None:
    figures = {
        "rows": 9,
        "spearman": 0.5,
        "regret": 0.0,
        "coverage": None,
        "width": None,
        "gains": None,
        "fold": "mixtures",
    }
    errors = {"surfaces": 0.01, "linear in roots": error, "nearest run": 0.001}
    rows: list[dict[str, object]] = [
        {**figures, "task": task, "method": m, "error": e} for m, e in errors.items() for task in "ab"
    ]
    sentence = "linear in roots predicts held-out mixtures better: 0.80 % against 1.00 %"
    assert (sentence in str(Audit(audit_table(rows)))) is said


def test_the_mean_of_each_fold_has_no_rank() -> None:
    data = observed(60, 1)
    test = [torch.arange(i, 60, 3) for i in range(3)]
    made = [predicted(data, rows, data.target.T, torch.full((60, 1), 0.01, dtype=torch.float64)) for rows in test]
    table = audit(data, made, torch.ones(1, dtype=torch.float64)).table
    found = dict(zip(table["method"], table["spearman"], strict=True))
    assert found["mean"] is None
    assert found["surfaces"] == pytest.approx(1)


def test_peers_predict_what_their_names_say() -> None:
    table = pl.DataFrame(
        {
            "params": [1e6, 1e6, 1e6, 1e7, 1e7, 1e7],
            "tokens:train:a": [1e8, 5e8, 9e8, 1e8, 5e8, 9e8],
            "tokens:train:b": [9e8, 5e8, 1e8, 9e8, 5e8, 1e8],
        }
    )
    design, values = Design.from_table(table, {}), np.array([3.0, 2.0, 1.0, 2.0, 1.0, 0.0])
    new = Design.from_table(table[:1].with_columns(pl.col("tokens:train:a") * 1.05), {})
    found = {name: float(peer.fit(design, values).predict(new)[0]) for name, peer in peers(len(values)).items()}
    assert TREES not in found
    assert found["mean"] == pytest.approx(1.5)
    assert found["nearest run"] == 3.0
    assert found["single scale"] == 2.0
    assert found["linear"] == pytest.approx(3.0, abs=0.1)


@pytest.mark.filterwarnings("error")
def test_peers_of_a_single_run_predict_its_value() -> None:
    data = observed()
    one = data.design.select(torch.tensor([0]))
    for name, peer in peers(1).items():
        assert peer.fit(one, np.array([2.5])).predict(data.design) == pytest.approx(2.5), name


def test_boosted_trees_are_a_peer_where_there_are_runs_enough() -> None:
    data = observed(120, 1)
    values = (data.design.mixture[:, 0] > 0.5).double().numpy()
    trees = peers(TREES_NEED)[TREES].fit(data.design, values)
    assert np.abs(trees.predict(data.design) - values).mean() < 0.1


@pytest.mark.parametrize("count", [2, 4])
def test_repeats_measure_the_noise_of_a_run(count: int) -> None:
    rng = np.random.default_rng(1)
    tokens = np.repeat(np.linspace(1e8, 9e8, 200), count)
    run = {"params": np.full(200 * count, 1e6), "tokens:train:a": tokens}
    measured = np.exp(1e-10 * tokens + 0.02 * rng.normal(size=200 * count))
    table = pl.DataFrame(run | {"metric:web": measured})
    assert float(observe(table, {"web": "bits/byte"}, {}).noise[0]) == pytest.approx(0.02, rel=0.15)
    single = observe(table[::count], {"web": "bits/byte"}, {})
    assert math.isnan(float(single.noise[0]))


def test_samples_of_the_residual_process_spread_as_its_posterior_says() -> None:
    data = observed(20, 1, noise=0.02)
    member = fit_member(Exposure, data, 0, 0, lambda share, words: None)
    kernel = replace(member.kernel, signal=torch.full((1,), 0.03).double(), noise=torch.full((1,), 0.02).double())
    member = replace(member, kernel=kernel, draws=member.theta.expand(600, -1, -1))  # no doubt about the law
    samples, mean = member.sample_and_mean(data.design, torch.arange(600))
    assert torch.allclose(mean, member.mean(data.design), rtol=1e-10)
    process = member.residual
    prior = kernel(process.x, process.x)[0]
    left = prior - prior @ torch.linalg.solve(prior + process.variance[0].diag(), prior)  # a textbook's posterior
    expected = left.diagonal().sqrt()
    assert torch.allclose(samples.std(0)[:, 0], expected, rtol=0.25)
