"""Recipes that a proposal has to beat: named ones, those of published models, and a team's own.

A baseline is a function of the model size, the phases (name -> tokens, in order), the domains and the learning rate at
the end of the last phase over the peak. Shares come from kinds and unique tokens alone; `references` puts them inside
the limits of a target.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from mixlaw.errors import InputError
from mixlaw.optimizer.target.history import text_and_code
from mixlaw.optimizer.target.target import Target
from mixlaw.recipe import Domain, Kind, Mixture, Phase, Recipe


@dataclass(frozen=True)
class Stage:
    """A stage of a published run: its tokens relative to the others, and shares of text, code and mathematics."""

    tokens: float
    text: float
    code: float
    math: float


#: arXiv:2407.21783, section 3.1.2: general 50, multilingual 8; code 17; mathematics and reasoning 25 percent.
LLAMA_3 = (Stage(15.6, 58, 17, 25),)
#: arXiv:2502.02737: stages 1 to 3 over 10T tokens, then a decay of 1T; code and mathematics grow.
SMOLLM2 = (Stage(6, 90, 10, 0), Stage(2, 75, 20, 5), Stage(2, 74, 16, 10), Stage(1, 62, 24, 14))
#: arXiv:2512.13961, table 4: pretraining mixture of Dolma 3; arXiv papers and Wikipedia count as text.
OLMO_3 = (Stage(5.93, 90.6, 6.89, 2.56),)
#: arXiv:2409.12186, table 3: 70 code, 20 text, 10 mathematics beat 100 and 85 percent code at 7B.
QWEN_CODER = (Stage(5.2, 20, 70, 10),)
#: arXiv:2411.04156 and the data card of its corpora: text, then text and code, then code.
CRYSTAL = (Stage(345, 100, 0, 0), Stage(927, 37.2, 62.8, 0), Stage(110, 9, 91, 0))

PUBLISHED: Mapping[str, tuple[Stage, ...]] = {
    "llama-3": LLAMA_3,
    "smollm2": SMOLLM2,
    "olmo-3": OLMO_3,
    "qwen2.5-coder": QWEN_CODER,
    "crystal": CRYSTAL,
}


def filled(stages: Sequence[Stage], phases: Mapping[str, int], domains: Sequence[Domain]) -> list[Mixture]:
    """Mixtures of phases (name -> tokens) that follow published stages.

    The last of several stages becomes the last phase; those before are laid over the phases before it, in proportion
    to tokens.
    """
    sizes = list(phases.values())
    if len(stages) == 1 or len(sizes) == 1:
        spans = [(0.0, 1.0)] * len(sizes)
        return [_mixture(_average(stages, span), domains) for span in spans]
    early, spans, done = sum(sizes[:-1]), [], 0
    for size in sizes[:-1]:
        spans.append((done / early, (done + size) / early))
        done += size
    return [*(_mixture(_average(stages[:-1], span), domains) for span in spans), _mixture(stages[-1], domains)]


def _average(stages: Sequence[Stage], span: tuple[float, float]) -> Stage:
    """What is trained on between two points of the stages, as shares of their tokens."""
    whole, start, parts = sum(stage.tokens for stage in stages), 0.0, []
    for stage in stages:
        end = start + stage.tokens / whole
        parts.append(max(0.0, min(end, span[1]) - max(start, span[0])))
        start = end
    total = sum(parts)
    text, code, math = (
        sum(part * share for part, share in zip(parts, shares, strict=True)) / total
        for shares in zip(*((stage.text, stage.code, stage.math) for stage in stages), strict=True)
    )
    return Stage(total, text, code, math)


def _mixture(stage: Stage, domains: Sequence[Domain]) -> Mixture:
    """Shares by kind on the domains, each group by unique tokens; a kind that is not there leaves its share."""
    groups = [
        (stage.text, [d for d in domains if d.kind is Kind.TEXT]),
        (stage.code, [d for d in domains if d.kind.is_code]),
        (stage.math, [d for d in domains if d.kind is Kind.MATH]),
    ]
    weights: dict[str, float] = {}
    for share, group in groups:
        whole = sum(d.unique_tokens for d in group)
        weights |= {d.name: share * d.unique_tokens / whole for d in group}
    if not sum(weights.values()) > 0:
        weights = {d.name: float(d.unique_tokens) for d in domains}
    return Mixture.normalised(weights)


#: Aryabumi et al. 2024, arXiv:2408.10914, table 2: code share of `init` in balanced -> text, of every `continue`, and
#: of every cooldown.
BALANCED_CODE, CONTINUE_CODE, COOLDOWN_CODE = 0.5, 0.1, 0.2

#: Epochs of UniMax: as often as repeats are nearly as good as fresh tokens (Muennighoff et al. 2023, arXiv:2305.16264).
EPOCHS = 4

_SLOW_TEXT = (Kind.TEXT,)
#: Section 3.5: the cooldown adds mathematics and instructions to high-quality text; how much of each is not published.
_COOLDOWN_TEXT = (Kind.TEXT, Kind.MATH, Kind.INSTRUCT)


class Baseline(Protocol):
    """A named way to fill phases from domains."""

    def __call__(
        self, params: int, phases: Mapping[str, int], domains: Sequence[Domain], lr_end: float = 0.0
    ) -> Recipe:
        """Build the recipe."""


def proportional(params: int, phases: Mapping[str, int], domains: Sequence[Domain], lr_end: float = 0.0) -> Recipe:
    """Every phase takes each domain in proportion to its unique tokens."""
    mixture = Mixture.normalised({d.name: float(d.unique_tokens) for d in domains})
    return _recipe(params, phases, [mixture] * len(phases), lr_end)


def uniform(params: int, phases: Mapping[str, int], domains: Sequence[Domain], lr_end: float = 0.0) -> Recipe:
    """Every phase takes the same share of each domain."""
    mixture = Mixture.normalised({d.name: 1.0 for d in domains})
    return _recipe(params, phases, [mixture] * len(phases), lr_end)


def text_only(params: int, phases: Mapping[str, int], domains: Sequence[Domain], lr_end: float = 0.0) -> Recipe:
    """Text alone in every phase, the cooldown too."""
    return _recipe(params, phases, [text_and_code(domains, 0.0, _SLOW_TEXT)] * len(phases), lr_end)


def fifth_code(params: int, phases: Mapping[str, int], domains: Sequence[Domain], lr_end: float = 0.0) -> Recipe:
    """In every phase the mixture of the paper's cooldown, which all its recipes share: 20 % code."""
    mixture = text_and_code(domains, COOLDOWN_CODE, _COOLDOWN_TEXT)
    return _recipe(params, phases, [mixture] * len(phases), lr_end)


