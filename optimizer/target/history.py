"""What a target has been trained on already: known, or one of several histories that a checkpoint may have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mixlaw.analysis.data.design import SHAPES, WHOLE_COSINE, Design
from mixlaw.optimizer.target.feasible import Feasible
from mixlaw.optimizer.target.points import Points
from mixlaw.optimizer.target.target import Trained
from mixlaw.recipe import Decay, Domain, Kind, Mixture, Phase, Recipe, Schedule

#: Aryabumi et al. 2024, arXiv:2408.10914, section 2.1: code is 80 % web code and 20 % markup.
WEB_CODE, MARKUP = 0.8, 0.2
#: Code shares that a foreign checkpoint may have seen: none, that of Llama 3 (arXiv:2407.21783, 17 %), half of it (the
#: balanced model of Aryabumi et al. 2024, arXiv:2408.10914). Their number is odd: draws take turns, and halves of them
#: are compared.
HISTORIES = (0.0, 0.17, 0.5)


@dataclass(frozen=True, eq=False)
class PrefixHistory:
    """Tokens of the prefix under H histories; draws take turns between them.

    Attributes:
        tokens: by phase of the prefix and domain, (H, Q, K).
        lr_end: at the end of each of those phases, (Q,).
        fresh: tokens by domain that were not drawn from the target's unique ones, (H, K).
    """

    tokens: Tensor
    lr_end: Tensor
    fresh: Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    def design(self, allowed: Feasible, points: Points) -> Design:
        """Whole recipes with every history: H R rows, recipes within histories."""
        target, rest = allowed.target, allowed.tokens(points.params)
        rows, count, known = len(points), len(self), self.tokens.shape[1]
        future = (rest[:, None, None] * points.tokens).repeat(count, 1, 1)
        tokens = torch.cat([self.tokens.repeat_interleave(rows, 0), future], 1)
        ends = torch.ones(rows, len(target.all_phases), dtype=torch.float64)
        ends[:, :known] = self.lr_end
        for p, phase in enumerate(target.phases[:-1]):
            ends[:, known + p] = target.rates.end(phase)
        ends = torch.cat([ends[:, :-1], points.lr_end[:, None]], 1)
        shapes = [SHAPES[target.rates.shapes.get(phase, Decay.LINEAR).value] for phase in target.phases]
        if target.rates.schedule is Schedule.COSINE:
            shapes = [WHOLE_COSINE] * len(shapes)
        decay = torch.tensor([0.0] * known + shapes, dtype=torch.float64).expand(rows * count, -1)
        unique = torch.tensor([float(d.unique_tokens) for d in allowed.domains], dtype=torch.float64)
        return Design(
            params=points.params.repeat(count),
            tokens=tokens,
            progress=torch.ones(rows * count, dtype=torch.float64),
            lr_end=ends.repeat(count, 1),
            unique=(unique + self.fresh).repeat_interleave(rows, 0),
            phases=target.all_phases,
            domains=tuple(d.name for d in allowed.domains),
            runs=("",) * (rows * count),
            lr=torch.full((rows * count,), target.rates.lr or 1.0, dtype=torch.float64),
            decay=decay,
        )

    def by_draw(self, values: Tensor) -> Tensor:
        """Of values (S, H R, T) those of the history of each draw, (S, R, T)."""
        if len(self) == 1:
            return values
        draws = torch.arange(len(values))
        by_history = values.reshape(len(values), len(self), -1, values.shape[-1])
        return by_history[draws, draws % len(self)]


def history_of(allowed: Feasible) -> PrefixHistory:
    """Histories of a target's prefix: one where it is known or empty."""
    names, histories = [d.name for d in allowed.domains], _histories(allowed)
    tokens = [
        [[phase.tokens * phase.mixture.share(name) for name in names] for phase in history] for history in histories
    ]
    history = torch.tensor(tokens, dtype=torch.float64).reshape(len(histories), len(allowed.target.prefix), len(names))
    foreign = torch.tensor([part.mixture is None for part in allowed.target.prefix], dtype=torch.float64)
    ends = torch.tensor([part.lr_end for part in allowed.target.prefix], dtype=torch.float64)
    return PrefixHistory(history, ends, (history * foreign[:, None]).sum(1))


def with_histories(allowed: Feasible, recipes: Sequence[Recipe]) -> list[Recipe]:
    """Whole recipes: as they are where the prefix is known, else with every history before them."""
    if allowed.target.known:
        return list(recipes)
    history, whole = history_of(allowed), []
    for phases, fresh in zip(_histories(allowed), history.fresh.tolist(), strict=True):
        unique = {d.name: d.unique_tokens + round(more) for d, more in zip(allowed.domains, fresh, strict=True)}
        whole += [replace(recipe, phases=(*phases, *recipe.phases), unique=unique) for recipe in recipes]
    return whole


def likely_history(allowed: Feasible) -> tuple[Phase, ...]:
    """The prefix as it is, or where its mixture is not known, with the middle one of those it may have had."""
    histories = _histories(allowed)
    return histories[len(histories) // 2]


def _histories(allowed: Feasible) -> list[tuple[Phase, ...]]:
    """The prefix with every mixture that it may have had."""

    def phase(part: Trained, code: float) -> Phase:
        mixture = text_and_code(allowed.domains, code) if part.mixture is None else part.mixture
        return Phase(part.phase, part.tokens, mixture, part.lr_end)

    shares = HISTORIES[:1] if allowed.target.known else HISTORIES
    return [tuple(phase(part, code) for part in allowed.target.prefix) for code in shares]


def text_and_code(domains: Sequence[Domain], code: float, text_kinds: Sequence[Kind] = (Kind.TEXT,)) -> Mixture:
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
