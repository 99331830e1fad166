"""Workers of `test_sampler_storage`: each asks, trains a closed form and tells; any number of them share a study."""

from __future__ import annotations

import json
import math
import multiprocessing
import sys
from functools import partial
from importlib import import_module
from typing import Any

import optuna

from mixlaw.optimizer.optuna.sampler import MixtureSampler, suggest_mixture
from mixlaw.recipe import Mixture

NAMES = ("web", "code", "math")
STARTUP, SEED = 8, 11


def loss(init: Mixture, cooldown: Mixture) -> float:
    """Two phases with optima of their own."""
    goals = ((init, (0.6, 0.3, 0.1)), (cooldown, (0.2, 0.4, 0.4)))
    return 2 + sum(
        (math.sqrt(mixture.share(name)) - math.sqrt(share)) ** 2
        for mixture, goal in goals
        for name, share in zip(NAMES, goal, strict=True)
    )


def mix(trial: Any) -> tuple[Mixture, Mixture]:
    """Both phases of a trial."""
    return suggest_mixture(trial, "init", NAMES, tokens=90), suggest_mixture(trial, "cooldown", NAMES, tokens=10)


def load(url: str | optuna.storages.BaseStorage) -> optuna.Study:
    """The study, with a sampler of the seed that all workers share."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = MixtureSampler(n_startup_trials=STARTUP, seed=SEED)
    return optuna.load_study(study_name="mixtures", storage=url, sampler=sampler)


def work(url: str, count: int) -> dict[int, float]:
    """Ask and tell `count` trials; returns what this worker told, by trial number."""
    study, told = load(url), {}
    for _ in range(count):
        trial = study.ask()
        told[trial.number] = loss(*mix(trial))
        study.tell(trial, told[trial.number])
    return told


def main(url: str, workers: int, count: int) -> None:
    """Fork workers that start together, once everything is imported; print what each of them told."""
    import_module("mixlaw.optimizer.optuna.model")
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        print(json.dumps(pool.map(partial(work, url), [count] * workers, chunksize=1)))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
