from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import t
from torch import Tensor

from mixlaw.analysis.audit import stacking
from mixlaw.analysis.audit.held import Fold, Held
from mixlaw.analysis.data.design import Design
from mixlaw.analysis.data.observed import Observed, observe
from mixlaw.analysis.fit import fit
from mixlaw.analysis.laws import Additive, DataConstrained, Exposure, Joint, Law, Phasewise
from mixlaw.analysis.laws.candidates import candidates
from mixlaw.analysis.surface.surface import Surfaces

Floats = NDArray[np.float64]
DOMAINS = ("web", "code", "books")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def runs(
    values: Floats, names: list[str] | None = None, sizes: tuple[float, ...] = (1e6,), code: float = 0.0
) -> Observed:
    """Runs of sizes in turn that measured exp(values) (rows, tasks), of one mixture or with up to a share of code."""
    rows = len(values)
    columns = {f"metric:t{i}": np.exp(v) for i, v in enumerate(values.T)}
    named = {"run": names or [f"r{i}" for i in range(rows)], "params": np.resize(sizes, rows)}
    shares = np.linspace(0, code, rows)
    tokens = {"tokens:train:web": 1e9 * (1 - shares), "tokens:train:code": 1e9 * shares}
    table = pl.DataFrame(named | (tokens if code else {"tokens:train:web": np.full(rows, 1e9)}) | columns)
    return observe(table, {f"t{i}": "bits/byte" for i in range(values.shape[1])}, {}, None)


def held_out(observed: Observed, rows: Tensor, mean: Floats, deviation: float, extrapolates: bool = False) -> Held:
    """A prediction of `mean` (rows, tasks), in log loss, for some rows."""
    fold = Fold("mixtures", torch.zeros(0, dtype=torch.long), rows, extrapolates)
    centred = torch.tensor(mean) - observed.centre
    return Held(fold, centred, centred, torch.full_like(centred, deviation))


def test_weights_maximise_the_score_of_the_mixture(rng: np.random.Generator) -> None:
    truth = rng.normal(size=(200, 3))
    observed, rows = runs(truth), torch.arange(200)
    # Either law is right about some runs only; the share differs from task to task.
    right = rng.random((200, 3)) < np.array([0.9, 0.5, 0.2])
    first, second = np.where(right, truth, truth + 3), np.where(right, truth - 3, truth)
    off = 0.5 * rng.normal(size=truth.shape)
    held = {"A": [held_out(observed, rows, first + off, 0.5)], "B": [held_out(observed, rows, second - off, 0.5)]}
    found = stacking.stack(observed, held)
    assert torch.allclose(found.sum(1), torch.ones(3, dtype=torch.float64))
    assert (np.abs(found[:, 0].numpy() - [0.9, 0.5, 0.2]) < 0.1).all()
    assert found[0, 0] > found[1, 0] > found[2, 0]


def unequal(rng: np.random.Generator, told: bool) -> tuple[Observed, Held, Held]:
    """Two predictors, each precise where the other is not; whether their deviations tell it."""
    truth, rows = rng.normal(size=(200, 2)), torch.arange(200)
    observed, sure = runs(truth), np.arange(200)[:, None] % 2 == 0
    parts = []
    for where in (sure, ~sure):
        spread = np.where(where, 0.02, 0.5) * np.ones((200, 2))
        made = held_out(observed, rows, truth + spread * rng.normal(size=truth.shape), 0.35)
        parts.append(replace(made, deviation=torch.tensor(spread)) if told else made)
    return observed, parts[0], parts[1]


def test_who_is_sure_of_a_run_decides_it(rng: np.random.Generator) -> None:
    observed, laws, other = unequal(rng, told=True)
    found = stacking.beside_laws(observed, [laws], [[other]], torch.zeros(2, 1, dtype=torch.float64))
    assert found.by_row
    joined = found.held([laws], [[other]])[0]
    error = joined.mean - observed.target.T
    assert float(error.std()) < 0.03  # of either alone: .35
    # Independent normals: the mean is weighted by inverse variances.
    precision = torch.stack([laws.deviation**-2, (other.deviation * found.scale[:, 0]) ** -2])
    means = torch.stack([laws.mean, other.mean])
    assert torch.allclose(joined.mean, (precision * means).sum(0) / precision.sum(0))


def test_who_has_no_share_decides_no_run_however_sure_it_is(rng: np.random.Generator) -> None:
    observed, laws, other = unequal(rng, told=True)
    liar = replace(laws, mean=laws.mean + 0.5 * torch.tensor(rng.normal(size=laws.mean.shape)))  # as sure, and off
    shares = torch.tensor([[0.5, 0.0]], dtype=torch.float64).expand(2, -1)
    found = stacking.beside_laws(observed, [laws], [[other], [liar]], shares)
    assert found.by_row
    assert torch.equal(found.shares, shares)


