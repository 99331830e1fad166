"""Named recipes that a proposal has to beat: proportional, uniform, UniMax, those of Aryabumi et al. 2024 and others.

Every baseline is a function of the model size, the phases (name -> tokens, in order), the domains and the learning
rate at the end of the last phase over the peak. Shares come from kinds and unique tokens alone; caps are not applied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from mixlaw.errors import InputError
from mixlaw.optimizer.goal.published import PUBLISHED, Stage, filled
from mixlaw.recipe import Domain, Kind, Mixture, Phase, Recipe

#: Aryabumi et al. 2024, arXiv:2408.10914, section 2.1: code is 80 % web code and 20 % markup.
WEB_CODE, MARKUP = 0.8, 0.2
#: Same, table 2: code share of `init` in balanced -> text, of every `continue`, and of every cooldown.
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
    """Text alone until the cooldown, which has 20 % code as in all recipes of the paper."""
    return _paper(params, phases, domains, lr_end, init=0.0, later=0.0)


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


def text_and_code(domains: Sequence[Domain], code: float, text_kinds: Sequence[Kind] = _SLOW_TEXT) -> Mixture:
    """Mix text domains, by unique tokens, with a share `code` of web code and markup (80 to 20, each by unique tokens).

    A side without any domain leaves its share to the other; a study whose code is of another kind uses that.
    """
    text = _first(_of(domains, text_kinds), [d for d in domains if not d.kind.is_code])
    web, markup = _of(domains, (Kind.CODE,)), _of(domains, (Kind.MARKUP,))
    if not web and not markup:
        web = [d for d in domains if d.kind.is_code]
    if not text or not (web or markup):
        code = 0.0 if text else 1.0
    split = WEB_CODE if web and markup else float(bool(web))
    weights: dict[str, float] = {}
    for share, group in ((1 - code, text), (code * split, web), (code * (1 - split), markup)):
        whole = sum(d.unique_tokens for d in group)
        weights |= {d.name: share * d.unique_tokens / whole for d in group}
    return Mixture.normalised(weights)


def _of(domains: Sequence[Domain], kinds: Sequence[Kind]) -> list[Domain]:
    return [d for d in domains if d.kind in kinds]


def _first(*groups: list[Domain]) -> list[Domain]:
    return next((group for group in groups if group), [])


def _recipe(params: int, phases: Mapping[str, int], mixtures: Sequence[Mixture], lr_end: float) -> Recipe:
    ends = [1.0] * (len(phases) - 1) + [lr_end]
    return Recipe(params, tuple(map(Phase, phases, phases.values(), mixtures, ends)))
