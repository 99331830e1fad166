"""What schedules are worth: fitted on short runs, small sizes or other shapes, predicted on the rest.

    python benchmarks/schedule.py            # the public tables that lie in ../shared/data, and the ladder's

Each line of the table is a split: root mean square error of differences between schedules of one size and budget, in
percent of loss, beside their spread; Spearman's rank correlation; the length of the linear cooldown that is predicted
to be best, and the measured best. Terms: ours (multi-power, in shares of the run), the same in steps as published, the
annealing area of Tissue et al. (arXiv:2408.11029), the forward-momentum term of Wang et al. (arXiv:2512.13705), and
nothing but where the rate ends. Each has two coefficients with a prior; `mixlaw` is a whole fit of the product.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.stats import spearmanr
from scoreboard_tables import DATA, ROOT

import mixlaw
from mixlaw.analysis.data.design import Design
from mixlaw.analysis.data.rates import PACE, SETTLE, SLOWER, rate_path, rate_sums
from mixlaw.analysis.data.recipes import design_of
from mixlaw.analysis.laws.schedule import BEST_PRIOR, NOISE_PRIOR, RATE_PRIOR, REACH, TRAVEL_PRIOR
from mixlaw.numbers import percent
from mixlaw.optimizer.answers.verify import runs_in, runs_of
from mixlaw.recipe import Decay, Mixture, Phase, Recipe
from mixlaw.records import Measurement, Record, to_table

Floats = NDArray[np.float64]
Term = Callable[[Design, float], Floats]
LADDER = ROOT / "benchmarks" / "ladder" / "runs.csv"
TEXT = Mixture({"text": 1.0})
#: Standard deviation of a run in log loss beside which the coefficients have their prior.
SEED = 0.002


@dataclass(frozen=True)
class Run:
    """A recipe and its log loss; `group` names what differs in schedule alone, `linear` the length of such a fall."""

    recipe: Recipe
    log_loss: float
    group: str
    linear: float | None = None


def ours(design: Design, home: float) -> Floats:
    """Sums of the product's term, (R, 2)."""
    return _pair(design, rate_sums(design).noise.numpy(), home)


def in_steps(design: Design, home: float) -> Floats:
    """The multi-power term with its published dependence on the number of steps: PACE at `home` tokens, (R, 2)."""
    rate, share = rate_path(design)
    between = 0.5 * (rate[:, 1:] + rate[:, :-1])
    area = between * share
    left = (area.sum(1, keepdim=True) - area.cumsum(1) + 0.5 * area).clamp(min=0)
    pace = PACE * (design.total / home)[:, None] * design.lr[:, None] ** (1 - SLOWER)
    settled = 1 - (1 + pace * between**-SLOWER * left) ** -SETTLE
    fall = rate[:, :-1] - rate[:, 1:]
    return _pair(design, (design.lr * (1 - (fall * settled).sum(1))).numpy(), home)


def area(design: Design, home: float) -> Floats:
    """Annealing area: a fall of the rate acts with a memory of 6 % of the run, (R, 2)."""
    rate, share = rate_path(design)
    after = 1 - share.cumsum(1) + 0.5 * share
    gone = ((rate[:, :-1] - rate[:, 1:]) * (1 - torch.exp(-after / 0.06))).sum(1)
    return _pair(design, (design.lr * (1 - gone)).numpy(), home)


def momentum(design: Design, home: float) -> Floats:
    """Forward momentum: m / sqrt(v) of the fall is near 1 while the rate falls, so steps of decay count, (R, 2)."""
    rate, share = rate_path(design)
    falling = ((rate[:, :-1] - rate[:, 1:]) > 1e-9).to(torch.float64)
    return _pair(design, (1 - (falling * share).sum(1)).numpy(), home)


def end(design: Design, home: float) -> Floats:
    """Only where the rate ends, (R, 2)."""
    return np.stack([np.zeros(len(design)), (design.lr * design.final_lr).numpy()], 1)


TERMS: dict[str, Term] = {"ours": ours, "in steps": in_steps, "area": area, "momentum": momentum, "end": end}


def _pair(design: Design, noise: Floats, home: float) -> Floats:
    reach = (design.total / home * design.lr * rate_sums(design).mean) ** -REACH
    return np.stack([reach.numpy(), noise], 1)


