"""The segment tree: the common beginning of recipes is trained once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from mixlaw.recipe import Recipe, Schedule


@dataclass(frozen=True)
class Segment:
    """The training between two branch points.

    Attributes:
        lineage: of its end; the name of its checkpoint.
        parent: lineage it starts from; None starts from the initialisation.
        recipe: one of the recipes that pass through it; all of them have the same schedule and mixture here.
        start, stop: tokens of the recipe before and after the segment.
        phase: name of the phase it belongs to.
        runs: lineages of the recipes that pass through it.
    """

    lineage: str
    parent: str | None
    recipe: Recipe
    start: int
    stop: int
    phase: str
    runs: tuple[str, ...]

    @property
    def tokens(self) -> int:
        """Tokens trained in the segment."""
        return self.stop - self.start

    @property
    def is_run(self) -> bool:
        """Whether a recipe ends here, so that it is evaluated and recorded."""
        return self.lineage in self.runs

    @property
    def is_leaf(self) -> bool:
        """Whether a recipe ends here and no other goes on, so that no segment resumes from it."""
        return self.runs == (self.lineage,)

    def finished(self, recipes: Mapping[str, Recipe]) -> Recipe | None:
        """The recipe that ends here, if one does."""
        return recipes.get(self.lineage)

    def as_json(self) -> dict[str, Any]:
        """Plain data, the inverse of `Segment.from_json`."""
        return {**self.__dict__, "recipe": self.recipe.as_json(), "runs": list(self.runs)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Segment:
        """Read what `as_json` wrote."""
        return cls(**{**data, "recipe": Recipe.from_json(data["recipe"]), "runs": tuple(data["runs"])})


@dataclass(frozen=True)
class Tree:
    """Segments, parents before children, and the recipes that they make up."""

    segments: tuple[Segment, ...]
    recipes: tuple[Recipe, ...]

    @cached_property
    def by_lineage(self) -> dict[str, Segment]:
        """Segments by the lineage of their end."""
        return {segment.lineage: segment for segment in self.segments}

    @cached_property
    def children(self) -> dict[str | None, list[Segment]]:
        """Segments that start from a lineage (None: from the initialisation)."""
        below: dict[str | None, list[Segment]] = defaultdict(list)
        for segment in self.segments:
            below[segment.parent].append(segment)
        return dict(below)

    def needed(self, measured: Collection[str], trained: Collection[str]) -> list[Segment]:
        """Segments still to do: runs without a record, and untrained segments on the way to them."""
        keep: set[str] = set()
        for segment in reversed(self.segments):
            children = (child.lineage for child in self.children.get(segment.lineage, []))
            wanted = segment.is_run and segment.lineage not in measured
            start = any(child in keep and child not in trained for child in children)
            if wanted or (start and segment.lineage not in trained):
                keep.add(segment.lineage)
        return [segment for segment in self.segments if segment.lineage in keep]

    def untrained(self, measured: Collection[str], trained: Collection[str]) -> list[Segment]:
        """The needed segments that must be trained; the others are only evaluated."""
        return [segment for segment in self.needed(measured, trained) if segment.lineage not in trained]


def plan(recipes: Sequence[Recipe]) -> Tree:
    """Merge the common prefixes of recipes into a tree of segments.

    A phase of constant learning rate is cut wherever another recipe with the same history and mixture leaves it, so a
    longer trunk continues a shorter one. A phase that decays is shared whole or not at all; cosine recipes share
    nothing.
    """
    recipes = tuple(dict.fromkeys(recipes))
    lengths = _trunk_lengths(recipes)
    segments: dict[str, Segment] = {}
    for recipe in recipes:
        parent, done = None, 0
        for index, phase in enumerate(recipe.phases):
            begin = done
            for cut in _cuts(recipe, index, lengths):
                lineage = recipe.prefix(index + 1, cut)
                known = segments.get(lineage)
                if known is None:
                    segments[lineage] = Segment(
                        lineage, parent, recipe, done, begin + cut, phase.name, (recipe.lineage,)
                    )
                else:
                    segments[lineage] = replace(known, runs=(*known.runs, recipe.lineage))
                parent, done = lineage, begin + cut
    return Tree(tuple(segments.values()), recipes)  # every parent was inserted before its children


Trunk = tuple[str, int, str]


def _trunk(recipe: Recipe, index: int) -> Trunk | None:
    """What the recipes share that may cut this phase at different lengths; None if its rate is not constant."""
    flat = all(phase.lr_end == 1 for phase in recipe.phases[: index + 1])
    if not flat or recipe.schedule is not Schedule.WSD:
        return None
    # One token stands for "this phase, of whatever length": equal histories and mixtures give equal hashes.
    return (recipe.prefix(index + 1, 1), index, recipe.phases[index].name)


def _trunk_lengths(recipes: Sequence[Recipe]) -> dict[Trunk, set[int]]:
    lengths: dict[Trunk, set[int]] = defaultdict(set)
    for recipe in recipes:
        for index, phase in enumerate(recipe.phases):
            if (trunk := _trunk(recipe, index)) is not None:
                lengths[trunk].add(phase.tokens)
    return lengths


def _cuts(recipe: Recipe, index: int, lengths: Mapping[Trunk, set[int]]) -> list[int]:
    """Tokens into a phase at which a segment of this recipe ends, the phase's end last."""
    whole = recipe.phases[index].tokens
    trunk = _trunk(recipe, index)
    return [whole] if trunk is None else sorted(cut for cut in lengths[trunk] if cut <= whole)