def balanced_to_text(params: int, phases: Mapping[str, int], domains: Sequence[Domain], lr_end: float = 0.0) -> Recipe:
    """Half text, half code; then text with 10 % code; then the cooldown with 20 % code: best for language there."""
    return _paper(params, phases, domains, lr_end, init=BALANCED_CODE, later=CONTINUE_CODE)


def code_to_text(params: int, phases: Mapping[str, int], domains: Sequence[Domain], lr_end: float = 0.0) -> Recipe:
    """Code alone; then text with 10 % code; then the cooldown with 20 % code."""
    return _paper(params, phases, domains, lr_end, init=1.0, later=CONTINUE_CODE)


def unimax(params: int, phases: Mapping[str, int], domains: Sequence[Domain], lr_end: float = 0.0) -> Recipe:
    """UniMax (Chung et al. 2023, arXiv:2304.09151): as even as four epochs of every domain allow, the same throughout.

    From the smallest domain up, each gets an even part of the tokens that are left, at most its epochs.
    """
    left, even = float(sum(phases.values())), {}
    ordered = sorted(domains, key=lambda d: d.unique_tokens)
    for i, domain in enumerate(ordered):
        even[domain.name] = min(left / (len(ordered) - i), EPOCHS * domain.unique_tokens)
        left -= even[domain.name]
    return _recipe(params, phases, [Mixture.normalised(even)] * len(phases), lr_end)


