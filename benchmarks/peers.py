"""Ways of choosing what to train next: ours over a table, and what others would do over shares of the phases."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from scipy.optimize import least_squares
from torch import Tensor

from mixlaw.analysis.data.coordinates import Features
from mixlaw.analysis.data.design import Design
from mixlaw.analysis.fit import fit
from mixlaw.analysis.laws import Law
from mixlaw.analysis.laws.candidates import candidates
from mixlaw.analysis.surface.member import Member
from mixlaw.testing.replay import Choice, Method, Seen

Floats = NDArray[np.float64]
Draw = np.random.Generator
#: Posterior draws of each law.
DRAWS = 32
#: Weight of the widths that a law predicts, in runs left out.
PRIOR_RUNS = 2.0
#: Losses are cut at this multiple of the best one, or at their median if that is larger: bad runs are noisier, and
#: must not bend the fit.
BAD = 1.2
#: RegMix (Liu et al. 2024, arXiv:2407.01492): the mean of the best KEPT of SAMPLED mixtures.
KEPT, SAMPLED = 128, 100_000
#: Olmix (Chen et al. 2026, arXiv:2602.12237): spreads of the loss that a mixture has to gain by each nat that it moves.
PRICE = 0.05
#: Runs below which trees are not asked.
FOR_TREES = 8


@dataclass(frozen=True, eq=False)
class Space:
    """Mixtures as vectors: the shares of every phase, one after the other; of two domains the first share says all.

    Attributes:
        phases, domains: how many.
        pool: mixtures to choose among, (R, V).
        mean: mixture that sampled ones lie around, (phases, domains).
        finite: whether there is nothing beside the pool; then only what was trained is recommended.
    """

    phases: int
    domains: int
    pool: Floats
    mean: Floats
    finite: bool = True

    @classmethod
    def of(cls, table: pl.DataFrame) -> Space:
        """The mixtures of a table's runs."""
        design = Design.from_table(table, {})
        shares = (design.tokens / design.tokens.sum(2, keepdim=True)).numpy()
        return cls(len(design.phases), len(design.domains), vectors(shares), shares.mean(0))

    def shares(self, x: Floats) -> Floats:
        """A vector of weights >= 0 as shares, (phases, domains)."""
        parts = x.reshape(self.phases, -1)
        if self.domains == 2:
            return np.concatenate([parts, 1 - parts], 1)
        whole: Floats = (parts + 1e-9) / (parts + 1e-9).sum(1, keepdims=True)
        return whole

    def sampled(self, count: int, draw: Draw) -> Floats:
        """Mixtures (count, V) around the mean one, from nearly pure to nearly the mean, as RegMix draws its own."""
        strength = np.exp(draw.uniform(np.log(0.1), np.log(5.0), (count, self.phases, 1)))
        amounts = draw.standard_gamma(strength * self.domains * self.mean + 1e-3) + 1e-12
        return vectors(amounts / amounts.sum(2, keepdims=True))


def vectors(shares: Floats) -> Floats:
    """Shares (R, phases, domains) as vectors (R, V)."""
    free = shares[..., :1] if shares.shape[2] == 2 else shares
    return free.reshape(len(free), free.shape[1] * free.shape[2])


class Peer(Protocol):
    """Next mixtures (count, V) and the recommended one (V,) from mixtures (n, V) and their losses (n,)."""

    def __call__(self, space: Space, x: Floats, losses: Floats, count: int, draw: Draw) -> tuple[Floats, Floats]:
        """Choose."""
        ...


def random_runs(space: Space, x: Floats, losses: Floats, count: int, draw: Draw) -> tuple[Floats, Floats]:
    """Any mixtures; the best one measured."""
    return space.pool[draw.permutation(len(space.pool))[:count]], x[losses.argmin()]


def uniform_design(space: Space, x: Floats, losses: Floats, count: int, draw: Draw) -> tuple[Floats, Floats]:
    """Mixtures that fill the space of shares; the best one measured."""
    both = np.concatenate([x, space.pool])
    return both[spread_out(both, list(range(len(x))), count)], x[losses.argmin()]


