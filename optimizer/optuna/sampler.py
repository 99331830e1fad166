"""MixtureSampler: mixtures as parameters of any Optuna study, in any storage, from any number of processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from mixlaw.errors import InputError
from mixlaw.optimizer.optuna.history import Ended, History, measured
from mixlaw.optimizer.optuna.trials import Stage, mixed, stages
from mixlaw.optimizer.optuna.trials import mixtures as mixtures
from mixlaw.optimizer.optuna.trials import suggest_mixture as suggest_mixture

Floats = NDArray[np.float64]


class MixtureSampler(BaseSampler):
    """Samples the mixtures that `suggest_mixture` asks for; all other parameters go to Optuna's TPE.

    The first trials are uniform over the simplex of each phase. Then mixlaw's surfaces are fitted to the finished
    trials, and the phases still to be mixed are chosen together by expected improvement, given what this trial
    has already, and with running trials counted as done. Phases may be conditional: those to come are the ones
    that most finished trials had which began like this one. Pruned trials count as bad as the worst finished one,
    failed trials are ignored.

    A trial depends on the storage, the seed and its own number alone, so workers may share a seed.

    Args:
        n_startup_trials: finished trials before the surfaces take over, 4 or more.
        seed: of everything random; one from the operating system if None.

    Raises:
        InputError: too few start-up trials, a negative seed, or, when it samples, a study of several objectives.
    """

    def __init__(self, *, n_startup_trials: int = 10, seed: int | None = None) -> None:
        if n_startup_trials < 4:
            raise InputError(f"surfaces need finished trials, got n_startup_trials={n_startup_trials}; give 4 or more")
        if seed is not None and seed < 0:
            raise InputError(f"a seed must be a whole number from 0 on, got {seed}")
        self._startup = n_startup_trials
        self._seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        self._ended: Ended = {}
        self._drawn: dict[tuple[str, int, str], dict[str, float]] = {}  # shares of a phase, while they are collected

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Nothing is sampled before the objective asks: what a phase needs depends on what came before it."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing, as above."""
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A share, if a declared phase has it, drawn with all others of its phase; else what TPE says."""
        if len(study.directions) > 1:
            raise InputError(
                f"MixtureSampler proposes for one objective, the study has {len(study.directions)}; return a weighted "
                "sum of them, or use suggest_mixture with optuna.samplers.NSGAIISampler"
            )
        declared = stages(trial)
        for place, stage in enumerate(declared):
            for domain in stage.simplex.domains:
                if stage.name(domain) == param_name:
                    return self._share(study, trial, declared[: place + 1], domain)
        other = TPESampler(seed=int(self._rng(trial, param_name).integers(2**32)))  # without a memory of its own
        return other.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Forget what was drawn for the trial."""
        for key in [key for key in list(self._drawn) if key[:2] == (study.study_name, trial.number)]:
            self._drawn.pop(key, None)

    def _rng(self, trial: FrozenTrial, purpose: str) -> np.random.Generator:
        return np.random.default_rng([self._seed, trial.number, crc32(purpose.encode())])

    def _share(self, study: Study, trial: FrozenTrial, declared: list[Stage], domain: str) -> float:
        stage, key = declared[-1], (study.study_name, trial.number, declared[-1].phase)
        if domain not in self._drawn.get(key, {}):
            shares = self._draw(study, trial, declared)
            inside = np.clip(shares, stage.simplex.low, stage.simplex.high)  # rounding may leave Optuna's range
            self._drawn[key] = dict(zip(stage.simplex.domains, inside.tolist(), strict=True))
        return self._drawn[key][domain]

    def _draw(self, study: Study, trial: FrozenTrial, declared: list[Stage]) -> Floats:
        """The mixture of the last phase that a trial has declared, (K,)."""
        stage, rng = declared[-1], self._rng(trial, declared[-1].phase)
        given = {**trial.system_attrs.get("fixed_params", {}), **trial.params}  # also what was queued by hand
        pins = {name: float(given[stage.name(name)]) for name in stage.simplex.domains if stage.name(name) in given}
        stage = replace(stage, simplex=stage.simplex.pinned(pins))
        seen = History.of(study, trial, self._ended) if measured(study) >= self._startup else None
        if seen is None or not seen.knows(declared):
            return np.asarray(stage.simplex.uniform(1, rng)[0])
        from mixlaw.optimizer.optuna.model import (  # torch takes its time, and the first trials need none
            Data,
            propose,
        )

        data = Data.of(seen.finished, seen.values)
        ahead = [stage, *seen.to_come(declared)]
        seed = int(self._rng(trial, "worlds").integers(2**31))
        return propose(data, seen.running, mixed(trial)[: len(declared) - 1], ahead, seed, rng)[0]