def predict(term: Term, train: Sequence[Run], test: Sequence[Run]) -> Floats:
    """Predicted log losses of test runs up to a level by group."""
    designs = [_design(runs) for runs in (train, test)]
    home = float(designs[0].total.mean())
    known, asked = (term(design, home) - term(_reference(design), home) for design in designs)
    rates, others = (design.lr.log().numpy() for design in designs)
    loss, inside = np.array([run.log_loss for run in train]), _centred(train)
    mean, spread = np.array([TRAVEL_PRIOR, NOISE_PRIOR, RATE_PRIOR, BEST_PRIOR]).T

    def value(theta: Floats, parts: Floats, rate: Floats) -> Floats:
        return np.asarray(parts @ np.exp(theta[:2]) + np.exp(theta[2]) * rate * (rate - 2 * theta[3]))

    def gap(theta: Floats) -> Floats:
        return np.concatenate([inside(value(theta, known, rates) - loss) / SEED, (theta - mean) / spread])

    return value(least_squares(gap, mean).x, asked, others)


def _reference(design: Design) -> Design:
    """The same sizes, budgets and peak rates with a linear cooldown over a fifth of the tokens."""
    shares = torch.tensor([0.8, 0.2], dtype=torch.float64)[:, None]
    ends = torch.tensor([1.0, 0.0], dtype=torch.float64).expand(len(design), -1)
    return replace(
        design,
        tokens=design.total[:, None, None] * shares,
        lr_end=ends,
        decay=torch.zeros_like(ends),
        phases=("init", "cooldown"),
        domains=("text",),
        unique=design.unique[:, :1],
    )


def predict_whole(train: Sequence[Run], test: Sequence[Run]) -> Floats:
    """The same by a whole fit of the product."""
    records = [
        Record(f"run{i}", run.recipe, {"loss": Measurement(np.exp(run.log_loss))}) for i, run in enumerate(train)
    ]
    fitted = mixlaw.fit(to_table(records), units={"loss": "nats/token"}, unique={}, resamples=8, audited=False)
    design = design_of([run.recipe for run in test], fitted.phases, fitted.domains, {})
    return np.log(fitted.predict(design).mean[:, 0])


def line(name: str, train: Sequence[Run], test: Sequence[Run], whole: bool = True) -> list[str]:
    """One row of the table for each term."""
    inside, loss = _centred(test), np.array([run.log_loss for run in test])
    rows = []
    answers = {term: predict(TERMS[term], train, test) for term in TERMS}
    if whole:
        answers["mixlaw"] = predict_whole(train, test)
    for term, value in answers.items():
        error = 100 * inside(value - loss)
        groups = sorted({run.group for run in test})
        ranks = [rank_of(value[some], loss[some]) for g in groups if len(some := _rows(test, g)) > 2]
        rank = f"{np.mean(ranks):.2f}" if ranks else ""
        cells = [f"{np.sqrt(np.mean(error**2)):.3f}", f"{100 * inside(loss).std():.3f}", rank, _best(test, value, loss)]
        rows.append(f"| {name} | {term} | {' | '.join(cells)} |")
        name = ""
    return rows


def rank_of(value: Floats, loss: Floats) -> float:
    """Rank correlation, 0 where all are predicted alike."""
    return float(spearmanr(value, loss)[0]) if np.ptp(value) > 0 else 0.0


def _best(test: Sequence[Run], value: Floats, loss: Floats) -> str:
    """Predicted and measured best length of a linear cooldown, over groups."""
    pairs = []
    for group in sorted({run.group for run in test}):
        rows = [i for i in _rows(test, group) if test[i].linear is not None]
        if len(rows) > 2:
            pairs.append([test[min(rows, key=lambda i: y[i])].linear for y in (value, loss)])
    return ", ".join(f"{percent(a)} ({percent(b)})" for a, b in pairs[:4] if a is not None and b is not None)


def _rows(runs: Sequence[Run], group: str) -> list[int]:
    return [i for i, run in enumerate(runs) if run.group == group]


def _centred(runs: Sequence[Run]) -> Callable[[Floats], Floats]:
    """Takes the mean of each group off."""
    number = {group: i for i, group in enumerate(dict.fromkeys(run.group for run in runs))}
    member = np.eye(len(number))[[number[run.group] for run in runs]]
    return lambda values: values - member @ ((values @ member) / member.sum(0))


def _design(runs: Sequence[Run]) -> Design:
    phases = max((tuple(p.name for p in run.recipe.phases) for run in runs), key=len)
    domains = sorted({domain for run in runs for domain in run.recipe.domains})
    return design_of([run.recipe for run in runs], phases, domains, {})


def cooled(params: int, tokens: float, *parts: tuple[float, float, Decay], lr: float = 1.0) -> Recipe:
    """One mixture, phases of these shares, ends and shapes."""
    phases = [
        Phase(f"phase{i}", max(1, round(tokens * share)), TEXT, lr_end, shape)
        for i, (share, lr_end, shape) in enumerate(parts)
    ]
    return Recipe(params, tuple(phases), lr=lr)


