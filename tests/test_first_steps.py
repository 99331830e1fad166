"""What a newcomer does with a sheet of their own runs: import, fit, look; and what they are told on the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixlaw.analysis.fit import fit
from mixlaw.errors import InputError
from mixlaw.importing import import_table
from mixlaw.optimizer.simulate import random_recipes, random_world
from mixlaw.recipe import Domain, Kind
from mixlaw.study import open_study

DOMAINS = (Domain("web", Kind.TEXT, 10**12), Domain("code", Kind.CODE, 10**12))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Imported runs whose domains have kinds, but no unique tokens, as a first sheet has them."""
    folder = tmp_path_factory.mktemp("first")
    world = random_world(DOMAINS, tasks=2, seed=4)
    world.measure(random_recipes([2_000_000, 8_000_000], 20, DOMAINS, count=8, seed=4), seed=4).write_csv(
        folder / "runs.csv"
    )
    (folder / "domains.toml").write_text('[domains]\nweb = { kind = "text" }\ncode = { kind = "code" }\n')
    return folder


def test_runs_of_one_s_own_show_as_a_response_with_a_band_before_anything_else_is_known(folder: Path) -> None:
    found = import_table(folder / "runs.csv", folder / "study", "bits/byte", folder / "domains.toml")
    (note,) = [note for note in found.notes if "unique tokens" in note]
    assert all(domain.name in note for domain in DOMAINS)
    study = open_study(folder / "study")
    fit(study.table(), units=study.units, unique=study.unique, audited=False, resamples=8).save(
        folder / "study/surfaces"
    )
    page = study.report().read_text()
    assert "task0 against the code share of each phase" in page
    assert "no code share to move" not in page
    with pytest.raises(
        InputError, match=r"unique tokens of domain .*write unique_tokens = \.\.\. for it under \[domains"
    ):
        _ = study.domains


def test_nothing_is_asked_about_domains_of_which_all_is_known(folder: Path) -> None:
    (folder / "known.toml").write_text(
        '[domains]\nweb = { kind = "text", unique_tokens = 9 }\ncode = { kind = "code", unique_tokens = 9 }\n'
    )
    notes = import_table(folder / "runs.csv", folder / "known", "bits/byte", folder / "known.toml").notes
    assert not [note for note in notes if "nobody said" in note]
    again = import_table(folder / "runs.csv", folder / "known", "bits/byte").notes
    assert not [note for note in again if "nobody said" in note]
