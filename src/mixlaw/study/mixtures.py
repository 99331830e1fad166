"""Recipes that are written as mixtures: `web=.5,code=.5`, or `cooldown:web=.3,code=.7` for a phase."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mixlaw.errors import InputError, unknown
from mixlaw.folder import Folder
from mixlaw.folder.names import RecipeLike, baselines_of, recipe_of
from mixlaw.recipe import Mixture, Recipe

#: Shares of each domain, or of each phase.
Shares = Mapping[str, "float | Mapping[str, float]"]
#: Distance from 1 of shares that were rounded.
ROUNDED = 0.011


def recipe_meant(study: Folder, name: RecipeLike | Shares | None) -> Recipe:
    """What `recipe_of` understands, or a recipe with these mixtures and the size and schedule of the target.

    Without a target they are those of the last proposal, or else of the largest run.

    Args:
        study: the study, with surfaces.
        name: shares by domain for all phases still to be trained, or phase -> shares; the same as text. Phases that are
            not named keep the mixture of the last proposal for the target, or of the baseline before there is one.

    Raises:
        InputError: an unknown phase or domain, or shares that do not sum to 1.
    """
    if isinstance(name, Mapping):
        return _with(study, _by_phase(name))
    if is_mixture(name, study):
        return _with(study, parsed(str(name), study.phases))
    from mixlaw.optimizer.goal.baselines import BASELINES

    return recipe_of(study, name, [*study.settings.mixtures, *BASELINES], rest=True)


def is_mixture(name: object, study: Folder) -> bool:
    """Whether a name is a text of shares: it has `=`, and is no file, named mixture or run."""
    if not isinstance(name, str) or "=" not in name or Path(name).exists() or name in study.settings.mixtures:
        return False
    return not any(name in (record.run, record.recipe.lineage) for record in study.records())


def is_baseline(name: object, study: Folder) -> bool:
    """Whether a name is that of a baseline or a mixture of study.toml, and of no file or run."""
    from mixlaw.optimizer.goal.baselines import BASELINES

    if not isinstance(name, str) or name not in {*BASELINES, *study.settings.mixtures} or Path(name).is_file():
        return False
    return not any(name in (record.run, record.recipe.lineage) for record in study.records())


def parsed(text: str, phases: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Phase -> domain -> share of a text; the phase "" is all that are not named.

    Example:
        >>> parsed("web=.5,code=.5,cooldown:web=.2,code=.8", ("init", "cooldown"))
        {'': {'web': 0.5, 'code': 0.5}, 'cooldown': {'web': 0.2, 'code': 0.8}}
    """
    found: dict[str, dict[str, float]] = {}
    phase = ""
    for word in text.split(","):
        name, equals, value = word.strip().rpartition("=")
        head, colon, rest = name.partition(":")
        if colon and head in phases:
            phase, name = head, rest
        elif colon:
            raise unknown("phase", head, phases)
        try:
            share = float(value)
        except ValueError:
            equals = ""
            share = 0.0
        if not equals or not name or name in found.get(phase, {}):
            raise InputError(
                f"a mixture is DOMAIN=SHARE,... or PHASE:DOMAIN=SHARE,..., each domain once, got {word.strip()!r}; "
                "write for instance web=.5,code=.5 or cooldown:web=.3,code=.7"
            )
        found.setdefault(phase, {})[name] = share
    return found


def _by_phase(shares: Shares) -> dict[str, dict[str, float]]:
    nested = {name: dict(part) for name, part in shares.items() if isinstance(part, Mapping)}
    flat = {name: float(part) for name, part in shares.items() if not isinstance(part, Mapping)}
    return nested | ({"": flat} if flat else {})


def _with(study: Folder, shares: Mapping[str, Mapping[str, float]]) -> Recipe:
    """The recipe that the target would have, with these mixtures."""
    base, open_phases = base_of(study)
    unknown_phases = [name for name in shares if name and name not in open_phases]
    if unknown_phases:
        raise unknown("phase still to be trained", unknown_phases[0], open_phases)
    for part in shares.values():
        wrong = [name for name in part if name not in study.settings.domains]
        if wrong:
            raise unknown("domain", wrong[0], study.settings.domains)
    whole = shares.get("", {})
    mixtures = {name: _mixture(name, shares.get(name, whole)) for name in open_phases if name in shares or whole}
    phases = (replace(p, mixture=mixtures.get(p.name, p.mixture)) for p in base.phases)
    return replace(base, phases=tuple(phases))


def _mixture(phase: str, shares: Mapping[str, float]) -> Mixture:
    total = sum(shares.values())
    if abs(total - 1) > ROUNDED:
        raise InputError(f"the shares of {phase} sum to {total:.4g}, not to 1: {dict(shares)}; correct them")
    return Mixture({name: share / total for name, share in shares.items()})


def base_of(study: Folder) -> tuple[Recipe, tuple[str, ...]]:
    """A recipe of the target's size and schedule, and its phases that are still to be trained."""
    surfaces, proposals = study.surfaces(), study.proposals()
    target = study.target() if study.settings.target else None
    same = [proposal for proposal in proposals if target in (None, proposal.target)]
    if same:
        return same[-1].recipe, same[-1].target.phases
    if target is None:
        from mixlaw.analysis.data.recipes import largest_run

        largest = largest_run(surfaces.observed.design)
        return largest, tuple(phase.name for phase in largest.phases)
    from mixlaw.optimizer.search.problem import problem_of

    compared, against = baselines_of(study)
    goal = study.goal(surfaces)
    problem = problem_of(surfaces, target, study.domains, goal=goal, baselines=compared, against=against)
    return problem.references.entries[problem.references.against].recipe, target.phases
