"""Baselines against the published recipes."""

from __future__ import annotations

import pytest

from mixlaw.errors import InputError
from mixlaw.optimizer.baselines import (
    BASELINES,
    balanced_to_text,
    code_to_text,
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
        (text_only, [0.0, 0.0, 0.2]),
        (balanced_to_text, [0.5, 0.1, 0.2]),
        (code_to_text, [1.0, 0.1, 0.2]),
    ],
)
def test_code_shares_are_those_of_the_paper(build: object, code: list[float]) -> None:
    assert callable(build)
    assert _code(build(470_000_000, PHASES, DOMAINS)) == pytest.approx(code)


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
