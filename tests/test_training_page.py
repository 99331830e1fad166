"""The page on training: its keys are all there are. Its programs and their output: `test_docs`."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from mixlaw.settings import TrainingSettings, validate

PAGE = (Path(__file__).parents[1] / "docs" / "training.md").read_text(encoding="utf-8")
TOML = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("text", TOML)
def test_settings_are_settings(text: str, tmp_path: Path) -> None:
    assert validate(tomllib.loads(text), tmp_path)


def test_every_key_of_training_is_explained_and_no_other(tmp_path: Path) -> None:
    shown = re.findall(r"^(?:# )?([a-z_0-9]+) = (.*?) +#", TOML[0], re.MULTILINE)
    assert sorted(name for name, _ in shown) == sorted(TrainingSettings.model_fields)
    whole = "[training]\n" + "".join(f"{name} = {value}\n" for name, value in shown if name != "simulate_epochs")
    assert validate(tomllib.loads(whole), tmp_path).training.micro_batch == 8