def spread_out(x: Floats, taken: Sequence[int], count: int) -> list[int]:
    """Rows of x beyond those taken, each as far as can be from those before it (maximin)."""
    rows = list(taken)
    near = np.min([np.linalg.norm(x - x[row], axis=1) for row in rows], axis=0)
    for _ in range(count):
        near[rows] = -1
        rows.append(int(near.argmax()))
        near = np.minimum(near, np.linalg.norm(x - x[rows[-1]], axis=1))
    return rows[len(taken) :]


def gaussian_process(space: Space, x: Floats, losses: Floats, count: int, draw: Draw) -> tuple[Floats, Floats]:
    """BoTorch's default Gaussian process, log expected improvement over the pool; what it predicts to be best."""
    from botorch.acquisition import LogExpectedImprovement
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import SingleTaskGP
    from botorch.models.transforms import Standardize
    from gpytorch.mlls import ExactMarginalLogLikelihood

    scale = np.ptp(space.pool, axis=0) + 1e-12
    pool, seen = (torch.tensor((v - space.pool.min(0)) / scale) for v in (space.pool, x))
    gains = -torch.tensor(losses)[:, None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = SingleTaskGP(seen, gains, outcome_transform=Standardize(1))
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        with torch.no_grad():
            mean, expected, chosen = model.posterior(pool).mean[:, 0], model.posterior(seen).mean[:, 0], list[int]()
            known = torch.cdist(pool, seen).amin(1) < 1e-9
            for _ in range(count):
                score = LogExpectedImprovement(model, best_f=gains.max())(pool[:, None])
                score[known] = -torch.inf
                chosen.append(int(score.argmax()))
                known[chosen[-1]] = True
                if len(chosen) < count:  # kriging believer: the predicted mean counts as measured
                    model = model.condition_on_observations(pool[chosen[-1:]], mean[chosen[-1:], None])
    trained = space.finite or bool(expected.max() > mean.max())
    return space.pool[chosen], x[int(expected.argmax())] if trained else space.pool[int(mean.argmax())]


def tree_parzen(space: Space, x: Floats, losses: Floats, count: int, draw: Draw) -> tuple[Floats, Floats]:
    """Optuna's TPE, multivariate, over weights that are normalised; the best one measured."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    names = {f"x{i}": optuna.distributions.FloatDistribution(0, 1) for i in range(x.shape[1])}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sampler = optuna.samplers.TPESampler(seed=int(draw.integers(2**31)), n_startup_trials=2, multivariate=True)
        study = optuna.create_study(sampler=sampler)
        for row, loss in zip(x, losses, strict=True):
            params = dict(zip(names, map(float, row.clip(0, 1)), strict=True))
            study.add_trial(optuna.trial.create_trial(params=params, distributions=dict(names), value=float(loss)))
        suggested = [[study.ask(dict(names)).params[name] for name in names] for _ in range(count)]
    wanted = np.array([space.shares(np.array(row)) for row in suggested]).reshape(count, space.phases, space.domains)
    return vectors(wanted), x[losses.argmin()]


def regmix(space: Space, x: Floats, losses: Floats, count: int, draw: Draw) -> tuple[Floats, Floats]:
    """LightGBM on random runs; the mean of the best 128 of 100,000 sampled mixtures."""
    from lightgbm import LGBMRegressor

    runs = space.pool[draw.permutation(len(space.pool))[:count]]
    if len(x) < FOR_TREES:
        return runs, x[losses.argmin()]
    few = max(1, min(20, len(x) // 5))  # LightGBM's 20 runs to a leaf learn nothing from fewer than 40
    model = LGBMRegressor(n_estimators=1000, learning_rate=0.01, min_child_samples=few, verbose=-1, n_jobs=1)
    model.fit(x, losses)
    sampled = space.sampled(SAMPLED, draw)
    best = np.argsort(np.asarray(model.predict(sampled)))[:KEPT]
    return runs, sampled[best].mean(0)


def olmix(space: Space, x: Floats, losses: Floats, count: int, draw: Draw) -> tuple[Floats, Floats]:
    """Random runs; the log-linear law's best of 100,000 sampled mixtures, at a price on leaving the mean one."""
    runs = space.pool[draw.permutation(len(space.pool))[:count]]
    if len(x) < FOR_TREES:
        return runs, x[losses.argmin()]
    centre, spread = x.mean(0), float(losses.std()) + 1e-12

    def residuals(entries: Floats) -> Floats:
        predicted = entries[0] + np.exp((x - centre) @ entries[2:] + entries[1])
        return np.concatenate([(predicted - losses) / spread, 0.1 * entries[2:]])

    start = np.concatenate([[losses.min() - spread], [np.log(2 * spread)], np.zeros(x.shape[1])])
    law = least_squares(residuals, start).x
    sampled = space.sampled(SAMPLED, draw)
    whole, mean = (
        np.concatenate([v, 1 - v], 1) if space.domains == 2 else v for v in (sampled, vectors(space.mean[None]))
    )
    moved = (whole * np.log((whole + 1e-9) / (mean + 1e-9))).sum(1) / space.phases
    return runs, sampled[(np.exp((sampled - centre) @ law[2:] + law[1]) + PRICE * spread * moved).argmin()]


def d_optimal(space: Space, x: Floats, losses: Floats, count: int, draw: Draw) -> tuple[Floats, Floats]:
    """Runs that raise the information of a linear model of the shares most; the best one measured."""
    return _designed(space, x, count, lambda own, shared: own), x[losses.argmin()]


def v_optimal(space: Space, x: Floats, losses: Floats, count: int, draw: Draw) -> tuple[Floats, Floats]:
    """Runs that lower its mean variance over all mixtures most; the best one measured."""
    return _designed(space, x, count, lambda own, shared: (shared**2).mean(0) / (1 + own)), x[losses.argmin()]


def _designed(space: Space, x: Floats, count: int, merit: Callable[[Floats, Floats], Floats]) -> Floats:
    """Rows of the pool, one after the other, by their own variances (R,) and covariances (R, R) given those before."""
    pool, seen = (np.concatenate([np.ones((len(v), 1)), v], 1) for v in (space.pool, x))
    information = seen.T @ seen + 1e-3 * np.eye(seen.shape[1])
    chosen: list[int] = []
    for _ in range(count):
        covariance = pool @ np.linalg.solve(information, pool.T)
        score = merit(covariance.diagonal().copy(), covariance)
        score[chosen] = -np.inf
        chosen.append(int(score.argmax()))
        information += np.outer(pool[chosen[-1]], pool[chosen[-1]])
    return space.pool[chosen]


PEERS: Mapping[str, Peer] = {
    "GP, expected improvement": gaussian_process,
    "RegMix": regmix,
    "Olmix": olmix,
    "Optuna TPE": tree_parzen,
    "D-optimal": d_optimal,
    "V-optimal": v_optimal,
    "uniform design": uniform_design,
    "random": random_runs,
}


@dataclass(frozen=True)
class OverTable:
    """A peer that has to choose among the runs of a table: the nearest one in shares to what it wants."""

    peer: Peer

    def __call__(self, seen: Seen, count: int, draw: Draw) -> Choice:
        """Choose."""
        space = Space.of(seen.candidates)
        x, remaining = space.pool[list(seen.taken)], list(seen.left)
        wanted, best = self.peer(Space.of(seen.candidates[remaining]), x, seen.losses, count, draw)
        chosen: list[int] = []
        for vector in wanted:
            rows = [row for row in remaining if row not in chosen]
            chosen.append(rows[int(np.abs(space.pool[rows] - vector).sum(1).argmin())])
        return Choice(tuple(chosen), self._recommended(space, best, seen))

    def _recommended(self, space: Space, best: Floats, seen: Seen) -> int:
        """The row of a mixture; of several equal ones a trained one, and of those the best."""
        off = np.abs(space.pool - best).sum(1)
        near = set(np.flatnonzero(off <= off.min() + 1e-9).tolist())
        trained = [row for row in np.array(seen.taken)[seen.losses.argsort()].tolist() if row in near]
        return int(trained[0]) if trained else int(off.argmin())


@dataclass(frozen=True)
class Laws:
    """Ours: expected improvement over the best expected loss, in worlds of the laws that `fit` stacks.

    So few runs do not tell the laws apart: they count alike. How wide the worlds of each should be is learned from runs
    left out one at a time. What is recommended is the trained run of the lowest expected loss.

    Attributes:
        unique: tokens of the domains, where the table does not tell.
    """

    unique: Mapping[str, float]

    def __call__(self, seen: Seen, count: int, draw: Draw) -> Choice:
        """Choose."""
        design = Design.from_table(seen.candidates, self.unique)
        predictions = [self._predict(law, seen, design) for law in candidates(design)]
        mean, draws = torch.stack([m for m, _ in predictions]).mean(0), torch.cat([d for _, d in predictions])
        chosen: list[int] = []
        for _ in range(count):
            improvement = (mean.min() - draws).clamp_min(0).mean(0) + 1e-6 * (mean.max() - mean)
            improvement[[*seen.taken, *chosen]] = -torch.inf
            chosen.append(int(improvement.argmax()))
            draws = conditioned(draws, chosen[-1])
        return Choice(tuple(chosen), seen.taken[int(mean[list(seen.taken)].argmin())])

    def _predict(self, law: type[Law], seen: Seen, design: Design) -> tuple[Tensor, Tensor]:
        """Expected losses (R,) and posterior draws of them (S, R) of one law, fitted to the runs so far."""
        losses = np.minimum(seen.losses, max(BAD * seen.losses.min(), float(np.median(seen.losses))))
        table = seen.table.with_columns(pl.Series(f"metric:{seen.task}", losses))
        units = {seen.task: seen.unit}
        surfaces = fit(table, units=units, unique=self.unique, resamples=DRAWS, audited=False, law=law)
        with torch.no_grad():
            mean, draws = surfaces.mean(design)[:, 0], surfaces.draws(design, DRAWS)[..., 0]
            return mean, mean * (draws / mean) ** width(surfaces.members[0])


def width(member: Member) -> float:
    """Factor on the predicted deviations of a fit to one task: the z-scores of runs left out get variance 1."""
    observed, form = member.observed, member.form
    value, slope = form.jacobian(member.theta, observed.design)
    residual = observed.target - value - (slope * (member.prior.mean - member.theta)[:, form.free, None]).sum(1)
    scaled = slope * torch.sqrt(member.prior.spread**2 + member.prior.mean_error**2)[form.free, None]
    x, variance = member.residual.x, member.residual.variance
    covariance = scaled.transpose(1, 2) @ scaled + member.kernel(x, x) + torch.diag_embed(variance)
    squares = left_out(residual[0], covariance[0]).square()
    return float(((PRIOR_RUNS + squares.sum()) / (PRIOR_RUNS + len(squares))).sqrt())


def left_out(values: Tensor, covariance: Tensor) -> Tensor:
    """Leave-one-out z-scores of normal values (R,): each against its prediction from all the others.

    Rasmussen and Williams 2006, section 5.4.2.
    """
    inverse = torch.linalg.inv(covariance)
    scores: Tensor = (inverse @ values) / inverse.diagonal().sqrt()
    return scores


def conditioned(draws: Tensor, row: int) -> Tensor:
    """Draws (S, R) once the value of a row is known, whatever it is: their regression on that row is taken out."""
    off = draws - draws.mean(0)
    own = off[:, row]
    return draws - torch.outer(own, (off * own[:, None]).mean(0) / own.square().mean().clamp_min(1e-12))


def methods(unique: Mapping[str, float]) -> dict[str, Method]:
    """All that choose among the runs of a table, by name; ours first."""
    return {"mixlaw": Laws(unique)} | {name: OverTable(peer) for name, peer in PEERS.items()}


def first_runs(candidates: pl.DataFrame, unique: Mapping[str, float], count: int, draw: Draw) -> list[int]:
    """The start of every method: a random row, then rows as far apart as can be in log exposures."""
    design = Design.from_table(candidates, unique)
    x = Features.of(design)(design).numpy()
    start = [int(draw.integers(len(x)))]
    return start + spread_out(x, start, count - 1)