def test_beside_laws_that_are_half_as_wide_as_they_should_be_a_regressor_becomes_so(rng: np.random.Generator) -> None:
    truth, rows = rng.normal(size=(400, 1)), torch.arange(400)
    observed = runs(truth)
    narrow, right = (held_out(observed, rows, truth + 0.2 * rng.normal(size=truth.shape), sd) for sd in (0.1, 0.2))
    found = stacking.beside_laws(observed, [narrow], [[right]], torch.full((1, 1), 0.5, dtype=torch.float64))
    assert float(found.scale) == pytest.approx(0.5, rel=0.15)  # two standard errors of two quantiles of 400 are 12 %


def test_a_held_out_run_scores_the_density_of_a_student_t_of_the_same_deviation(rng: np.random.Generator) -> None:
    truth, rows = np.array([[0.0], [0.5], [3.0]]), torch.arange(3)
    observed = runs(truth)
    found = [
        stacking._score(observed, held_out(observed, rows, 0 * truth, sd), torch.tensor([2.0])) for sd in (0.2, 0.4)
    ]
    freedom = 5
    wanted = [t.logpdf(truth, freedom, scale=2 * sd * ((freedom - 2) / freedom) ** 0.5) for sd in (0.2, 0.4)]
    assert np.allclose(found[0] - found[1], wanted[0] - wanted[1])  # constants that all laws share are left out


def test_deviations_that_say_nothing_leave_the_shares_alone(rng: np.random.Generator) -> None:
    observed, laws, other = unequal(rng, told=False)
    shares = torch.full((2, 1), 0.5, dtype=torch.float64)
    found = stacking.beside_laws(observed, [laws], [[other]], shares)
    joined = found.held([laws], [[other]])[0]
    expected = (1 - shares[:, 0]) * laws.mean + shares[:, 0] * other.mean
    assert torch.allclose(joined.mean, expected, atol=0.05)


def test_expectation_maximisation_finds_the_optimum_that_scipy_finds(rng: np.random.Generator) -> None:
    score, row, prior = rng.normal(size=(60, 1, 3)), rng.uniform(0.2, 1, 60), np.array([[2.0, 1.0, 0.5]])

    def loss(logits: Floats) -> float:
        w = np.exp(logits - np.logaddexp.reduce(logits))
        return -float((row * np.log((np.exp(score[:, 0]) * w).sum(1))).sum() + (prior[0] * np.log(w)).sum())

    best = minimize(loss, np.zeros(3), tol=1e-12).x
    found = stacking._mixture(torch.tensor(score), torch.tensor(row), torch.tensor(prior))
    assert np.allclose(found[0].numpy(), np.exp(best - np.logaddexp.reduce(best)), atol=1e-4)


@pytest.mark.parametrize(("extrapolates", "before"), [(False, 1.0), (True, stacking.ORDINARY_RUNS)])
def test_what_came_before_counts_as_one_run_or_where_folds_extrapolate_as_a_few(
    rng: np.random.Generator, extrapolates: bool, before: float
) -> None:
    """Ten runs that one of two laws foretells and the other misses by far: all counts go to the first, by addition."""
    truth = rng.normal(size=(10, 1))
    observed, rows = runs(truth), torch.arange(10)
    right, wrong = (held_out(observed, rows, truth + by, 0.5, extrapolates) for by in (0.0, 1e6))
    pooled = (10 + 0.5) / (10 + 1)
    expected = (10 + 0.5 * before + stacking.SHARED_RUNS * pooled) / (10 + before + stacking.SHARED_RUNS)
    weights = stacking.stack(observed, {"right": [right], "wrong": [wrong]})
    assert float(weights[0, 0]) == pytest.approx(expected, abs=1e-4)


def test_folds_that_extrapolate_come_first(rng: np.random.Generator) -> None:
    truth = rng.normal(size=(120, 1))
    observed, near, far = runs(truth), torch.arange(60), torch.arange(60, 120)
    good, bad = truth + 0.1 * rng.normal(size=truth.shape), truth + rng.normal(size=truth.shape)
    inside, beyond = (
        [held_out(observed, near, near_mean[:60], 0.5), held_out(observed, far, far_mean[60:], 0.5, True)]
        for near_mean, far_mean in ((good, bad), (bad, good))
    )
    weights = stacking.stack(observed, {"inside": inside, "beyond": beyond})
    assert float(weights[0, 1]) > 0.7


