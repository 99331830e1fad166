"""Baselines against the published recipes."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from mixlaw.errors import InputError
from mixlaw.optimizer.goal.baselines import (
    BASELINES,
    CRYSTAL,
    LLAMA_3,
    OLMO_3,
    QWEN_CODER,
    SMOLLM2,
    balanced_to_text,
    code_to_text,
    fifth_code,
    named,
    proportional,
    text_only,
    uniform,
)
from mixlaw.recipe import Domain, Kind, Recipe

DOMAINS = (
    Domain("web", Kind.TEXT, 400),
    Domain("books", Kind.TEXT, 100),
    Domain("stack", Kind.CODE, 139),
    Domain("markup", Kind.MARKUP, 180),
    Domain("math", Kind.MATH, 50),
    Domain("synthetic", Kind.SYNTHETIC_CODE, 3),
)
PHASES = {"init": 200, "continue": 200, "cooldown": 40}


def _code(recipe: Recipe) -> list[float]:
    kinds = {d.name: d.kind for d in DOMAINS}
    return [sum(v for n, v in p.mixture.shares.items() if kinds[n].is_code) for p in recipe.phases]


@pytest.mark.parametrize(
    ("build", "code"),
    [  # Aryabumi et al. 2024, arXiv:2408.10914v1, table 2, stage_code_fraction
        (fifth_code, [0.2, 0.2, 0.2]),  # of every cooldown
        (balanced_to_text, [0.5, 0.1, 0.2]),
        (code_to_text, [1.0, 0.1, 0.2]),
    ],
)
def test_code_shares_are_those_of_the_paper(build: object, code: list[float]) -> None:
    assert callable(build)
    assert _code(build(470_000_000, PHASES, DOMAINS)) == pytest.approx(code)


def test_text_only_is_text_in_every_phase() -> None:
    shares = [dict(phase.mixture) for phase in text_only(1, PHASES, DOMAINS).phases]
    assert shares == [pytest.approx({"web": 0.8, "books": 0.2})] * 3


def test_the_second_of_two_phases_is_a_cooldown_only_where_it_is_called_so() -> None:
    for second, code in (("cooldown", 0.2), ("continue", 0.1)):
        assert _code(balanced_to_text(1, {"init": 200, second: 40}, DOMAINS)) == pytest.approx([0.5, code])


def test_code_is_four_fifths_web_code_and_one_fifth_markup() -> None:
    # arXiv:2408.10914 section 2.1
    mixture = code_to_text(1, PHASES, DOMAINS).phases[0].mixture
    assert dict(mixture) == pytest.approx({"stack": 0.8, "markup": 0.2})


def test_the_cooldown_adds_mathematics_and_ends_decayed() -> None:
    recipe = balanced_to_text(1, PHASES, DOMAINS, lr_end=0.0)
    assert recipe.phases[1].mixture.share("math") == 0
    assert recipe.phases[2].mixture.share("math") == pytest.approx(0.8 * 50 / 550)
    assert [phase.lr_end for phase in recipe.phases] == [1, 1, 0]


def test_proportional_and_uniform_are_what_they_are_called() -> None:
    whole = sum(d.unique_tokens for d in DOMAINS)
    assert dict(proportional(1, PHASES, DOMAINS).mixture) == pytest.approx(
        {d.name: d.unique_tokens / whole for d in DOMAINS}
    )
    assert list(uniform(1, PHASES, DOMAINS).mixture.values()) == pytest.approx([1 / 6] * 6)


def test_unimax_is_even_among_what_does_not_run_out() -> None:
    # 3,000 tokens over six domains: four epochs of the three small ones (12, 200, 400) are all they give; the other
    # 2,388 are 796 each, but stack has 556 and markup 720: web takes the rest.
    mixture = named("unimax")(1, {"all": 3000}, DOMAINS).mixture
    tokens = {name: 3000 * share for name, share in mixture.items()}
    expected = {"synthetic": 12, "math": 200, "books": 400, "stack": 556, "markup": 720, "web": 1112}
    assert tokens == pytest.approx(expected)


def test_published_stages_are_the_figures_of_their_sources() -> None:
    table = _published()
    shares = {
        "Llama 3.1": LLAMA_3,
        "SmolLM2": SMOLLM2,
        "OLMo 3 Dolma 3": OLMO_3,
        "Qwen2.5-Coder": QWEN_CODER,
        "Crystal": CRYSTAL,
    }
    for model, stages in shares.items():
        rows = [row for row in table if row["model"] == model and row["code_pct"] and row["general_text_pct"]]
        assert len(rows) == len(stages)
        for row, stage in zip(rows, stages, strict=True):
            assert stage.code == float(row["code_pct"])
            assert stage.math == float(row["math_pct"] or 0)
            assert stage.text == float(row["general_text_pct"]) + float(row["multilingual_pct"] or 0)


def _published() -> list[dict[str, str]]:
    path = Path(__file__).resolve().parents[2] / "shared" / "published" / "sibling_stage_mixtures.csv"
    if not path.exists():
        pytest.skip("the table of published stage mixtures is not beside this checkout")
    with path.open(encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def test_stages_are_laid_over_phases_and_the_last_is_the_cooldown() -> None:
    # SmolLM2: 6, 2 and 2 of 10T tokens before the decay. The first half has 10 % code; the second is 1T of stage 1, 2T
    # of each of the others: (10 + 2 x 20 + 2 x 16) / 5 = 16.4 %.
    recipe = named("smollm2")(1, {"init": 50, "continue": 50, "cooldown": 10}, DOMAINS)
    assert _code(recipe) == pytest.approx([0.10, 0.164, 0.24])
    assert recipe.phases[2].mixture.share("math") == pytest.approx(0.14)
    assert _code(named("crystal")(1, PHASES, DOMAINS))[2] == pytest.approx(0.91)


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("phases", [{"all": 9}, {"init": 5, "cooldown": 3}, {"a": 5, "b": 5}, PHASES])
@pytest.mark.parametrize("kind", [Kind.TEXT, Kind.CODE, Kind.SYNTHETIC_CODE, Kind.MATH])
def test_every_baseline_exists_for_any_phases_and_for_one_kind_alone(
    name: str, phases: dict[str, int], kind: Kind
) -> None:
    recipe = named(name)(1, phases, (Domain("x", kind, 5), Domain("y", kind, 5)))
    assert [phase.name for phase in recipe.phases] == list(phases)
    assert recipe.mixture.share("x") == pytest.approx(0.5)


def test_an_unknown_baseline_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"balanced->text"):
        named("balanced")