def lr_scheduling() -> list[str]:
    """Runs of 124M on SlimPajama: 15 thousand steps predict 25 thousand (Haegele et al. 2024, Schaipp et al. 2025)."""
    runs = [
        run for row in pl.read_csv(DATA / "lr_scheduling" / "runs_15k_25k.csv").to_dicts() if (run := _scheduled(row))
    ]
    short = [run for run in runs if run.recipe.tokens < 1e9]
    rows = []
    for lr in (0.5, 1.0, 2.0):
        train, test = ([r for r in some if r.recipe.lr == lr] for some in (short, [r for r in runs if r not in short]))
        linear = [run for run in train if run.linear is not None]
        rows += line(f"15k to 25k steps, rate {lr:g}e-3, linear", linear, [r for r in test if r.linear is not None])
        rows += line("the same, and 1-sqrt and cosine to 0 and .1", linear, test, whole=False)
    one = [replace(run, group=str(run.recipe.tokens)) for run in runs]
    train = [run for run in one if run.recipe.tokens < 1e9 and run.linear is not None]
    test = [run for run in one if run.recipe.tokens >= 1e9 and run.linear is not None]
    rows += line("all rates together", train, [run for run in test if run.recipe.lr > 0.2])
    return rows + line("and a rate five times lower than any", train, test, whole=False)


def _scheduled(row: dict[str, object]) -> Run | None:
    length, last = float(row["wsd_fract_decay"]), row["cos_final_lr"]  # type: ignore[arg-type]
    tokens, lr = float(row["iterations"]) * float(row["tokens_per_step"]), float(row["peak_lr"]) / 1e-3  # type: ignore[arg-type]
    group, linear = f"{tokens:g} {lr:g}", None
    if row["scheduler"] == "cos":
        final = 0.0 if isinstance(last, float) and 0 < last < 1e-5 else 0.1
        parts = [(1.0, final, Decay.COSINE)]
    else:
        shape = Decay.ONE_SQRT if row["decay_type"] == "sqrt" else Decay.LINEAR
        parts, linear = (
            [(1 - length, 1.0, Decay.LINEAR), (length, 0.0, shape)],
            length if shape is Decay.LINEAR else None,
        )
    if row["decay_type"] is None and linear is not None:
        return None  # the same runs again
    return Run(cooled(123_587_328, tokens, *parts, lr=lr), float(np.log(row["val_loss"])), group, linear)  # type: ignore[call-overload]


def multi_power_law() -> list[str]:
    """Curves of 25M to 400M: cosines predict decays to a tenth, against a constant rate (Luo et al. 2025)."""
    rows = []
    for size in (25, 100, 400):
        curves = {
            path.stem: pl.read_csv(path) for path in sorted((DATA / "multi_power_law" / f"csv_{size}").glob("*.csv"))
        }
        level = _at_constant_rate(curves["constant_72000"].filter(pl.col("step") > 4000))
        runs = {}
        for name, parts in _curves().items():
            curve = curves[name]
            last = int(curve["step"].to_numpy()[-1])
            loss = float(curve.filter(pl.col("step") > last - 300)["loss"].to_numpy().mean())
            runs[name] = Run(cooled(size * 1_000_000, last * 5e5, *parts), float(np.log(loss / level(last))), "")
        plain = [
            Run(cooled(size * 1_000_000, n * 5e5, (1.0, 1.0, Decay.LINEAR)), 0.0, "") for n in (14_000, 24_000, 72_000)
        ]
        cosines = [run for name, run in runs.items() if name.startswith("cosine")]
        test = [run for name, run in runs.items() if not name.startswith("cosine")]
        rows += line(f"{size}M: cosine to linear and to a step", [*cosines, *plain], [*test, plain[1]], whole=False)
    return rows


def _at_constant_rate(curve: pl.DataFrame) -> Callable[[float], float]:
    """Loss by step of a run at a constant rate: a power law through its curve."""
    steps, losses = curve["step"].to_numpy() / 1e4, curve["loss"].to_numpy()

    def gap(theta: Floats) -> Floats:
        return np.asarray(theta[0] + theta[1] * steps ** -theta[2] - losses)

    fit = least_squares(gap, [2.5, 0.5, 0.5]).x
    return lambda step: float(fit[0] + fit[1] * (step / 1e4) ** -fit[2])


