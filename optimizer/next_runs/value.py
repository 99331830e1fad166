"""What a run would teach: expected reduction of regret by one more observation, and batches chosen by it per cost.

Regret is the expected loss of the recommendation, E[max_m u_m] - max_m E[u_m] over posterior
draws, u_m the gain of contender m. A run shows y = f + noise on every task; with draws jointly Gaussian its outcome
moves the expected gains by b z, b = cov(u, y) / sd(y), z standard normal, and so is worth

    E_z[max_m(E[u_m] + b_m z)] - max_m E[u_m]

(knowledge gradient: Frazier, Powell & Dayanik 2009, doi:10.1287/ijoc.1080.0314). Tasks are taken
to be independent. Slopes come from a few dozen draws, so each is shrunk by how far its correlation could be chance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.errors import InputError
from mixlaw.optimizer.goal.goal import task_weights
from mixlaw.optimizer.goal.posterior import Posterior, log_losses
from mixlaw.optimizer.policy import CLEARLY, CURIOSITY, NEGLIGIBLE

#: FLOPs of every candidate (C,), given the candidates chosen before it.
Prices = Callable[[Sequence[int]], Tensor]

#: Outcomes over which a batch is valued.
PATHS = 256
#: Contenders beyond the best one of every draw.
OTHERS = 32
#: Entries of (candidates x contenders x paths) held at once.
BLOCK = 2**22


@dataclass(frozen=True, eq=False)
class Predictions:
    """S posterior draws of candidates and recommendations.

    Attributes:
        outcomes: log losses of C candidate runs on T tasks, (S, C, T).
        task_gains: part of every task in the gain of M contenders, percent, (S, M, T).
        noise: standard deviation over seeds of each candidate in log loss, (C, T).
        gains: of the contenders, percent, (S, M); their sum over tasks where None. They are given where they
            are not linear in the tasks: then task gains are their linear part.
    """

    outcomes: Tensor
    task_gains: Tensor
    noise: Tensor
    gains: Tensor | None = None


@dataclass(frozen=True)
class Batch:
    """Candidates in the order chosen.

    Attributes:
        chosen: their indices.
        values: reduction of the expected regret by each, after those before it, percent.
        costs: of each, after those before it.
        tasks: index of the task on which each tells most.
        regret: expected regret before the batch, percent.
        changes: chance that the batch moves the recommendation to a contender better by more than `NEGLIGIBLE`.
    """

    chosen: tuple[int, ...]
    values: tuple[float, ...]
    costs: tuple[float, ...]
    tasks: tuple[int, ...]
    regret: float
    changes: float

    @property
    def value(self) -> float:
        """Reduction of the expected regret by the whole batch, percent; no more can be gained than is lost."""
        return min(max(sum(self.values), 0.0), self.regret)

    @property
    def cost(self) -> float:
        """What the whole batch costs."""
        return sum(self.costs)


def choose_batch(
    predictions: Predictions,
    prices: Prices,
    count: int,
    *,
    budget: float = math.inf,
    pending: Sequence[int] = (),
    seed: int = 0,
) -> Batch:
    """Choose up to `count` candidates within the budget that together take most off the expected regret.

    Greedy by value per cost; or greedy by value alone, where that is clearly better (Leskovec et al. 2007,
    doi:10.1145/1281192.1281239).

    Args:
        predictions: on candidates and contenders.
        prices: of the candidates, after those chosen.
        count: most candidates to choose; each is chosen once.
        budget: most that they may cost together.
        pending: candidates whose outcomes will be known anyway.
        seed: of the outcomes that are imagined.
    """
    start = _State.of(predictions, seed)
    for candidate in pending:
        start = start.after(candidate)
    orders = (True, False) if count > 1 and len(torch.unique(prices([]))) > 1 else (True,)
    thrifty, *rest = (_greedy(start, prices, count, budget, pending, order) for order in orders)
    return next((batch for batch in rest if batch.value > CLEARLY * thrifty.value), thrifty)


def plausible(gains: Tensor) -> Tensor:
    """Indices of the contenders that are best in some draw, and of the best ones on average; gains (S, M) -> (m,)."""
    leaders = gains.mean(0).argsort(descending=True)[:OTHERS]
    indices: Tensor = torch.unique(torch.cat([gains.argmax(1), leaders]))
    return indices


def expected_regret(gains: Tensor) -> float:
    """E[max_m u_m] - max_m E[u_m] of gains (S, M)."""
    return float(gains.amax(1).mean() - gains.mean(0).max())


def _greedy(state: _State, prices: Prices, count: int, budget: float, taken: Sequence[int], thrifty: bool) -> Batch:
    """Take the best candidate that the budget allows, again and again."""
    first, chosen, values, costs, tasks = state, list[int](), list[float](), list[float](), list[int]()
    while len(chosen) < count:
        price = prices(chosen)
        value, spread, task = state.values()
        score = (value.clamp_min(0) + CURIOSITY * spread) / (price if thrifty else 1.0)
        score[[*taken, *chosen]] = -math.inf
        score[price > budget * (1 + 1e-9) - sum(costs)] = -math.inf
        best = int(score.argmax())
        if score[best] == -math.inf:
            break
        chosen.append(best)
        values.append(float(value[best]))
        costs.append(float(price[best]))
        tasks.append(int(task[best]))
        state = state.after(best)
    moved = float((state.paths.amax(1) > state.paths[:, state.leader] + NEGLIGIBLE).double().mean())
    most = min(1.0, first.left / max(sum(values), _TINY))  # no more can be gained than is lost
    capped = tuple(value * most for value in values)
    return Batch(tuple(chosen), capped, tuple(costs), tuple(tasks), first.left, moved)


@dataclass(frozen=True, eq=False)
class _State:
    """Draws after some outcomes were imagined, and where those outcomes have moved the expected gains.

    Attributes:
        outcomes, task_gains: of `Predictions` about their means over draws; task gains relative to those of the leader.
        paths: expected gains over the leader along imagined outcomes, (K, M).
        noise: (C, T).
        leader: the contender of greatest expected gain before anything is imagined.
        regret: expected then.
        seed: of what is imagined.
        step: outcomes imagined so far.
    """

    outcomes: Tensor
    task_gains: Tensor
    paths: Tensor
    noise: Tensor
    leader: int
    regret: float
    seed: int
    step: int = 0

    @classmethod
    def of(cls, predictions: Predictions, seed: int) -> _State:
        """Nothing imagined yet."""
        gains = predictions.task_gains.sum(-1) if predictions.gains is None else predictions.gains
        mean = gains.mean(0)
        leader = int(mean.argmax())
        ahead = predictions.task_gains - predictions.task_gains[:, leader : leader + 1]
        return cls(
            outcomes=predictions.outcomes - predictions.outcomes.mean(0),
            task_gains=ahead - ahead.mean(0),
            paths=(mean - mean[leader]).expand(PATHS, -1),
            noise=predictions.noise,
            leader=leader,
            regret=expected_regret(gains),
            seed=seed,
        )

    @property
    def left(self) -> float:
        """Expected regret that the imagined outcomes leave."""
        return max(self.regret - float(self.paths.amax(1).mean()), 0.0)

    def values(self) -> tuple[Tensor, Tensor, Tensor]:
        """Worth of each candidate, spread of the contest that it resolves, and task on which it tells most; (C,)."""
        slopes = self._slopes(self.outcomes, self.task_gains, self.noise)
        z = self._normal(len(self.paths), 0)
        block = max(1, BLOCK // self.paths.numel())
        parts = torch.split(slopes, block)
        best = [(self.paths + torch.einsum("cmt,kt->ckm", part, z)).amax(-1).mean(-1) for part in parts]
        by_task = slopes.square().mean(1)
        return torch.cat(best) - self.paths.amax(-1).mean(), by_task.sum(-1).sqrt(), by_task.argmax(-1)

    def after(self, candidate: int) -> _State:
        """The state once the outcome of a candidate was imagined."""
        outcome, noise = self.outcomes[:, [candidate]], self.noise[[candidate]]
        shown = outcome + noise * self._normal(len(outcome), 1)[:, None]
        surprise = (shown - shown.mean(0)) / torch.sqrt(outcome.var(0) + noise**2).clamp_min(_TINY)
        moved = self._slopes(outcome, self.task_gains, noise)[0]
        return replace(
            self,
            outcomes=self.outcomes - self._slopes(outcome, self.outcomes, noise)[0] * surprise,
            task_gains=self.task_gains - moved * surprise,
            paths=self.paths + self._normal(len(self.paths), 0) @ moved.T,
            step=self.step + 1,
        )

    def _slopes(self, outcomes: Tensor, of: Tensor, noise: Tensor) -> Tensor:
        """How far one standard deviation of a measured outcome (S, C, T) moves what is expected `of` (S, M, T)."""
        draws = len(of)
        covariance = torch.einsum("sct,smt->cmt", outcomes, of) / (draws - 1)
        own, other = outcomes.var(0)[:, None], of.var(0)[None]
        square = (covariance.square() / (own * other).clamp_min(_TINY)).clamp(max=1.0)
        sure = (1 - (1 - square) / (square * max(draws - 2, 1)).clamp_min(_TINY)).clamp_min(0.0)
        return covariance * sure / torch.sqrt(own + noise[:, None] ** 2).clamp_min(_TINY)

    def _normal(self, rows: int, what: int) -> Tensor:
        """Standard normal numbers of this step, (rows, T): even in every step, and in no order between steps."""
        seed = 1_000 * self.seed + 2 * self.step + what
        sobol: Any = torch.quasirandom.SobolEngine  # without types in torch
        order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
        points = sobol(self.noise.shape[1], scramble=True, seed=seed).draw(rows, dtype=torch.float64)
        normal: Tensor = torch.special.ndtri(points[order].clamp(1e-9, 1 - 1e-9))
        return normal


_TINY = 1e-150


#: Draws that are asked; surfaces hold as many posterior draws.
DRAWS = 64


def choose(
    posterior: Posterior,
    candidates: Design,
    costs: Sequence[float],
    count: int,
    *,
    recommendations: Design | None = None,
    weights: Mapping[str, float] | None = None,
    budget: float = math.inf,
    draws: int = DRAWS,
    seed: int = 0,
) -> Batch:
    """Choose the runs of a finite list that most reduce the expected regret of the recommendation per cost.

    Args:
        posterior: fitted surfaces, or a simulation of known truth.
        candidates: C runs that could be trained.
        costs: of each, in any one unit, (C,).
        count: most runs to choose.
        recommendations: recipes that could be recommended in the end; the candidates where None.
        weights: of tasks in the gain, equal where None.
        budget: most that the chosen runs may cost together.
        draws: posterior draws to consult.
        seed: of the outcomes that are imagined.

    Returns:
        The batch; `chosen` are rows of `candidates`, best first.

    Raises:
        InputError: no candidates, costs that do not fit them or are not positive, or unknown tasks.
    """
    price = torch.as_tensor(costs, dtype=torch.float64)
    if not len(candidates) or price.shape != (len(candidates),) or not bool((price > 0).all()):
        raise InputError(
            f"choose needs candidates with a positive cost each, got {len(candidates)} candidates and costs of shape "
            f"{tuple(price.shape)}; give one cost per row"
        )
    task = task_weights(posterior, weights)
    predictions = predictions_of(posterior, candidates, recommendations, task, draws)
    return choose_batch(predictions, lambda _chosen: price, count, budget=budget, seed=seed)


def predictions_of(
    posterior: Posterior, candidates: Design, recommendations: Design | None, task: Tensor, draws: int
) -> Predictions:
    """Draws of candidates and recommendations, on the tasks that count; weights `task` (T,)."""
    counts = task > 0
    with torch.no_grad():
        outcomes = log_losses(posterior, candidates, draws)[..., counts]
        losses = outcomes if recommendations is None else log_losses(posterior, recommendations, draws)[..., counts]
        task_gains = -100 * losses * task[counts]
        return Predictions(
            outcomes, task_gains[:, plausible(task_gains.sum(-1))], posterior.spread(candidates)[:, counts]
        )
