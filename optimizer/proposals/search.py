"""Gradient search over recipes: many starts in one batch, then the best of them to the last digit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from mixlaw.optimizer.space.constraints import Feasible
from mixlaw.optimizer.space.points import Points

Floats = NDArray[np.float64]
Value = Callable[[Points], Tensor]  # R recipes -> (R,), to be maximised

#: Decay rates of Adam's moments (Kingma and Ba 2015), the second shorter than usual: there are a hundred steps.
BETA1, BETA2 = 0.9, 0.99
#: Percent of gain that is not worth another step.
SMALL = 1e-5


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one thread: steps are small, and threads that wait for each other cost more than they bring."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def climb(
    value: Value, allowed: Feasible, starts: Points, steps: int = 120, rate: float = 0.25
) -> tuple[Points, Tensor]:
    """Climb from R starts by Adam with a cosine rate, each row by itself, and keep the best point of each path.

    Args:
        value: what to maximise, row by row.
        allowed: where to stay.
        starts: R recipes.
        steps, rate: of Adam, in logits.

    Returns:
        The best recipes and their values, (R,).
    """
    numbers = allowed.numbers(starts).detach()
    mean, square = torch.zeros_like(numbers), torch.zeros_like(numbers)
    found, best = starts, torch.full((len(starts),), -math.inf, dtype=torch.float64)
    for step in range(steps + 1):
        numbers.requires_grad_()
        here = allowed.points(numbers)
        now = value(here)
        better = now.detach() > best
        found, best = here.detach().where(better, found), torch.where(better, now.detach(), best)
        if step == steps:
            break
        (slope,) = torch.autograd.grad(now.sum(), numbers)
        mean = BETA1 * mean + (1 - BETA1) * slope
        square = BETA2 * square + (1 - BETA2) * slope**2
        pace = rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        first, second = mean / (1 - BETA1 ** (step + 1)), square / (1 - BETA2 ** (step + 1))
        numbers = _held(allowed, numbers.detach() + pace * first / (second.sqrt() + 1e-8))
    return found, best


def refine(value: Value, allowed: Feasible, start: Points, steps: int = 60) -> tuple[Points, float]:
    """Go on from one good point by sequential quadratic programming, limits as linear constraints.

    Adam finds the hill but crawls along the edges of the polytope, where optima lie; this method walks on them.

    Returns:
        The best recipe seen, never worse than the start, and its value.
    """
    chart = allowed.chart()

    def loss(u: Floats) -> tuple[float, Floats]:
        at = torch.tensor(u)[None].requires_grad_()
        now = value(chart.points(at))
        (slope,) = torch.autograd.grad(now.sum(), at)
        return -float(now.detach()), -np.nan_to_num(slope[0].numpy())

    found = minimize(  # type: ignore[call-overload]
        loss,
        chart.start(start),
        jac=True,
        method="SLSQP",
        bounds=chart.bounds,
        constraints=chart.constraints,
        options={"maxiter": steps, "ftol": SMALL},
    )
    with torch.no_grad():
        most = float(value(start))
        end = chart.drawn_inside(torch.tensor(found.x)[None]) if np.isfinite(found.x).all() else start
        reached = float(value(end))
    return (end, reached) if reached > most else (start, most)


def _held(allowed: Feasible, numbers: Tensor) -> Tensor:
    """Keep numbers where a step can be felt: a logit far below the others is as good as zero, and must come back."""
    phases, domains = allowed.shape
    logits = numbers[:, : phases * domains].reshape(-1, phases, domains)
    logits = logits.maximum(logits.amax(-1, keepdim=True) - 14.0)
    return torch.cat([logits.flatten(1), numbers[:, phases * domains :].clamp(-8.0, 8.0)], 1)


def random_starts(allowed: Feasible, count: int, seed: int) -> Points:
    """Recipes spread over the feasible set."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randn(count, allowed.size, generator=generator, dtype=torch.float64)
    numbers[:, : math.prod(allowed.shape)] *= 1.5
    return allowed.points(numbers).detach()
