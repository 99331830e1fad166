"""The fitting engine: Levenberg-Marquardt for many fits of one form at once, in torch float64."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.laws.base import Curve
from mixlaw.progress import Progress

#: Residuals beyond this many standard deviations count linearly (Huber's choice, 95 % efficient for normal noise).
HUBER = 1.345
#: Bytes that a chunk of fits may take for its Jacobian; small chunks stay near the cache and are faster.
CHUNK = 16 * 2**20

#: The secant is learned once a step gains less than this share of the cost; far from a minimum it leads to worse ones.
NEAR = 1e-3


@dataclass(frozen=True, eq=False)
class _Fits:
    """Tensors whose first axis counts fits."""

    def take(self, index: Tensor) -> Self:
        """The fits at `index`."""
        return replace(self, **{name: getattr(self, name)[index] for name in self.__dataclass_fields__})


@dataclass(frozen=True, eq=False)
class Problems(_Fits):
    """B fits of one form to the same R rows.

        cost = sum_r weight_r huber((target_r - f_r(theta)) / sigma_r) + 1/2 sum ((theta - mean) / spread)**2

    Attributes:
        target: log losses, (B, R); anything where the weight is 0.
        weight: 0 masks a row, resamples give other counts, (B, R).
        sigma: standard deviation of a residual, (B, R) or (B, 1).
        start: first guess, (B, n).
        mean, spread: normal prior, (B, n); entries that the form holds stay at their start.
    """

    target: Tensor
    weight: Tensor
    sigma: Tensor
    start: Tensor
    mean: Tensor
    spread: Tensor


@dataclass(frozen=True, eq=False)
class Solution:
    """Results of B fits.

    Attributes:
        theta: (B, n).
        cost: (B,), as defined in `Problems`.
        converged: (B,), False where the step limit was reached.
        precision: curvature of the prior by the m free entries, (B, m).
        information: Gauss-Newton curvature of the rest of the cost, (B, m, m).
    """

    theta: Tensor
    cost: Tensor
    converged: Tensor
    precision: Tensor
    information: Tensor

    @property
    def covariance(self) -> Tensor:
        """Laplace covariance of the free entries, (B, m, m)."""
        inverse: Tensor = torch.linalg.inv(self.information + torch.diag_embed(self.precision))
        return inverse


def solve(
    form: Curve,
    design: Design,
    problems: Problems,
    *,
    steps: int = 200,
    tolerance: float = 1e-8,
    chunk: int = CHUNK,
    progress: Progress | None = None,
) -> Solution:
    """Solve all problems, in chunks of at most `chunk` bytes of Jacobian; deterministic.

    A fit has converged when the predicted decrease of the next step is less than `tolerance` of the cost. Chunks go to
    as many single-threaded workers as torch has threads: parallel fits need no synchronisation.

    Terms that are linear in the loss are not eliminated (variable projection): the cost is robust, in log loss and with
    a prior on logarithms, so that no entry is linear in it, and the secant below makes the last steps fast anyway.
    """
    count, rows = problems.target.shape
    size = max(1, chunk // (8 * rows * len(form.free)))
    parts = [torch.arange(first, min(first + size, count)) for first in range(0, count, size)]
    workers, done, solutions = min(torch.get_num_threads(), len(parts)), 0, []

    def work(index: Tensor) -> Solution:
        with torch.no_grad():
            return _solve(form, design, problems.take(index), steps, tolerance)

    with single_thread(), ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for part in pool.map(work, parts):
            solutions.append(part)
            done += len(part.cost)
            if progress:
                progress(done / count, f"{done} of {count} fits")
    return Solution(*(torch.cat([getattr(s, name) for s in solutions]) for name in Solution.__dataclass_fields__))


@contextmanager
def single_thread() -> Iterator[None]:
    """Let torch use one thread inside: on small tensors synchronisation costs more than threads gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True, eq=False)
class _Point(_Fits):
    """A parameter vector with its cost, gradient and curvature."""

    theta: Tensor
    cost: Tensor
    gradient: Tensor
    information: Tensor

    def put(self, index: Tensor, other: _Point) -> None:
        """Overwrite the fits at `index`."""
        for name in self.__dataclass_fields__:
            getattr(self, name)[index] = getattr(other, name)


@dataclass(frozen=True, eq=False)
class _Model:
    """Damping of B fits, and the curvature that Gauss-Newton leaves out.

    Attributes:
        damping: of the next step, (B,).
        growth: factor of the damping if that fails, (B,).
        bend: curvature due to that of the residuals, learned from gradients, (B, m, m).
    """

    damping: Tensor
    growth: Tensor
    bend: Tensor

    @classmethod
    def first(cls, count: int, entries: int) -> _Model:
        """The model before any step."""
        damping, growth = (torch.full((count,), value, dtype=torch.float64) for value in (1e-3, 2.0))
        return cls(damping, growth, torch.zeros(count, entries, entries, dtype=torch.float64))

    def learn(self, live: Tensor, gain: Tensor, predicted: Tensor) -> None:
        """Nielsen's rule: damping follows how well the model predicted the gain."""
        better, ratio = gain > 0, (gain / predicted).clamp(0, 1)
        self.damping[live] *= torch.where(better, (1 - (2 * ratio - 1) ** 3).clamp(min=1 / 10), self.growth[live])
        self.growth[live] = torch.where(better, torch.full_like(gain, 2.0), self.growth[live] * 2)


