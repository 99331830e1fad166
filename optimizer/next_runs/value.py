"""What a run would teach: expected reduction of regret by one more observation, and batches chosen by it per cost.

Regret is the expected loss of the recommendation, E[max_m u_m - u_leader] over posterior draws, u_m the gain of
contender m. The outcomes of a batch move the expected gains by b z (`information`), and so are worth

    E_z[u of the contender that is best at E[u] + b z] - E[u_leader]

(knowledge gradient: Frazier, Powell & Dayanik 2009, doi:10.1287/ijoc.1080.0314). A single run often adds
nothing, as it does not change the decision alone. Batches are therefore built by the worth of each contender's duel
with the leader, in which every run counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.errors import InputError
from mixlaw.optimizer.goal.goal import task_weights
from mixlaw.optimizer.goal.posterior import Posterior, log_losses
from mixlaw.optimizer.next_runs.information import TINY, FromDraws, Information, normal
from mixlaw.optimizer.policy import CLEARLY, CURIOSITY, NEGLIGIBLE

#: FLOPs of every candidate (C,), given the candidates chosen before it.
Prices = Callable[[Sequence[int]], Tensor]

#: Prices of a place among the runs that batches are made with, in prices of a candidate that shares nothing; where a
#: place is all that counts, the price of training does not.
PLACES = (0.0, 0.3, 1.0, 4.0, math.inf)
#: Outcomes over which a batch is valued.
PATHS = 1024
#: The same where every candidate is valued by itself; entries of (candidates x contenders x paths) held at once.
FEW, BLOCK = 256, 2**22
#: Contenders beyond the best one of every draw.
OTHERS = 32


@dataclass(frozen=True, eq=False)
class Predictions:
    """S posterior draws of candidates and recommendations.

    Attributes:
        outcomes: log losses of C candidate runs on T tasks, (S, C, T).
        task_gains: part of every task in the gain of M contenders, percent, (S, M, T).
        noise: standard deviation over seeds of each candidate in log loss, (C, T).
        gains: of the contenders, percent, (S, M); their sum over tasks where None. They are given where they
            are not linear in the tasks: then task gains are their linear part.
        handicap: what caution takes off each contender when one is recommended, percent, (M,); nothing where None.
        leader: the contender that is recommended before anything is measured; the best one where None.
    """

    outcomes: Tensor
    task_gains: Tensor
    noise: Tensor
    gains: Tensor | None = None
    handicap: Tensor | None = None
    leader: int | None = None

    @property
    def total(self) -> Tensor:
        """Gains of the contenders, (S, M)."""
        return self.task_gains.sum(-1) if self.gains is None else self.gains

    @property
    def recommended(self) -> int:
        """The leader."""
        off = 0.0 if self.handicap is None else self.handicap
        return int((self.total.mean(0) - off).argmax()) if self.leader is None else self.leader

    @property
    def information(self) -> FromDraws:
        """What runs would show according to the draws."""
        return FromDraws.of(self.outcomes, self.task_gains, self.noise, self.recommended)


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
        later: the same chance for what comes after the first 0, 1, ... runs of the batch.
    """

    chosen: tuple[int, ...]
    values: tuple[float, ...]
    costs: tuple[float, ...]
    tasks: tuple[int, ...]
    regret: float
    changes: float
    later: tuple[float, ...] = ()

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
    first: Sequence[int] = (),
    places: Sequence[float] = PLACES,
    information: Information | None = None,
    seed: int = 0,
) -> Batch:
    """Choose up to `count` candidates within the budget that together take most off the expected regret.

    Greedy by worth per cost, where a place among the runs has a price as well: of several prices of a place, from none
    (worth per cost alone) to all that counts (worth alone; Leskovec et al. 2007, doi:10.1145/1281192.1281239), that of
    the batch of greatest value; of equally good ones the cheapest. So the budget is spent
    where it is the number of runs that is short. A single candidate is chosen by the knowledge gradient.

    Args:
        predictions: on candidates and contenders.
        prices: of the candidates, after those chosen.
        count: most candidates to choose; each is chosen once.
        budget: most that they may cost together.
        pending: candidates whose outcomes will be known anyway.
        first: candidates that are chosen before any other, as far as the budget allows.
        places: prices of a place to try, in prices of a candidate that shares nothing.
        information: what runs show; as the draws of the predictions say where None.
        seed: of the outcomes that are imagined.
    """
    start = _State.of(predictions, information, seed)
    for candidate in pending:
        start = start.after(candidate)
    alone = prices([])
    places = places if count > 1 and len(torch.unique(alone)) > 1 else places[:1]
    offer = _Offer(count, budget, pending, first)
    batches = [_greedy(start, prices, offer, place * float(alone.median())) for place in places]
    most = max(batch.value for batch in batches)
    return min((batch for batch in batches if CLEARLY * batch.value >= most), key=lambda batch: batch.cost)