def test_checkpoints_of_one_run_count_as_one_run(rng: np.random.Generator) -> None:
    truth = rng.normal(size=(40, 1))
    once, rows = runs(truth), torch.arange(40)
    often = runs(np.repeat(truth, 10, 0), [f"r{i}" for i in range(40) for _ in range(10)])
    first, second = (truth + sd * rng.normal(size=truth.shape) for sd in (0.3, 0.6))
    one = stacking.stack(once, {"A": [held_out(once, rows, first, 0.3)], "B": [held_out(once, rows, second, 0.6)]})
    many = torch.arange(400)
    ten = stacking.stack(
        often,
        {
            "A": [held_out(often, many, first.repeat(10, 0), 0.3)],
            "B": [held_out(often, many, second.repeat(10, 0), 0.6)],
        },
    )
    assert torch.allclose(one, ten, atol=0.02)


@pytest.mark.parametrize(
    ("off", "extrapolates", "weights"),
    [
        ((0.3, 0.6), False, (1.0, 0.0)),
        ((0.3, 0.6), True, (1.0, 0.0)),
        ((0.3, 0.3), False, (0.5, 0.5)),
        ((0.6, 0.3), False, (0.5, 0.5)),
    ],
)
def test_where_sizes_vary_only_a_clearly_worse_law_leaves_and_all_count_alike_if_no_fold_extrapolates(
    rng: np.random.Generator, off: tuple[float, float], extrapolates: bool, weights: tuple[float, float]
) -> None:
    truth, rows = rng.normal(size=(80, 1)), torch.arange(80)
    observed = runs(truth, sizes=(1e6, 4e6))
    held = {
        str(i): [held_out(observed, rows, truth + sd * rng.normal(size=truth.shape), sd, extrapolates)]
        for i, sd in enumerate(off)
    }
    assert stacking.stack(observed, held)[0].tolist() == pytest.approx(weights)


def test_where_sizes_vary_a_law_that_extrapolates_better_counts_more(rng: np.random.Generator) -> None:
    truth, rows = rng.normal(size=(80, 1)), torch.arange(80)
    observed = runs(truth, sizes=(1e6, 4e6))
    held = {
        str(i): [held_out(observed, rows, truth + sd * rng.normal(size=truth.shape), sd, True)]
        for i, sd in enumerate((0.6, 0.3))
    }
    assert float(stacking.stack(observed, held)[0, 1]) > 0.7


def test_where_mixtures_vary_our_laws_that_are_not_clearly_worse_count_alike_and_regressors_by_what_they_predict(
    rng: np.random.Generator,
) -> None:
    """Three of ours, one of them far off; two regressors, one of them far off."""
    truth, rows = rng.normal(size=(80, 1)), torch.arange(80)
    observed = runs(truth, sizes=(1e6, 4e6), code=0.5)
    held = {
        str(i): [held_out(observed, rows, truth + sd * rng.normal(size=truth.shape), sd, True)]
        for i, sd in enumerate((0.3, 0.2, 3.0, 0.2, 3.0))
    }
    weights = stacking.stack(observed, held, 3)[0].tolist()
    assert weights[0] == pytest.approx(weights[1])
    assert weights[2] == weights[4] == 0
    assert weights[3] > 0.2
    assert sum(weights) == pytest.approx(1)


def test_a_combined_prediction_has_mean_and_spread_of_the_mixture_of_densities(rng: np.random.Generator) -> None:
    observed, rows = runs(np.zeros((4, 2))), torch.arange(4)
    means = rng.normal(size=(3, 4, 2))
    parts = [[held_out(observed, rows, m, sd)] for m, sd in zip(means, (0.2, 0.5, 1.0), strict=True)]
    weights = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]], dtype=torch.float64)
    found = stacking.combined(parts, weights)[0]
    for task in range(2):
        which = rng.choice(3, 200_000, p=weights[task].numpy())
        drawn = means[which, 2, task] + np.array([0.2, 0.5, 1.0])[which] * rng.normal(size=200_000)
        assert float(found.mean[2, task]) == pytest.approx(drawn.mean(), abs=0.01)
        assert float(found.deviation[2, task]) == pytest.approx(drawn.std(), rel=0.01)


def test_the_best_laws_that_count_are_kept_in_order() -> None:
    weights = torch.tensor([[0.4, 0.02, 0.28, 0.2, 0.1], [0.4, 0.02, 0.28, 0.2, 0.1]])
    assert stacking.chosen(weights) == [0, 2, 3]


SPLIT = {"tokens:init:web": [1e8, 2e8], "tokens:init:code": [2e8, 1e8], "tokens:cooldown:web": [1e8, 1e8]}
WHOLE = {"tokens:train:web": [1e9, 2e9], "tokens:train:code": [2e9, 1e9]}


