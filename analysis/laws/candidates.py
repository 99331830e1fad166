"""Which laws a fit tries on its own."""

from __future__ import annotations

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.laws.base import Law
from mixlaw.analysis.laws.data_constrained import DataConstrained
from mixlaw.analysis.laws.exposure import Exposure
from mixlaw.analysis.laws.identify import one_size, repeats
from mixlaw.analysis.laws.phasewise import Phasewise
from mixlaw.analysis.laws.shukor import Additive, Joint


def candidates(design: Design) -> tuple[type[Law], ...]:
    """Laws that depend on everything the runs vary, the exposure law first.

    A law that ignores phases or sizes can look good among the measured runs, where the residual process compensates,
    and fail beyond them. The log has results of the other laws of the literature; they can be fitted by name.
    """
    if len(design.domains) == len(design.phases) == 1:
        return (Exposure, DataConstrained) if repeats(design) else (Exposure,)
    if one_size(design):
        return Exposure, Joint
    return (Exposure, Additive, Joint) if len(design.phases) == 1 else (Exposure, Phasewise, Additive)
