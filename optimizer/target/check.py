"""Refuse targets that make no sense, naming what is wrong."""

from __future__ import annotations

from collections.abc import Iterator

from mixlaw.errors import InputError
from mixlaw.optimizer.target.target import WHOLE, Target


def check(target: Target) -> None:
    """Check sizes, ranges, shares and names of a target.

    Raises:
        InputError: the first of them that makes no sense.
    """
    _sizes(target)
    _lengths(target)
    _shares(target)
    epochs = {"max_epochs": target.max_epochs, **target.domain_epochs, **target.phase_epochs}
    wrong = {name: value for name, value in epochs.items() if not value > 0}
    if wrong:
        raise InputError(f"epochs must be positive, got {wrong}; cap the share at 0 to leave a domain out")
    low, high = target.lr_range
    if not 0 <= low <= high <= 1:
        raise InputError(
            f"lr_end must be between 0 and 1, least first, got {target.lr_end}; 0 decays to nothing, 1 stays constant"
        )


def _sizes(target: Target) -> None:
    if target.params <= 0 or target.rest < max(1, len(target.phases)):
        raise InputError(
            f"a target needs positive params and more tokens than are trained already, got {target.params} params, "
            f"{target.tokens} tokens and {target.trained} trained; give what is to be trained"
        )
    if target.prefix and target.branches:
        raise InputError("a target has either a prefix or branches, got both; list the prefix as one of the branches")
    _under_way(target)
    for branch in target.branches:
        target.on(branch)
    if target.sizes is None:
        return
    low, high = target.sizes
    if not 0 < low <= high:
        raise InputError(f"sizes must be 0 < least <= greatest, got {low:g} to {high:g}; mend the range")
    if target.prefix or target.branches or target.under_way:
        raise InputError("a run that is under way has its size; leave out sizes, or the prefix")
    if target.ladder and not any(low <= size <= high for size in target.ladder):
        raise InputError(f"no size of the ladder {list(target.ladder)} is within {low:g} to {high:g}; widen the range")


def _under_way(target: Target) -> None:
    part = target.under_way
    if part is None:
        return
    if target.branches:
        raise InputError(
            "a target has either branches or a phase under way, got both; end the phase, or make it the run"
        )
    if part.phase != target.phases[0] or part.mixture is None or not 0 < part.tokens < target.rest:
        raise InputError(
            f"the phase under way has to be {target.phases[0]!r}, the first still to be trained, with a known mixture "
            f"and fewer than {target.rest} tokens; got {part.tokens} tokens of {part.phase!r} "
            f"({part.mixture or 'mixture unknown'}); mend it, or leave it out"
        )


def _lengths(target: Target) -> None:
    names = target.all_phases
    if not target.phases or len(set(names)) < len(names) or WHOLE in names:
        raise InputError(
            f"a target needs phases of different names, none called {WHOLE}, got {list(names)}; name each once"
        )
    ranges = {"cooldown": target.cooldown} if len(target.phases) > 1 else {}
    ranges |= {phase: value for phase, value in target.lengths.items() if isinstance(value, tuple)}
    for name, (low, high) in ranges.items():
        if not 0 < low <= high < 1:
            what = "the cooldown range" if name == "cooldown" else f"the range of {name}"
            raise InputError(
                f"{what} must be 0 < least <= greatest < 1 of all tokens, got {low:g} to {high:g}; mend the range"
            )
    wrong = {phase: v for phase, v in target.lengths.items() if not isinstance(v, tuple) and not v > 0}
    if wrong:
        raise InputError(f"phase lengths must be positive, got {wrong}; leave the phase out")


def _shares(target: Target) -> None:
    """Refuse bounds outside 0..1 and bounds on unknown phases."""
    known = (*target.phases, WHOLE)
    for name, phases in _named_phases(target):
        unknown = [phase for phase in phases if phase not in known]
        if unknown:
            raise InputError(
                f"{name} are set for phase {unknown[0]!r}, still to be trained are {', '.join(target.phases)}; "
                f"rename one of them, or set them for the {WHOLE}"
            )
    for name, bounds in (("floors", target.floors), ("caps", target.caps)):
        wrong = {f"{p}/{d}": v for p, by in bounds.items() for d, v in by.items() if not 0 <= v <= 1}
        if wrong:
            raise InputError(f"{name} must be shares between 0 and 1, got {wrong}; give 0.1 for 10 %")


def _named_phases(target: Target) -> Iterator[tuple[str, list[str]]]:
    yield "floors", list(target.floors)
    yield "caps", list(target.caps)
    yield "epochs", list(target.phase_epochs)
