"""The phasewise law: the exposure law with phases that add up as a whole, not domain by domain."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.laws.aggregates import Aggregate, ByPhase, Values
from mixlaw.analysis.laws.base import Form
from mixlaw.analysis.laws.exposure import Exposure, ExposureForm
from mixlaw.analysis.laws.phases import joined, throughout
from mixlaw.analysis.laws.terms import ces, fresh, row


@dataclass(frozen=True)
class Phasewise(Exposure):
    """Loss of a recipe where each phase teaches a task a CES of its own mixture.

        A   = (sum_p w_p A_p**c)**(1/c)                     c = evenness, w_p of the phases as in `weighted`
        A_p = (sum_j worth_j (t h_pj s_j)**g)**(1/g)        t all tokens, h_pj the share of domain j in phase p
        s_j = saturate(t_j, U_j, repeats) / t_j

    stands for the CES aggregate of `Exposure`, D = sum_j t_j s_j for its D, and a domain takes capacity by its tokens;
    all else is as there, and with one mixture in all phases the two are one law. Where a phase lacks a domain, others
    that teach the same task stand in for it: docstrings for code in a cooldown. Exposures add up over phases before
    domains replace each other, so that there nothing does.
    """

    def _adds_up_to(self, design: Design) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens and those as good as fresh ones, (R, K) each, and log A, (R,)."""
        tokens = design.tokens.sum(1)
        share = fresh(tokens, design.unique, row((self.repeats,)))[0]
        held = throughout(design.tokens) * (share if isinstance(share, float) else share[:, None])
        taught = ces(row(self.worth).log(), held, self.elasticity) / self.elasticity
        blocks = row(self.retention[:-1]).log()[None], row((math.log(self.evenness),))[None]
        return tokens, tokens * share, joined(blocks, design.tokens, taught.T[None]).log[0]

    @classmethod
    def form(cls, design: Design) -> Form:
        """Shape of the law over the phases and domains of `design`; what it never varies is held."""
        return PhasewiseForm(design)


class PhasewiseForm(ExposureForm):
    """theta as for the exposure law."""

    family = Phasewise

    def _aggregate(self, values: Values, design: Design) -> Aggregate:
        """What tokens add up to."""
        return ByPhase.of(values, design)
