"""The trials of an Optuna study as a sampler sees them: what was measured, what is running, which phases come next."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import CategoricalDistribution
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from mixlaw.optimizer.optuna.trials import DECLARED, Stage, mixed, stages
from mixlaw.recipe import Mixture

Floats = NDArray[np.float64]
Mixed = list[tuple[Stage, Mixture]]
Ended = dict[tuple[str, int, datetime], Mixed]  # mixtures of trials by study, number and end


@dataclass(frozen=True, eq=False)
class History:
    """What a study holds besides the trial being sampled.

    Attributes:
        finished: mixtures of R complete or pruned trials.
        values: their objective, to be minimised, (R,).
        running: mixtures of trials under way, as far as they are mixed.
        alike: finished trials that began like this one: with its phases and its categorical parameters.
    """

    finished: tuple[Mixed, ...]
    values: Floats
    running: tuple[Mixed, ...]
    alike: tuple[Mixed, ...]

    @classmethod
    def of(cls, study: Study, trial: FrozenTrial, ended: Ended) -> History:
        """Read a study for one of its trials; `ended` has what was read of trials that have ended, and grows."""
        states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
        others = [t for t in study.get_trials(deepcopy=False, states=states) if t.number != trial.number]
        by_state = {
            state: [(t, m) for t in others if t.state == state and (m := _read(study, t, ended))] for state in states
        }
        complete, pruned, running = by_state.values()
        sign = -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0
        values = sign * np.array([t.value for t, _ in complete], dtype=np.float64)
        # A pruned trial would have ended among the worst; its last report is of another point of training.
        worst = values[np.isfinite(values)].max(initial=-np.inf)
        return cls(
            finished=tuple(m for _, m in [*complete, *pruned]),
            values=np.append(values, np.full(len(pruned), worst)),
            running=tuple(m for _, m in running),
            alike=tuple(m for t, m in complete if _begins(t, m, trial)),
        )

    def knows(self, declared: list[Stage]) -> bool:
        """Whether finished trials have had all these phases with all their domains."""
        seen = {(stage.phase, name) for trial in self.finished for stage, _ in trial for name in stage.simplex.domains}
        return all((stage.phase, name) in seen for stage in declared for name in stage.simplex.domains)

    def to_come(self, declared: list[Stage]) -> list[Stage]:
        """The phases that most trials alike had after these, as the last of those trials declared them."""
        first = len(declared)
        after = {tuple(s.phase for s, _ in trial[first:]): [s for s, _ in trial[first:]] for trial in self.alike}
        count = Counter(tuple(stage.phase for stage, _ in trial[first:]) for trial in self.alike)
        return after[count.most_common(1)[0][0]] if count else []


def measured(study: Study) -> int:
    """Complete trials that have mixtures and a finite objective."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    mixes = [t for t in complete if any(name.startswith(DECLARED) for name in t.user_attrs)]
    return sum(math.isfinite(t.value) for t in mixes if t.value is not None)


def _read(study: Study, trial: FrozenTrial, ended: Ended) -> Mixed:
    """The mixtures of a trial; one that has ended is read once, as it does not change."""
    if trial.datetime_complete is None:
        return mixed(trial)
    key = study.study_name, trial.number, trial.datetime_complete
    return ended[key] if key in ended else ended.setdefault(key, mixed(trial))


def _begins(other: FrozenTrial, phases: Mixed, trial: FrozenTrial) -> bool:
    """Whether a trial's phases and categorical parameters so far are those of another."""
    names = [stage.phase for stage in stages(trial)]
    chosen = [name for name, of in trial.distributions.items() if isinstance(of, CategoricalDistribution)]
    same = [stage.phase for stage, _ in phases][: len(names)] == names
    return same and all(other.params.get(name) == trial.params[name] for name in chosen)
