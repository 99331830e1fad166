"""The schedule term: its sums, its place beside any law, and what it predicts of public runs."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from scipy.stats import spearmanr

import mixlaw
from mixlaw.analysis.data.design import Design
from mixlaw.analysis.data.rates import NOISE, PACE, SETTLE, SLOWER, rate_sums
from mixlaw.analysis.data.recipes import design_of
from mixlaw.analysis.fitting.pooling import first
from mixlaw.analysis.laws import LAWS, Chinchilla, Exposure, Joint
from mixlaw.analysis.laws.base import Form, Law
from mixlaw.analysis.laws.schedule import rates_vary, scheduled
from mixlaw.optimizer.answers.propose import propose
from mixlaw.optimizer.target.target import Target
from mixlaw.recipe import Decay, Domain, Kind, Mixture, Phase, Recipe, Schedule
from mixlaw.runner.train.step import rate
from test_laws import designs, thetas

DATA = Path(os.environ.get("MIXLAW_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
TEXT = Mixture({"text": 1.0})
TOKENS = 1_000_000
NAMES = ("init", "continue", "cooldown")


def cooled(share: float, end: float = 0.0, shape: Decay = Decay.LINEAR, lr: float = 1.0) -> Recipe:
    phases = (
        Phase("init", round(TOKENS * (1 - share)), TEXT),
        Phase("cooldown", round(TOKENS * share), TEXT, end, shape),
    )
    return Recipe(1000, phases, lr=lr)


CASES = {
    "linear": cooled(0.3),
    "root": cooled(0.2, 0.0, Decay.ONE_SQRT),
    "half wave to a tenth": cooled(0.4, 0.1, Decay.COSINE, 2.0),
    "constant": Recipe(1000, (Phase("init", TOKENS, TEXT),), lr=0.5),
    "two falls": Recipe(
        1000,
        (
            Phase("init", 400_000, TEXT, 0.5),
            Phase("continue", 300_000, TEXT, 0.5),
            Phase("cooldown", 300_000, TEXT, 0.0),
        ),
    ),
    "cosine over all": Recipe(
        1000, (Phase("init", 700_000, TEXT), Phase("cooldown", 300_000, TEXT, 0.1)), schedule=Schedule.COSINE
    ),
}


def by_steps(recipe: Recipe, done: float = 1.0, steps: int = 40_000) -> tuple[float, float]:
    """Both sums of a schedule step by step, from the rates that the runner trains with."""
    rates = np.array([rate(recipe, round(TOKENS * (i + 0.5) / steps), 0) for i in range(round(done * steps))])
    before, left = np.append(1.0, rates[:-1]), np.cumsum(rates[::-1])[::-1] / len(rates)
    here = np.maximum(0.5 * (rates + before), 1e-6)
    settled = 1 - (1 + PACE * recipe.lr ** (1 - SLOWER) * here**-SLOWER * left) ** -SETTLE
    return rates.mean(), recipe.lr**NOISE * (1 - ((before**NOISE - rates**NOISE) * settled).sum())


@pytest.mark.parametrize("recipe", CASES.values(), ids=CASES)
def test_sums_over_a_few_intervals_are_those_over_every_step_of_the_runner(recipe: Recipe) -> None:
    sums = rate_sums(design_of([recipe], NAMES, ("text",), {}))
    mean, noise = by_steps(recipe)
    assert float(sums.mean) == pytest.approx(mean, abs=1e-4)
    assert float(sums.noise) == pytest.approx(noise, abs=2e-3)


def test_a_run_under_way_has_the_sums_of_its_schedule_so_far() -> None:
    whole = Recipe(1000, (Phase("init", TOKENS, TEXT, 0.0),))
    design = design_of([whole], ("init",), ("text",), {})
    half = replace(design, tokens=0.5 * design.tokens, progress=0.5 * design.progress)
    mean, noise = by_steps(whole, 0.5)
    assert float(rate_sums(half).mean) == pytest.approx(mean, abs=1e-4)
    assert float(rate_sums(half).noise) == pytest.approx(noise, abs=2e-3)


def test_names_and_phases_of_the_same_rates_change_nothing() -> None:
    split = Recipe(
        1000, (Phase("init", 500_000, TEXT), Phase("continue", 200_000, TEXT), Phase("cooldown", 300_000, TEXT, 0))
    )
    one, other = (rate_sums(design_of([r], NAMES, ("text",), {})) for r in (CASES["linear"], split))
    assert torch.allclose(one.noise, other.noise, atol=1e-6)
    assert torch.allclose(one.mean, other.mean, atol=1e-9)


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_at_the_reference_schedule_a_law_is_what_it_is_without_the_term(law: type[Law]) -> None:
    design = designs()
    same = replace(
        design,
        progress=torch.ones_like(design.progress),
        lr_end=torch.tensor([[1.0, 1.0, 0.0]], dtype=torch.float64).expand(9, -1),
        tokens=torch.ones_like(design.tokens) * 1e8,
    )
    main = law.form(same)
    form, theta = scheduled(main, same), thetas(scheduled(main, same))
    assert torch.allclose(form.log_loss(theta, same), main.log_loss(theta[:, :-6], same), rtol=0, atol=1e-12)
    fitted = form.law(theta[0], 0.5)
    assert torch.allclose(fitted(same), main.law(theta[0, :-6], 0.5)(same))
    other = replace(design, lr=torch.linspace(0.5, 2.0, len(design), dtype=torch.float64))
    for recipes in (design, other):
        assert torch.allclose(fitted(recipes).log(), form.log_loss(theta, recipes)[0] + 0.5, atol=1e-9)


@pytest.mark.parametrize(("rates", "vary"), [((1, 1, 2, 2), False), ((1, 1, 2, 3), True), ((1, 2, 3, 3), True)])
def test_rates_vary_where_runs_of_one_size_differ_in_theirs(rates: tuple[float, ...], vary: bool) -> None:
    recipes = [replace(cooled(0.3, lr=lr), params=size) for lr, size in zip(rates, (1, 1, 2, 2), strict=True)]
    assert rates_vary(design_of(recipes, NAMES, ("text",), {})) is vary


@pytest.mark.parametrize("law", [Chinchilla, Exposure])
def test_the_derivative_in_closed_form_is_that_of_forward_mode(law: type[Law]) -> None:
    design = replace(designs(), lr=torch.linspace(0.5, 2.0, 9, dtype=torch.float64))
    form = scheduled(law.form(design), design)
    theta = thetas(form)
    value, jacobian = form.jacobian(theta, design)
    expected_value, expected = Form.jacobian(form, theta, design)
    assert torch.allclose(value, expected_value)
    assert torch.allclose(jacobian, expected, rtol=1e-9, atol=1e-11)


def test_tokens_ends_and_rates_have_finite_and_true_slopes() -> None:
    design = design_of([CASES["linear"], CASES["root"], CASES["half wave to a tenth"]], NAMES, ("text",), {})
    parts = {name: getattr(design, name).clone().requires_grad_() for name in ("tokens", "lr_end", "lr")}
    sums = rate_sums(replace(design, **parts))
    slopes = dict(zip(parts, torch.autograd.grad((sums.noise + sums.mean).sum(), list(parts.values())), strict=True))
    assert all(bool(slope.isfinite().all()) for slope in slopes.values())
    longer = design.tokens.clone()
    longer[:, 2] += 100.0
    moved = rate_sums(replace(design, tokens=longer))
    plain = rate_sums(design)
    change = (moved.noise + moved.mean - plain.noise - plain.mean) / 100.0
    assert torch.allclose(change, slopes["tokens"][:, 2, 0], rtol=2e-3)


def test_where_runs_never_vary_the_schedule_the_term_is_drawn_from_its_prior_and_said_in_words() -> None:
    design = design_of([CASES["linear"], replace(CASES["linear"], params=2000)], NAMES, ("text",), {})
    form = scheduled(Chinchilla.form(design), design)
    names = ["travel", "unsettled", "rate", "best rate", "travel growth", "unsettled growth"]
    assert [p.name for p in form.parameters[-6:] if p.held] == names
    assert bool((first(form).loose[-6:] > 0.1).all())
    assert "The learning-rate schedule never varies" in " ".join(form.notes)
    varied = design_of([CASES["linear"], CASES["root"]], NAMES, ("text",), {})
    assert [p.name for p in scheduled(Chinchilla.form(varied), varied).parameters[-6:] if p.held] == names[2:]
    both = design_of(
        [replace(CASES[c], params=n) for c in ("linear", "root") for n in (2000, 9000)], NAMES, ("text",), {}
    )
    assert [p.name for p in scheduled(Chinchilla.form(both), both).parameters[-6:] if p.held] == names[2:4]


def public_runs() -> pl.DataFrame:
    path = DATA / "lr_scheduling" / "runs_15k_25k.csv"
    if not path.exists():
        pytest.skip(f"no public runs at {path}")
    rows = pl.read_csv(path).filter(
        (pl.col("scheduler") == "wsd") & (pl.col("decay_type") == "linear") & (pl.col("peak_lr") > 1e-4)
    )
    tokens, last = pl.col("iterations") * pl.col("tokens_per_step"), pl.col("wsd_fract_decay")
    return rows.select(
        "run",
        "params",
        (tokens * (1 - last)).alias("tokens:init:text"),
        (tokens * last).alias("tokens:cooldown:text"),
        pl.lit(0.0).alias("lr_end:cooldown"),
        pl.col("val_loss").alias("metric:loss"),
        (pl.col("peak_lr") / 1e-3).alias("lr"),
        pl.col("peak_lr"),
        "iterations",
        "wsd_fract_decay",
    ).unique(["peak_lr", "iterations", "wsd_fract_decay"], maintain_order=True)


@pytest.mark.parametrize("law", [Joint, Exposure])
@pytest.mark.parametrize("peak", [5e-4, 1e-3, 2e-3])
def test_short_runs_predict_what_cooldowns_are_worth_in_longer_ones(peak: float, law: type[Law]) -> None:
    # Haegele et al. 2024, Schaipp et al. 2025: 15,000 steps of 124M parameters predict 25,000.
    runs = public_runs().filter(pl.col("peak_lr") == peak)
    short, long = (runs.filter(pl.col("iterations") == steps) for steps in (15_000, 25_000))
    fitted = mixlaw.fit(short, units={"loss": "nats/token"}, unique={}, law=law, resamples=4, audited=False)
    predicted = np.log(fitted.predict(Design.from_table(long, {})).law_only[:, 0])
    measured = np.log(long["metric:loss"].to_numpy())
    assert np.std(predicted - measured) < 8e-4 < 0.5 * np.std(measured)
    assert spearmanr(predicted, measured)[0] > 0.93  # .4 and .6 differ by 7e-5 of the loss at 1e-3
    steps = long.sort("wsd_fract_decay")["wsd_fract_decay"].to_list()
    best, truth = (steps.index(long["wsd_fract_decay"][int(np.argmin(x))]) for x in (predicted, measured))
    assert abs(best - truth) <= 1
    assert math.isfinite(fitted.predict(Design.from_table(long, {})).hi90.max())


def test_short_runs_at_three_rates_choose_the_cooldown_of_longer_ones() -> None:
    # Measured at 25,000 steps and the rate that is proposed for: .2 3.03779, .4 3.02738, .6 3.02745, .8 3.03178.
    short = public_runs().filter(pl.col("iterations") == 15_000)
    fitted = mixlaw.fit(short, units={"loss": "nats/token"}, unique={}, resamples=8)
    target = Target(123_587_328, 1_280_000_000, phases=NAMES[::2], cooldown=(0.05, 0.95))
    proposal = propose(fitted, target, [Domain("text", Kind.TEXT, 600 * 10**9)], draws=8, starts=2, sizes=[])
    assert 0.4 <= proposal.recipe.phases[-1].tokens / proposal.recipe.tokens <= 0.6
    assert "one domain" in proposal.sentence
    (length,) = (flat for flat in proposal.flat if flat.what == "length")
    assert str(length) in str(proposal)
    assert length.low > 0.2
    assert length.high < 0.9


def test_what_another_length_is_worth_is_known_within_its_interval_where_no_run_varies_it() -> None:
    # Three seeds of 25 thousand parameters each, against a cooldown of .3, one mixture in all phases: measured gains.
    measured = {0.1: -1.05, 0.2: -0.34, 0.4: 0.12, 0.6: 0.04}
    fixed = design_of([cooled(0.3), replace(cooled(0.3), params=2000)], NAMES, ("text",), {})
    form = scheduled(Chinchilla.form(fixed), fixed)
    prior, generator = first(form), torch.Generator().manual_seed(0)
    theta = prior.mean + torch.randn(400, len(prior.mean), generator=generator, dtype=torch.float64) * prior.loose
    ratio = TOKENS / 1000 / math.exp(form.log_d - form.log_n)  # to the runs' own tokens for each parameter
    recipes = [replace(cooled(share), params=round(1000 * ratio)) for share in (0.3, *measured)]
    losses = form.log_loss(theta, design_of(recipes, NAMES, ("text",), {}))
    gains = 100 * (losses[:, :1] - losses[:, 1:])
    best = form.log_loss(prior.mean[None], design_of(recipes, NAMES, ("text",), {}))[0]
    for i, truth in enumerate(measured.values()):
        low, high = torch.quantile(gains[:, i], torch.tensor([0.05, 0.95], dtype=torch.float64)).tolist()
        assert low <= truth <= high
        assert 100 * float(best[0] - best[1 + i]) == pytest.approx(truth, abs=0.35)
