"""Priors of the exposure law, and which of its parameters a design can tell."""

from __future__ import annotations

import math

import torch

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.laws.base import Parameter
from mixlaw.analysis.laws.chinchilla import EXPONENT_PRIOR, SHAPE_BETWEEN, TERM_PRIOR, locked, scale_notes, spread
from mixlaw.analysis.laws.data_constrained import REPEATS_PRIOR

ELASTICITY_PRIOR = (math.log(0.5), 0.5)
RETENTION_PRIOR = (math.log(0.85), 0.4)
WORTH_SPREAD, WORTH_BETWEEN = 1.5, 1.0
EFFICIENCY_SPREAD, EFFICIENCY_BETWEEN = 0.3, 0.2
UNDECAYED_PRIOR = (math.log(0.1), 1.0)
BEND_PRIOR = (0.0, 0.4)
#: Between the sum of Hoffmann et al. 2022 (1) and the sharp bend of Kaplan et al. 2020 (about 10).
BOTTLENECK_PRIOR = (math.log(1.5), 0.5)
#: Two sizes cannot tell a norm from a power law: near Hoffmann's sum.
BOTTLENECK_OF_TWO = (0.0, 0.25)
#: What RegMix's mixtures differ by at 60 and 1,000 times the size, over what is foretold from 1M: the factor per
#: tenfold spreads by about so much from loss to loss (dev/LOG.md).
CONTRAST_PRIOR, CONTRAST_BETWEEN = (0.0, 0.12), 0.12
#: Harm sets in around 15 epochs (4 are almost free, 40 are not: Muennighoff et al. 2023).
ONSET_PRIOR = (math.log(15.0), 0.4)
OVERLOAD_PRIOR = (math.log(0.1), 1.5)
#: 1e9 unique tokens are overfitted from about 1e9 parameters; C4 runs below 1.5B tell the exponent as .65.
CROWDING_PRIOR = (math.log(1e9), 0.5)
MEMORY_PRIOR = (math.log(0.7), 0.25)
#: A domain seen this often shows what overdoing does; with less, harm rests on the prior.
OVERDONE = 3.0


