from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

import published
from mixlaw.analysis.data.design import Design
from mixlaw.analysis.laws import (
    BESIROGLU_2024,
    HOFFMANN_2022,
    LAWS,
    MUENNIGHOFF_2023,
    Additive,
    BiMix,
    Chinchilla,
    DataConstrained,
    DataMixing,
    Exposure,
    Joint,
    Law,
    LogLinear,
    Phasewise,
    Saturating,
)
from mixlaw.analysis.laws.base import Form
from mixlaw.analysis.laws.phases import weighted
from mixlaw.analysis.laws.terms import fresh, saturate

#: Laws of one size and budget; BiMix knows tokens but no size, Saturating may rise where repeats harm.
MIXTURE_ONLY = ("DataMixing", "LogLinear", "BiMix", "Saturating")
CASES = [pytest.param(law, id=name) for name, law in LAWS.items()]


def designs(rows: int = 9, phases: int = 3, domains: int = 4, unique: float = 4e8, seed: int = 0) -> Design:
    """Random recipes with exact zeros, repeats, unfinished schedules and an absent phase."""
    rng = np.random.default_rng(seed)
    tokens = rng.uniform(1e7, 1e9, (rows, phases, domains))
    tokens[0, :, min(1, domains - 1)] = 0 if domains > 1 else 1e8
    tokens[1, phases - 1] = 0 if phases > 1 else 1e8
    return Design(
        params=torch.tensor(rng.uniform(1e6, 1e8, rows)),
        tokens=torch.tensor(tokens),
        progress=torch.tensor(rng.uniform(0.3, 1, rows)),
        lr_end=torch.tensor(rng.uniform(0, 1, (rows, phases))),
        unique=unique * torch.linspace(1.0, 1.2, domains, dtype=torch.float64).expand(rows, -1),
        phases=tuple(f"phase{i}" for i in range(phases)),
        domains=tuple(f"domain{i}" for i in range(domains)),
        runs=tuple(map(str, range(rows))),
    )


def thetas(form: Form, count: int = 3, seed: int = 1) -> Tensor:
    """Parameter vectors drawn around the prior."""
    rng = np.random.default_rng(seed)
    mean, spread = (np.array([getattr(p, name) for p in form.parameters]) for name in ("mean", "spread"))
    return torch.tensor(mean + 0.4 * spread * rng.normal(size=(count, len(mean))))


def test_hoffmann_law_gives_the_loss_of_chinchilla_and_of_gopher() -> None:
    assert np.isclose(HOFFMANN_2022.at(70e9, 1.4e12), published.CHINCHILLA_70B_LOSS, atol=5e-4)
    assert np.isclose(HOFFMANN_2022.at(280e9, 300e9), published.GOPHER_280B_LOSS, atol=5e-4)


def test_the_replication_agrees_with_hoffmann_within_its_fit_range() -> None:
    assert np.isclose(BESIROGLU_2024.at(1e9, 2e10), HOFFMANN_2022.at(1e9, 2e10), rtol=0.02)


def test_muennighoff_constants_are_those_of_the_paper() -> None:
    logs = [math.log(x) for x in (MUENNIGHOFF_2023.floor, MUENNIGHOFF_2023.a, MUENNIGHOFF_2023.b)]
    assert np.allclose(logs, [published.C4_LOG_FLOOR, published.C4_LOG_A, published.C4_LOG_B])
    assert (MUENNIGHOFF_2023.repeats, MUENNIGHOFF_2023.excess) == (published.C4_REPEATS, published.C4_EXCESS)


def test_four_epochs_are_almost_as_good_as_fresh_tokens_and_forty_are_not() -> None:
    unique = 1e10
    for epochs, almost in ((published.EPOCHS_ALMOST_FREE, True), (40, False)):
        repeated = MUENNIGHOFF_2023.at(1e9, epochs * unique, unique)
        fresh = MUENNIGHOFF_2023.at(1e9, epochs * unique, epochs * unique)
        assert bool((repeated - fresh) / fresh < 0.01) == almost


