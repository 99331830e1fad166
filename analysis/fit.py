"""fit: a table of records in, audited surfaces out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product

import polars as pl
import torch

from mixlaw.analysis.audit.audit import audit
from mixlaw.analysis.audit.folds import folds
from mixlaw.analysis.audit.held import Fold, Held, calibrate
from mixlaw.analysis.audit.stacking import chosen, combined, stack
from mixlaw.analysis.data.observed import Observed, observe
from mixlaw.analysis.laws.base import Law, Procedure
from mixlaw.analysis.laws.candidates import candidates
from mixlaw.analysis.laws.exposure import Exposure
from mixlaw.analysis.residual.learn import MANY
from mixlaw.analysis.surface.link import FEWEST, FittedLink, fit_links, measured_both, through
from mixlaw.analysis.surface.member import Member, fit_member, with_draws
from mixlaw.analysis.surface.surface import Surfaces, surfaces_of
from mixlaw.progress import Progress

#: Posterior draws of a fold: enough for a standard deviation that is averaged over many rows.
FOLD_DRAWS, FOLD_DRAWS_OF_MANY = 16, 6


def fit(
    table: pl.DataFrame,
    *,
    units: Mapping[str, str],
    unique: Mapping[str, float],
    noise: Mapping[str, float] | None = None,
    resamples: int = 64,
    seed: int = 0,
    law: type[Law] | None = None,
    audited: bool = True,
    links: Mapping[str, str] | None = None,
    chance: Mapping[str, float] | None = None,
    progress: Progress | None = None,
) -> Surfaces:
    """Fit the response of every task in a table of records, and audit the fit on held-out runs.

    Args:
        table: the contract's table, a row per checkpoint.
        units: unit of every task.
        unique: unique tokens per domain; unlimited if not given.
        noise: standard deviation of one run per task, in the task's unit, where known.
        resamples: posterior draws; runs are resampled, not checkpoints.
        seed: of everything random; equal seeds give equal surfaces.
        law: the only family to fit, a published one as its authors do, without priors and pooling; by default laws are
            stacked by how well they predict held-out runs.
        audited: hold runs out to assess, stack and calibrate; otherwise only the exposure law is fitted, in a fraction
            of the time.
        links: score -> the loss on the same task that it is predicted through, in place of its own fit.
        chance: score of guessing by task, where it is known.
        progress: called with the share done and a message.

    Raises:
        InputError: the table cannot be fitted; the message says why.
    """
    observed = observe(table, units, unique, noise)
    linked = fit_links(observed, links or {}, chance or {}, resamples, seed)
    report = progress or (lambda share, words: None)
    parts = folds(observed.design, seed) if audited else []
    laws = (law,) if law else candidates(observed.design) if parts else (Exposure,)
    procedure: Procedure | None = getattr(law, "procedure", None)
    members = [
        fit_member(family, observed, 0, seed, _part(report, i, len(laws), 0.0, 0.3), procedure=procedure)
        for i, family in enumerate(laws)
    ]
    held = _hold_out(members, parts, seed, _part(report, 0, 1, 0.3, 0.8))
    weights = stack(observed, held)
    used = chosen(weights)
    weights = weights[:, used] / weights[:, used].sum(1, keepdim=True)
    members = [with_draws(members[i], resamples, _part(report, j, len(used), 0.8, 1.0)) for j, i in enumerate(used)]
    direct = combined([held[member.law.__name__] for member in members], weights)
    final = [_linked(observed, fold, linked, chance or {}, seed) for fold in direct] if linked else direct
    calibration = calibrate(observed, final)
    result = audit(observed, final, calibration, held, dict.fromkeys(linked, direct)) if audited else None
    return surfaces_of(tuple(members), observed, calibration, result, weights, linked, chance)


def _linked(
    observed: Observed, held: Held, links: Mapping[str, FittedLink], chance: Mapping[str, float], seed: int
) -> Held:
    """Predictions for a fold, with links fitted to the fold's other rows in place of direct fits."""
    train = observed.select(held.fold.train)
    pairs = {
        task: link.source for task, link in links.items() if len(measured_both(train, task, link.source)) >= FEWEST
    }
    refitted = fit_links(train, pairs, chance, FOLD_DRAWS, seed)
    mean, deviation = through(refitted, observed, held.mean, held.deviation)
    return replace(held, mean=mean, law=through(refitted, observed, held.law, held.deviation)[0], deviation=deviation)


def _part(report: Progress, number: int, count: int, first: float, last: float) -> Progress:
    """Progress of step `number` of `count` equal ones between two shares of the whole."""
    return lambda share, words: report(first + (last - first) * (number + share) / count, words)


def _hold_out(members: Sequence[Member], parts: Sequence[Fold], seed: int, report: Progress) -> dict[str, list[Held]]:
    """Refit every law without the rows of every fold, from where the full fit ended, and predict them."""
    held: dict[str, list[Held]] = {member.law.__name__: [] for member in members}
    for i, (fold, member) in enumerate(product(parts, members)):
        report(i / len(parts) / len(members), f"audit of {member.law.__name__}: leave {fold.kind} out")
        observed = member.observed.select(fold.train)
        count = FOLD_DRAWS if len(observed.tasks) < MANY else FOLD_DRAWS_OF_MANY
        refit = fit_member(member.law, observed, count, seed, lambda share, words: None, member, member.procedure)
        design = member.observed.design.select(fold.test)
        with torch.no_grad():
            mean, deviation = surfaces_of((refit,), observed).log_prediction(design)
            held[member.law.__name__].append(Held(fold, mean, refit.law_only(design), deviation))
    return held
