"""The runs that could be trained next: likely optima at every size, branches of trunks, swapped pairs and repeats."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from mixlaw.optimizer.next_runs.costs import Proxies
from mixlaw.optimizer.target.feasible import Feasible
from mixlaw.optimizer.target.history import likely_history
from mixlaw.recipe import Mixture, Phase, Recipe

#: About this many recipes are made.
MANY = 1000
#: Share of the tokens by which whole batches may move the end of a phase.
ROUNDING = 0.01
#: Shares of the tokens that are one length of a cooldown.
SAME_LENGTH = 1e-3


def branched(allowed: Feasible, stems: Sequence[Recipe], others: Sequence[Recipe], seed: int = 0) -> list[Recipe]:
    """Recipes of one size and branches of them that the target allows.

    From the second phase of the target on, every recipe so far is also made with what some of the others, drawn at
    random, have in this phase. With three phases every first phase has several second ones, and each of these several
    last ones.

    Args:
        allowed: the recipes of the target; limits count at the size of the target.
        stems: recipes with all phases of the target.
        others: recipes whose mixtures and last phases are used; as long before the last phase as the stems.
        seed: of the choice.
    """
    later = range(-len(allowed.target.phases) + 1, 0)
    each = round((MANY / max(len(stems), 1)) ** (1 / max(len(later), 1))) - 1
    generator = torch.Generator().manual_seed(seed)
    recipes = list(stems)
    for index in later:
        for recipe in tuple(recipes):
            picks = torch.randperm(len(others), generator=generator)[: max(each, 1)].tolist()
            recipes += [_with(recipe, index, others[i]) for i in picks]
    return kept_by(allowed, list(dict.fromkeys(recipes)))


def kept_by(allowed: Feasible, recipes: Sequence[Recipe]) -> list[Recipe]:
    """Those of some proxies, with all phases of the target, whose like the limits allow at the size of the target.

    Lengths that whole tokens or batches moved a little out of their ranges are taken as if they were at their ends.
    """
    if not recipes:
        return []
    points = allowed.read(recipes)
    low, high = torch.tensor(allowed.ranges, dtype=torch.float64).reshape(-1, 2).unbind(1)
    free = points.lengths[:, list(allowed.affine.free)]
    inside = free.clamp(low, high)
    keeps = allowed.keeps(allowed.complete(points.shares, allowed.lengths(inside)))
    keeps &= ((free - inside).abs() <= ROUNDING).all(1)
    return [recipe for recipe, fine in zip(recipes, keeps.tolist(), strict=True) if fine]


def _with(recipe: Recipe, index: int, other: Recipe) -> Recipe:
    """The recipe with the mixture of another in one phase; the last phase is also as long as there."""
    phases, its = list(recipe.phases), other.phases[index]
    phases[index] = its if index == -1 else replace(phases[index], mixture=its.mixture)
    return replace(recipe, phases=tuple(phases))


#: Shares that are moved between two phases, the largest that the limits allow; below the last no pair is made.
STEPS = (0.8, 0.6, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1)
_LEAST = 1e-4  # weight of a domain that one of the phases lacks


def swapped_pairs(allowed: Feasible, middle: Recipe) -> list[tuple[Recipe, Recipe]]:
    """Pairs around a recipe, for every two neighbouring phases of the target in turn, the last two first.

    With phases of lengths l and k and mixtures a and b, one recipe takes a + k d then b - l d, the other a - k d then
    b + l d: the totals are the same, whatever the lengths. The direction d is code against the rest, or, where the
    limits leave no room for that, a domain against the others.
    """
    first = len(middle.phases) - len(allowed.target.phases)
    groups = _groups(allowed)
    swapped = []
    for late in range(len(middle.phases) - 1, first, -1):
        pairs = (_pair(allowed, middle, middle.phases[late - 1], middle.phases[late], group) for group in groups)
        swapped += [pair for pair in pairs if pair is not None][:1]
    return swapped


def _groups(allowed: Feasible) -> list[set[str]]:
    """Domains that are moved against the others: code first, then every one by itself."""
    names = [d.name for d in allowed.domains]
    code = {d.name for d in allowed.domains if d.kind.is_code}
    singles = [{name} for name in names] if len(names) > 1 else []
    return [code, *singles] if 0 < len(code) < len(names) else singles


def _pair(
    allowed: Feasible, middle: Recipe, early: Phase, late: Phase, group: set[str]
) -> tuple[Recipe, Recipe] | None:
    """The recipes that move a group of domains as far between two phases as the limits let both of them."""
    weight = {
        d.name: max(min(early.mixture.share(d.name), late.mixture.share(d.name)), _LEAST) for d in allowed.domains
    }
    inside = sum(w for name, w in weight.items() if name in group)
    outside = sum(weight.values()) - inside
    direction = {name: w / inside if name in group else -w / outside for name, w in weight.items()}
    whole = early.tokens + late.tokens

    def at(step: float) -> Recipe | None:
        """The recipe after a step along the direction, None where it leaves the simplex or the limits."""
        one = {n: early.mixture.share(n) + step * d * late.tokens / whole for n, d in direction.items()}
        two = {n: late.mixture.share(n) - step * d * early.tokens / whole for n, d in direction.items()}
        if min(*one.values(), *two.values()) < 0:
            return None
        moved = middle.with_mixture(early.name, Mixture.normalised(one)).with_mixture(
            late.name, Mixture.normalised(two)
        )
        return moved if kept_by(allowed, [moved]) else None

    for step in STEPS:
        one, two = at(step), at(-step)
        if one is not None and two is not None:
            return one, two
    return None


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
        ends = with_lengths(allowed, wanted[0].recipe, params, tokens)
        made += [Candidate(proxies.adopt(end), f"{wanted[0].why}, with another length of cooldown") for end in ends]
    made += _on_known_trunks(proxies, wanted)
    made += _repeats(proxies, wanted[0].recipe)
    known = set(proxies.known)
    return list({c.recipe: c for c in reversed(made) if c.recipe not in known}.values())[::-1]


def at_size(
    allowed: Feasible, proxies: Proxies, wanted: Sequence[Candidate], params: int, tokens: int
) -> list[Candidate]:
    """Recipes for the target scaled to one size, the same trunks with other cooldowns, and early cooldowns."""
    made = [replace(c, recipe=proxies.adopt(scaled(allowed, c.recipe, params, tokens))) for c in wanted]
    for i, candidate in enumerate(wanted):
        for recipe in _branches(allowed, candidate.recipe, [c.recipe for c in (*wanted[i + 1 :], *wanted[:i])]):
            branch = proxies.adopt(scaled(allowed, recipe, params, tokens))
            made.append(Candidate(branch, f"{candidate.why}, with another {recipe.phases[-1].name}"))
    for candidate in made[:EARLY]:
        if len(phases := candidate.recipe.phases) > 2:
            early = replace(candidate.recipe, phases=(phases[0], phases[-1]))
            made.append(Candidate(early, f"{phases[-1].name} straight after {phases[0].name}"))
    return made


def scaled(allowed: Feasible, recipe: Recipe, params: int, tokens: int) -> Recipe:
    """A recipe for the target at another size, its phases in proportion.

    Cooldowns are short, middling or long, on trunks of one length, so that many recipes can share a trunk. What the
    target has been trained on already keeps its share of the tokens, with a likely mixture where its own is not known.
    """
    if not allowed.target.known:  # a run needs one all the same
        recipe = replace(recipe, phases=(*likely_history(allowed), *recipe.phases[-len(allowed.target.phases) :]))
    known = len(recipe.phases) - len(allowed.target.phases)
    prefix, trunk, last = recipe.phases[:known], recipe.phases[known:-1], recipe.phases[-1]
    history = tuple(_resized(phase, tokens * phase.tokens / recipe.tokens) for phase in prefix)
    rest = tokens - sum(phase.tokens for phase in history)
    if not trunk:
        return replace(recipe, params=params, phases=(*history, _resized(last, rest)))
    whole = sum(phase.tokens for phase in (*trunk, last))
    low, high = allowed.cooldown
    grid = (low, (low + high) / 2, high)
    length = min(grid, key=lambda share: abs(share - last.tokens / whole))
    scale = (1 - grid[1]) * rest / sum(phase.tokens for phase in trunk)
    short = tuple(_resized(phase, phase.tokens * scale) for phase in trunk)
    end = sum(phase.tokens for phase in short) * length / (1 - length)
    return replace(recipe, params=params, phases=(*history, *short, _resized(last, end)))


def with_lengths(allowed: Feasible, recipe: Recipe, params: int, tokens: int) -> list[Recipe]:
    """A recipe for the target, scaled to a size, with the shortest and the longest cooldown that the target allows."""
    low, high = allowed.cooldown
    if len(allowed.target.phases) < 2 or high - low < SAME_LENGTH:
        return []
    known = len(recipe.phases) - len(allowed.target.phases)
    prefix, trunk, last = recipe.phases[:known], recipe.phases[known:-1], recipe.phases[-1]
    rest = sum(phase.tokens for phase in trunk)
    ends = [_resized(last, rest * share / (1 - share)) for share in (low, high)]
    return [scaled(allowed, replace(recipe, phases=(*prefix, *trunk, end)), params, tokens) for end in ends]


def untried(asked: Feasible, kept: Feasible, recipe: Recipe, proxies: Proxies) -> list[Candidate]:
    """A recipe at the smallest size with both ends of what a target leaves free and no run varies.

    That is the cooldown's length and the rate at its end. They are kept as the runs have them, and no gain can be
    expected from others before they are tried.

    Args:
        asked: the recipes of the target.
        kept: the same where what no run varies is kept.
        recipe: the recommendation.
        proxies: sizes, and what is trained.
    """
    (params, tokens), last = min(proxies.sizes.items()), recipe.phases[-1]
    tried: dict[str, list[Recipe]] = {}
    if kept.cooldown[0] == kept.cooldown[1]:
        tried["length of the cooldown"] = with_lengths(asked, recipe, params, tokens)
    (low, high), (least, most) = asked.target.lr_range, kept.target.lr_range
    if low < high and least == most:
        ends = (replace(recipe, phases=(*recipe.phases[:-1], replace(last, lr_end=end))) for end in (low, high))
        tried["learning rate at the end"] = [scaled(asked, end, params, tokens) for end in ends]
    return [
        Candidate(one, f"no run varies the {what}: tells what it is worth")
        for what, recipes in tried.items()
        for one in map(proxies.adopt, recipes)
        if one not in {*proxies.known}
    ]


def _resized(phase: Phase, tokens: float) -> Phase:
    return replace(phase, tokens=max(1, round(tokens)))


def _branches(allowed: Feasible, recipe: Recipe, others: Sequence[Recipe]) -> Iterator[Recipe]:
    """The trunk of a recipe with the cooldown mixtures of the first others that the target allows on it."""
    last, room = recipe.phases[-1], BRANCHES if len(recipe.phases) > 1 else 0
    for other in others:
        if not room:
            return
        branch = recipe.with_mixture(last.name, other.phases[-1].mixture)
        if other.phases[-1].mixture != last.mixture and not allowed.violations(branch):
            room -= 1
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
        for params, tokens in proxies.sizes.items():
            if params > recipe.params and recipe.tokens:
                again = proxies.adopt(resized(recipe, params, tokens))
                yield Candidate(again, f"run {recipe.lineage} at a larger size: what grows with size")


def resized(recipe: Recipe, params: int, tokens: int) -> Recipe:
    """The same recipe at another size, all phases in proportion."""
    phases = tuple(_resized(phase, phase.tokens * tokens / recipe.tokens) for phase in recipe.phases)
    return replace(recipe, params=params, phases=phases)


def apart(one: Recipe, other: Recipe) -> float:
    """Share of tokens, by phase and domain, that two recipes do not have in common."""
    a, b = (
        {(p.name, d): p.tokens * s / r.tokens for p in r.phases for d, s in p.mixture.items()} for r in (one, other)
    )
    return 0.5 * sum(abs(a.get(key, 0.0) - b.get(key, 0.0)) for key in {*a, *b})