def test_without_repeats_and_with_a_fed_model_the_data_constrained_law_is_chinchilla() -> None:
    fresh = MUENNIGHOFF_2023.at(1e8, 1e11, 1e11)
    plain = MUENNIGHOFF_2023.floor + MUENNIGHOFF_2023.a * 1e8**-0.3526596 + MUENNIGHOFF_2023.b * 1e11**-0.3526596
    assert np.isclose(fresh, plain, rtol=1e-12)
    # Tokens that are never read do not feed a model: it is as if there were none.
    assert MUENNIGHOFF_2023.at(1e11, 2e10, 1e11) == MUENNIGHOFF_2023.at(1e11, 2e10, 2e10)


@pytest.mark.parametrize("law", [c for c in CASES if c.id not in MIXTURE_ONLY])
def test_every_law_of_scale_falls_with_size_and_tokens(law: type[Law]) -> None:
    design = designs(unique=math.inf)
    form = law.form(design)
    for theta in thetas(form):
        fitted = form.law(theta, 0.5)
        base = fitted(design)
        assert bool((fitted(replace(design, params=2 * design.params)) < base).all())
        assert bool((fitted(replace(design, tokens=2 * design.tokens)) < base).all())


@pytest.mark.parametrize("law", [LogLinear, DataMixing])
def test_laws_of_the_mixture_alone_do_not_see_scale(law: type[Law]) -> None:
    design = designs(unique=math.inf)
    form = law.form(design)
    theta = thetas(form)
    grown = replace(design, params=9 * design.params, tokens=9 * design.tokens)
    assert torch.allclose(form.log_loss(theta, grown), form.log_loss(theta, design), rtol=1e-12)


def test_bimix_is_a_power_of_the_own_share_times_a_power_of_tokens() -> None:
    design = designs(phases=1, domains=2, unique=math.inf)
    law = BiMix(alpha=0.2, b=50.0, beta=0.3, c=1.5, weight=(1.0, 0.0), domains=design.domains)
    own, tokens = design.shares[2, 0, 0], design.total[2]
    assert torch.isclose(law(design)[2], own**-0.2 * (50 * tokens**-0.3 + 1.5))


def test_log_linear_and_data_mixing_are_one_family() -> None:
    design = designs()
    theta = thetas(LogLinear.form(design), 1)
    laws = [law.form(design).law(theta[0], 0.3) for law in (LogLinear, DataMixing)]
    assert torch.allclose(laws[0](design), laws[1](design), rtol=1e-12)


def test_additive_without_a_mixture_term_and_joint_with_equal_domains_are_chinchilla() -> None:
    design, c, four = designs(unique=math.inf), HOFFMANN_2022, designs().domains
    additive = Additive(
        c.floor,
        (1e300,) * 4,
        (0.5,) * 4,
        0.0,
        1.0,
        1.2,
        1e6,
        (0.25,) * 4,
        c.a,
        c.alpha,
        c.b,
        c.beta,
        (1.0,) * 3,
        0.5,
        15.4,
        design.phases,
        four,
    )
    joint = Joint(
        c.floor, (1e300,) * 4, (0.5,) * 4, 1.2, 1e6, (0.25,) * 4, (c.a,) * 4, 1.0, c.alpha, (c.b,) * 4, 1.0, c.beta,
        (1.0,) * 3, 0.5, 15.4, design.phases, four,
    )  # fmt: skip
    assert torch.allclose(additive(design), c(design), rtol=1e-12)
    assert torch.allclose(joint(design), c(design), rtol=1e-12)


def test_with_one_phase_and_no_repeats_the_additive_law_is_equation_4_of_shukor() -> None:
    design = designs(phases=1, domains=2, unique=math.inf)
    law = Additive(
        0.7, (1.5, 0.8), (0.4, 0.9), 0.0, 1.0, 1.0, 1e6, (0.5, 0.5), 90.0, 0.3, 400.0, 0.28, (1.0,), 1.0, 15.4,
        design.phases, design.domains,
    )  # fmt: skip
    one, two = design.shares[:, 0].unbind(1)
    term = 1 / (1.5 * one**0.4 + 0.8 * two**0.9)
    expected = 0.7 + term + 90 / design.params**0.3 + 400 / design.total**0.28
    assert torch.allclose(law(design), expected, rtol=1e-12)


