from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from numpy.typing import NDArray

from mixlaw.analysis.audit.readiness import Readiness, Verdict, readiness, spread_of_recipes
from mixlaw.analysis.audit.result import Audit, audit_table
from mixlaw.analysis.data.observed import Observed, observe
from mixlaw.errors import InputError

Floats = NDArray[np.float64]
NOISE = 0.01  # of a run, in log loss
TASKS, RECIPES = 200, 24


def measured(signal: dict[float, float], tasks: int = TASKS, floor: float = 0.0, seed: int = 0) -> Observed:
    """Accuracies of recipes at each size, `floor` + noise, moved by recipes with this spread in log loss."""
    rng = np.random.default_rng(seed)
    rows, code = len(signal) * RECIPES, np.tile(rng.uniform(0, 1, RECIPES), len(signal))
    strength = np.repeat(list(signal.values()), RECIPES)
    moved = rng.normal(size=(tasks, rows)) * strength + NOISE * rng.normal(size=(tasks, rows))
    params = np.repeat(list(signal), RECIPES)
    columns = {"run": [f"r{i}" for i in range(rows)], "params": params}
    columns |= {"tokens:train:text": (1 - code) * 1e9, "tokens:train:code": code * 1e9}
    values = {f"metric:t{i}": np.exp(-np.exp(moved[i] + np.log(-np.log(floor or 0.4)))) for i in range(tasks)}
    names = [f"t{i}" for i in range(tasks)]
    slope = -(floor or 0.4) * np.log(floor or 0.4)
    return observe(
        pl.DataFrame(columns | values), dict.fromkeys(names, "accuracy"), {}, dict.fromkeys(names, NOISE * slope)
    )


def judged(observed: Observed, chance: float | None = None, audit: Audit | None = None) -> list[Readiness]:
    known = {} if chance is None else dict.fromkeys(observed.tasks, chance)
    return list(readiness(observed, torch.full(observed.value.T.shape, NOISE), audit, known).values())


def audit_that_explains(observed: Observed, share: float) -> Audit:
    """An audit in which the surfaces explain this share of the variance of held-out mixtures."""
    errors = {"surfaces": (1 - share) ** 0.5, "mean": 1.0}
    rows = [
        {"fold": "mixtures", "task": task, "method": method, "rows": RECIPES, "error": error}
        for task in observed.tasks
        for method, error in errors.items()
    ]
    return Audit(audit_table(rows))


def share_of(found: list[Readiness], verdict: Verdict) -> float:
    return sum(r.verdict is verdict for r in found) / len(found)


def test_tasks_that_only_seeds_move_are_noise() -> None:
    found = judged(measured({6e7: 0.0}))
    assert share_of(found, Verdict.NOISE) >= 0.95
    assert found[0].words == "no signal above seed noise: do not optimise for it"


def test_a_clear_signal_is_ready_and_its_size_is_estimated() -> None:
    found = judged(measured({6e7: 0.03}))
    assert share_of(found, Verdict.READY) >= 0.95
    assert np.median([r.sizes[0].ratio for r in found]) == pytest.approx(3.0, rel=0.1)


def test_a_signal_of_half_the_noise_is_not_called_ready() -> None:
    assert share_of(judged(measured({6e7: 0.5 * NOISE})), Verdict.READY) <= 0.15


def test_signal_that_appears_with_size_is_named_with_the_size() -> None:
    found = judged(measured({5e6: 0.0, 6e7: 0.04, 1e9: 0.04}))
    assert share_of(found, Verdict.FROM_SIZE) >= 0.9
    words = [r.words for r in found if r.verdict is Verdict.FROM_SIZE]
    assert set(words) == {"signal only from 60M parameters up"}


def test_accuracy_of_guessing_is_at_chance_only_where_chance_is_known_and_nothing_moves() -> None:
    still = measured({6e7: 0.0}, floor=0.25)
    assert share_of(judged(still, chance=0.25), Verdict.CHANCE) >= 0.95
    assert share_of(judged(still, chance=0.2), Verdict.NOISE) >= 0.95
    assert share_of(judged(measured({6e7: 0.05}, floor=0.25), chance=0.25), Verdict.READY) >= 0.95


def test_held_out_runs_have_a_say() -> None:
    still, moved = measured({6e7: 0.0}), measured({6e7: 0.03})
    assert share_of(judged(moved, audit=audit_that_explains(moved, 0.05)), Verdict.WEAK) >= 0.95
    assert share_of(judged(moved, audit=audit_that_explains(moved, 0.8)), Verdict.READY) >= 0.95
    assert share_of(judged(still, audit=audit_that_explains(still, 0.6)), Verdict.WEAK) >= 0.9
    assert judged(moved, audit=audit_that_explains(moved, 0.8))[0].explained == pytest.approx(0.8)


def test_few_runs_at_every_size_tell_nothing() -> None:
    observed = measured({6e7: 0.03}, tasks=3)
    found = judged(observed.select(torch.arange(3)))
    assert {r.verdict for r in found} == {Verdict.UNKNOWN}


def test_the_spread_of_recipes_is_that_within_sizes_noise_included() -> None:
    found = spread_of_recipes(measured({6e7: 0.03, 2e8: 0.06}))
    expected = ((0.03**2 + 0.06**2) / 2 + NOISE**2) ** 0.5
    assert np.mean(list(found.values())) == pytest.approx(expected, rel=0.03)
    assert spread_of_recipes(measured({6e7: 0.03}, tasks=3).select(torch.arange(3))) == {}


def test_checkpoints_of_a_run_count_once() -> None:
    observed = measured({6e7: 0.0}, tasks=1)
    rows = torch.arange(RECIPES).repeat(3)
    assert judged(observed.select(rows))[0].sizes[0].runs == RECIPES


def test_a_rescaled_score_below_chance_is_refused_with_the_way_back() -> None:
    table = pl.DataFrame({"run": ["a"], "params": [1e9], "tokens:train:text": [2e10], "metric:anli": [-0.015]})
    with pytest.raises(InputError, match=r"-0.015 in row 0.*if 0 is chance, give chance \+ \(1 - chance\) x score"):
        observe(table, {"anli": "accuracy"}, {})
