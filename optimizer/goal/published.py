"""Stage mixtures that others have published, by kind, and how they fill the phases and domains of a target.

Figures, not measurements: where a model's report gives shares of text, code and mathematics by stage, they stand here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mixlaw.recipe import Domain, Kind, Mixture


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
