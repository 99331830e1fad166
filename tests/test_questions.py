"""The questions of a pretraining lead, each asked of a small study as it is asked on the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from mixlaw.analysis.data.recipes import design_of
from mixlaw.cli import app
from mixlaw.errors import InputError
from mixlaw.numbers import percent
from mixlaw.study import Study, open_study
from studies import DOMAINS, measured, on_disk
from test_cli import document_here as document

BASE = """
[groups]
language = ["task0"]
code = ["task1"]
[mixtures]
ours = { web = 0.7, books = 0.05, python = 0.25 }
[target]
params = 330000
tokens = 6600000
cooldown = [0.15, 0.15]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = on_disk(tmp_path_factory.mktemp("questions"), BASE)
    with chdir(path.parent):
        yield path


def asked(folder: Path, text: str) -> Study:
    """The study with these lines at the end of [target]."""
    (folder / "study.toml").write_text(_first(folder) + text)
    return open_study(folder)


def _first(folder: Path) -> str:
    kept = folder / "first.toml"
    if not kept.exists():
        kept.write_text((folder / "study.toml").read_text())
    return kept.read_text()


def printed(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    app([str(word) for word in words], prog_name="mixlaw", standalone_mode=False)
    return capsys.readouterr().out


def test_which_recipe_and_does_it_hold_for_every_task(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked(folder, "")
    text = printed(capsys, "propose", folder, "--draft")
    assert "chance that the guard holds: task0" in text
    assert "all of language" in text
    assert "all of code" in text
    assert "if it is wrong: expected regret" in printed(capsys, "propose", folder, "--draft", "--all")


def test_what_with_a_cooldown_that_the_runs_never_varied(folder: Path) -> None:
    # A fixed cooldown and one that is given: no free length, no gain from one.
    proposal = asked(folder, "").propose(draft=True)
    lengths = {tuple(phase.tokens for phase in recipe.phases) for recipe in proposal.recipes.values()}
    assert len(lengths) == 1


def test_with_a_guard_over_our_current_mixture(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked(folder, 'baseline = "ours"\nguard = { most = 0.5, than = "ours", sure = 0.9 }\n')
    found = document(capsys, "propose", folder, "--draft")
    assert found["against"] == "ours"
    assert set(found["may_lose"].values()) == {0.5}
    assert min(found["guarded"].values()) >= 0.85


def test_limits_that_exclude_every_baseline(folder: Path) -> None:
    proposal = asked(folder, 'caps = { recipe = { "all:code" = 0.1 } }\nweights = { code = 1 }\n').propose(draft=True)
    assert all(recipe.mixture.share("python") <= 0.1 + 1e-6 for recipe in proposal.recipes.values())
    assert any("drawn inside the limits" in words for words in proposal.warnings)
    assert not any("not allowed" in words for words in proposal.warnings)


def test_a_set_of_limits_that_no_recipe_keeps_says_by_how_much(folder: Path) -> None:
    study = asked(folder, "floors = { cooldown = { web = 0.7, python = 0.5 } }\n")
    with pytest.raises(InputError, match=r"0\.7 web in cooldown.*0\.5 python in cooldown.*loosen one of them by 0\.03"):
        study.propose(draft=True)


def test_a_past_beyond_its_epochs(folder: Path) -> None:
    past = '{ phase = "init", tokens = 4000000, mixture = { web = 0.4, books = 0.6 } }'
    study = asked(folder, f"prefix = [{past}]\n")
    proposal = study.propose(draft=True)  # six epochs of books are read, four allowed
    assert all(phase.mixture.share("books") == 0 for phase in proposal.recipe.phases[1:])
    found = study.what_if(proposal.recipe)
    assert {point.phase for point in found.points} == {"continue", "cooldown"}, "init is over"
    assert found.standing is not None
    assert found.standing.distance is not None


def test_one_history_however_it_is_labelled_known_or_not(folder: Path) -> None:
    shares = "mixture = { web = 0.8, python = 0.2 }"
    for mixture in (f", {shares}", ""):
        long = f'[{{ phase = "init", tokens = 5000000{mixture} }}]'
        two = f'[{{ phase = "init", tokens = 3000000{mixture} }}, {{ phase = "continue", tokens = 2000000{mixture} }}]'
        one, other = (asked(folder, f"prefix = {prefix}\n").propose(draft=True) for prefix in (long, two))
        assert one.supported == other.supported
        assert one.gain.lo90 < other.gain.mean < one.gain.hi90


def test_a_free_size_at_given_flops(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = _first(folder).replace("params = 330000\ntokens = 6600000\n", 'flops = 1.3e13\nsizes = ["0.1M", "1M"]\n')
    (folder / "study.toml").write_text(text)
    said = printed(capsys, "propose", folder, "--draft")
    assert "size chosen: " in said
    assert "inside the limits, its own mixture breaks: a cooldown" not in said


def test_weights_over_groups_and_how_far_they_may_move(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = asked(folder, "weights = { language = 1, code = 3 }\n")
    proposal = study.propose()
    assert proposal.weights == pytest.approx({"task0": 0.25, "task1": 0.75})
    found = document(capsys, "dependence", folder, "--more", "books=1M")
    assert [w["name"] for w in found["weights"]] == ["language", "code"]
    assert [(m["domain"], m["tokens"]) for m in found["tokens"]] == [("books", 1_000_000)]


def test_a_task_that_recipes_move_further_does_not_decide(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = measured()[1].with_columns(pl.col("metric:task0", "metric:task1").log())
    squares = runs.group_by("params").agg(pl.col("metric:task0", "metric:task1").var()).mean()
    spread = [squares[f"metric:{task}"][0] ** 0.5 for task in ("task0", "task1")]
    weights = asked(folder, "standardise = true\n").propose(draft=True).weights
    assert weights["task0"] / weights["task1"] == pytest.approx(spread[1] / spread[0])
    assert f"weights: task0 {percent(weights['task0'])}, task1" in printed(
        capsys, "propose", folder, "--draft", "--all"
    )
    three = asked(folder, "standardise = true\nweights = { language = 3, code = 1 }\n").propose(draft=True).weights
    assert three["task0"] / three["task1"] == pytest.approx(3 * spread[1] / spread[0])


def test_a_team_baseline_by_file_run_or_mixture(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = asked(folder, "")
    run = study.records()[3].run
    for name in ("ours", run, "uniform"):
        assert document(capsys, "propose", folder, "--baseline", name, "--draft")["against"] == name
    recipe = study.propose(draft=True).recipe
    Path("recipe.json").write_text(json.dumps(recipe.as_json()))
    found = document(capsys, "compare", folder, "recipe.json", "ours")
    assert found["names"] == ["recipe.json", "ours"]
    assert 0 <= found["gain"]["probability"] <= 1
    assert set(found["gain"]["better_groups"]) == {"language", "code"}
    assert found["standings"][0]["broken"] == []


def test_what_if_and_propose_give_one_gain_for_one_baseline(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = asked(folder, 'baseline = "ours"\n')
    proposal = study.propose()
    found = document(capsys, "what-if", folder, proposal.id)
    assert found["against"] == "ours"
    assert found["gain"]["mean"] == pytest.approx(proposal.gain.mean)


def test_what_to_choose_between_groups(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked(folder, "")
    found = document(capsys, "pareto", folder)
    gains = [(p["gains"]["language"]["mean"], p["gains"]["code"]["mean"]) for p in found["points"]]
    assert not any(a != b and a[0] >= b[0] and a[1] >= b[1] for a in gains for b in gains)


def test_was_it_right(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = asked(folder, "")
    assert "Nothing to verify yet" in printed(capsys, "verify", folder)
    assert study.verify().coverage is None


def test_which_runs_are_next_and_what_are_they_worth(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = asked(folder, "")
    proposal = study.propose()
    whole = 6.0 * 94_000 * 20 * 94_000  # FLOPs of a run of the larger size
    found = document(capsys, "suggest", folder, "--budget", str(3 * whole), "-n", "4")
    assert 1 <= len(found["jobs"]) <= 4
    assert sum(job["flops"] for job in found["jobs"]) <= 3 * whole * 1.001
    assert 0 <= found["gain"] <= found["regret"]
    assert not found["stop"] or found["changes"] < 0.05
    # It is the recommendation of propose, with the risk that propose tells, that these runs improve.
    assert proposal.risks["proposal"].regret < 3 * found["regret"] + 0.1
    assert [one["budget"] for one in found["curve"]] == pytest.approx([1.5 * whole, 3 * whole, 6 * whole])


def test_was_it_right_once_both_are_trained(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world, _ = measured()
    study = asked(folder, "")
    proposal = study.propose()
    assert "Nothing to verify yet" in printed(capsys, "verify", folder)
    pair = [replace(proposal.recipes[name], seed=s) for name in ("proposal", proposal.against) for s in (0, 1)]
    world.measure(pair, seed=5).write_csv("later.csv")
    printed(capsys, "import", folder, "later.csv")
    found = document(capsys, "verify", folder)
    (one,) = (p for p in found["pairs"] if p["against"] == proposal.against)
    assert one["runs"] == [2, 2]
    # The gains of the known truth, with the noise of two runs of half a percent.
    design = design_of(pair[::2], world.phases, world.domains, {d.name: float(d.unique_tokens) for d in DOMAINS})
    losses = world.mean(design).log()
    for gain, truth in zip(one["gains"], (100 * (losses[1] - losses[0])).tolist(), strict=True):
        assert gain["measured"] == pytest.approx(truth, abs=4 * gain["noise"] + 0.1)
    assert "measured" in printed(capsys, "verify", folder)


def test_where_our_mixture_is_the_best_it_is_the_recipe(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = asked(folder, "guard = false\n").propose(draft=True).recipe
    path = folder / "ours.json"
    path.write_text(json.dumps(recipe.as_json()))
    said = " ".join(printed(capsys, "propose", folder, "--draft", "--baseline", path).split())
    assert f"nothing is better than the baseline {path}" in said
    assert f"{path} 8" not in said, "no chance to beat oneself"
