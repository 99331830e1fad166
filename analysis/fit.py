"""fit: a table of records in, audited surfaces out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import polars as pl
import torch
from torch import Tensor

from mixlaw.analysis.audit.audit import audit
from mixlaw.analysis.audit.folds import folds
from mixlaw.analysis.audit.held import Fold, Held, calibrate
from mixlaw.analysis.audit.stacking import Beside, beside_laws, chosen, combined, stack
from mixlaw.analysis.data.observed import Observed, observe
from mixlaw.analysis.fitting.draws import MANY_ROWS
from mixlaw.analysis.laws.base import Law, Procedure
from mixlaw.analysis.laws.candidates import candidates
from mixlaw.analysis.laws.exposure import Exposure
from mixlaw.analysis.residual.learn import MANY
from mixlaw.analysis.surface.discrepancy import expected_discrepancy, learn_discrepancy
from mixlaw.analysis.surface.link import FEWEST, FittedLink, fit_links, measured_both, through
from mixlaw.analysis.surface.member import Member, fit_member, with_draws
from mixlaw.analysis.surface.regressors import fit_regressors
from mixlaw.analysis.surface.surface import Surfaces, surfaces_of
from mixlaw.errors import InputError
from mixlaw.progress import Progress

#: Posterior draws of a fold: enough for a standard deviation that is averaged over many rows; fewer where tasks are
#: MANY, or rows more than MANY_ROWS.
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
    beside: Mapping[str, type[Law] | Any] | None = None,
    audited: bool = True,
    links: Mapping[str, str] | None = None,
    chance: Mapping[str, float] | None = None,
    phases: Sequence[str] = (),
    progress: Progress | None = None,
) -> Surfaces:
    """Fit the response of every task in a table of records, and audit the fit on held-out runs.

    Args:
        table: the contract's table, a row per checkpoint.
        units: unit of every task.
        unique: unique tokens per domain; unlimited if not given.
        noise: standard deviation of one run per task, in the task's unit, where known.
        resamples, seed: posterior draws, and the seed of everything random.
        law: the only family to fit, as its authors do, without priors; by default laws are stacked by held-out error.
        beside: more laws and scikit-learn regressors by name, audited in the same folds and stacked where they predict
            better; a regressor begins with `RecipeFeatures`, as make_pipeline(RecipeFeatures(), RidgeCV()) does.
        audited: hold runs out to assess, stack and calibrate; otherwise only the exposure law is fitted, much faster.
        links, chance: of a score, the loss on the same task that it is predicted through, and the score of guessing.
        phases: in the order of training, where the names of the columns do not say it.
        progress: called with the share done and a message.

    Raises:
        InputError: the table cannot be fitted; the message says why.
    """
    observed = observe(table, units, unique, noise, phases)
    linked = fit_links(observed, links or {}, chance or {}, resamples, seed)
    report = progress or (lambda *_: None)
    parts = folds(observed.design, seed) if audited else []
    ours = (law,) if law else candidates(observed.design) if parts else (Exposure,)
    laws, others = _named(ours, beside or {}, bool(parts))
    regressors = {name: fit_regressors(name, one, observed) for name, one in others.items()}
    members = _fit_laws(laws, law, observed, seed, _part(report, 0, 1, 0.0, 0.3))
    held = _hold_out(members, parts, seed, _part(report, 0, 1, 0.3, 0.8))
    for name, one in others.items():
        held[name] = [fit_regressors(name, one, observed.select(f.train)).held(observed, f) for f in parts]
    weights = stack(observed, held, len(ours))
    used = chosen(weights)
    kept = [i for i in used if i < len(members)] or [0]
    by_law, shares = _of_laws(weights, used, kept, len(members))
    direct = combined([held[members[i].name] for i in kept], by_law)
    direct, joined, which = _joined(observed, direct, [held[name] for name in others], shares)
    estimators = tuple(regressors[list(others)[i]] for i in which)
    final = [_linked(observed, fold, linked, chance or {}, seed) for fold in direct] if linked else direct
    calibration = calibrate(observed, final)
    result = audit(observed, final, calibration, held, dict.fromkeys(linked, direct)) if audited else None
    between = learn_discrepancy(observed, direct, calibration)
    drawn = [with_draws(members[i], resamples, _part(report, j, len(kept), 0.8, 1)) for j, i in enumerate(kept)]
    whole = tuple(drawn), observed, calibration, result, by_law, linked, chance, estimators, joined, between
    return surfaces_of(*whole)


def _named(
    ours: Sequence[type[Law]], beside: Mapping[str, Any], audited: bool
) -> tuple[dict[str, type[Law]], dict[str, Any]]:
    """Laws and regressors by name.

    Raises:
        InputError: a name is taken, what it names can be neither, or nothing can tell what a regressor is worth.
    """
    laws, others = {family.__name__: family for family in ours}, {}
    for name, one in beside.items():
        if name in laws:
            raise InputError(f"beside has {name!r}, which is fitted anyway; give it another name")
        if isinstance(one, type) and hasattr(one, "form"):
            laws[name] = one
        elif not isinstance(one, type) and hasattr(one, "fit") and hasattr(one, "predict"):
            others[name] = one
        else:
            raise InputError(f"beside[{name!r}] is {one!r}; give the class of a law, or a scikit-learn regressor")
    if beside and not audited:
        raise InputError(
            f"nothing can be held out, so nothing says how well {', '.join(beside)} predicts: add runs, or fit with "
            "audited=True"
        )
    return laws, others


def _of_laws(weights: Tensor, used: Sequence[int], kept: Sequence[int], laws: int) -> tuple[Tensor, Tensor]:
    """Weights of the kept laws among themselves, (T, M), and shares of all regressors, (T, E), from (T, laws + E)."""
    whole = torch.zeros_like(weights).index_copy(1, torch.tensor(used), weights[:, used])
    whole = whole / whole.sum(1, keepdim=True)
    by_law = whole[:, kept] + 1e-9  # a task may have no weight on any law
    return by_law / by_law.sum(1, keepdim=True), whole[:, laws:]


def _joined(
    observed: Observed, laws: Sequence[Held], others: Sequence[Sequence[Held]], shares: Tensor
) -> tuple[list[Held], Beside | None, list[int]]:
    """Predictions of all folds by laws and regressors together, how these enter, and the numbers of those that do."""
    if not others:
        return list(laws), None, []
    found = beside_laws(observed, laws, others, shares)
    which = torch.nonzero(found.shares.amax(0) > 0).squeeze(1).tolist()
    if not which:
        return list(laws), None, []
    joined = Beside(found.shares[:, which], found.scale[:, which], found.by_row)
    return joined.held(laws, [others[i] for i in which]), joined, which


def _fit_laws(
    laws: Mapping[str, type[Law]], alone: type[Law] | None, observed: Observed, seed: int, report: Progress
) -> list[Member]:
    """Fit every law, without draws; the one that was named as its authors do."""
    procedure: Procedure | None = getattr(alone, "procedure", None)
    return [
        fit_member(
            family,
            observed,
            0,
            seed,
            _part(report, i, len(laws), 0.0, 1.0),
            procedure=procedure if family is alone else None,
            name=name,
        )
        for i, (name, family) in enumerate(laws.items())
    ]


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
    return replace(
        held, mean=mean, law=through(refitted, observed, held.law, held.deviation)[0], deviation=deviation, apart=None
    )


def _part(report: Progress, number: int, count: int, first: float, last: float) -> Progress:
    """Progress of step `number` of `count` equal ones between two shares of the whole."""
    return lambda share, words: report(first + (last - first) * (number + share) / count, words)


def _hold_out(members: Sequence[Member], parts: Sequence[Fold], seed: int, report: Progress) -> dict[str, list[Held]]:
    """Refit every law without the rows of every fold, from where the full fit ended, and predict them."""
    held: dict[str, list[Held]] = {member.name: [] for member in members}
    for i, (fold, member) in enumerate(product(parts, members)):
        report(i / len(parts) / len(members), f"audit of {member.name}: leave {fold.kind} out")
        observed = member.observed.select(fold.train)
        many = len(observed.tasks) >= MANY or len(observed.design) > MANY_ROWS
        count = FOLD_DRAWS_OF_MANY if many else FOLD_DRAWS
        refit = fit_member(member.law, observed, count, seed, lambda share, words: None, member, member.procedure)
        design = member.observed.design.select(fold.test)
        with torch.no_grad():
            expected = expected_discrepancy(observed)
            found = surfaces_of((refit,), observed, discrepancy=expected)
            mean, deviation = found.log_prediction(design)
            held[member.name].append(Held(fold, mean, refit.law_only(design), deviation, found.apart(design)))
    return held
