"""Member: one law fitted to all tasks, its posterior draws, and the residual process on top."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from functools import cached_property

import torch
from torch import Tensor

from mixlaw.analysis.data.coordinates import Features
from mixlaw.analysis.data.design import Design, tenfolds
from mixlaw.analysis.data.observed import Observed
from mixlaw.analysis.fitting.draws import posterior
from mixlaw.analysis.fitting.estimate import LawFit, estimate
from mixlaw.analysis.laws.base import Law, Procedure
from mixlaw.analysis.laws.schedule import scheduled
from mixlaw.analysis.residual.learn import residual_kernel
from mixlaw.analysis.residual.process import MASKED, WAVES, Kernel, Residual
from mixlaw.progress import Progress

#: Log loss that a tenfold below the measured sizes or budgets may add to the worst measured one.
OUTSIDE = 0.5
#: Tokens of phases and domains, over all vectors and recipes, for which a law is evaluated at once: half a gigabyte.
AT_ONCE = 2**26


@dataclass(frozen=True, eq=False)
class Member(LawFit):
    """A fitted law with posterior draws and a residual process on top.

    Attributes:
        name: of the member among others; of the family, where it has no other.
        law: the family.
        observed: the rows it was fitted to.
        draws: posterior draws, (S, T, n); the same index is the same sample over all tasks.
        kernel: of the residual process.
        seed: of the residual process' draws.
    """

    name: str
    law: type[Law]
    observed: Observed
    draws: Tensor
    kernel: Kernel
    seed: int

    def law_only(self, design: Design) -> Tensor:
        """Prediction of the law alone, (R, T)."""
        return self._bounded(self.form.log_loss(self.theta, design).T, design)

    def noise(self, design: Design) -> Tensor:
        """Standard deviation of one run of every recipe, (R, T)."""
        return self.kernel.noise_at(self.law_only(design).T).T

    def mean(self, design: Design) -> Tensor:
        """Law plus residual process, (R, T); differentiable."""
        law = self.form.log_loss(self.theta, design).T
        return self._bounded(
            law + self.residual.at(self.features.and_shares(design), self._mean_weights).squeeze(-1).T, design
        )

    def sample_and_mean(self, design: Design, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Expected log loss in the posterior samples of these numbers (S,), which wrap around, (S, R, T), and `mean`.

        In one evaluation of the law: what that costs hardly depends on the number of vectors.
        """
        samples, weights = samples % len(self.draws), self._sample_weights
        theta = torch.cat([self.draws[samples], self.theta[None]])
        law = self._laws(theta, design).transpose(1, 2)
        x = self.features.and_shares(design)
        prior = self._prior(x) @ weights.waves[:, :, samples]
        rows = torch.cat([weights.rows[:, :, samples], self._mean_weights], 2)
        residual = torch.nn.functional.pad(prior, (0, 1)) + self.residual.at(x, rows)
        both = self._bounded(law + residual.permute(2, 1, 0), design)
        return both[:-1], both[-1]

    def _laws(self, theta: Tensor, design: Design) -> Tensor:
        """Log losses (S, T, R) of vectors (S, T, n), in parts that bound memory."""
        parts = torch.split(theta.flatten(0, 1), max(1, AT_ONCE // max(1, design.tokens.numel())))
        return torch.cat([self.form.log_loss(part, design) for part in parts]).view(*theta.shape[:2], -1)

    def _bounded(self, log_loss: Tensor, design: Design) -> Tensor:
        """Log losses (..., R, T), compressed from two spreads of the runs above the worst measured one on.

        A model that learns nothing has a finite loss, and the worst recipes come close to it; power laws do not know
        that and explode where a domain's share goes to 0. The order of recipes stays, and what is as good as a
        measured run is not touched. Sizes and budgets outside the measured ones may be worse by OUTSIDE for a tenfold.
        """
        top, room = self._worst
        limit = top + 2 * room + OUTSIDE * tenfolds(design, self.observed.design).detach()[:, None]
        excess = (log_loss - limit).clamp(min=0)
        return log_loss - excess + room / 4 * torch.log1p(4 * excess / room)

    @cached_property
    def _worst(self) -> tuple[Tensor, Tensor]:
        """Largest log loss measured of every task, and the spread of what was, (T,) each."""
        seen = self.observed.seen
        top = self.observed.target.masked_fill(~seen, -torch.inf).amax(1)
        spread = [row[s].std(correction=0) for row, s in zip(self.observed.target, seen, strict=True)]
        return top, torch.stack(spread).clamp(min=1e-3)

    @cached_property
    def features(self) -> Features:
        """Coordinates, centred and scaled on the measured runs."""
        return Features.of(self.observed.design)

    @cached_property
    def residual(self) -> Residual:
        """The residual process conditioned on the measured rows."""
        observed = self.observed
        variance = torch.where(observed.variance.isnan(), self.noise(observed.design).T ** 2, observed.variance)
        variance = torch.where(observed.seen, variance, torch.full_like(variance, MASKED))
        return Residual(self.kernel, self.features.and_shares(observed.design), variance)

    @cached_property
    def _mean_weights(self) -> Tensor:
        residual = self.observed.target - self.form.log_loss(self.theta, self.observed.design)
        residual = torch.where(self.observed.seen, residual, torch.zeros_like(residual))
        return self.residual.weights(residual[..., None])

    @cached_property
    def tied(self) -> Tensor:
        """Factor of the tasks' correlation, that of the process and of seeds alike, (T, T)."""
        factor: Tensor = torch.linalg.cholesky(self.correlation(self.observed))
        return factor

    @cached_property
    def _basis(self) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(self.seed)
        return self.kernel.waves(generator, len(self.features.middle))

    def _prior(self, x: Tensor) -> Tensor:
        """Fourier features of prior draws at coordinates x (R, F + P * D), (T, R, 2 * WAVES)."""
        frequency, turn = self._basis
        scale = math.sqrt(2 / WAVES) * torch.stack([self.kernel.signal, self.kernel.local], 1)
        return scale.repeat_interleave(WAVES, 1)[:, None] * torch.cos(x @ frequency + turn)

    @cached_property
    def _sample_weights(self) -> _SampleWeights:
        """Matheron's rule: a prior draw plus the update that takes it through (noisy) data is a posterior draw."""
        generator = torch.Generator().manual_seed(self.seed + 1)
        count, tasks, _ = self.draws.shape
        seen, design = self.observed.seen, self.observed.design
        waves, noise = (
            torch.einsum(
                "tu,unc->tnc", self.tied, torch.randn(tasks, rows, count, generator=generator, dtype=torch.float64)
            )
            for rows in (2 * WAVES, len(design))
        )
        law = self._laws(self.draws, design).permute(1, 2, 0)
        residual = self.observed.target[..., None] - law - self._prior(self.residual.x) @ waves
        residual = residual - self.residual.variance.sqrt()[..., None] * noise
        residual = torch.where(seen[..., None], residual, torch.zeros_like(residual))
        return _SampleWeights(waves, self.residual.weights(residual))


@dataclass(frozen=True, eq=False)
class _SampleWeights:
    """Residual draws: weights of Fourier features (T, 2 * WAVES, S) and of measured rows (T, R, S)."""

    waves: Tensor
    rows: Tensor


def fit_member(
    law: type[Law],
    observed: Observed,
    resamples: int,
    seed: int,
    progress: Progress,
    start: Member | None = None,
    procedure: Procedure | None = None,
    name: str = "",
) -> Member:
    """Fit a law to all tasks; `start`, a fit to more or other rows of the same tasks, saves most of the search.

    With a `procedure` it is fitted as its authors do; `name` is its own among several, by default that of the law.
    """
    generator = torch.Generator().manual_seed(seed)
    progress(0.0, "first fits")
    form = law.form(observed.design) if procedure else scheduled(law.form(observed.design), observed.design)
    fit = estimate(form, observed, generator, start, procedure)
    progress(0.1, "residual process")
    kernel = residual_kernel(fit, observed, generator, start.kernel if start else None)
    none = fit.theta.new_zeros(0, *fit.theta.shape)
    parts = {field.name: getattr(fit, field.name) for field in fields(fit)}
    named = name or law.__name__
    member = Member(**parts, name=named, law=law, observed=observed, draws=none, kernel=kernel, seed=seed)
    return with_draws(member, resamples, lambda share, words: progress(0.2 + 0.8 * share, words))


def with_draws(member: Member, resamples: int, progress: Progress) -> Member:
    """The same fit with another number of posterior draws."""
    if resamples == len(member.draws):
        return member
    generator = torch.Generator().manual_seed(member.seed)
    return replace(member, draws=posterior(member, member.observed, resamples, generator, progress))