def test_with_one_phase_and_no_repeats_the_joint_law_is_equation_5_of_shukor() -> None:
    design = designs(phases=1, domains=2, unique=math.inf)
    law = Joint(
        0.7, (1.5, 0.8), (0.4, 0.9), 1.0, 1e6, (0.5, 0.5), (90.0, 40.0), 1.2, 0.3, (400.0, 700.0), 0.9, 0.28,
        (1.0,), 1.0, 15.4, design.phases, design.domains,
    )  # fmt: skip
    one, two = design.shares[:, 0].unbind(1)
    term = 1 / (1.5 * one**0.4 + 0.8 * two**0.9)
    capacity = (90 * one + 40 * two) ** 1.2 / design.params**0.3
    data = (400 * one + 700 * two) ** 0.9 / design.total**0.28
    assert torch.allclose(law(design), 0.7 + term + capacity + data, rtol=1e-12)


def test_contrast_stretches_what_mixtures_differ_by_and_leaves_the_typical_one() -> None:
    design = designs(phases=1, domains=2, unique=math.inf).select([0, 0])
    shares = torch.tensor([[0.5, 0.5], [0.9, 0.1]], dtype=torch.float64)
    size = torch.ones(2, dtype=torch.float64)
    small = replace(design, tokens=1e9 * shares[:, None], params=1e6 * size)
    c, g, even, none = (1.5, 0.8), (0.4, 0.9), (0.5, 0.5), 1e-30
    additive = Additive(
        0.0, c, g, 0.0, 1.0, 2.0, 1e6, even, none, 0.3, none, 0.28, (1.0,), 1.0, 15.4, design.phases, design.domains
    )
    joint = Joint(
        0.0, c, g, 2.0, 1e6, even, (none,) * 2, 1.0, 0.3, (none,) * 2, 1.0, 0.28, (1.0,), 1.0, 15.4,
        design.phases, design.domains,
    )  # fmt: skip
    laws: tuple[Law, ...] = (additive, joint)
    for law in laws:
        home, tenfold = law(small).log(), law(replace(small, params=1e7 * size)).log()
        assert tenfold[0] == pytest.approx(float(home[0]))
        assert tenfold[1] - tenfold[0] == pytest.approx(2 * float(home[1] - home[0]))


@pytest.mark.parametrize("law", [Exposure, Phasewise, Additive, Joint, Saturating])
def test_with_one_mixture_in_all_phases_their_names_and_lengths_change_nothing(law: type[Law]) -> None:
    form = law.form(designs())
    theta, mixture = thetas(form), torch.tensor([0.5, 0.3, 0.2, 0.0], dtype=torch.float64)
    lengths = torch.tensor([[0.6, 0.3, 0.1], [0.1, 0.1, 0.8], [0.0, 0.0, 1.0], [0.9, 0.1, 0.0]], dtype=torch.float64)
    rows = designs().select([0] * len(lengths))
    design = replace(rows, tokens=1e9 * lengths[:, :, None] * mixture, lr_end=torch.zeros_like(rows.lr_end))
    loss = form.log_loss(theta, design)
    assert torch.allclose(loss, loss[:, :1].expand_as(loss), rtol=1e-12)
    plain = form.law(theta[0], 0.0)(design)
    assert torch.allclose(plain, plain[0].expand_as(plain), rtol=1e-12)


def test_exposure_is_a_weighted_power_mean_of_the_shares_that_sums_to_all_tokens() -> None:
    tokens = designs().tokens
    weight = np.array([0.1, 0.3, 1.0])
    for evenness in (0.4, 1.0):
        found = weighted(torch.tensor(weight), evenness, tokens).numpy()
        for row, phases in zip(found, tokens.numpy(), strict=True):
            length = phases.sum(1)
            mean = np.zeros(phases.shape[1])
            for w, t, phase in zip(weight * length / (weight * length).sum(), length, phases, strict=True):
                mean += w * (phase / t) ** evenness if t else 0
            assert np.allclose(row, phases.sum() * mean ** (1 / evenness) / (mean ** (1 / evenness)).sum(), rtol=1e-12)
    linear = weighted(torch.tensor(weight), 1.0, tokens)
    plain = torch.einsum("p,rpk->rk", torch.tensor(weight), tokens)
    assert torch.allclose(linear / linear.sum(1, keepdim=True), plain / plain.sum(1, keepdim=True))


