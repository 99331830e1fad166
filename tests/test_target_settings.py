"""[target] of study.toml becomes a target."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mixlaw.errors import InputError
from mixlaw.optimizer.goal.goal import Goal, Measure
from mixlaw.optimizer.target.target import Guard, Target, Trained
from mixlaw.recipe import Mixture
from mixlaw.settings import read_settings
from mixlaw.settings.recipes import read_recipe
from mixlaw.settings.target import goal_of, target_of

HEAD = """\
[domains]
prose = { kind = "text", unique_tokens = 9_000_000 }
code = { kind = "code", unique_tokens = 9_000_000 }
[mixtures]
half = { prose = 0.5, code = 0.5 }
[[phases]]
name = "init"
share = 0.6
[[phases]]
name = "continue"
share = 0.2
[[phases]]
name = "cooldown"
share = 0.2
lr_end = 0.0
[target]
"""


def _target(tmp_path: Path, text: str) -> tuple[Target, Goal]:
    (tmp_path / "study.toml").write_text(HEAD + text, encoding="utf-8")
    settings = read_settings(tmp_path / "study.toml")
    return target_of(settings), goal_of(settings)


def test_a_plain_target_takes_phases_and_lengths_from_the_study(tmp_path: Path) -> None:
    target, goal = _target(tmp_path, 'params = "1M"\ntokens = 20_000_000\n')
    assert target == Target(1_000_000, 20_000_000, lengths={"init": 0.6, "continue": 0.2})
    assert goal == Goal()


def test_a_run_under_way_leaves_the_phases_that_are_still_to_come(tmp_path: Path) -> None:
    text = (
        'params = "1M"\ntokens = 20_000_000\nlr_end = [0.0, 0.1]\nlengths = { continue = [0.2, 0.9] }\n'
        'prefix = [{ phase = "init", tokens = 5_000_000, mixture = "half" }]\n'
        'caps = { recipe = { "kind:code" = 0.4 } }\nguard = { most = 0.5, than = "proportional" }\n'
        'measure = "noise"\nworst = true\nweights = { a = 1 }\nphase_epochs = { cooldown = 1 }\n'
    )
    target, goal = _target(tmp_path, text)
    half = Mixture({"prose": 0.5, "code": 0.5})
    assert target.prefix == (Trained("init", 5_000_000, half),)
    assert target.phases == ("continue", "cooldown")
    assert (target.lr_range, target.lengths["continue"]) == ((0.0, 0.1), (0.2, 0.9))
    assert target.guard == Guard(0.5, "proportional")
    assert target.phase_epochs == {"cooldown": 1}
    assert goal == Goal({"a": 1.0}, Measure.NOISE, worst=True)


def test_a_foreign_checkpoint_has_tokens_and_no_mixture(tmp_path: Path) -> None:
    begun = '[{ phase = "init", tokens = 5_000_000 }]'
    target, _ = _target(tmp_path, f'params = "1M"\ntokens = 20_000_000\nbranches = [{begun}, {begun}]\n')
    assert target.branches == ((Trained("init", 5_000_000),),) * 2


def test_a_phase_that_goes_on_stays_among_those_to_be_trained(tmp_path: Path) -> None:
    begun = 'prefix = [{ phase = "init", tokens = 3_000_000, mixture = "half", goes_on = true }]\n'
    over, _ = _target(tmp_path, 'params = "1M"\ntokens = 20_000_000\n' + begun.replace(", goes_on = true", ""))
    target, _ = _target(tmp_path, 'params = "1M"\ntokens = 20_000_000\n' + begun)
    assert target.under_way == over.prefix[0]
    assert (target.prefix, target.phases) == ((), ("init", *over.phases))


def test_flops_and_sizes_leave_the_size_free(tmp_path: Path) -> None:
    target, _ = _target(tmp_path, 'flops = 6e13\nsizes = ["0.5M", "2M"]\nladder = ["0.5M", "1M", "2M"]\n')
    assert (target.params, target.tokens, target.sizes) == (1_000_000, 10_000_000, (500_000, 2_000_000))
    assert target.flops == pytest.approx(6e13)
    assert target.ladder == (500_000, 1_000_000, 2_000_000)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('params = "1M"\n', ["params and tokens", "flops and sizes"]),
        ('params = "1M"\ntokens = 9\nflops = 1e9\nsizes = [1, 2]\n', ["params and tokens", "got params 1M"]),
        ('flops = 1e9\nsizes = ["1X", "2M"]\n', ["target.sizes", "'1X'"]),
        (
            'params = "1M"\ntokens = 9\nprefix = [{ phase = "start", tokens = 3 }]\n',
            ["target.prefix", "'start'", "'init'"],
        ),
        (
            'params = "1M"\ntokens = 9\nprefix = [{ phase = "init", tokens = 3, mixture = "all" }]\n',
            ["target.prefix", "'all'", "'half'"],
        ),
        ('params = "1M"\ntokens = 9\nguard = { most = -1 }\n', ["target.guard.most", "-1"]),
        (
            'params = "1M"\ntokens = 9\nbranches = [[{ phase = "init", tokens = 3, goes_on = true }]]\n',
            ["only the last phase of prefix may go on"],
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        _target(tmp_path, text)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_limits_of_the_target_are_checked_when_the_study_is_read(tmp_path: Path) -> None:
    size = 'params = "1M"\ntokens = 9_000\n'
    for text, words in (
        ("max_epochs = 0\n", "target: epochs must be positive, got {'max_epochs': 0}"),
        ("floors = { init = { prose = 1.5 } }\n", "target: floors must be shares between 0 and 1"),
        ("lengths = { init = [0.5, 0.2] }\n", "target: the range of init must be"),
        ("cooldown = [0.1, 1.2]\n", "target.cooldown.1 = 1.2"),
    ):
        with pytest.raises(InputError) as caught:
            _target(tmp_path, size + text)
        assert words in str(caught.value)


def test_a_recipe_in_a_file_ends_its_phases_as_the_study_does_where_it_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(
        HEAD.replace("lr_end = 0.0", "lr_end = 0.25") + 'params = "1M"\ntokens = "2M"\n'
    )
    phases = [{"name": name, "tokens": "1M", "mixture": "half"} for name in ("init", "cooldown", "after")]
    for end, expected in ((None, 0.25), (0.5, 0.5)):
        given = {} if end is None else {"lr_end": end}
        recipe = {"params": "1M", "phases": [phases[0], phases[1] | given, phases[2]]}
        (tmp_path / "recipe.json").write_text(json.dumps(recipe))
        read = read_recipe(tmp_path / "recipe.json", read_settings(tmp_path / "study.toml"))
        assert [phase.lr_end for phase in read.phases] == [1.0, expected, None]


def test_a_number_in_place_of_a_range_says_how_a_range_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"target.cooldown = 0.05: .*a range is \[least, greatest\]"):
        _target(tmp_path, "params = 1000\ntokens = 1000\ncooldown = 0.05\n")


def test_a_task_that_recipes_move_further_counts_for_less(tmp_path: Path) -> None:
    weighed = 'params = "1M"\ntokens = 20_000_000\nstandardise = true\nweights = { a = 1, b = 1, c = 0 }\n'
    (tmp_path / "study.toml").write_text(HEAD + weighed, encoding="utf-8")
    settings = read_settings(tmp_path / "study.toml")
    goal = goal_of(settings, spread={"a": 0.1, "b": 0.4, "c": 0.0})
    assert goal.weights == pytest.approx({"a": 0.5 / 0.1, "b": 0.5 / 0.4})
    with pytest.raises(InputError, match="standardise needs four runs of one size that measure b"):
        goal_of(settings, spread={"a": 0.1, "b": 0.0, "c": 0.0})
    assert goal_of(settings).weights == {"a": 1, "b": 1, "c": 0}, "before there is a fit"
    (tmp_path / "study.toml").write_text(HEAD + weighed + 'measure = "noise"\n', encoding="utf-8")
    with pytest.raises(InputError, match="standardise weighs gains in percent of loss"):
        read_settings(tmp_path / "study.toml")
