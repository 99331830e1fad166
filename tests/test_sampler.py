"""MixtureSampler in one process: geometry, conditional phases, what it learns from, and how well it chooses."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FixedTrial, FrozenTrial, Trial, TrialState
from scipy import stats

from mixlaw.analysis.data.recipes import design_of
from mixlaw.errors import InputError
from mixlaw.optimizer.optuna import history
from mixlaw.optimizer.optuna.history import History, Mixed
from mixlaw.optimizer.optuna.model import Data, as_losses, propose
from mixlaw.optimizer.optuna.sampler import MixtureSampler, mixtures, suggest_mixture
from mixlaw.optimizer.optuna.simplex import Simplex
from mixlaw.optimizer.optuna.trials import Stage, mixed
from mixlaw.recipe import Domain, Kind, Mixture, Phase, Recipe
from mixlaw.testing.worlds import random_world

optuna.logging.set_verbosity(optuna.logging.ERROR)
NAMES = ("web", "code", "math")
GOAL = {"web": 0.55, "code": 0.35, "math": 0.1}
Objective = Callable[[Trial], float]


def far(mixture: Mixture, goal: dict[str, float] = GOAL) -> float:
    """A smooth loss whose best mixture is known."""
    return 2.0 + sum((math.sqrt(mixture.share(name)) - math.sqrt(share)) ** 2 for name, share in goal.items())


def one_phase(trial: Trial) -> float:
    return far(suggest_mixture(trial, "init", NAMES))


def studied(objective: Objective, trials: int, sampler: BaseSampler | None = None, **options: Any) -> optuna.Study:
    study = optuna.create_study(sampler=sampler or MixtureSampler(n_startup_trials=8, seed=0), **options)
    study.optimize(objective, n_trials=trials)
    return study


def shares(study: optuna.Study, phase: str = "init") -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([[mixtures(t)[phase].share(name) for name in NAMES] for t in study.trials if phase in mixtures(t)])


def test_first_trials_are_uniform_over_the_simplex_of_each_phase_and_phases_are_independent() -> None:
    def objective(trial: Trial) -> float:
        return sum(far(suggest_mixture(trial, phase, NAMES)) for phase in ("init", "cooldown"))

    study = studied(objective, 400, MixtureSampler(n_startup_trials=1000, seed=3))
    both = np.hstack([shares(study, "init"), shares(study, "cooldown")])
    assert min(stats.kstest(column, stats.beta(1, 2).cdf).pvalue for column in both.T) > 0.01
    assert np.abs(np.corrcoef(both.T)[:3, 3:]).max() < 0.15  # three standard errors
    parameters = [sum(t.params[f"cooldown/{name}"] for name in NAMES) for t in study.trials]
    assert np.allclose(parameters, 1, atol=1e-12)


def test_floors_and_caps_hold_at_random_and_by_the_model_and_parameters_are_the_shares_read() -> None:
    read: list[Mixture] = []

    def objective(trial: Trial) -> float:
        read.append(suggest_mixture(trial, "init", NAMES, floors={"math": 0.2}, caps={"web": 0.4, "code": 0.5}))
        return far(read[-1])

    study = studied(objective, 12)
    found = shares(study)
    assert (found[:, 0] <= 0.4 + 1e-12).all()
    assert (found[:, 1] <= 0.5 + 1e-12).all()
    assert (found[:, 2] >= 0.2 - 1e-12).all()
    assert np.allclose(found, [[t.params[f"init/{name}"] for name in NAMES] for t in study.trials], atol=1e-12)
    assert [mixtures(t)["init"] for t in study.trials] == read
    assert np.abs(found.sum(1) - 1).max() < 1e-12
    # The nearest allowed mixture has math at its floor and web at its cap.
    assert np.allclose(shares(study)[study.best_trial.number], [0.4, 0.4, 0.2], atol=0.05)


def test_a_phase_exists_only_where_a_categorical_says_so_and_the_model_learns_both_kinds_of_trials() -> None:
    def objective(trial: Trial) -> float:
        cooled = trial.suggest_categorical("cooled", [False, True])
        init = suggest_mixture(trial, "init", NAMES, tokens=80 if cooled else 100)
        if not cooled:
            return far(init) + 0.3
        return far(init) + far(suggest_mixture(trial, "cooldown", NAMES, tokens=20), {"math": 1.0}) - 2.0

    study = studied(objective, 20)
    for trial in study.trials:
        assert set(mixtures(trial)) == ({"init", "cooldown"} if trial.params["cooled"] else {"init"})
    cooled = [t for t in study.trials if t.params["cooled"]]
    modelled = [mixtures(t)["cooldown"].share("math") for t in cooled if t.number >= 8]
    assert len(cooled) < 20
    assert np.median(modelled) > 0.6  # at random one in three, and above 0.6 in one of six
    assert study.best_trial.params["cooled"]


def test_later_phases_are_planned_from_trials_that_began_alike() -> None:
    def objective(trial: Trial) -> float:
        cooled = trial.suggest_categorical("cooled", [False, True])
        phases = ("init", "continue", "cooldown") if cooled else ("init",)
        return sum(far(suggest_mixture(trial, phase, NAMES)) for phase in phases)

    study = studied(objective, 7)
    for cooled, phases in ((True, ["continue", "cooldown"]), (False, [])):
        study.enqueue_trial({"cooled": cooled})
        trial = study.ask()
        trial.suggest_categorical("cooled", [False, True])
        suggest_mixture(trial, "init", NAMES)
        frozen = study.get_trials()[trial.number]
        declared = [stage for stage, _ in mixed(frozen)]
        assert [stage.phase for stage in History.of(study, frozen, {}).to_come(declared)] == phases


def stage(phase: str = "init", names: tuple[str, ...] = NAMES) -> Stage:
    return Stage(phase, Simplex.of(names, {}, {}), 1.0, {})


def measured(count: int, seed: int = 0) -> Data:
    drawn = stage().simplex.uniform(count, np.random.default_rng(seed))
    trials = [[(stage(), Mixture.normalised(dict(zip(NAMES, row, strict=True))))] for row in drawn.tolist()]
    return Data.of(trials, np.array([far(trial[0][1]) for trial in trials]))


def test_a_running_trial_takes_away_the_promise_of_its_surroundings() -> None:
    data = measured(16)
    (first,) = propose(data, [], [], [stage()], 1, np.random.default_rng(0))
    here = Mixture.normalised(dict(zip(NAMES, first.tolist(), strict=True)))
    (alone,) = propose(data, [], [], [stage()], 1, np.random.default_rng(1))
    (beside,) = propose(data, [[(stage(), here)]], [], [stage()], 1, np.random.default_rng(1))
    # Another search of the same worlds comes back to the same place, unless somebody is there.
    assert 0.5 * np.abs(alone - first).sum() < 0.005
    assert 0.5 * np.abs(beside - first).sum() > 0.01


def test_trials_asked_for_at_once_differ() -> None:
    study = studied(one_phase, 8)
    asked = [study.ask() for _ in range(4)]
    points = np.array([[suggest_mixture(t, "init", NAMES).share(n) for n in NAMES] for t in asked])
    apart = 0.5 * np.abs(points[:, None] - points[None]).sum(-1)
    assert apart[np.triu_indices(4, 1)].min() > 0.01


def test_objectives_of_any_scale_and_direction_are_the_same_to_the_model() -> None:
    values = np.random.default_rng(0).normal(size=30)
    assert np.allclose(as_losses(values), as_losses(1e4 * values - 7e5))
    assert np.isclose(np.median(as_losses(values)), 1)
    assert as_losses(np.array([1.0, 2.0, 3.0, np.inf])).max() < 1.5  # diverged: bad, not infinitely bad
    down = studied(one_phase, 9)
    up = studied(lambda trial: -one_phase(trial), 9, direction="maximize")
    assert [t.params for t in down.trials] == [t.params for t in up.trials]


def test_failed_pruned_and_nan_trials_do_not_stop_it() -> None:
    def objective(trial: Trial) -> float:
        value = one_phase(trial)
        if trial.number % 5 == 1:
            raise RuntimeError("out of memory")
        if trial.number % 5 == 2:
            trial.report(9.0, step=1)
            raise optuna.TrialPruned
        return math.nan if trial.number % 5 == 3 else value

    study = optuna.create_study(sampler=MixtureSampler(seed=0, n_startup_trials=6))
    study.optimize(objective, n_trials=20, catch=(RuntimeError,))
    counted = [t.state for t in study.trials]
    assert [counted.count(s) for s in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)] == [8, 4, 8]
    seen = History.of(study, study.trials[0], {})
    complete = [t.value for t in study.trials[1:] if t.state == TrialState.COMPLETE and t.value is not None]
    # Pruned trials count as bad as the worst that finished; failed ones not at all.
    assert sorted(seen.values) == sorted([*complete, *[max(complete)] * 4])
    trial = study.ask()
    suggest_mixture(trial, "init", NAMES)
    with pytest.raises(ValueError, match="nan is not acceptable"):
        study.tell(trial, math.nan, state=TrialState.COMPLETE)


def test_a_trial_that_has_ended_is_read_once_and_one_under_way_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def counting(trial: FrozenTrial) -> Mixed:
        read.append(trial.number)
        return mixed(trial)

    monkeypatch.setattr(history, "mixed", counting)
    sampler = MixtureSampler(n_startup_trials=4, seed=0)
    study = studied(one_phase, 5, sampler, study_name="one")
    waiting = study.ask()
    suggest_mixture(waiting, "init", NAMES)
    read.clear()
    for _ in range(2):
        suggest_mixture(study.ask(), "init", NAMES)
    assert read == [5, 5, 6]  # those under way
    read.clear()  # another study of the same name has the same numbers, and is read anew
    other = studied(one_phase, 4, RandomSampler(seed=1), study_name="one")
    other.sampler = sampler
    suggest_mixture(other.ask(), "init", NAMES)
    assert read == [0, 1, 2, 3]


def test_equal_seeds_give_equal_trials_and_others_do_not() -> None:
    one, two, other = (studied(one_phase, 9, MixtureSampler(n_startup_trials=8, seed=seed)) for seed in (5, 5, 6))
    assert [t.params for t in one.trials] == [t.params for t in two.trials]
    assert not np.isclose(shares(one), shares(other), atol=1e-6).all(1).any()


def test_nothing_is_remembered_outside_of_the_storage(tmp_path: Path) -> None:
    def objective(trial: Trial) -> float:
        rate, decay = trial.suggest_float("rate", 0, 1), trial.suggest_float("decay", 0, 1)
        return one_phase(trial) + (rate - 0.3) ** 2 + 0.1 * decay

    whole = studied(objective, 9, MixtureSampler(n_startup_trials=8, seed=2))
    file = JournalFileBackend(str(tmp_path / "journal.log"))
    for _ in range(9):  # a new storage, study and sampler for each trial, as in a job array
        storage = JournalStorage(file)
        sampler = MixtureSampler(n_startup_trials=8, seed=2)
        part = optuna.create_study(storage=storage, study_name="mix", load_if_exists=True, sampler=sampler)
        part.optimize(objective, n_trials=1)
    assert [t.params for t in part.trials] == [t.params for t in whole.trials]
    others = np.array([[t.params["rate"], t.params["decay"]] for t in whole.trials])
    assert np.abs(others[:, 0] - others[:, 1]).min() > 1e-3, "parameters have random numbers of their own"


def test_queued_shares_are_kept_and_the_rest_is_drawn_around_them() -> None:
    study = optuna.create_study(sampler=MixtureSampler(seed=0))
    study.enqueue_trial({"init/web": 0.7, "init/code": 0.2, "init/math": 0.1})
    study.enqueue_trial({"init/code": 0.6})
    study.enqueue_trial({"init/web": 1.0, "init/code": 1.0, "init/math": 0.0})  # weights
    study.optimize(one_phase, n_trials=3)
    assert np.allclose(shares(study)[0], [0.7, 0.2, 0.1], atol=1e-12)
    assert np.isclose(shares(study)[1, 1], 0.6, atol=1e-12)
    assert np.allclose(shares(study)[2], [0.5, 0.5, 0.0], atol=1e-12)


def test_it_takes_over_a_study_of_another_sampler_and_a_trial_can_be_read_again() -> None:
    study = studied(one_phase, 12, TPESampler(seed=0))
    assert np.abs(shares(study).sum(1) - 1).max() < 1e-12
    study.sampler = MixtureSampler(seed=0)
    study.optimize(one_phase, n_trials=2)
    best = study.best_trial
    assert best.number >= 12
    for trial in (best, FixedTrial(best.params)):
        assert suggest_mixture(trial, "init", NAMES) == mixtures(best)["init"]


def test_a_domain_or_phase_that_nobody_has_measured_is_drawn_at_random() -> None:
    study = studied(one_phase, 10)

    def wider(trial: Trial) -> float:
        return far(suggest_mixture(trial, "init", (*NAMES, "books"))) + far(suggest_mixture(trial, "late", NAMES))

    study.optimize(wider, n_trials=2)
    assert set(mixtures(study.trials[-1])) == {"init", "late"}
    study.optimize(wider, n_trials=1)
    assert study.trials[-1].state == TrialState.COMPLETE


def test_repeats_of_unique_tokens_reach_the_law() -> None:
    small = Domain("web", Kind.TEXT, 1_000)
    trial = optuna.create_study(sampler=MixtureSampler(seed=0)).ask()
    suggest_mixture(trial, "init", (small, "code"), tokens=20_000)
    frozen = trial.study.trials[0]
    data = Data.of([mixed(frozen)], np.ones(1))
    assert data.table(np.array(data.rows))["unique:web"].to_list() == [1000.0]
    assert data.table(np.array(data.rows))["unique:code"].to_list() == [math.inf]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"phase": "a:b"}, "without a colon or slash"),
        ({"phase": ""}, "without a colon or slash"),
        ({"tokens": 0}, "positive number of tokens, got 0"),
        ({"tokens": math.nan}, "positive number of tokens, got nan"),
        ({"domains": (Domain("web", Kind.TEXT, 10), "code")}, r"give tokens="),
        ({"domains": ()}, "different names"),
        ({"floors": {"web": 2.0}}, "floor <= cap <= 1"),
    ],
)
def test_phases_that_make_no_sense_are_refused(options: dict[str, Any], words: str) -> None:
    trial = optuna.create_study(sampler=MixtureSampler(seed=0)).ask()
    with pytest.raises(InputError, match=words):
        suggest_mixture(trial, **{"phase": "init", "domains": NAMES, **options})


def test_one_phase_cannot_be_two_things_in_a_trial_but_may_be_read_twice() -> None:
    trial = optuna.create_study(sampler=MixtureSampler(seed=0)).ask()
    first = suggest_mixture(trial, "init", NAMES)
    assert suggest_mixture(trial, "init", NAMES) == first
    with pytest.raises(InputError, match="give the second phase a name of its own"):
        suggest_mixture(trial, "init", NAMES, caps={"web": 0.5})


def test_a_sampler_that_cannot_work_is_refused() -> None:
    for options, words in (({"n_startup_trials": 1}, "got n_startup_trials=1"), ({"seed": -1}, "got -1")):
        with pytest.raises(InputError, match=words):
            MixtureSampler(**options)


def test_several_objectives_are_refused() -> None:
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=MixtureSampler(seed=0))
    with pytest.raises(InputError, match="one objective, the study has 2; return a weighted sum"):
        study.optimize(lambda trial: (one_phase(trial), 0.0), n_trials=1)


def _weights(trial: Trial | FrozenTrial, phase: str, names: tuple[str, ...]) -> Mixture:
    """Optuna's own recipe for proportions (its FAQ), exact for uniform parameters."""
    return Mixture.normalised({n: -math.log(trial.suggest_float(f"{phase}/{n}", 1e-9, 1 - 1e-9)) for n in names})


