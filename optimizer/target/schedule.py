"""The lengths of phases, and which parts of a schedule the measured runs vary: the others are kept, not optimised."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mixlaw.analysis.data.design import SHAPES, WHOLE_COSINE, Design
from mixlaw.numbers import percent
from mixlaw.optimizer.policy import VARIED_END, VARIED_LENGTH
from mixlaw.optimizer.target.target import LEAST, Span, Target
from mixlaw.recipe import Decay, Schedule

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Lengths:
    """Lengths of the phases, as shares of the tokens still to be trained: an affine function of G free ones.

    Attributes:
        base: lengths where all free ones are 0, (P,).
        step: change by each free length, (P, G).
        free: index of the phase that each free length is of.
        ranges: least and greatest value of each, as the target asks for.
        remainder: index of the phases that share what the free ones leave.
        remainder_range: least and greatest sum of their lengths.
    """

    base: Floats
    step: Floats
    free: tuple[int, ...]
    ranges: tuple[Span, ...]
    remainder: tuple[int, ...]
    remainder_range: Span

    def __call__(self, free: Floats) -> Floats:
        """Lengths (..., P) for free ones (..., G)."""
        return np.asarray(self.base + free @ self.step.T)

    @classmethod
    def of(cls, target: Target) -> Lengths:
        """Which lengths of a target are free: those with a range, and the cooldown's."""
        last = len(target.phases) - 1
        if last == 0:
            return cls(np.ones(1), np.zeros((1, 0)), (), (), (0,), (1.0, 1.0))
        given = {i: target.lengths.get(phase, 1.0) for i, phase in enumerate(target.phases[:-1])}
        ranged = {i: value for i, value in given.items() if isinstance(value, tuple)}
        remainder = {i: float(value) for i, value in given.items() if not isinstance(value, tuple)}
        remainder_range = (LEAST, 1.0)
        if not remainder:  # all lengths have ranges: the first is what the others leave
            first, remainder_range = next(iter(ranged.items()))
            remainder = {first: 1.0}
            del ranged[first]
        free = (*ranged, last)
        base, step = np.zeros(last + 1), np.zeros((last + 1, len(free)))
        for i, weight in remainder.items():
            base[i] = weight / sum(remainder.values())
            step[i] = -base[i]
        for g, i in enumerate(free):
            step[i, g] = 1.0
        return cls(base, step, free, (*ranged.values(), target.cooldown), tuple(remainder), remainder_range)


def phase_tokens(target: Target, cooldown: float) -> dict[str, int]:
    """Whole tokens of each phase where the last takes the share `cooldown` and free lengths are in mid-range."""
    lengths = Lengths.of(target)
    free = [*(sum(span) / 2 for span in lengths.ranges[:-1]), *([cooldown] if lengths.ranges else [])]
    return target.split(lengths(np.array(free)).tolist())


@dataclass(frozen=True)
class Kept:
    """A target whose schedule is that of the runs wherever they do not vary it.

    Attributes:
        target: with the cooldown and its end fixed where the runs do not tell what others are worth, and with the runs'
            usual peak rate, schedule and decays where it leaves them open.
        notes: in words, what is kept, and what to know about a length that is proposed.
    """

    target: Target
    notes: tuple[str, ...] = ()


def keep_schedule(target: Target, measured: Design | None) -> Kept:
    """Fix what the runs do not identify of a target's schedule; without runs it stays as it is.

    A length or an end that the target gives as one number is a decision, and stays.
    """
    if measured is None or not bool((measured.progress >= 1).any()):
        return Kept(target)
    runs = measured.select(torch.nonzero(measured.progress >= 1).squeeze(1))
    target = usual_rates(target, runs)
    target, of_length = _kept_length(target, runs)
    target, of_end = _kept_end(target, runs)
    return Kept(target, (*of_length, *of_end))


def usual_rates(target: Target, runs: Design) -> Target:
    """The target with what the runs usually have where its rates are open."""
    rates, tokens = target.rates, runs.tokens.sum(2)
    ends, shapes = dict(rates.ends), dict(rates.shapes)
    names = {code: Decay(name) for name, code in SHAPES.items()}
    for phase in target.phases:
        rows = tokens[:, runs.phases.index(phase)] > 0 if phase in runs.phases else torch.zeros(len(runs)) > 0
        if not bool(rows.any()):
            continue
        here = runs.phases.index(phase)
        falls = [names[code] for code in runs.decay[rows, here].tolist() if code in names]
        if phase not in shapes and falls and (usual := _most(falls)) is not Decay.LINEAR:
            shapes[phase] = usual
        if phase not in ends and phase != target.phases[-1] and (end := _middle(runs.lr_end[rows, here])) < 1:
            ends[phase] = round(end, 3)
    whole = float((runs.decay == WHOLE_COSINE).any(1).to(torch.float64).mean()) > 0.5
    lr = round(_middle(runs.lr), 4) if rates.lr is None else rates.lr
    schedule = rates.schedule or (Schedule.COSINE if whole else None)
    kept = replace(rates, lr=None if lr == 1 else lr, schedule=schedule, ends={} if whole else ends, shapes=shapes)
    return target if kept == rates else target.changed(rates=kept)


def _kept_length(target: Target, runs: Design) -> tuple[Target, tuple[str, ...]]:
    """The last phase as long as in the runs, where they do not vary its length."""
    last, (low, high) = target.phases[-1], target.cooldown
    if len(target.phases) < 2 or low == high or last not in runs.phases or target.rates.schedule is Schedule.COSINE:
        return target, ()
    part = runs.tokens.sum(2)[:, runs.phases.index(last)] / runs.total
    part = part[part > 0]
    if not len(part):
        return target, ()
    if float(part.max() - part.min()) > VARIED_LENGTH:
        return target, (
            f"the length of {last} is chosen for losses before fine-tuning; some reports found models without decay "
            "better after it (arXiv:2603.16127): if this model will be fine-tuned, train a branch without decay too",
        )
    usual = _middle(part)
    length = min(max(usual * target.tokens / target.rest, low), high)
    own = f"all runs give {last} {percent(usual)} of their tokens, so the effect of another length is not known"
    where = f"{percent(length)} of the tokens still to be trained" if target.trained else percent(length)
    return target.changed(cooldown=(length, length)), (f"{own}: its length is kept at {where}, not optimised",)


def _kept_end(target: Target, runs: Design) -> tuple[Target, tuple[str, ...]]:
    """The end of the last phase as in the runs, where they do not vary it."""
    low, high = target.lr_range
    if low == high or float(runs.final_lr.max() - runs.final_lr.min()) > VARIED_END:
        return target, ()
    end = min(max(_middle(runs.final_lr), low), high)
    words = (
        f"all runs end at {_middle(runs.final_lr):.2g} of their peak rate: the end is kept at {end:.2g}, not optimised"
    )
    return target.changed(lr_end=end), (words,)


def _middle(values: Tensor) -> float:
    return float(values.detach().median())


def _most(values: list[Decay]) -> Decay:
    return Counter(values).most_common(1)[0][0]
