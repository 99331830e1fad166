"""The runs that could be trained next: likely optima at every size, branches of trunks, repeats, and spread points."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from mixlaw.optimizer.next_runs.costs import Proxies
from mixlaw.optimizer.target.feasible import Feasible
from mixlaw.recipe import Phase, Recipe

#: Cooldowns of other recipes that each trunk is tried with.
BRANCHES = 2
#: Recipes whose trunk is also cooled down straight after its first phase.
EARLY = 6
#: Measured or queued trunks that are tried with new cooldowns.
TRUNKS = 24
#: Measured runs near the recommendation that are tried with another seed.
REPEATS = 4


@dataclass(frozen=True)
class Candidate:
    """A run that could be trained, and what speaks for it."""

    recipe: Recipe
    why: str


def pool_of(allowed: Feasible, proxies: Proxies, wanted: Sequence[Candidate]) -> list[Candidate]:
    """Candidates made from recipes for the target, best first; none is measured or queued already.

    Args:
        allowed: the recipes of the target.
        proxies: sizes, and what is trained.
        wanted: recipes for the target, with what speaks for them.
    """
    made: list[Candidate] = []
    for params, tokens in sorted(proxies.sizes.items()):
        made += at_size(allowed, proxies, wanted, params, tokens)
    made += _on_known_trunks(proxies, wanted)
    made += _repeats(proxies, wanted[0].recipe)
    known = set(proxies.known)
    return list({c.recipe: c for c in reversed(made) if c.recipe not in known}.values())[::-1]


def at_size(
    allowed: Feasible, proxies: Proxies, wanted: Sequence[Candidate], params: int, tokens: int
) -> list[Candidate]:
    """Recipes for the target scaled to one size, the same trunks with other cooldowns, and early cooldowns."""
    found = [replace(c, recipe=proxies.adopt(scaled(allowed, c.recipe, params, tokens))) for c in wanted]
    for i, candidate in enumerate(wanted):
        for recipe in _branches(allowed, candidate.recipe, [c.recipe for c in (*wanted[i + 1 :], *wanted[:i])]):
            branch = proxies.adopt(scaled(allowed, recipe, params, tokens))
            found.append(Candidate(branch, f"{candidate.why}, with another {recipe.phases[-1].name}"))
    for candidate in found[:EARLY]:
        if len(phases := candidate.recipe.phases) > 2:
            early = replace(candidate.recipe, phases=(phases[0], phases[-1]))
            found.append(Candidate(early, f"{phases[-1].name} straight after {phases[0].name}"))
    return found


def scaled(allowed: Feasible, recipe: Recipe, params: int, tokens: int) -> Recipe:
    """A recipe for the target at another size, its phases in proportion.

    Cooldowns are short, middling or long, on trunks of one length, so that many recipes can share a trunk. What the
    target has been trained on already keeps its share of the tokens.
    """
    known = len(recipe.phases) - len(allowed.target.phases)
    begun, trunk, last = recipe.phases[:known], recipe.phases[known:-1], recipe.phases[-1]
    past = tuple(_resized(phase, tokens * phase.tokens / recipe.tokens) for phase in begun)
    rest = tokens - sum(phase.tokens for phase in past)
    if not trunk:
        return Recipe(params, (*past, _resized(last, rest)))
    whole = sum(phase.tokens for phase in (*trunk, last))
    low, high = allowed.cooldown
    grid = (low, (low + high) / 2, high)
    length = min(grid, key=lambda share: abs(share - last.tokens / whole))
    scale = (1 - grid[1]) * rest / sum(phase.tokens for phase in trunk)
    short = tuple(_resized(phase, phase.tokens * scale) for phase in trunk)
    end = sum(phase.tokens for phase in short) * length / (1 - length)
    return Recipe(params, (*past, *short, _resized(last, end)))


def _resized(phase: Phase, tokens: float) -> Phase:
    return replace(phase, tokens=max(1, round(tokens)))


def _branches(allowed: Feasible, recipe: Recipe, others: Sequence[Recipe]) -> Iterator[Recipe]:
    """The trunk of a recipe with the cooldown mixtures of the first others that the target allows on it."""
    last, left = recipe.phases[-1], BRANCHES if len(recipe.phases) > 1 else 0
    for other in others:
        if not left:
            return
        branch = recipe.with_mixture(last.name, other.phases[-1].mixture)
        if other.phases[-1].mixture != last.mixture and not allowed.violations(branch):
            left -= 1
            yield branch


def _on_known_trunks(proxies: Proxies, wanted: Sequence[Candidate]) -> Iterator[Candidate]:
    """New cooldowns on trunks that are trained, or will be."""
    last = wanted[0].recipe.phases[-1]
    mixtures = list(dict.fromkeys(c.recipe.phases[-1].mixture for c in wanted))[: BRANCHES + 2]
    trunks: dict[tuple[int, int, tuple[Phase, ...]], Recipe] = {}
    for recipe in proxies.known:
        branch = recipe.with_mixture(recipe.phases[-1].name, wanted[0].recipe.phases[-1].mixture)
        if len(recipe.phases) > 1 and recipe.phases[-1].name == last.name and proxies.start(branch)[1]:
            trunks.setdefault((recipe.params, recipe.seed, recipe.phases[:-1]), recipe)
    for recipe in list(trunks.values())[:TRUNKS]:
        for mixture in mixtures:
            branch = recipe.with_mixture(last.name, mixture)
            yield Candidate(branch, f"another {last.name} on the trunk of run {recipe.lineage}")


def _repeats(proxies: Proxies, recommended: Recipe) -> Iterator[Candidate]:
    """Measured recipes nearest to the recommendation, under another seed."""
    near = sorted(proxies.measured, key=lambda recipe: apart(recipe, recommended))
    for recipe in near[:REPEATS]:
        yield Candidate(proxies.fresh(recipe), f"run {recipe.lineage} with another seed: tells noise from effect")


def apart(one: Recipe, other: Recipe) -> float:
    """Share of tokens, by phase and domain, that two recipes do not have in common."""
    a, b = (
        {(p.name, d): p.tokens * s / r.tokens for p in r.phases for d, s in p.mixture.items()} for r in (one, other)
    )
    return 0.5 * sum(abs(a.get(key, 0.0) - b.get(key, 0.0)) for key in {*a, *b})