def _regret(sampler: BaseSampler, seed: int, trials: int) -> float:
    """True value of the chosen trial above the best that is possible, in a world of one phase and four domains."""
    domains = [Domain(name, Kind.TEXT, 10**12) for name in ("web", "books", "code", "math")]
    world = random_world(domains, ("cooldown",), tasks=1, seed=seed)
    names, rng = world.domains, np.random.default_rng(seed)

    def true(mixture: Mixture) -> float:
        recipe = Recipe(100_000, (Phase("cooldown", 2_000_000, mixture, 0.0),))
        return float(world.mean(design_of([recipe], world.phases, names, {}))[0, 0])

    def mixture(trial: Trial | FrozenTrial) -> Mixture:
        if isinstance(sampler, MixtureSampler):
            return suggest_mixture(trial, "cooldown", names)
        return _weights(trial, "cooldown", names)

    study = studied(
        lambda trial: true(mixture(trial)) * math.exp(float(world.noise[0]) * rng.normal()), trials, sampler
    )
    # With one phase the optimum has a closed form: d_j ~ worth_j ** (1 / (1 - g)).
    best = world.worth[0] ** (1 / (1 - world.elasticity[0]))
    optimum = true(Mixture.normalised(dict(zip(names, best.tolist(), strict=True))))
    return true(mixture(study.best_trial)) - optimum


def test_it_finds_better_mixtures_than_tpe_and_far_better_ones_than_random_search() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = {
            make.__name__: [_regret(make(seed=seed), seed, 20) for seed in range(5)]
            for make in (MixtureSampler, TPESampler, RandomSampler)
        }
    medians = {name: float(np.median(values)) for name, values in found.items()}
    assert min(found["MixtureSampler"]) >= -1e-6, "the optimum is one"
    assert medians["MixtureSampler"] < medians["TPESampler"], found
    assert medians["MixtureSampler"] < 0.5 * medians["RandomSampler"], found


def test_the_example_of_the_manual_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manual = (Path(__file__).parents[1] / "docs" / "optuna.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", manual, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(example, "optuna.md", "exec"), names)
    assert (tmp_path / "mixtures.db").exists()
    assert len(names["study"].trials) == 12
    assert names["best"]["cooldown"].share("web") <= 0.5 + 1e-12