def plausible(gains: Tensor) -> Tensor:
    """Indices of the contenders that are best in some draw, and of the best ones on average; gains (S, M) -> (m,)."""
    leaders = gains.mean(0).argsort(descending=True)[:OTHERS]
    indices: Tensor = torch.unique(torch.cat([gains.argmax(1), leaders]))
    return indices


def _greedy(state: _State, prices: Prices, offer: _Offer, place: float) -> Batch:
    """Take what is taken in any case, then the best candidate that the budget allows, again and again."""
    states, chosen, costs, forced = [state], list[int](), list[float](), list(offer.first)
    while len(chosen) < offer.count:
        price = prices(chosen)
        fits = price <= offer.budget * (1 + 1e-9) - sum(costs)
        fits[[*offer.pending, *chosen]] = False
        if forced:
            best = forced.pop(0)
            if not fits[best]:
                continue
        else:
            worth = states[-1].alone() if offer.count == 1 else states[-1].worth()
            score = worth / (price + place if math.isfinite(place) else 1.0)
            best = int(score.where(fits, -math.inf).argmax())
            if not fits[best]:
                break
        chosen.append(best)
        costs.append(float(price[best]))
        states.append(states[-1].after(best))
    expected = [each.expected for each in states]
    values = [max(after - before, 0.0) for before, after in pairwise(expected)]
    gained = min(max(expected[-1] - expected[0], 0.0), state.left)  # no more can be gained than is lost
    shares = tuple(value * min(1.0, gained / max(sum(values), TINY)) for value in values)
    later, tasks = tuple(states[-1].moved(before) for before in states), state.information.tasks()[chosen].tolist()
    return Batch(tuple(chosen), shares, tuple(costs), tuple(tasks), state.left, later[0], later)


@dataclass(frozen=True)
class _Offer:
    """What may be chosen; see `choose_batch`."""

    count: int
    budget: float
    pending: Sequence[int]
    first: Sequence[int]


