"""What a newcomer does with a sheet of their own runs: import, fit, look; and what they are told on the way."""

from __future__ import annotations

from pathlib import Path

import pytest

import small_study
from mixlaw import import_runs
from mixlaw.analysis.fit import fit
from mixlaw.errors import InputError
from mixlaw.recipe import Domain, Kind
from mixlaw.study import open_study
from mixlaw.testing.worlds import random_recipes, random_world

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
    found = import_runs(
        folder / "study", folder / "runs.csv", unit="bits/byte", domains=folder / "domains.toml"
    ).imported
    (note,) = [note for note in found.notes if "unique_tokens given" in note]
    assert all(domain.name in note for domain in DOMAINS)
    study = open_study(folder / "study")
    fit(study.table(), units=study.units, unique=study.unique, audited=False, resamples=8).save(
        folder / "study/surfaces"
    )
    page = study.report().read_text()
    part = page[page.index('<section id="response">') : page.index('<section id="size">')]
    assert part.count('role="img"') == len(study.units) * (1 + len(DOMAINS))  # code, and every domain
    assert "there is no code share to move" not in part
    with pytest.raises(InputError, match=r"domain .* has no unique_tokens.*: write .* = { unique_tokens = "):
        _ = study.domains
    names = [trace.name for trace in study.plots.response().data]
    assert len(names) > 1
    run = study.records()[0].run
    assert study.what_if(run, against=run).points
    with pytest.raises(InputError, match="has no unique_tokens"):
        study.what_if(run)


def test_nothing_is_asked_about_domains_of_which_all_is_known(folder: Path) -> None:
    (folder / "known.toml").write_text(
        '[domains]\nweb = { kind = "text", unique_tokens = 9 }\ncode = { kind = "code", unique_tokens = 9 }\n'
    )
    notes = import_runs(
        folder / "known", folder / "runs.csv", unit="bits/byte", domains=folder / "known.toml"
    ).imported.notes
    assert not [note for note in notes if " given for " in note]
    again = import_runs(folder / "known", folder / "runs.csv", unit="bits/byte").imported.notes
    assert not [note for note in again if " given for " in note]


HEAD = "run,params,tokens:init:web,tokens:init:code,metric:loss\n"
TABLES = {
    "percent": (HEAD + "a,125M,80,20,1.2\n", r"row 1: 100 tokens in all for 125,000,000 params; .*not percentages"),
    "shares": (HEAD + "a,1e8,3e9,1e9,1.2\nb,1e8,0.8,0.2,1.2\n", r"row 2, column 'tokens:init:web': 0.8 of a token"),
    "billions": (HEAD + "a,1e9,20,5,1.2\n", "shares or billions"),
    "semicolons": (
        "run;params;tokens:init:web;metric:loss\na;120M;2e9;1,245\n",
        "is separated by semicolons, so '1,245' may be a fraction",
    ),
    "words": (HEAD + "a,1e8,2 billion,0,1.2\n", "row 1, column 'tokens:init:web': '2 billion' is not a number"),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_sheet_that_means_something_else_is_refused_with_what_was_seen(tmp_path: Path, name: str) -> None:
    text, message = TABLES[name]
    (tmp_path / "runs.csv").write_text(text)
    with pytest.raises(InputError, match=message) as refused:
        import_runs(tmp_path / "study", tmp_path / "runs.csv", unit="bits/byte")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "study").exists()


TARGETS = {
    "tokens in words": (
        'params = "1B"\ntokens = "20 billion"',
        r"target.tokens = '20 billion': .*write \"20B\" or 20_000",
    ),
    "no tokens": ('params = "1B"\ntokens = "0B"', r"target.tokens = '0B': input should be greater than 0"),
    "floors without a phase": (
        'params = "1B"\ntokens = 20_000_000_000\nfloors = { web = 0.1 }',
        r"target.floors.web = 0.1: .*which is written \{ NAME = value \}",
    ),
}


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_that_is_written_otherwise_is_told_how(folder: Path, tmp_path: Path, name: str) -> None:
    import_runs(tmp_path / "study", folder / "runs.csv", unit="bits/byte")
    text, message = TARGETS[name]
    with (tmp_path / "study" / "study.toml").open("a") as file:
        file.write(f"\n[target]\n{text}\n")
    with pytest.raises(InputError, match=message):
        open_study(tmp_path / "study")


def test_a_size_of_which_there_is_no_model_is_not_queued_as_its_forecasts_could_not_be_verified(tmp_path: Path) -> None:
    target = '[target]\nparams = "0.06M"\ntokens = 40_000\n'
    folder = small_study.prepare(tmp_path / "study", small_study.SETTINGS + target)
    message = r"the target has 60,000 params, the nearest model that is trained here 55,536: .*write params = 55536"
    with pytest.raises(InputError, match=message):
        open_study(folder).propose(queue=True)
    assert not (folder / "recipes").exists()


def test_a_proposal_that_no_smaller_size_can_check_is_refused_before_it_is_made(tmp_path: Path) -> None:
    target = '[target]\nparams = "0.025M"\ntokens = 24_000\n'
    folder = small_study.prepare(tmp_path / "study", small_study.SETTINGS + target)
    with pytest.raises(
        InputError, match=r"no proxies are smaller than the target of 25,000 params.*smaller size under"
    ):
        open_study(folder).propose(check=True)
    assert not (folder / "proposals").exists()
