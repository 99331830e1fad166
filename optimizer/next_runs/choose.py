"""Choose: which of many possible runs to train next, for what they teach about the best recipe per cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.errors import InputError
from mixlaw.optimizer.goal.gains import log_losses
from mixlaw.optimizer.goal.goal import task_weights
from mixlaw.optimizer.goal.posterior import Beliefs
from mixlaw.optimizer.next_runs.value import Batch, Outlook, choose_batch, plausible

#: Worlds that are asked; surfaces hold as many posterior draws.
WORLDS = 64


def choose(
    beliefs: Beliefs,
    candidates: Design,
    costs: Sequence[float],
    count: int,
    *,
    contenders: Design | None = None,
    weights: Mapping[str, float] | None = None,
    budget: float = math.inf,
    worlds: int = WORLDS,
    seed: int = 0,
) -> Batch:
    """Choose the runs of a finite list that most reduce the expected regret of the recommendation per cost.

    Args:
        beliefs: fitted surfaces, or a simulated world.
        candidates: C runs that could be trained.
        costs: of each, in any one unit, (C,).
        count: most runs to choose.
        contenders: recipes that could be recommended in the end; the candidates where None.
        weights: of tasks in the gain, equal where None.
        budget: most that the chosen runs may cost together.
        worlds: posterior draws to consult.
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
    task = task_weights(beliefs, weights)
    outlook = outlook_of(beliefs, candidates, contenders, task, worlds)
    return choose_batch(outlook, lambda _chosen: price, count, budget=budget, seed=seed)


def outlook_of(beliefs: Beliefs, candidates: Design, contenders: Design | None, task: Tensor, worlds: int) -> Outlook:
    """What the beliefs foretell of candidates and contenders, on the tasks that count; weights `task` (T,)."""
    counts = task > 0
    with torch.no_grad():
        outcomes = log_losses(beliefs, candidates, worlds)[..., counts]
        losses = outcomes if contenders is None else log_losses(beliefs, contenders, worlds)[..., counts]
        stakes = -100 * losses * task[counts]
        return Outlook(outcomes, stakes[:, plausible(stakes.sum(-1))], beliefs.spread(candidates)[:, counts])