def _solve(form: Curve, design: Design, problems: Problems, steps: int, tolerance: float) -> Solution:
    precision = problems.spread[:, form.free] ** -2
    best = _evaluate(form, design, problems, problems.start.clone())
    model = _Model.first(*precision.shape)
    converged, live = torch.zeros(len(precision), dtype=torch.bool), torch.arange(len(precision))
    for _ in range(steps):
        here = best.take(live)
        step, predicted = _step(here, precision[live], model, live)
        small = (predicted < tolerance * (here.cost + tolerance)) | (model.damping[live] > 1e12)
        if bool(small.any()):
            converged[live[small]] = True
            live, step, predicted, here = live[~small], step[~small], predicted[~small], here.take(~small)
            problems = problems.take(~small)
        if not len(live):
            break
        there = _evaluate(form, design, problems, here.theta.index_add(1, form.free, step))
        gain = here.cost - there.cost
        model.learn(live, gain, predicted)
        better = gain > 0
        index, after = live[better], there.take(better)
        curvature = after.information + torch.diag_embed(precision[index])
        bent = _secant(model.bend[index], step[better], after.gradient - here.gradient[better], curvature)
        near = (gain < NEAR * here.cost)[better, None, None]
        model.bend[index] = torch.where(near, bent, 0.0)
        best.put(index, after)
    return Solution(best.theta, best.cost, converged, precision, best.information)


def _step(here: _Point, precision: Tensor, model: _Model, live: Tensor) -> tuple[Tensor, Tensor]:
    """LM step and predicted decrease; drops the secant term if the Hessian is not positive definite."""
    curvature = here.information + torch.diag_embed(precision)
    scale = torch.diagonal(curvature, dim1=1, dim2=2).clamp(min=1e-10)
    damped = torch.diag_embed(model.damping[live, None] * scale)
    factor, failed = torch.linalg.cholesky_ex(curvature + model.bend[live] + damped)
    if bool((failed > 0).any()):
        model.bend[live[failed > 0]] = 0
        factor, _ = torch.linalg.cholesky_ex(curvature + model.bend[live] + damped)
    step = -torch.cholesky_solve(here.gradient[..., None], factor).squeeze(-1)
    step = step.nan_to_num(0.0).clamp(-2.0, 2.0)  # entries are logarithms: at most a factor of 7 per step
    hessian = curvature + model.bend[live]
    predicted = -(step * here.gradient).sum(1) - 0.5 * torch.einsum("bi,bij,bj->b", step, hessian, step)
    return step, predicted.clamp(min=1e-300)


def _secant(bend: Tensor, step: Tensor, change: Tensor, curvature: Tensor) -> Tensor:
    """Secant update of the curvature that Gauss-Newton leaves out (Dennis, Gay and Welsch 1981)."""
    unexplained = change - _times(curvature, step)
    have = _times(bend, step)
    size = ((step * unexplained).sum(1).abs() / (step * have).sum(1).abs().clamp(min=1e-300)).clamp(max=1)[:, None]
    missing = unexplained - size * have
    along = (change * step).sum(1, keepdim=True)
    sound = along > 1e-12 * change.norm(dim=1, keepdim=True) * step.norm(dim=1, keepdim=True)
    unit = torch.where(sound, change / along, 0.0)
    outer = missing[:, :, None] * unit[:, None]
    twice = (missing * step).sum(1)[:, None, None] * unit[:, :, None] * unit[:, None]
    return size[..., None] * bend + outer + outer.transpose(1, 2) - twice


def _times(matrices: Tensor, vectors: Tensor) -> Tensor:
    """Matrices (B, m, m) times vectors (B, m)."""
    return (matrices @ vectors[..., None]).squeeze(-1)


def _evaluate(form: Curve, design: Design, problems: Problems, theta: Tensor) -> _Point:
    value, jacobian = form.jacobian(theta, design)
    scaled = torch.where(problems.weight > 0, (value - problems.target) / problems.sigma, 0.0)
    size = scaled.abs()
    rho = torch.where(size <= HUBER, 0.5 * size**2, HUBER * (size - 0.5 * HUBER))
    spread = problems.spread[:, form.free]
    pull = (theta - problems.mean)[:, form.free] / spread
    cost = (problems.weight * rho).sum(1) + 0.5 * (pull**2).sum(1)
    robust = problems.weight * (HUBER / size.clamp(min=HUBER)) / problems.sigma
    gradient = (jacobian @ (robust * scaled)[..., None]).squeeze(-1) + pull / spread
    information = (jacobian * (robust / problems.sigma)[:, None]) @ jacobian.transpose(1, 2)
    cost = torch.where(torch.isfinite(cost) & torch.isfinite(gradient).all(1), cost, torch.inf)
    return _Point(theta, cost, gradient, information)
