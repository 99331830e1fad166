"""Options that change [target] for one call: on the command line, and in Python."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from mixlaw.cli import app
from mixlaw.errors import InputError
from mixlaw.options import changes_of
from mixlaw.study import open_study
from test_cli import document_here, refused_here
from test_front_cli import study  # noqa: F401

GROUP: Any = typer.main.get_command(app)


def test_words_become_keys_of_the_target() -> None:
    assert changes_of() == {}
    assert changes_of(
        params="7B", tokens="1T", cooldown="0.1:0.4", weight=["code=2", "arc=challenge=1"], guard="1.5", max_epochs=4
    ) == {
        "params": "7B",
        "tokens": "1T",
        "cooldown": [0.1, 0.4],
        "weights": {"code": 2.0, "arc=challenge": 1.0},
        "guard": {"most": 1.5},
        "max_epochs": 4,
    }
    assert changes_of(cooldown="0.2", guard="off") == {"cooldown": [0.2, 0.2], "guard": False}
    assert changes_of(changed=["caps.cooldown.code=0.3", "measure=noise", "worst=true"]) == {
        "caps": {"cooldown": {"code": 0.3}},
        "measure": "noise",
        "worst": True,
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"cooldown": "10%"}, "--cooldown takes a number, got '10%'"),
        ({"weight": ["code"]}, "--weight takes a number, got 'code'"),
        ({"changed": ["caps"]}, "--set takes KEY=VALUE"),
        ({"changed": ["a b=1"]}, "neither a key"),
    ],
)
def test_words_that_are_none_are_refused(words: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        changes_of(**words)  # type: ignore[arg-type]


def test_a_command_answers_for_another_target_and_writes_nothing(
    study: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = (study / "study.toml").read_bytes()
    options = ("--params", "120M", "--tokens", "2.4B", "--weight", "task1=1", "--guard", "off", "--cooldown", "0.1:0.2")
    found = document_here(capsys, "propose", study, "--draft", *options, "--set", "caps.recipe.stack=0.3")
    assert (found["target"]["params"], found["target"]["tokens"]) == (120_000_000, 2_400_000_000)
    assert found["target"]["guard"] is None
    assert found["target"]["caps"] == {"recipe": {"stack": 0.3}}
    assert found["weights"] == {"task0": 0.0, "task1": 1.0, "task2": 0.0}
    tokens = [phase["tokens"] for phase in found["recipe"]["phases"]]
    assert 0.099 <= tokens[-1] / sum(tokens) <= 0.201
    stack = sum(phase["tokens"] * phase["mixture"].get("stack", 0) for phase in found["recipe"]["phases"])
    assert stack / sum(tokens) <= 0.3001
    assert (study / "study.toml").read_bytes() == before
    assert not (study / "proposals").exists()


def test_a_target_that_makes_no_sense_is_refused_as_in_study_toml(study: Path) -> None:  # noqa: F811
    assert "did you mean" in refused_here(study, "propose", study, "--set", "max_epoch=3")
    assert "target.weights" in refused_here(study, "pareto", study, "--weight", "task1=-1")
    wrong = refused_here(study, "propose", study, "--params", "large")
    assert f"{study / 'study.toml'} with these changes to [target]: target.params: a size is" in wrong


def test_without_a_target_the_last_proposal_says_for_what(
    study: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    copy = Path(shutil.copytree(study, tmp_path / "copy"))
    text = (copy / "study.toml").read_text()
    (copy / "study.toml").write_text(re.sub(r"\[target\]\n.*\n.*\n", "", text))
    assert "[target]" not in (copy / "study.toml").read_text()
    largest = open_study(copy).what_if({"web": 0.5, "stack": 0.5}).recipe
    assert largest.params == 8_000_000
    before = str(open_study(copy).status())
    assert " or mixlaw propose" in " ".join(before.split())
    asked = "there is no target; write [target] with params and tokens into study.toml, or give --params and --tokens"
    assert refused_here(copy, "suggest", copy, "--budget", "2e15").rstrip().endswith(asked)
    proposal = open_study(copy, target={"params": "60M", "tokens": "1.2B"}).propose()
    assert f"{asked}, as proposal 1 had: --params 60M --tokens 1.2B" in refused_here(copy, "pareto", copy)
    assert "none in study.toml; that of proposal 1: 60M params, 1.2B tokens" in " ".join(str(open_study(copy)).split())
    same = open_study(copy).what_if({"web": 0.5, "stack": 0.5}).recipe
    assert (same.params, same.tokens) == (60_000_000, proposal.recipe.tokens)


def test_a_fixed_size_replaces_a_free_one_and_tables_are_merged(study: Path) -> None:  # noqa: F811
    free = open_study(study, target={"flops": 4e17, "sizes": ["20M", "80M"], "params": None, "tokens": None})
    assert free.target().sizes == (20_000_000, 80_000_000)
    merged = open_study(study, target={"caps": {"cooldown": {"web": 0.5}}, "params": "30M"})
    assert (merged.target().params, merged.target().tokens) == (30_000_000, 1_200_000_000)
    assert merged.target().caps == {"cooldown": {"web": 0.5}}
    assert open_study(study) == open_study(study, target={"params": "30M"}), "one folder"


@pytest.mark.parametrize("name", ["", *(name for name, one in GROUP.commands.items() if not one.hidden)])
def test_help_fits_eighty_columns_and_names_no_type_where_none_is_given(name: str) -> None:
    shown = CliRunner().invoke(app, [*name.split(), "-h"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"}).output
    assert max(map(len, shown.splitlines())) <= 80
    assert not re.search(r"<bool>|list\[|\[\[", shown), "a flag takes no value; an argument has brackets once"