def published(stages: Sequence[Stage]) -> Baseline:
    """A baseline that follows published stages."""

    def build(params: int, phases: Mapping[str, int], domains: Sequence[Domain], lr_end: float = 0.0) -> Recipe:
        return _recipe(params, phases, filled(stages, phases, domains), lr_end)

    return build


BASELINES: Mapping[str, Baseline] = {
    "proportional": proportional,
    "uniform": uniform,
    "unimax": unimax,
    "text-only": text_only,
    "20%-code": fifth_code,
    "balanced->text": balanced_to_text,
    "code->text": code_to_text,
    **{name: published(stages) for name, stages in PUBLISHED.items()},
}


def named(name: str) -> Baseline:
    """Look a baseline up by name.

    Raises:
        InputError: there is none of that name.
    """
    if name not in BASELINES:
        raise InputError(f"there is no baseline {name!r}; use one of {', '.join(BASELINES)}")
    return BASELINES[name]


def _paper(
    params: int, phases: Mapping[str, int], domains: Sequence[Domain], lr_end: float, init: float, later: float
) -> Recipe:
    """A recipe of the paper: code share `init` in the first phase, `later` in the middle, 20 % in the cooldown."""
    roles = _roles(tuple(phases))
    share = {"init": init, "continue": later, "cooldown": COOLDOWN_CODE}
    mixtures = [
        text_and_code(domains, share[role], _COOLDOWN_TEXT if role == "cooldown" else _SLOW_TEXT) for role in roles
    ]
    return _recipe(params, phases, mixtures, lr_end)


def _roles(phases: tuple[str, ...]) -> list[str]:
    """Which of the paper's phases each one plays: first init, last cooldown (of two: if so named), else continue."""
    last = len(phases) - 1
    cooled = last > 1 or phases[last] == "cooldown"
    return [
        "cooldown" if i == last and cooled and last > 0 else "init" if i == 0 else "continue"
        for i in range(len(phases))
    ]


def _recipe(params: int, phases: Mapping[str, int], mixtures: Sequence[Mixture], lr_end: float) -> Recipe:
    ends = [1.0] * (len(phases) - 1) + [lr_end]
    return Recipe(params, tuple(map(Phase, phases, phases.values(), mixtures, ends)))


DEFAULTS = ("proportional", "text-only", "balanced->text")


def defaults_of(target: Target) -> tuple[str, ...]:
    """Baselines that a proposal has to beat where none are named.

    Recipes of the paper differ in what comes before the cooldown alone: where that is trained already, they are one.
    """
    only_cooldown = set(_roles(target.all_phases)[-len(target.phases) :]) == {"cooldown"}
    return ("proportional", "text-only", "20%-code") if only_cooldown else DEFAULTS


def of_mixture(mixture: Mixture) -> Baseline:
    """A baseline with the same mixture in every phase."""

    def build(params: int, phases: Mapping[str, int], domains: Sequence[Domain], lr_end: float = 0.0) -> Recipe:
        return _recipe(params, phases, [_known(mixture, domains)] * len(phases), lr_end)

    return build


def of_recipe(recipe: Recipe) -> Baseline:
    """A baseline with the mixtures of a recipe, phase by phase; a phase that it does not have gets its mean mixture."""

    def build(params: int, phases: Mapping[str, int], domains: Sequence[Domain], lr_end: float = 0.0) -> Recipe:
        own = {phase.name: phase.mixture for phase in recipe.phases}
        mixtures = [_known(own.get(name, recipe.mixture), domains) for name in phases]
        return _recipe(params, phases, mixtures, lr_end)

    return build


def _known(mixture: Mixture, domains: Sequence[Domain]) -> Mixture:
    """The mixture, whose domains have to be there."""
    unknown = [name for name, share in mixture.items() if share > 0 and name not in {d.name for d in domains}]
    if unknown:
        raise InputError(
            f"the baseline trains on {unknown[0]!r}, the domains are {', '.join(sorted(d.name for d in domains))}; "
            "name another baseline"
        )
    return mixture