def parameters(design: Design) -> tuple[tuple[Parameter, ...], tuple[str, ...]]:
    """Priors, with what the design never varies held, and the same in words."""
    k, notes = len(design.domains), list(scale_notes(design))
    one_size = spread(design.params) < 0.01
    # Where size and tokens rise together, mixtures still move the data term alone, and so tell the two terms apart.
    as_one = one_size or (locked(design) and not _mixtures_vary(design))
    epochs = design.tokens.detach().sum(1) / design.unique
    once = not bool((epochs > 1).any())
    overdone = (epochs.amax(0) > OVERDONE).tolist()
    pools = len(set(design.unique[:, torch.tensor(overdone)].flatten().tolist()))
    alike = (one_size and pools < 2) or pools < 1
    finished = bool((design.progress > 1 - 1e-9).all())
    decayed = bool(design.final_lr.std(correction=0) < 1e-6)
    if once:
        notes.append("No domain is repeated: what a repeat is worth comes from the literature (R* about 15).")
    if (one_size or locked(design)) and k > 1:
        notes.append("How mixtures share out capacity is not identified without sizes and is left out.")
    if pools == 1 and one_size:
        notes.append("Repeats are overdone at one size alone: how their harm grows with size comes from runs on C4.")
    held = [p for i, p in enumerate(design.phases[:-1]) if not tells(design, i)]
    notes += [f"Phase {p!r} never differs in mixture from the rest: its retention is not identified." for p in held]
    shape = (
        Parameter("floor", *TERM_PRIOR),
        Parameter("capacity", *TERM_PRIOR, held=as_one),
        Parameter("data", *TERM_PRIOR),
        Parameter("alpha", *EXPONENT_PRIOR, between=SHAPE_BETWEEN, held=as_one),
        Parameter("beta", *EXPONENT_PRIOR, between=SHAPE_BETWEEN),
        Parameter("elasticity", *(ELASTICITY_PRIOR if k > 1 else (0.0, 0.0)), between=SHAPE_BETWEEN, held=k == 1),
        Parameter("repeats", *REPEATS_PRIOR, between=SHAPE_BETWEEN, held=once),
        Parameter("undecayed", *UNDECAYED_PRIOR, between=SHAPE_BETWEEN, held=finished),
        Parameter("bend", *BEND_PRIOR, between=SHAPE_BETWEEN, held=finished),
        Parameter("constant_lr", *UNDECAYED_PRIOR, between=SHAPE_BETWEEN, held=decayed),
        _bottleneck(design),
        Parameter("onset", *ONSET_PRIOR, between=SHAPE_BETWEEN, held=not any(overdone)),
        Parameter("crowding", *CROWDING_PRIOR, between=SHAPE_BETWEEN, held=alike),
        Parameter("memory", *MEMORY_PRIOR, between=SHAPE_BETWEEN, held=pools < 2),
        _contrast(design),
    )
    retention = [
        Parameter(f"retention {p}", *RETENTION_PRIOR, between=SHAPE_BETWEEN, held=p in held) for p in design.phases[:-1]
    ]
    spread_worth = WORTH_SPREAD if k > 1 else 0.0
    worth = [
        Parameter(f"worth {d}", -0.5 * math.log(k), spread_worth, WORTH_BETWEEN, held=k == 1) for d in design.domains
    ]
    spread_capacity = 0.0 if one_size or locked(design) or k == 1 else EFFICIENCY_SPREAD
    efficiency = [
        Parameter(f"efficiency {d}", 0.0, spread_capacity, EFFICIENCY_BETWEEN, held=spread_capacity == 0)
        for d in design.domains
    ]
    overload = [
        Parameter(f"overload {d}", *OVERLOAD_PRIOR, held=not o) for d, o in zip(design.domains, overdone, strict=True)
    ]
    return (*shape, *retention, *worth, *efficiency, *overload), tuple(notes)


def tells(design: Design, phase: int) -> bool:
    """Whether runs differ in how the phase's mixture stands to that of the whole run."""
    here = design.tokens[:, phase].detach()
    share = here / here.sum(1, keepdim=True).clamp(min=1e-300)
    whole = design.tokens.detach().sum(1)
    shift = (share - whole / whole.sum(1, keepdim=True)) * (here.sum(1, keepdim=True) > 0)
    return bool(shift.std(0, correction=0).max() > 1e-3)


def _bottleneck(design: Design) -> Parameter:
    """Fitted where three sizes and tokens vary, and not only together; else held."""
    sizes = len({round(x, 2) for x in design.params.detach().log().tolist()})
    told = sizes > 2 and spread(design.total) >= 0.01 and not locked(design)
    prior = BOTTLENECK_OF_TWO if sizes == 2 else BOTTLENECK_PRIOR
    return Parameter("bottleneck", *prior, between=SHAPE_BETWEEN, held=not told)


def _contrast(design: Design) -> Parameter:
    """Fitted where mixtures vary at three sizes; else held."""
    prior, held = CONTRAST_PRIOR if len(design.domains) > 1 else (0.0, 0.0), not mixtures_vary_at_sizes(design)
    return Parameter("contrast", *prior, between=CONTRAST_BETWEEN, held=held, loose=True)


def mixtures_vary_at_sizes(design: Design) -> bool:
    """Whether mixtures vary at three sizes: what two show is drowned by how they share out capacity."""
    sizes = design.params.detach().log().round(decimals=2)
    varied = [_mixtures_vary(design.select(torch.nonzero(sizes == size)[:, 0])) for size in set(sizes.tolist())]
    return sum(varied) > 2


def _mixtures_vary(design: Design) -> bool:
    """Whether any domain's share of a recipe differs between recipes by more than a rounding error."""
    shares = design.tokens.detach().sum(1) / design.tokens.detach().sum((1, 2))[:, None]
    return bool((shares.amax(0) - shares.amin(0) > 0.02).any())