@dataclass(frozen=True, eq=False)
class _State:
    """What is left to learn after some outcomes were imagined, and where those have moved the expected gains.

    Attributes:
        information: what further runs would show.
        paths: expected gains over the leader along imagined outcomes, (K, M).
        handicap: what caution takes off each contender, (M,).
        behind: by how much each is behind the leader, caution included, (M,).
        weights: share of the draws in which each is the best, (M,).
        resolved: variance of its gain over the leader's that imagined outcomes have resolved, (M,).
        regret: expected of the leader before anything was imagined.
        seed: of what is imagined.
        step: outcomes imagined so far.
    """

    information: Information
    paths: Tensor
    handicap: Tensor
    behind: Tensor
    weights: Tensor
    resolved: Tensor
    regret: float
    seed: int
    step: int = 0

    @classmethod
    def of(cls, predictions: Predictions, information: Information | None, seed: int) -> _State:
        """Nothing imagined yet."""
        gains, leader = predictions.total, predictions.recommended
        mean = gains.mean(0)
        handicap = torch.zeros_like(mean) if predictions.handicap is None else predictions.handicap
        # Whatever is found elsewhere now was within reach of `propose`, which did not take it.
        handicap = handicap + (mean - handicap - (mean - handicap)[leader]).clamp_min(0)
        return cls(
            information=information or predictions.information,
            paths=(mean - mean[leader]).expand(PATHS, -1),
            handicap=handicap,
            behind=(mean - handicap)[leader] - (mean - handicap),
            weights=torch.bincount(gains.argmax(1), minlength=len(mean)).double() / len(gains),
            resolved=torch.zeros_like(mean),
            regret=float((gains.amax(1) - gains[:, leader]).mean()),
            seed=seed,
        )

    @property
    def expected(self) -> float:
        """Expected gain of what is recommended after the imagined outcomes, over the leader."""
        return float(self._recommended().mean())

    @property
    def left(self) -> float:
        """Expected regret that the imagined outcomes leave."""
        return max(self.regret - self.expected, 0.0)

    def moved(self, before: _State) -> float:
        """Chance that what is recommended now is better by more than `NEGLIGIBLE` than what an earlier state would."""
        then = (before.paths - self.handicap).argmax(1, keepdim=True)
        gained = self._recommended() - self.paths.gather(1, then)[:, 0]
        return float((gained > NEGLIGIBLE).double().mean())

    def _recommended(self) -> Tensor:
        """On every path the expected gain of the contender that caution would recommend, (K,)."""
        best = (self.paths - self.handicap).argmax(1, keepdim=True)
        return self.paths.gather(1, best)[:, 0]

    def worth(self) -> Tensor:
        """What each candidate adds to the worth of those before it, (C,).

        A batch that resolves a standard deviation s of the gain of a contender over the leader, which it is behind by
        b, is worth E max(s z - b, 0), in the mean over contenders, each as often as it is the best in a draw.
        """
        square = self.information.slopes().square().sum(-1)  # (C, M)
        before, after = self.resolved.sqrt(), (self.resolved + square).sqrt()
        worth = (_expected_excess(after, self.behind) - _expected_excess(before, self.behind)) @ self.weights
        return worth.clamp_min(0) + CURIOSITY * (after - before) @ self.weights

    def alone(self) -> Tensor:
        """What each candidate is worth if nothing follows it, (C,): the knowledge gradient."""
        slopes, few = self.information.slopes(), self.paths[:FEW]
        z = normal(len(few), slopes.shape[2], 1_000 * self.seed + 2 * self.step)
        block = max(1, BLOCK // few.numel())
        best = []
        for part in torch.split(slopes, block):
            moved = few + torch.einsum("cmt,kt->ckm", part, z)
            best.append(moved.gather(2, (moved - self.handicap).argmax(2, keepdim=True))[..., 0].mean(1))
        now = few.gather(1, (few - self.handicap).argmax(1, keepdim=True)).mean()
        spread = slopes.square().sum((1, 2)).sqrt()
        return (torch.cat(best) - now).clamp_min(0) + CURIOSITY * spread

    def after(self, candidate: int) -> _State:
        """The state once the outcome of a candidate was imagined."""
        moved = self.information.slopes()[candidate]
        seed = 1_000 * self.seed + 2 * self.step
        return replace(
            self,
            information=self.information.after(candidate, seed + 1),
            resolved=self.resolved + moved.square().sum(-1),
            paths=self.paths + normal(len(self.paths), moved.shape[1], seed) @ moved.T,
            step=self.step + 1,
        )


def _expected_excess(spread: Tensor, behind: Tensor) -> Tensor:
    """E max(s z - b, 0) for a standard normal z, by element."""
    far = behind / spread.clamp_min(TINY)
    density = torch.exp(-0.5 * far.square()) / math.sqrt(2 * math.pi)
    excess: Tensor = spread * density - behind * torch.special.ndtr(-far)
    return excess


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
