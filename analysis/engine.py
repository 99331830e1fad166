"""The fitting engine: Levenberg-Marquardt for many fits of one form at once, in torch float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from mixlaw.analysis.design import Design
from mixlaw.analysis.laws.base import Form

#: Residuals beyond this many standard deviations count linearly (Huber's choice, 95 % efficient for normal noise).
HUBER = 1.345
#: Bytes that a chunk of fits may take for its Jacobian; small chunks stay near the cache and are faster.
CHUNK = 16 * 2**20

Progress = Callable[[float, str], None]


@dataclass(frozen=True, eq=False)
class Problems:
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

    def take(self, index: Tensor) -> Problems:
        """The fits at `index`."""
        return Problems(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


@dataclass(frozen=True, eq=False)
class Solution:
    """What B fits found.

    Attributes:
        theta: (B, n).
        cost: (B,), as defined in `Problems`.
        converged: (B,), False where the step limit was reached.
        hessian: Gauss-Newton curvature of the cost by the m free entries, prior included, (B, m, m).
        information: the part of it that is due to the data, (B, m, m).
    """

    theta: Tensor
    cost: Tensor
    converged: Tensor
    hessian: Tensor
    information: Tensor

    @property
    def covariance(self) -> Tensor:
        """Laplace covariance of the free entries, (B, m, m)."""
        inverse: Tensor = torch.linalg.inv(self.hessian)
        return inverse


def solve(
    form: Form,
    design: Design,
    problems: Problems,
    *,
    steps: int = 200,
    tolerance: float = 1e-8,
    chunk: int = CHUNK,
    progress: Progress | None = None,
) -> Solution:
    """Solve all problems, in chunks of at most `chunk` bytes of Jacobian; deterministic.

    A fit has converged when a step lowers its cost by less than `tolerance` of the cost. Chunks go to as many workers
    as torch has threads, each with one thread: whole fits side by side waste nothing on waiting for each other.
    """
    count, rows = problems.target.shape
    size = max(1, chunk // (8 * rows * len(form.free)))
    parts = [torch.arange(first, min(first + size, count)) for first in range(0, count, size)]
    workers, done, found = min(torch.get_num_threads(), len(parts)), 0, []

    def work(index: Tensor) -> Solution:
        with torch.no_grad():
            return _solve(form, design, problems.take(index), steps, tolerance)

    with single_thread(), ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for part in pool.map(work, parts):
            found.append(part)
            done += len(part.cost)
            if progress:
                progress(done / count, f"{done} of {count} fits")
    return Solution(*(torch.cat([getattr(f, name) for f in found]) for name in Solution.__dataclass_fields__))


@contextmanager
def single_thread() -> Iterator[None]:
    """Let torch use one thread inside: small tensors lose more to waiting than they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True, eq=False)
class _Point:
    """A parameter vector with its cost, gradient and curvature."""

    theta: Tensor
    cost: Tensor
    gradient: Tensor
    information: Tensor

    def put(self, index: Tensor, other: _Point) -> None:
        """Overwrite the fits at `index`."""
        for name in self.__dataclass_fields__:
            getattr(self, name)[index] = getattr(other, name)

    def take(self, index: Tensor) -> _Point:
        """The fits at `index`."""
        return _Point(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


def _solve(form: Form, design: Design, problems: Problems, steps: int, tolerance: float) -> Solution:
    precision = problems.spread[:, form.free] ** -2
    best = _evaluate(form, design, problems, problems.start.clone())
    count = best.cost.shape[0]
    damping = torch.full((count,), 1e-3, dtype=torch.float64)
    growth = torch.full((count,), 2.0, dtype=torch.float64)
    converged = torch.zeros(count, dtype=torch.bool)
    for _ in range(steps):
        live = torch.nonzero(~converged).squeeze(1)
        if not len(live):
            break
        here, part = best.take(live), problems.take(live)
        curvature = here.information + torch.diag_embed(precision[live])
        step, promised = _step(here.gradient, curvature, damping[live])
        there = _evaluate(form, design, part, here.theta.index_add(1, form.free, step))
        gain = here.cost - there.cost
        better = gain > 0
        # Nielsen's rule: damping follows how well the quadratic model predicted the gain.
        ratio = (gain / promised).clamp(0, 1)
        damping[live] *= torch.where(better, (1 - (2 * ratio - 1) ** 3).clamp(min=1 / 10), growth[live])
        growth[live] = torch.where(better, torch.full_like(gain, 2.0), growth[live] * 2)
        small = promised < tolerance * (here.cost + tolerance)
        converged[live] = torch.where(better, gain < tolerance * (here.cost + tolerance), small) | (
            damping[live] > 1e12
        )
        best.put(live[better], there.take(better))
    return Solution(best.theta, best.cost, converged, best.information + torch.diag_embed(precision), best.information)


def _step(gradient: Tensor, curvature: Tensor, damping: Tensor) -> tuple[Tensor, Tensor]:
    """Damped Gauss-Newton step and the gain the quadratic model promises."""
    scale = torch.diagonal(curvature, dim1=1, dim2=2).clamp(min=1e-10)
    factor, _ = torch.linalg.cholesky_ex(curvature + torch.diag_embed(damping[:, None] * scale))
    step = -torch.cholesky_solve(gradient[..., None], factor).squeeze(-1)
    step = step.nan_to_num(0.0).clamp(-2.0, 2.0)  # entries are logarithms: a factor of 7 a step is bold enough
    promised = -(step * gradient).sum(1) - 0.5 * torch.einsum("bi,bij,bj->b", step, curvature, step)
    return step, promised.clamp(min=1e-300)


def _evaluate(form: Form, design: Design, problems: Problems, theta: Tensor) -> _Point:
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
