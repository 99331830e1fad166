"""fit: a table of records in, audited surfaces out."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import polars as pl
import torch

from mixlaw.analysis.audit import Held, audit, calibrate
from mixlaw.analysis.estimate import fit_member
from mixlaw.analysis.folds import Fold, folds
from mixlaw.analysis.laws import Exposure, Law
from mixlaw.analysis.member import Member
from mixlaw.analysis.observed import observe
from mixlaw.analysis.surface import Surfaces, surfaces_of

Progress = Callable[[float, str], None]
#: Posterior draws of a fold: enough for a standard deviation that is averaged over many rows.
FOLD_DRAWS = 16


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
    progress: Progress | None = None,
) -> Surfaces:
    """Fit the response of every task in a table of records, and audit the fit on held-out runs.

    Args:
        table: the contract's table, a row per checkpoint.
        units: unit of every task.
        unique: unique tokens per domain; a domain left out is unlimited.
        noise: standard deviation of one run per task, in the task's unit, where known.
        resamples: posterior draws; runs are resampled, not checkpoints.
        seed: of everything random; equal seeds give equal surfaces.
        law: the family to fit; the exposure law if none is named.
        audited: hold runs out, judge and calibrate; without it the fit takes a fraction of the time.
        progress: called with the share done and a few words.

    Raises:
        InputError: the table cannot be fitted; the message says why.
    """
    observed = observe(table, units, unique, noise)
    report = progress or (lambda share, words: None)
    member = fit_member(law or Exposure, observed, resamples, seed, lambda share, words: report(0.5 * share, words))
    held, made = [], folds(observed.design, seed) if audited else []
    for i, fold in enumerate(made):
        report(0.5 + 0.5 * i / len(made), f"audit: leave {fold.kind} out")
        held.append(_hold_out(member, fold, seed))
    calibration = calibrate(observed, held)
    found = surfaces_of((member,), observed, calibration, audit(observed, held, calibration) if audited else None)
    report(1.0, "fitted")
    return found


def _hold_out(member: Member, fold: Fold, seed: int) -> Held:
    """Refit without the fold's rows, from where the full fit ended, and predict them."""
    observed = member.observed.select(fold.train)
    refit = fit_member(member.law, observed, FOLD_DRAWS, seed, lambda share, words: None, start=member)
    surfaces = surfaces_of((refit,), observed)
    with torch.no_grad():
        design = member.observed.design.select(fold.test)
        mean, deviation = surfaces.log_prediction(design)
        return Held(fold, mean, refit.law_only(design), deviation)
