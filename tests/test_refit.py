"""An unchanged fit answers from what is there, and only an unchanged one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from mixlaw import import_runs, open_study
from mixlaw.study import Study
from mixlaw.testing.worlds import random_recipes, random_world
from test_cli import DOMAINS, mixlaw


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("refit")
    world = random_world(DOMAINS, tasks=1, seed=4)
    table = world.measure(random_recipes([2_000_000], 20, DOMAINS, count=6, seed=4), seed=4)
    study = import_runs(folder / "study", table, unit="bits/byte")
    assert not study.fit().unchanged
    return study


def test_nothing_is_fitted_twice_and_the_command_says_so(fitted: Study) -> None:
    before = {path: path.read_bytes() for path in (fitted.path / "surfaces").iterdir()}
    again = fitted.fit()
    assert again.unchanged
    assert again.as_json()["tasks"] == fitted.surfaces().as_json()["tasks"]
    printed = mixlaw("fit", fitted.path).stdout
    assert "nothing was fitted anew; --refit does" in " ".join(printed.split())
    assert {path: path.read_bytes() for path in (fitted.path / "surfaces").iterdir()} == before


def more_runs(study: Study) -> None:
    world = random_world(DOMAINS, tasks=1, seed=4)
    study.import_runs(
        world.measure(random_recipes([2_000_000], 20, DOMAINS, count=1, seed=5), seed=5), unit="bits/byte"
    )


def other_surfaces(study: Study) -> None:
    study.fit(law="Chinchilla", save=True)


def damage(study: Study) -> None:
    path = study.path / "surfaces" / "surfaces.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"runs": []}))


def other_code(study: Study) -> None:
    path = study.path / "surfaces" / "fitted_from.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"key": "of another version"}))


@pytest.mark.parametrize("change", [more_runs, other_surfaces, damage, other_code])
def test_what_changes_the_answer_is_fitted(fitted: Study, tmp_path: Path, change: Callable[[Study], None]) -> None:
    study = open_study(shutil.copytree(fitted.path, tmp_path / "study"))
    change(study)
    found = study.fit()
    assert not found.unchanged
    assert study.fit().unchanged
    assert study.fit(table=study.table().head(5), law="Chinchilla").unchanged is False
    assert study.fit().unchanged  # which another fit that is not saved leaves alone


def test_the_key_covers_rows_and_what_is_told_about_them(fitted: Study) -> None:
    from mixlaw.folder.fitted import key_of

    table, told = fitted.table(), {"units": fitted.units, "unique": fitted.unique}
    key = key_of(table, told)
    assert key == key_of(table.clone(), dict(reversed(told.items())))
    metric = next(name for name in table.columns if name.startswith("metric:"))
    others = [
        key_of(table.reverse(), told),
        key_of(table.with_columns(pl.col(metric) * (1 + 1e-12)), told),
        key_of(table, {**told, "unique": {"web": 1.0}}),
        key_of(table, {**told, "phases": ("a",)}),
    ]
    assert len({key, *others}) == 5
