"""The exposure law's vector: a block per coefficient with its prior, held where the design does not identify it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.laws.base import EXPONENT_PRIOR, SHAPE_BETWEEN, TERM_PRIOR, Parameter
from mixlaw.analysis.laws.identify import (
    NO_REPEATS,
    locked,
    mixtures_vary,
    mixtures_vary_at_sizes,
    one_budget,
    one_size,
    phase_differs,
    repeats,
    scale_notes,
)
from mixlaw.analysis.laws.phases import phase_blocks
from mixlaw.analysis.laws.terms import CONTRAST_BETWEEN, CONTRAST_PRIOR, REPEATS_PRIOR

ELASTICITY_PRIOR = (math.log(0.5), 0.5)
WORTH_SPREAD, WORTH_BETWEEN = 1.5, 1.0
EFFICIENCY_SPREAD, EFFICIENCY_BETWEEN = 0.3, 0.2
#: Between the sum of Hoffmann et al. 2022 (1) and the sharp bend of Kaplan et al. 2020 (about 10).
BOTTLENECK_PRIOR = (math.log(1.5), 0.5)
#: Two sizes do not identify the bottleneck: near Hoffmann's sum.
BOTTLENECK_OF_TWO = (0.0, 0.25)
#: Harm sets in around 15 epochs (4 are almost free, 40 are not: Muennighoff et al. 2023).
ONSET_PRIOR = (math.log(15.0), 0.4)
OVERLOAD_PRIOR = (math.log(0.1), 1.5)
#: 1e9 unique tokens are overfitted from about 1e9 parameters; C4 runs below 1.5B give an exponent of .65.
CROWDING_PRIOR = (math.log(1e9), 0.5)
MEMORY_PRIOR = (math.log(0.7), 0.25)
#: Epochs of a domain from which runs inform on the harm of repeats; below, it rests on the prior.
OVERDONE = 3.0


def blocks(design: Design) -> dict[str, tuple[Parameter, ...]]:
    """Entries of every block, in the order of the vector."""
    k, size = len(design.domains), one_size(design)
    # Where size and tokens rise together, mixtures still move the data term alone, and so separate the two terms.
    as_one = size or (locked(design) and not mixtures_vary(design))
    once = not repeats(design)
    overdone = _overdone(design)
    pools = _overdone_pools(design)
    two = design.sizes == 2
    sharp = design.sizes > 2 and not one_budget(design) and not locked(design)
    spread_capacity = 0.0 if size or locked(design) or k == 1 else EFFICIENCY_SPREAD
    shapes = {
        "alpha": (EXPONENT_PRIOR, as_one),
        "beta": (EXPONENT_PRIOR, False),
        "elasticity": (ELASTICITY_PRIOR if k > 1 else (0.0, 0.0), k == 1),
        "repeats": (REPEATS_PRIOR, once),
        "bottleneck": (BOTTLENECK_OF_TWO if two else BOTTLENECK_PRIOR, not sharp),
        "onset": (ONSET_PRIOR, not any(overdone)),
        "crowding": (CROWDING_PRIOR, (size and pools < 2) or pools < 1),
        "memory": (MEMORY_PRIOR, pools < 2),
    }
    contrast, flat = CONTRAST_PRIOR if k > 1 else (0.0, 0.0), not mixtures_vary_at_sizes(design)
    return {
        "floor": (Parameter("floor", *TERM_PRIOR),),
        "capacity": (Parameter("capacity", *TERM_PRIOR, held=as_one),),
        "data": (Parameter("data", *TERM_PRIOR),),
        **{n: (Parameter(n, *prior, SHAPE_BETWEEN, held),) for n, (prior, held) in shapes.items()},
        "contrast": (Parameter("contrast", *contrast, CONTRAST_BETWEEN, held=flat, loose=True),),
        **phase_blocks(design),
        "worth": tuple(
            Parameter(f"worth {d}", -0.5 * math.log(k), WORTH_SPREAD, WORTH_BETWEEN, k == 1) for d in design.domains
        ),
        "efficiency": tuple(
            Parameter(f"efficiency {d}", 0.0, spread_capacity, EFFICIENCY_BETWEEN, spread_capacity == 0)
            for d in design.domains
        ),
        "overload": tuple(
            Parameter(f"overload {d}", *OVERLOAD_PRIOR, held=not o)
            for d, o in zip(design.domains, overdone, strict=True)
        ),
    }


def notes(design: Design) -> tuple[str, ...]:
    """What the design does not identify, in words."""
    lines = list(scale_notes(design))
    if not repeats(design):
        lines.append(NO_REPEATS)
    if (one_size(design) or locked(design)) and len(design.domains) > 1:
        lines.append("The interaction of mixture and model size is not identified and is left out.")
    if _overdone_pools(design) == 1 and one_size(design):
        lines.append("Repeats are overdone at one size only: how their harm grows with size comes from runs on C4.")
    return tuple(lines) + tuple(
        f"Phase {p!r} never differs in mixture from the rest: its retention is not identified."
        for i, p in enumerate(design.phases[:-1])
        if not phase_differs(design, i)
    )


def _overdone(design: Design) -> list[bool]:
    """Whether any run repeats each domain often enough to show what that does."""
    epochs: Tensor = design.tokens.detach().sum(1) / design.unique
    return [bool(most > OVERDONE) for most in epochs.amax(0)]


def _overdone_pools(design: Design) -> int:
    """How many amounts of unique tokens the domains that are overdone have."""
    return len(set(design.unique[:, torch.tensor(_overdone(design))].flatten().tolist()))