def _curves() -> dict[str, list[tuple[float, float, Decay]]]:
    step = 8000 / 14_144
    dropped = {
        f"wsdcon_{n}": [(step, 1.0, Decay.LINEAR), (1e-4, n / 30, Decay.LINEAR), (1 - step, n / 30, Decay.LINEAR)]
        for n in (3, 9, 18)
    }
    cosine = {f"cosine_{n}": [(1.0, 0.1, Decay.COSINE)] for n in (24_000, 72_000)}
    return {**cosine, "wsdld_20000_24000": [(5 / 6, 1.0, Decay.LINEAR), (1 / 6, 0.1, Decay.LINEAR)], **dropped}


def gemstones() -> list[str]:
    """Ten cooldowns of a tenth from one trunk each, 50M to 2B: models below 300M predict what they gain above."""
    begin, finished = (
        [
            json.loads(text)
            for text in (DATA / "gemstones" / f"wandb_df_for_fitting_{name}.jsonl").read_text().splitlines()
        ]
        for name in ("cool_begin", "cool_end")
    )
    train: list[Run] = []
    test: list[Run] = []
    for name in sorted({row["run_name"] for row in finished}):
        trunk = sorted((r["tokens"], r["final_loss"]) for r in begin if r["run_name"] == name)
        logs = np.log(np.array(trunk))
        for row in finished:
            tokens, params = row["tokens"], int(row["params_active_precise"])
            if row["run_name"] == name and trunk[0][0] < tokens < trunk[-1][0]:
                level = float(np.interp(np.log(tokens), *logs.T))
                cooldown = cooled(params, tokens, (10 / 11, 1.0, Decay.LINEAR), (1 / 11, 0.0, Decay.LINEAR))
                pair = [Run(cooldown, float(np.log(row["final_loss"])), f"{name} {tokens}")]
                pair.append(Run(cooled(params, tokens, (1.0, 1.0, Decay.LINEAR)), level, f"{name} {tokens}"))
                (train if params < 3e8 else test).extend(pair)
    return line("below 300M to 300M and above", train, test, whole=False)


def ladder() -> list[str]:
    """Our own runs of one mixture: smaller sizes predict the next one, and 10 and 22 tokens for each parameter 80."""
    from ladder import TOKENS, budgets, cooled, schedules  # beside this file

    from mixlaw.runner.models.ladder import shape

    table = pl.read_csv(LADDER)
    runs = [run for size in TOKENS for run in _of_ladder(schedules(size), table)]
    sizes = [p for p in (shape(name).params for name in TOKENS) if sum(run.recipe.params == p for run in runs) > 8]
    rows = []
    for below, largest in pairwise(sizes):
        train = [run for run in runs if run.recipe.params <= below]
        rows += line(
            f"up to {below:,} to {largest:,} parameters", train, [r for r in runs if r.recipe.params == largest]
        )
    lengths = [recipe for recipe in budgets("0.05M") if len(recipe.phases) == 2]
    lengths += [cooled("0.05M", length) for length in (0.1, 0.2, 0.4, 0.6)]
    longer = [replace(run, group=f"{run.recipe.tokens:012}") for run in _of_ladder(lengths, table)]
    few, many = ([run for run in longer if (run.recipe.tokens < 3e7 * 0.05) == short] for short in (True, False))
    return rows + (line("10 and 22 to 40 and 80 tokens for each parameter", few, many) if many else [])


def _of_ladder(recipes: Iterable[Recipe], table: pl.DataFrame) -> Iterator[Run]:
    """The runs of recipes in the ladder's table; scores of few items are left out."""
    chances = ("metric:capitals", "metric:agreement")
    losses = [name for name in table.columns if name.startswith("metric:") and name not in chances]
    measured = runs_in(table)
    for recipe in recipes:
        last = recipe.phases[-1]
        plain = last.decay is Decay.LINEAR and last.lr_end == 0
        for row in runs_of(recipe, measured):  # trained in whole steps
            mean = float(np.mean([np.log(table[name][row]) for name in losses]))
            group = f"{recipe.params} {recipe.lr:g}"
            yield Run(recipe, mean, group, round(last.tokens / recipe.tokens, 2) if plain else None)


def main() -> None:
    """Print the table of every set of runs that is here."""
    torch.set_num_threads(1)
    parts = {"lr_scheduling": lr_scheduling, "multi_power_law": multi_power_law, "gemstones": gemstones}
    print("| split | term | rms % | spread % | rank | best (measured) |\n| --- | --- | --- | --- | --- | --- |")
    for name, part in parts.items():
        if (DATA / name).is_dir():
            print("\n".join(part()), flush=True)
    if LADDER.exists():
        print("\n".join(ladder()), flush=True)


if __name__ == "__main__":
    main()
