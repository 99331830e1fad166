"""The fitted response of every task to the mixture, the phase, the size and the budget: predictions and samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from mixlaw.analysis.audit.readiness import Readiness, readiness
from mixlaw.analysis.audit.result import Audit
from mixlaw.analysis.audit.stacking import Beside
from mixlaw.analysis.data.design import Design, Floats, tenfolds
from mixlaw.analysis.data.observed import Z90, Observed, from_log_loss
from mixlaw.analysis.surface.discrepancy import Discrepancy, in_mixture_of, typical_run
from mixlaw.analysis.surface.link import FittedLink, followed, through
from mixlaw.analysis.surface.member import Member
from mixlaw.analysis.surface.regressors import Regressors

BLOCK = 1000  # rows whose distances to all others are held at once
_SEED = 21  # of the noise of new runs


class Status(Enum):
    """Outcome of a task's fit; the value is the sentence shown to the user."""

    FITTED = "fitted"
    PRIOR = "fitted; some coefficients come from the prior (see notes)"
    NOISE = "mostly noise: predictions of held-out runs are no better than the mean; do not optimise for it"
    EXHAUSTED = "stopped at the step limit: treat the numbers with care"


@dataclass(frozen=True, eq=False)
class Prediction:
    """Predicted values of R recipes on T tasks, in the tasks' units.

    Attributes:
        mean: expected value, (R, T).
        lo90, hi90: 90 % interval of one newly measured run, (R, T).
        law_only: prediction of the law without the residual process, (R, T).
        distance: to the nearest measured run in standardised log-exposure units, size and tokens included, (R,).
        runs, tasks: names of the axes.
    """

    mean: Floats
    lo90: Floats
    hi90: Floats
    law_only: Floats
    distance: Floats
    runs: tuple[str, ...]
    tasks: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class ResponseModel:
    """All tasks of a study, fitted: predictions and their uncertainty.

    Attributes:
        observed: the measured rows.
        members: fitted laws with their residual processes.
        weights: of the members among themselves in each task, summing to 1, (T, M).
        calibration: factor on interval widths, learned on held-out folds, (T,).
        status: outcome per task.
        notes: per task, sentences on what is not identified.
        audit: how held-out runs were predicted; None if not audited.
        links: scores that are predicted through the loss on the same task, in place of their own fit.
        chance: score of guessing, where it is known.
        regressors: estimators of scikit-learn beside the laws. They have part in `predict`, intervals and audit; not in
            `mean` and `draws`, which need derivatives and posterior samples.
        beside: how regressors enter the predictions; None where there is none.
        discrepancy: what laws miss beyond the measured sizes; None, nothing (a fit that is being audited).
    """

    observed: Observed
    members: tuple[Member, ...]
    weights: Tensor
    calibration: Tensor
    status: Mapping[str, Status]
    notes: Mapping[str, tuple[str, ...]]
    audit: Audit | None = None
    links: Mapping[str, FittedLink] = field(default_factory=dict)
    chance: Mapping[str, float] = field(default_factory=dict)
    regressors: tuple[Regressors, ...] = ()
    beside: Beside | None = None
    discrepancy: Discrepancy | None = None

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks, the order of every task axis."""
        return self.observed.tasks

    @property
    def units(self) -> dict[str, str]:
        """Unit of every task."""
        return dict(zip(self.tasks, self.observed.units, strict=True))

    @property
    def phases(self) -> tuple[str, ...]:
        """Names of the phases, in order of training."""
        return self.observed.design.phases

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the domains."""
        return self.observed.design.domains

    @cached_property
    def noise(self) -> Tensor:
        """Standard deviation of one run per task, in the task's unit at a typical value, (T,)."""
        return self.log_noise * self.observed.slope

    @cached_property
    def log_noise(self) -> Tensor:
        """Standard deviation of one run per task in log loss, (T,)."""
        noise = self._direct_noise.clone()
        for task, link in self.links.items():
            t, s = self.tasks.index(task), self.tasks.index(link.source)
            noise[t] = link.run_noise(self.observed.centre[t], self.observed.centre[s], self._direct_noise[s])
        return noise

    def spread(self, design: Design) -> Tensor:
        """Standard deviation over seeds in log loss, (R, T); it grows with the loss where the data show so.

        At least that at a task's centre: seeds of good recipes at a larger size vary by more than a kernel says. Laws
        may miss poor recipes by more than good ones, which a kernel cannot tell from noise that grows with the loss.
        """
        with torch.no_grad():
            design = self._aligned(design)
            noise = torch.maximum(
                self._mix(torch.stack([m.noise(design) for m in self.members], -1)), self._direct_noise
            )
            linked = torch.tensor([task in self.links for task in self.tasks])
            return torch.where(linked, self.log_noise, noise)

    def luck(self, design: Design, counts: Tensor) -> Tensor:
        """Covariances of what each mixture has for itself, at every size alike, over the noise of a run, (R, R).

        The mean over the tasks that count (T,), one at a time: of many, all at once would need gigabytes.
        """
        design, found = self._aligned(design), torch.zeros(len(design), len(design), dtype=torch.float64)
        for member, weights in zip(self.members, self.weights.T, strict=True):
            shares = member.features.and_shares(design)[:, -len(member.features.middle) :]
            for task in torch.nonzero(counts & (weights > 0))[:, 0].tolist():
                found += weights[task] * member.kernel.luck(shares, task) / counts.sum()
        return found

    @cached_property
    def _direct_noise(self) -> Tensor:
        """Standard deviation of one run per task in log loss by direct fits, links ignored, (T,)."""
        return (self.weights * torch.stack([m.kernel.noise for m in self.members], 1)).sum(1)

    @cached_property
    def readiness(self) -> dict[str, Readiness]:
        """Whether recipes move each task by more than seeds do."""
        with torch.no_grad():
            noise = self._mix(torch.stack([m.noise(self.observed.design) for m in self.members], -1))
        return readiness(self.observed, noise, self.audit, self.chance)

    def mean(self, design: Design) -> Tensor:
        """Expected values (R, T), differentiable by `design.tokens` and `design.params`."""
        return self._values(self._mean(self._aligned(design)))

    def draws(self, design: Design, count: int) -> Tensor:
        """Expected values in `count` posterior samples, (S, R, T); differentiable.

        The same index is the same sample in every call, for every recipe and task, so differences are paired.
        """
        return self._values(self._sample(self._aligned(design), count))

    def new_runs(self, design: Design, count: int) -> Tensor:
        """Values of a newly trained run of every recipe in `count` posterior samples, (S, R, T).

        Jointly over tasks, in the widths that held-out runs call for: quantiles of a mean over tasks are its interval.
        """
        with torch.no_grad():
            design = self._aligned(design)
            mean, noise = self._mean(design), self.spread(design)
            samples = self._sample(design, count) - mean
            generator = torch.Generator().manual_seed(_SEED)
            seeds = torch.randn(count, len(design), len(self.tasks), generator=generator, dtype=torch.float64)
            return self._values(mean + self.calibration * (samples + noise * (seeds @ self._tied.T)))

    def predict(self, design: Design) -> Prediction:
        """Predict one newly trained run of every recipe."""
        with torch.no_grad():
            design = self._aligned(design)
            mean, deviation = self.log_prediction(design)
            deviation = torch.maximum(deviation, self.spread(design))
            half = Z90 * self.calibration * deviation
            ends = [self._values(x).numpy() for x in (mean, mean - half, mean + half)]
            distance = self._distance(design)
        low, high = np.minimum(ends[1], ends[2]), np.maximum(ends[1], ends[2])
        return Prediction(ends[0], low, high, self._law_only(design), distance.numpy(), design.runs, self.tasks)

    @cached_property
    def in_sample(self) -> Prediction:
        """Predictions of the measured runs."""
        return self.predict(self.observed.design)

    @cached_property
    def law_of_measured(self) -> Floats:
        """What the laws alone predict for the measured runs, in the tasks' units, (R, T)."""
        return self._law_only(self.observed.design)

    def _law_only(self, design: Design) -> Floats:
        with torch.no_grad():
            law = self._follow(self._mix(torch.stack([m.law_only(design) for m in self.members], -1)))
            values: Floats = self._values(law).numpy()
        return values

    def log_prediction(self, design: Design) -> tuple[Tensor, Tensor]:
        """Mean and uncalibrated standard deviation of a new run in log loss about the tasks' centres, (R, T) each."""
        design = self._aligned(design)
        mean = self._direct(design)
        deviation = self._deviation(design, mean)
        if self.beside is not None:
            predictions = [(mean, deviation), *(one.predict(design) for one in self.regressors)]
            mean, deviation = self.beside.joined(predictions)
        return through(self.links, self.observed, mean, deviation) if self.links else (mean, deviation)

    def apart(self, design: Design) -> Tensor:
        """Standard deviation, not calibrated, of how far a new run's log loss is from the recipes' mean, (R, T)."""
        design = self._aligned(design)
        samples = self._log_samples(design, min(len(m.draws) for m in self.members))
        noise = self._mix(torch.stack([m.noise(design) for m in self.members], -1))
        return torch.sqrt((samples - samples.mean(1, keepdim=True)).var(0, correction=0) + noise**2)

    def _aligned(self, design: Design) -> Design:
        return design.aligned(self.phases, self.domains)

    def _mix(self, by_member: Tensor) -> Tensor:
        return (by_member * self.weights).sum(-1)

    def _follow(self, log_loss: Tensor, samples: Tensor | None = None) -> Tensor:
        return followed(self.links, self.observed, log_loss, samples) if self.links else log_loss

    def _mean(self, design: Design) -> Tensor:
        return self._follow(self._direct(design))

    def _direct(self, design: Design) -> Tensor:
        """Log losses (R, T), every task by its own fit."""
        return self._mix(torch.stack([m.mean(design) for m in self.members], -1))

    def _sample(self, design: Design, count: int) -> Tensor:
        return self._follow(self._log_samples(design, count), torch.arange(count))

    @cached_property
    def _tied(self) -> Tensor:
        """Factor of the correlation of tasks, by the member of most weight, (T, T)."""
        return self.members[int(self.weights.mean(0).argmax())].tied

    def _log_samples(self, design: Design, count: int) -> Tensor:
        """Log losses (S, R, T): what the laws say, and the discrepancy between sizes."""
        (samples, mean), measured = self._of_laws(design, count), self.observed.design
        if self.discrepancy is None or not tenfolds(design, measured).any():
            return samples
        apart = mean - self._typical_losses(design)
        return samples + self.discrepancy.shifts(design, measured, self.members[0].features, self._tied, apart, count)

    def _typical_losses(self, design: Design) -> Tensor:
        """Log losses of the typical mixture at the size and budget of every row, (R, T); a search has but one."""
        size = torch.stack([design.params, design.total.detach(), design.progress, design.lr], 1)
        typical = in_mixture_of(self._typical, design)
        if size.requires_grad or not torch.equal(size, size[:1].expand_as(size)):
            return self._direct(typical)
        key = tuple(size[0].tolist())
        losses = self._last_typical.get(key)
        if losses is None:
            losses = self._direct(typical.select([0])).detach()
            self._last_typical.clear()
            self._last_typical[key] = losses
        return losses

    @cached_property
    def _last_typical(self) -> dict[tuple[float, ...], Tensor]:
        return {}

    @cached_property
    def _typical(self) -> Design:
        return typical_run(self.observed.design, self.members[0].features)

    def _of_laws(self, design: Design, count: int) -> tuple[Tensor, Tensor]:
        """Log losses (S, R, T), every sample of a task by one member, in proportion to its weight; and their mean."""
        samples = torch.arange(count)
        if len(self.members) == 1:
            return self.members[0].sample_and_mean(design, samples)
        owner = self._owner[samples % len(self._owner)]
        out = torch.zeros(count, len(design), len(self.tasks), dtype=torch.float64)
        means = []
        for i, member in enumerate(self.members):
            own = samples[(owner == i).any(1)]
            values, mean = member.sample_and_mean(design, own)
            out = out.index_add(0, own, values * (owner[own] == i)[:, None, :])
            means.append(mean)
        return out, self._mix(torch.stack(means, -1))

    @cached_property
    def _owner(self) -> Tensor:
        """Member of every sample and task, (S, T), spread evenly."""
        count = min(len(m.draws) for m in self.members)
        # Golden-ratio points are even over any prefix, so the first samples already mix members as the weights say.
        point = (0.5 + 0.6180339887498949 * torch.arange(count, dtype=torch.float64)) % 1
        edges = self.weights.cumsum(1).clamp(max=1.0)
        return (point[:, None, None] > edges[None]).sum(-1).clamp(max=len(self.members) - 1)

    def _deviation(self, design: Design, mean: Tensor) -> Tensor:
        """Standard deviation of a new run in log loss by every task's own fit, (R, T), in blocks that bound memory."""
        count = min(len(m.draws) for m in self.members)
        block = max(1, 2**22 // (count * len(self.tasks)))
        noise = self._mix(torch.stack([m.noise(design) for m in self.members], -1))
        parts = []
        for first in range(0, len(design), block):
            rows = torch.arange(first, min(first + block, len(design)))
            parts.append((self._log_samples(design.select(rows), count) - mean[rows]).square().mean(0))
        return torch.sqrt(torch.cat(parts) + noise**2)

    def _values(self, log_loss: Tensor) -> Tensor:
        columns = (log_loss + self.observed.centre).unbind(-1)
        return torch.stack([from_log_loss(c, u) for c, u in zip(columns, self.observed.units, strict=True)], -1)

    def reach(self) -> float:
        """Largest distance of a measured run to the nearest other one; a recipe farther away is extrapolated."""
        x = self.members[0].features(self.observed.design)
        blocks = (torch.cdist(part, x, compute_mode="donot_use_mm_for_euclid_dist") for part in torch.split(x, BLOCK))
        nearest = torch.cat([torch.where(apart > 1e-9, apart, torch.inf).min(1).values for apart in blocks])
        there = nearest[torch.isfinite(nearest)]
        return float(there.max()) if len(there) else 0.0

    def _distance(self, design: Design) -> Tensor:
        features = self.members[0].features
        measured = features(self.observed.design)
        x = features(design)
        return torch.cdist(x, measured, compute_mode="donot_use_mm_for_euclid_dist").min(1).values