def test_what_comes_in_bursts_counts_less_than_what_comes_at_all_times() -> None:
    """Equal tokens, equal weights of phases; a third domain fills up both."""
    tokens = torch.tensor([[[4.0, 2.0, 4.0], [0.0, 2.0, 8.0]]], dtype=torch.float64)
    even = torch.ones(2, dtype=torch.float64)
    assert torch.allclose(weighted(even, 1.0, tokens)[0, :2], torch.tensor([4.0, 4.0], dtype=torch.float64))
    burst, steady, _ = weighted(even, 0.5, tokens)[0].tolist()
    assert burst / steady == pytest.approx(0.4 / (4 * 0.2))  # (sqrt(.4) / 2)**2 over .2


def test_what_mixtures_differ_by_at_ten_times_the_size_is_what_the_contrast_says() -> None:
    design = finished(designs(phases=1, domains=3, unique=math.inf))
    form = Exposure.form(design)
    law = form.law(thetas(form, 1)[0], 0.0)
    assert isinstance(law, Exposure)
    bare = replace(law, floor=0.0, a=1e-300, bottleneck=1.0, contrast=1.6)

    def differences(size: float) -> Tensor:
        """Log losses of recipes at as many tokens each, about the first."""
        tokens = design.tokens / design.total[:, None, None] * 1e9
        loss = bare(replace(design, params=torch.full_like(design.params, size * bare.home), tokens=tokens)).log()
        return loss - loss[0]

    assert torch.allclose(differences(10), 1.6 * differences(1), rtol=1e-9)


def test_saturating_exposure_gains_less_and_less_and_then_loses() -> None:
    base = designs(rows=2, phases=1, domains=1, unique=1e8).select([0])
    form = Saturating.form(base)
    law = form.law(torch.tensor([p.mean for p in form.parameters], dtype=torch.float64), 0.0)
    tokens = torch.tensor([0.1e8, 0.2e8, 0.3e8, 4e13], dtype=torch.float64)
    losses = [float(law(replace(base, tokens=t.expand(1, 1, 1)))) for t in tokens]
    assert losses[0] - losses[1] > losses[1] - losses[2] > 0
    assert losses[3] > losses[2]


@pytest.mark.parametrize("law", CASES)
def test_a_fitted_vector_and_the_law_it_stands_for_agree(law: type[Law]) -> None:
    design = designs()
    form = law.form(design)
    theta = thetas(form)
    laws = torch.stack([form.law(t, 0.7)(design).log() for t in theta])
    assert torch.allclose(laws, form.log_loss(theta, design) + 0.7, atol=1e-10)


@pytest.mark.parametrize("law", [DataConstrained, Additive, Saturating])
def test_jacobians_equal_finite_differences(law: type[Law]) -> None:
    design = designs()
    form = law.form(design)
    theta = thetas(form)
    value, jacobian = form.jacobian(theta, design)
    assert torch.allclose(value, form.log_loss(theta, design), atol=1e-12)
    step = 1e-5
    for row, i in enumerate(form.free.tolist()):
        shift = torch.zeros_like(theta)
        shift[:, i] = step
        slope = (form.log_loss(theta + shift, design) - form.log_loss(theta - shift, design)) / (2 * step)
        assert torch.allclose(jacobian[:, row], slope, atol=2e-8), form.parameters[i].name


def test_the_exposure_jacobian_equals_finite_differences_where_models_overfit() -> None:
    design = designs(phases=2, domains=3, unique=1e6)
    form = Exposure.form(replace(design, params=1e3 * design.params))
    names = [p.name for p in form.parameters]
    assert {"bottleneck", "onset", "crowding", "memory"} <= {names[i] for i in form.free.tolist()}
    theta = thetas(form)
    _, jacobian = form.jacobian(theta, design)
    for row, i in enumerate(form.free.tolist()):
        shift = torch.zeros_like(theta)
        shift[:, i] = 1e-5
        slope = (form.log_loss(theta + shift, design) - form.log_loss(theta - shift, design)) / 2e-5
        assert torch.allclose(jacobian[:, row], slope, atol=2e-8, rtol=1e-7), names[i]


def finished(design: Design) -> Design:
    """The same recipes with their schedules done and decayed to zero."""
    return replace(design, progress=torch.ones_like(design.progress), lr_end=torch.zeros_like(design.lr_end))