@pytest.mark.parametrize(
    ("tokens", "params", "unique", "laws"),
    [
        (WHOLE, [1e6, 1e6], {}, (Exposure, Joint)),
        (WHOLE, [1e6, 4e6], {}, (Exposure, Additive, Joint)),
        (SPLIT, [1e6, 1e6], {}, (Exposure, Joint)),
        (SPLIT, [1e6, 4e6], {}, (Exposure, Phasewise, Additive)),
        ({"tokens:train:web": [1e9, 2e9]}, [1e6, 4e6], {}, (Exposure,)),
        ({"tokens:train:web": [1e9, 2e9]}, [1e6, 4e6], {"web": 1.5e9}, (Exposure, DataConstrained)),
    ],
)
def test_only_laws_that_see_what_varies_are_candidates(
    tokens: dict[str, list[float]], params: list[float], unique: dict[str, float], laws: tuple[type[Law], ...]
) -> None:
    assert candidates(Design.from_table(pl.DataFrame({"params": params} | tokens), unique)) == laws


@pytest.mark.parametrize("params", [[1e6, 1e6], [1e6, 4e6]])
@pytest.mark.parametrize("tokens", [SPLIT, WHOLE])
def test_no_candidate_expects_more_loss_where_there_is_more_to_read(
    tokens: dict[str, list[float]], params: list[float]
) -> None:
    """Runs of simulated epoching repeat a small pool; the target reads the whole one."""
    table = pl.DataFrame({"params": params} | tokens)
    small, large = (Design.from_table(table, {"web": pool, "code": pool}) for pool in (2e7, 2e12))
    for law in candidates(small):
        form = law.form(small)
        theta = torch.tensor([[p.mean for p in form.parameters]], dtype=torch.float64)
        assert bool((form.log_loss(theta, large) <= form.log_loss(theta, small)).all()), law.__name__


@pytest.fixture(scope="module")
def mixtures() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Runs of an additive world at one size that no CES aggregate describes, and new ones."""
    rng = np.random.default_rng(5)
    law = Additive(
        0.5, (0.6, 1.5, 0.4), (0.15, 0.9, 0.4), 0.0, 1.0, 1.0, 1e7, (1 / 3,) * 3, 50.0, 0.3, 500.0, 0.35,
        (1.0,), 1.0, 15.4, ("train",), DOMAINS,
    )  # fmt: skip
    made = []
    for rows in (60, 60):
        shares = rng.dirichlet(np.full(3, 0.6), rows)
        tokens = {f"tokens:train:{d}": 1e9 * shares[:, i] for i, d in enumerate(DOMAINS)}
        table = pl.DataFrame({"run": [f"r{i}" for i in range(rows)], "params": np.full(rows, 1e7)} | tokens)
        noisy = law(Design.from_table(table, {})).numpy() * np.exp(0.003 * rng.normal(size=rows))
        made.append(table.with_columns(**{"metric:web": noisy}))
    return made[0], made[1]


@pytest.fixture(scope="module")
def stacked(mixtures: tuple[pl.DataFrame, pl.DataFrame]) -> Surfaces:
    """What is fitted to the first runs where no law is named."""
    return fit(mixtures[0], units={"web": "bits/byte"}, unique={}, resamples=8)


def test_at_one_size_our_laws_count_alike_and_predict_new_runs_better_than_the_first_alone(
    mixtures: tuple[pl.DataFrame, pl.DataFrame], stacked: Surfaces
) -> None:
    """The world is additive: Joint has its term, the exposure law has not."""
    train, new = mixtures
    alone = fit(train, units={"web": "bits/byte"}, unique={}, resamples=8, law=Exposure)
    assert [member.law.__name__ for member in stacked.members] == ["Exposure", "Joint"]
    assert stacked.weights.tolist() == [[0.5, 0.5]]
    assert stacked.audit is not None
    assert {"Exposure", "Joint"} <= set(stacked.audit.table["method"])
    truth = new["metric:web"].to_numpy()
    errors = [np.log(s.predict(Design.from_table(new, {})).law_only[:, 0] / truth).std() for s in (stacked, alone)]
    assert errors[0] < errors[1]


def test_stacked_surfaces_survive_the_disk_and_keep_their_gradients(
    mixtures: tuple[pl.DataFrame, pl.DataFrame], stacked: Surfaces, tmp_path: Path
) -> None:
    stacked.save(tmp_path)
    again, design = Surfaces.load(tmp_path), Design.from_table(mixtures[1], {})
    assert len(again.members) == len(stacked.members) > 1
    assert torch.equal(again.draws(design, 16), stacked.draws(design, 16))
    tokens = design.tokens[:1].clone().requires_grad_()

    def samples(amount: Tensor) -> Tensor:
        return stacked.draws(replace(design.select([0]), tokens=amount), 8).sum()

    step = torch.zeros_like(tokens)
    step[0, 0, 0], step[0, 0, 1] = -1e4, 1e4  # beyond the measured budget the residual process stretches distances
    (slope,) = torch.autograd.grad(samples(tokens), tokens)
    with torch.no_grad():
        difference = (samples(tokens + step) - samples(tokens - step)) / 2e4
    assert float((slope * step).sum() / 1e4) == pytest.approx(float(difference), rel=1e-3)
