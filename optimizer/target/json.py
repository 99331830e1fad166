"""Targets as plain data and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from mixlaw.optimizer.target.target import Guard, Target, Trained
from mixlaw.recipe import Mixture


def as_json(target: Target) -> dict[str, Any]:
    """Plain data, the inverse of `from_json`."""
    data: dict[str, Any] = {f.name: _plain(getattr(target, f.name)) for f in fields(target)}
    data["prefix"] = prefix_as_json(target.prefix)
    data["branches"] = [prefix_as_json(branch) for branch in target.branches]
    del data["under_way"]
    if target.under_way is not None:  # else absent, so that the hashes of frozen proposals stay what they are
        data["under_way"] = _trained(target.under_way)
    if target.guard is not None:
        data["guard"] = {**asdict(target.guard), "most": _plain(target.guard.most)}
    return data


def from_json(data: Mapping[str, Any]) -> Target:
    """Read what `as_json` wrote."""
    guard = data.get("guard")
    changed: dict[str, Any] = {
        "phases": tuple(data["phases"]),
        "cooldown": tuple(data["cooldown"]),
        "lengths": {phase: _span(value) for phase, value in data["lengths"].items()},
        "lr_end": _span(data["lr_end"]),
        "prefix": prefix_from_json(data.get("prefix", ())),
        "under_way": next(iter(prefix_from_json([data["under_way"]] if "under_way" in data else [])), None),
        "branches": tuple(prefix_from_json(branch) for branch in data.get("branches", ())),
        "sizes": _span(data.get("sizes")),
        "ladder": tuple(data.get("ladder", ())),
        "guard": None if guard is None else Guard(**guard),
    }
    return Target(**{**data, **changed})


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, tuple) else value


def _span(value: Any) -> Any:
    return (float(value[0]), float(value[1])) if isinstance(value, Sequence) else value


def _trained(part: Trained) -> dict[str, Any]:
    mixture = None if part.mixture is None else dict(part.mixture.shares)
    return {"phase": part.phase, "tokens": part.tokens, "mixture": mixture, "lr_end": part.lr_end}


def prefix_as_json(parts: Sequence[Trained]) -> list[dict[str, Any]]:
    """Phases that are over as plain data."""
    return [_trained(part) for part in parts]


def prefix_from_json(parts: Sequence[Mapping[str, Any]]) -> tuple[Trained, ...]:
    """Read what `prefix_as_json` wrote."""
    return tuple(
        Trained(p["phase"], p["tokens"], None if p["mixture"] is None else Mixture(p["mixture"]), p["lr_end"])
        for p in parts
    )
