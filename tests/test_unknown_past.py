"""A run that goes on: only what is still to be trained is exported, and an unknown past is no reason not to answer."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from mixlaw.recipe import Recipe
from mixlaw.study import Study, open_study
from studies import on_disk
from test_cli import document_here as document
from test_questions import BASE, asked

TRAINED = '{ phase = "init", tokens = 4000000, mixture = { web = 0.8, python = 0.2 } }'
UNKNOWN = '{ phase = "init", tokens = 4000000 }'
UNDER_WAY = '{ phase = "init", tokens = 1000000, mixture = { web = 0.8, python = 0.2 }, goes_on = true }'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return on_disk(tmp_path_factory.mktemp("past"), BASE)


def proposed(folder: Path, prefix: str) -> Study:
    study = asked(folder, f"prefix = [{prefix}]\n")
    study.propose()
    return study


def exported(study: Study, name: str | None = None) -> tuple[list[str], dict[str, str]]:
    """Of the last proposal, or of what is named: the first line of OLMo-core's files, and datasets' files by name."""
    paths = study.path / "lengths.toml"
    paths.write_text("[tokens_per_document]\nweb = 1000\nbooks = 1000\npython = 1000\n")
    files = study.export(name, ["olmo-core", "datasets"], paths=paths).files
    heads = [path.read_text().splitlines()[0] for path in files["olmo-core"]]
    return heads, {path.name: path.read_text() for path in files["datasets"]}


def test_phases_that_are_over_are_not_exported_and_domains_go_on(folder: Path) -> None:
    study = proposed(folder, TRAINED)
    recipe = study.proposals()[-1].recipe
    heads, modules = exported(study)
    assert list(modules) == ["2-continue.py", "3-cooldown.py"]
    assert "from token 4,000,000 of 6,600,000" in heads[0]
    drawn = {name: 4e6 * share for name, share in (("web", 0.8), ("python", 0.2))}
    begin = {name: place for name, (*_, place, _) in _sources(study, modules["2-continue.py"]).items()}
    # Documents have a thousand tokens; of each domain 800 and 2,400 thousand tokens are unique.
    unique = study.unique
    expected = {n: round(drawn.get(n, 0) / 1000) % round(unique[n] / 1000) for n in recipe.phases[1].mixture}
    assert begin == expected
    assert "Continues after 4,000,000 tokens of init" in (study.path / _readme(study)).read_text()
    # A recipe in a file that goes on from the same past is exported alike.
    path = study.path / "recipe.json"
    path.write_text(json.dumps(recipe.as_json()))
    assert exported(study, str(path)) == (heads, modules)


def test_a_phase_under_way_is_exported_from_where_it_is(folder: Path) -> None:
    study = proposed(folder, UNDER_WAY)
    proposal = study.proposals()[-1]
    heads, modules = exported(study)
    assert list(modules) == ["1-init.py", "2-continue.py", "3-cooldown.py"]
    rest = proposal.target.to_come(proposal.recipe)
    assert rest is not None
    assert f"{rest.tokens:,} tokens, from token 1,000,000 of 6,600,000" in heads[0]
    # What was trained and what is exported make the phase of the proposal.
    shares = _shares(study)
    init = proposal.recipe.phases[0]
    for name in init.mixture:
        whole = 1e6 * {"web": 0.8, "python": 0.2}.get(name, 0) + rest.tokens * shares.get(name, 0.0)
        assert whole == pytest.approx(init.tokens * init.mixture.share(name), abs=2e-3 * init.tokens)


def test_a_proposal_after_an_unknown_past_is_exported_and_answers(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = proposed(folder, UNKNOWN)
    proposal = study.proposals()[-1]
    heads, modules = exported(study)
    assert list(modules) == ["2-continue.py", "3-cooldown.py"]
    assert "from token 4,000,000 of 6,600,000" in heads[0]
    assert all(place == 0 for *_, place, _ in _sources(study, modules["2-continue.py"]).values()), "nothing was drawn"
    # what-if and compare predict what propose has frozen, over its baseline.
    found = document(capsys, "what-if", folder, proposal.id, "--against", proposal.against)
    assert found["gain"]["mean"] == pytest.approx(proposal.gain.mean)
    assert {point["phase"] for point in found["points"]} == {"continue", "cooldown"}
    forecasts = {f.task: f for f in proposal.forecasts if f.recipe == "proposal"}
    for forecast in found["forecasts"]:
        assert forecast["mean"] == pytest.approx(forecasts[forecast["task"]].mean)
        assert forecast["hi90"] == pytest.approx(forecasts[forecast["task"]].hi90)
    against = document(capsys, "compare", folder, proposal.id, proposal.against)
    assert against["gain"]["probability"] == pytest.approx(proposal.beats[proposal.against])
    one = document(capsys, "what-if", folder, "cooldown:web=.5,python=.5")
    assert Recipe.from_json(one["recipe"]).phases[-1].mixture.share("python") == pytest.approx(0.5)
    assert document(capsys, "dependence", folder)["weights"]


def test_a_step_has_the_sequences_that_the_study_says(folder: Path) -> None:
    proposed(folder, TRAINED)
    text = (folder / "study.toml").read_text()
    (folder / "study.toml").write_text(text + "\n[training]\nsequence = 64\nbatch = 48\n")
    study = open_study(folder)
    files = study.export(None, ["olmo-core"]).files["olmo-core"]
    assert [yaml.safe_load(path.read_text())["global_batch_size"] for path in files] == [48 * 64] * len(files)


def _readme(study: Study) -> str:
    return f"exports/{study.proposals()[-1].recipe.lineage}/datasets/README.txt"


def _sources(study: Study, text: str) -> dict[str, tuple[str, str, int, float]]:
    table = text[text.index("SOURCES = ") : text.index("\n}\n") + 3]
    path = study.path / "sources.py"
    path.write_text(table)
    found: dict[str, tuple[str, str, int, float]] = runpy.run_path(str(path))["SOURCES"]
    return found


def _shares(study: Study) -> dict[str, float]:
    files = study.export(None, ["olmo-core"]).files["olmo-core"]
    sources = yaml.safe_load(files[0].read_text())["source_list"]["sources"]
    return {source["source_name"]: source["target_ratio"] for source in sources}
