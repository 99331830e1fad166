"""The page on training: its table is the command's, its programs print what it says, its keys are all there are."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from mixlaw.runner.ladder import main
from mixlaw.settings import TrainingSettings, validate

PAGE = (Path(__file__).parents[1] / "docs" / "training.md").read_text(encoding="utf-8")
TOML = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```)?", PAGE, re.DOTALL)


def test_the_table_of_sizes_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    main()
    (table,) = re.findall(r"mixlaw.runner.ladder\n```\n\n```text\n(.*?)```", PAGE, re.DOTALL)
    assert table == capsys.readouterr().out


@pytest.mark.parametrize("text", TOML)
def test_settings_are_settings(text: str, tmp_path: Path) -> None:
    assert validate(tomllib.loads(text), tmp_path)


def test_every_key_of_training_is_explained_and_no_other(tmp_path: Path) -> None:
    shown = re.findall(r"^(?:# )?([a-z_0-9]+) = (.*?) +#", TOML[0], re.MULTILINE)
    assert [name for name, _ in shown] == list(TrainingSettings.model_fields)
    whole = "[training]\n" + "".join(f"{name} = {value}\n" for name, value in shown if name != "simulate_epochs")
    assert validate(tomllib.loads(whole), tmp_path).training.micro_batch == 8


@pytest.mark.parametrize(("code", "printed"), PYTHON)
def test_programs_run_and_print_what_stands_below_them(
    code: str, printed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "training.md", "exec"), {})
    assert capsys.readouterr().out == printed