def exposure_of_one(law: Chinchilla, bottleneck: float) -> Exposure:
    """The exposure law of one phase and one domain with these terms."""
    return Exposure(
        floor=law.floor,
        a=law.a,
        alpha=law.alpha,
        b=law.b,
        beta=law.beta,
        bottleneck=bottleneck,
        elasticity=0.6,
        worth=(1.0,),
        contrast=1.0,
        home=5e4,
        typical=1.0,
        efficiency=(1.0,),
        retention=(1.0,),
        evenness=1.0,
        repeats=15.0,
        onset=15.0,
        crowding=1e9,
        memory=0.7,
        overload=(0.1,),
        phases=("phase0",),
        domains=("domain0",),
    )


def test_with_one_phase_one_domain_and_a_finished_run_the_exposure_law_is_chinchilla() -> None:
    design = finished(designs(phases=1, domains=1, unique=math.inf))
    law = exposure_of_one(HOFFMANN_2022, bottleneck=1.0)
    assert torch.allclose(law(design), HOFFMANN_2022(design), rtol=1e-12)


def test_without_a_floor_and_with_a_sharp_bottleneck_the_exposure_law_is_that_of_kaplan() -> None:
    design = finished(designs(phases=1, domains=1, unique=math.inf))
    size, tokens, alpha, beta = published.KAPLAN_2020
    terms = Chinchilla(floor=0.0, a=size**alpha, alpha=alpha, b=tokens**beta, beta=beta)
    kaplan = ((size / design.params) ** (alpha / beta) + tokens / design.total) ** beta
    assert torch.allclose(exposure_of_one(terms, bottleneck=1 / beta)(design), kaplan, rtol=1e-12)


def test_overdone_repeats_harm_a_larger_model_more_and_a_richer_pool_less() -> None:
    design = finished(designs(phases=1, domains=1, unique=1e7))
    fresh = replace(design, unique=torch.full_like(design.unique, math.inf))
    law = exposure_of_one(HOFFMANN_2022, bottleneck=1.0)

    def harm(size: float, pool: float) -> Tensor:
        """Relative loss to fresh tokens, of as many epochs in either pool."""
        params, tokens = size * design.params, pool * design.tokens
        repeated = replace(design, params=params, tokens=tokens, unique=pool * design.unique)
        return law(repeated) / law(replace(fresh, params=params, tokens=tokens))

    assert bool((harm(100, 1) > harm(1, 1)).all())
    assert bool((harm(100, 1) > harm(100, 50)).all())


def test_a_domain_that_is_never_seen_adds_exactly_nothing_and_has_a_finite_gradient() -> None:
    design = designs(rows=4, phases=1, domains=3)
    form = Exposure.form(design)
    theta = thetas(form, 1)
    without = replace(design, tokens=design.tokens * torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64))
    worthless = theta.clone()
    worthless[:, form.at["worth"].start + 1] = -50.0
    assert torch.equal(form.log_loss(theta, without), form.log_loss(worthless, without))
    tokens = without.tokens.clone().requires_grad_()
    total = form.log_loss(theta, replace(without, tokens=tokens)).sum()
    assert bool(torch.autograd.grad(total, tokens)[0].isfinite().all())


def test_repeats_are_worth_less_than_fresh_tokens_and_harm_when_overdone() -> None:
    scarce, plenty = designs(phases=1, unique=1e7), designs(phases=1, unique=math.inf)
    form = Exposure.form(scarce)
    theta = thetas(form)
    assert bool((form.log_loss(theta, scarce) > form.log_loss(theta, plenty)).all())
    large = replace(scarce, params=1e3 * scarce.params)
    overdone = replace(large, tokens=1000 * large.tokens)
    assert bool((form.log_loss(theta, overdone) > form.log_loss(theta, large)).all())


def test_the_share_that_is_as_good_as_fresh_is_what_saturation_leaves_of_all_tokens() -> None:
    tokens = torch.tensor([[5e8, 4e9], [2e9, 3e8]], dtype=torch.float64)  # each domain repeats in one run only
    unique, scale = torch.tensor([[1e9, 1e9]], dtype=torch.float64), torch.tensor([[[15.4]]], dtype=torch.float64)
    share, slope = fresh(tokens, unique, scale)
    assert slope is not None
    assert torch.allclose(share[0] * tokens, saturate(tokens, unique, 15.4), rtol=1e-12)  # type: ignore[index]
    larger, smaller = (saturate(tokens, unique, 15.4 * math.exp(step)).log() for step in (1e-5, -1e-5))
    assert torch.allclose(slope[0], (larger - smaller) / 2e-5, atol=1e-9)
