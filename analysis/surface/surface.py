"""Surfaces: fitted responses that can be saved, loaded and printed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mixlaw.analysis.audit.result import Audit
from mixlaw.analysis.audit.stacking import Beside
from mixlaw.analysis.data.observed import Observed
from mixlaw.analysis.surface.discrepancy import Discrepancy
from mixlaw.analysis.surface.io import read, write
from mixlaw.analysis.surface.link import FittedLink
from mixlaw.analysis.surface.member import Member
from mixlaw.analysis.surface.model import ResponseModel, Status
from mixlaw.analysis.surface.regressors import Regressors
from mixlaw.analysis.surface.task import TaskSurface
from mixlaw.analysis.surface.text import as_json, page_of
from mixlaw.errors import unknown
from mixlaw.printable import Page, Printable

#: How the note on coefficients begins that the data of a task barely identify.
WEAK = "Weakly identified, so close to the prior"


class Surfaces(ResponseModel, Printable):
    """All tasks of a study, fitted; the fields are those of `ResponseModel`.

    Attributes:
        unchanged: whether a fit found these, as nothing had changed since.
    """

    unchanged = False

    def save(self, folder: str | Path) -> None:
        """Write `surfaces.json`, tensors and regressors, if any, into `folder`, in one step."""
        write(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> Surfaces:
        """Read what `save` wrote.

        Raises:
            InputError: there is nothing, it is of another version or damaged, or a law or a regressor of another module
                cannot be imported.
        """
        return cls(**read(Path(folder)))

    def __getitem__(self, task: str) -> TaskSurface:
        """One task: its laws with their coefficients, signal and noise.

        Raises:
            InputError: there is no such task.
        """
        if task not in self.tasks:
            raise unknown("task", task, self.tasks)
        return TaskSurface(self, task)

    def page(self) -> Page:
        """A row per task, the audit, notes, and how far to trust them."""
        page = page_of(self)
        note = "nothing has changed since these were fitted, so nothing was fitted anew; --refit does"
        return replace(page, notes=[*page.notes, note]) if self.unchanged else page

    def as_json(self) -> dict[str, Any]:
        """Plain data: status, notes, noise, every coefficient of every law by task, and the audit's rows."""
        return {**as_json(self), "unchanged": self.unchanged}


def surfaces_of(
    members: tuple[Member, ...],
    observed: Observed,
    calibration: Tensor | None = None,
    audit: Audit | None = None,
    weights: Tensor | None = None,
    links: Mapping[str, FittedLink] | None = None,
    chance: Mapping[str, float] | None = None,
    regressors: tuple[Regressors, ...] = (),
    beside: Beside | None = None,
    discrepancy: Discrepancy | None = None,
) -> Surfaces:
    """Surfaces from fitted members, with status and notes in words."""
    tasks = observed.tasks
    if weights is None:
        weights = torch.full((len(tasks), len(members)), 1 / len(members), dtype=torch.float64)
    if calibration is None:
        calibration = torch.ones(len(tasks), dtype=torch.float64)
    lead = [members[i] for i in weights.argmax(1).tolist()]
    notes = {t: lead[i].form.notes + _weak(lead[i], i) + _missing(observed, t, i) for i, t in enumerate(tasks)}
    status = {t: _status(lead[i], i, notes[t], audit) for i, t in enumerate(tasks)}
    named: Mapping[str, FittedLink] = links or {}
    return Surfaces(
        observed,
        members,
        weights,
        calibration,
        status,
        notes,
        audit,
        named,
        chance or {},
        regressors,
        beside,
        discrepancy,
    )


def _status(member: Member, task: int, notes: tuple[str, ...], audit: Audit | None) -> Status:
    if audit is not None and not audit.has_signal(member.observed.tasks[task]):
        return Status.NOISE
    if not member.converged[task]:
        return Status.EXHAUSTED
    return Status.PRIOR if notes else Status.FITTED


def _weak(member: Member, task: int) -> tuple[str, ...]:
    """Name the parameters whose posterior is about as wide as their prior."""
    spread = member.draws[:, task].std(0, correction=0)
    weak = [p.name for p, s in zip(member.form.parameters, spread, strict=True) if not p.held and s > 0.8 * p.spread]
    return (f"{WEAK}: {', '.join(weak)}.",) if weak else ()


def _missing(observed: Observed, task: str, index: int) -> tuple[str, ...]:
    missing = int((~observed.seen[index]).sum())
    return (f"{missing} of {len(observed.design)} rows do not measure {task}.",) if missing else ()
