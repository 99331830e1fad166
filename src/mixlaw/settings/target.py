"""The target of a study, and what counts as better, as its study.toml says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mixlaw.errors import InputError
from mixlaw.optimizer.target.rates import Rates
from mixlaw.optimizer.target.target import Limits, Target, Trained
from mixlaw.recipe import Decay, Mixture
from mixlaw.runner.models.ladder import parse_size
from mixlaw.settings import PhaseSettings, Settings, TargetSettings, TrainedSettings

if TYPE_CHECKING:
    from mixlaw.optimizer.goal.goal import Goal


def target_of(settings: Settings) -> Target:
    """What a study is for.

    Raises:
        InputError: there is no [target], or it makes no sense.
    """
    wanted = settings.target
    if wanted is None:
        raise InputError(
            "there is no target; write [target] with params and tokens into study.toml, or give --params and --tokens"
        )
    goes_on = wanted.prefix[-1:] if wanted.prefix and wanted.prefix[-1].goes_on else ()
    prefix = _trained(wanted.prefix[: len(wanted.prefix) - len(goes_on)], settings)
    branches = tuple(_trained(branch, settings) for branch in wanted.branches)
    over = {part.phase for branch in (prefix, *branches) for part in branch}
    phases = [phase for phase in settings.phases if phase.name not in over]
    if not phases:
        raise InputError("all phases of the study are in the target's prefix; leave the one to be trained out of it")
    same = {name: getattr(wanted, name) for name in Limits.model_fields if name != "lengths"}
    params, tokens = wanted.nominal
    return Target(
        params=params,
        tokens=tokens,
        phases=tuple(phase.name for phase in phases),
        lengths={phase.name: wanted.lengths.get(phase.name, phase.share) for phase in phases[:-1]},
        lr_end=phases[-1].lr_end if wanted.lr_end is None else wanted.lr_end,
        rates=_rates(wanted, phases),
        prefix=prefix,
        under_way=next(iter(_trained(goes_on, settings)), None),
        branches=branches,
        sizes=wanted.size_range,
        ladder=tuple(parse_size(size) for size in wanted.ladder),
        **same,
    )


def _rates(wanted: TargetSettings, phases: Sequence[PhaseSettings]) -> Rates:
    """Rates as [target] and [[phases]] have them."""
    ends = {phase.name: phase.lr_end for phase in phases[:-1] if phase.lr_end != 1}
    shapes = {phase.name: phase.decay for phase in phases if phase.decay is not Decay.LINEAR}
    return Rates(wanted.lr, wanted.warmup, wanted.schedule, ends, shapes)


def goal_of(settings: Settings, without_signal: Sequence[str] = (), spread: Mapping[str, float] | None = None) -> Goal:
    """What counts as better: weights of [target], else groups alike, without tasks that have no signal.

    Args:
        settings: of the study.
        without_signal: tasks that do not count, unless they are named.
        spread: how far recipes move each task, by which `standardise` divides its weight; None before there is a fit.

    Raises:
        InputError: a task that counts has no spread.
    """
    from mixlaw.optimizer.goal.goal import Goal, Measure, weights_by_task

    wanted, groups, noise = settings.target, settings.groups, tuple(without_signal)
    if wanted is None:
        return Goal(groups=groups, without_signal=noise)
    measure = Measure[wanted.measure.upper()]
    goal = Goal(wanted.weights or None, measure, wanted.worst, groups=groups, without_signal=noise)
    if not wanted.standardise or spread is None:
        return goal
    weights = {task: weight for task, weight in weights_by_task(goal, list(spread)).items() if weight > 0}
    if missing := [task for task in weights if not spread[task] > 0]:
        raise InputError(
            f"standardise needs four runs of one size that measure {', '.join(missing)}; train them, or leave it out"
        )
    return replace(goal, weights={task: weight / spread[task] for task, weight in weights.items()})


def _trained(parts: Sequence[TrainedSettings], settings: Settings) -> tuple[Trained, ...]:
    def mixture(part: TrainedSettings) -> Mixture | None:
        shares = settings.mixtures[part.mixture] if isinstance(part.mixture, str) else part.mixture
        return None if shares is None else Mixture(shares)

    return tuple(Trained(part.phase, part.tokens, mixture(part), part.lr_end) for part in parts)
