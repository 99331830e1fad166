"""The handle: what one meets in a notebook and on the command line before anything is computed."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import mixlaw
import small_study
from mixlaw import Decay, Domain, InputError, InvalidRecipe, Kind, Measurement, Mixture, Phase, Recipe, Record, Target
from mixlaw.errors import unknown
from mixlaw.folder.names import recipe_of
from mixlaw.numbers import size
from mixlaw.optimizer.answers.proposal import Proposal
from studies import DOMAINS, study

HALF = Mixture({"web": 0.5, "code": 0.5})
RECIPE = Recipe(
    1000,
    (Phase("init", 800, HALF), Phase("cooldown", 200, Mixture({"web": 1.0}), 0.0, Decay.COSINE)),
    unique={"code": 300},
)
VALUES: list[Any] = [HALF, *RECIPE.phases, RECIPE, Domain("web", Kind.TEXT, 9), Target(1000, 2000)]
VALUES.append(Record("a", RECIPE, {"web": Measurement(3.0)}))


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_of_the_contract_are_plain(value: Any) -> None:
    assert pickle.loads(pickle.dumps(value)) == value
    assert copy.deepcopy(value) == value
    assert isinstance(value.as_json() if isinstance(value, Target) else dataclasses.asdict(value), dict)
    assert "\n" not in repr(value)
    assert len(repr(value)) < 300


def test_mixtures_and_recipes_equal_the_plain_data_that_they_are_made_of() -> None:
    assert HALF == {"web": 0.5, "code": 0.5}
    assert HALF == {"web": 0.5, "code": 0.5, "books": 0.0}
    assert HALF != {"web": 1.0}
    assert RECIPE.unique == {"code": 300}
    values: list[Any] = [RECIPE, *RECIPE.phases]
    for value in values:
        assert value == value.as_json()
        assert value != {**value.as_json(), "name": "another"}


def test_what_a_recipe_holds_cannot_be_changed() -> None:
    cases: list[Any] = [(HALF.shares, "web"), (RECIPE.unique, "code")]
    for mapping, key in cases:
        with pytest.raises(TypeError, match="cannot be changed"):
            mapping[key] = 1
        with pytest.raises(TypeError, match="cannot be changed"):
            mapping.update({key: 1})


def test_truth_is_no_number_of_parameters() -> None:
    with pytest.raises(InvalidRecipe, match=r"params must be a positive whole number below 2\^63, got True"):
        Recipe(True, RECIPE.phases)


def test_results_print_on_one_line_where_they_are_nested(tmp_path: Path) -> None:
    study().table.write_csv(tmp_path / "runs.csv")
    opened = mixlaw.import_runs(tmp_path / "study", tmp_path / "runs.csv", unit="bits/byte")
    results = (opened, opened.imported, opened.records()[0], study().proposal, study().surfaces)
    for result in results:
        assert "\n" not in repr(result)
    assert repr(opened.imported).startswith("<Understood: 18 rows of 18 runs")
    assert hash(opened) == hash(mixlaw.open_study(tmp_path / "study"))


def test_everything_that_arguments_take_can_be_had_from_mixlaw_itself() -> None:
    names = [
        *("Assumptions", "Decay", "Design", "Domain", "Goal", "Guard", "Infeasible"),
        *("InputError", "InvalidMixture", "InvalidRecipe", "Kind", "Local", "Measure", "Measurement"),
        *("Mixture", "MixtureSampler", "Phase", "Proxies", "Ray", "Recipe", "Record"),
        *("Schedule", "Study", "Surfaces", "Target", "Trained", "Unit"),
        *(
            "compare",
            "fit",
            "import_runs",
            "new_study",
            "open_study",
            "pareto",
            "propose",
            "suggest",
            "verify",
            "what_if",
        ),
    ]
    assert {*names} <= {*dir(mixlaw)}
    assert [name for name in names if getattr(mixlaw, name).__module__.partition(".")[0] != "mixlaw"] == []


def test_the_version_is_that_of_the_package() -> None:
    from importlib.metadata import version

    done = subprocess.run([sys.executable, "-m", "mixlaw", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"mixlaw {mixlaw.__version__}\n" == f"mixlaw {version('mixlaw')}\n"


# --- one session ----------------------------------------------------------------------------------------------------


def test_a_study_that_is_kept_open_sees_its_data_its_runs_and_its_imports(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    mixlaw.new_study(folder)
    one = small_study.SETTINGS.replace("seeds = [0, 1]\n", "").partition("[[recipes]]")[0]
    one += '[[recipes]]\nsize = "0.025M"\nphases = { init = "half", continue = "half", cooldown = "text" }\n'
    written = one.replace('source = "text.jsonl"', 'source = "text.jsonl"\nunique_tokens = 90_000')
    (folder / "study.toml").write_text(written.replace('kind = "code"', 'kind = "code"\nunique_tokens = 90_000'))
    small_study.write_documents(folder)

    opened = mixlaw.open_study(folder / "study.toml")
    assert "nothing is measured yet; prepare()" in str(opened)
    with pytest.raises(InputError, match="run `mixlaw prepare`"):
        _ = opened.setup
    opened.prepare()
    assert opened.setup.tasks == ("text", "code")
    assert "run() trains its recipes" in str(opened)
    assert not opened.run(workers=1).failed
    assert [set(record.values) for record in opened.records()] == [{"text", "code"}]

    rows = opened.table().with_columns(run=pl.lit("foreign"), params=pl.lit(50_000))
    rows = rows.with_columns(**{"metric:new": pl.lit(2.5)})
    assert opened.import_runs(rows, unit="bits/byte").imported.tasks["new"] == "bits/byte"
    assert opened.units["new"] == "bits/byte"
    assert opened.table().height == 2
    assert "2 runs measured" in str(opened)
    assert opened.fit().tasks == ("text", "code", "new")
    assert "next: write [target]" in str(opened)


def test_imported_tasks_do_not_keep_runs_from_being_measured(tmp_path: Path) -> None:
    head, _, rest = small_study.SETTINGS.partition("[tasks]\n")
    recipe = '[[recipes]]\nsize = "0.025M"\nphases = { init = "half", continue = "half", cooldown = "text" }\n'
    (folder := tmp_path / "study").mkdir()
    settings = head + "[tokenizer]" + rest.partition("[tokenizer]")[2].partition("[[recipes]]")[0] + recipe
    (folder / "study.toml").write_text(settings)
    small_study.write_documents(folder)
    opened = mixlaw.open_study(folder)
    opened.prepare()
    measured = opened.units
    assert {"text", "code"} <= measured.keys()

    assert not opened.run(workers=1).failed
    rows = opened.table().select(pl.exclude("metric:code"))
    opened.import_runs(
        rows.with_columns(pl.lit("foreign").alias("run"), pl.lit(50_000).alias("params")), unit="bits/byte"
    )
    assert opened.units == measured  # though the table has no column for some of them
    rows = rows.with_columns(pl.lit("other").alias("run"), pl.lit(60_000).alias("params"), new=pl.lit(2.5))
    opened.import_runs(rows.rename({"new": "metric:new"}), unit="bits/byte")
    assert opened.units == {**measured, "new": "bits/byte"}
    assert opened.setup.tasks == (*measured,)
    assert opened.fit().tasks == (*measured, "new")


def test_a_study_is_opened_by_its_file_and_nothing_else_is_taken_for_one(tmp_path: Path) -> None:
    folder = small_study.prepare(tmp_path / "study")
    assert mixlaw.open_study(folder / "study.toml").path == folder
    (tmp_path / "runs.csv").write_text("run\n")
    for command in (["fit"], ["new"], ["prepare"], ["plan"], ["run"], ["verify"], ["report"], ["propose"], ["import"]):
        more = [str(folder)] if command == ["import"] else []  # the order of earlier versions
        done = subprocess.run(
            [sys.executable, "-m", "mixlaw", *command, str(tmp_path / "runs.csv"), *more],
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "is a file, not a study" in done.stderr
        assert "`mixlaw import STUDY " in done.stderr


def test_the_former_name_of_prepare_says_the_new_one() -> None:
    done = subprocess.run([sys.executable, "-m", "mixlaw", "data", "x", "--json"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "mixlaw: `mixlaw data` is now `mixlaw prepare STUDY`\n")


# --- runs of one's own ----------------------------------------------------------------------------------------------


def test_a_frame_is_imported_as_the_file_would_be(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    table = study().table.with_columns(pl.when(pl.int_range(pl.len()) > 0).then(pl.col("metric:task0")))
    table.write_csv(tmp_path / "runs.csv")
    frame = pandas.DataFrame({name: table[name].to_list() for name in table.columns})
    given = {"file": tmp_path / "runs.csv", "polars": table, "pandas": frame}
    records = {}
    for name, runs in given.items():
        imported = mixlaw.import_runs(tmp_path / name, runs, unit="bits/byte")
        assert imported.imported.empty == 1
        records[name] = imported.records()
    assert records["polars"] == records["file"]
    assert records["pandas"] == records["file"]
    with pytest.raises(InputError, match="a path, a polars or a pandas DataFrame, got list"):
        mixlaw.import_runs(tmp_path / "none", [1, 2])


# --- surfaces and proposals -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of imported runs with surfaces and a target."""
    folder = tmp_path_factory.mktemp("handle")
    study().table.write_csv(folder / "runs.csv")
    lines = [f'[domains.{d.name}]\nkind = "{d.kind.value}"\nunique_tokens = {d.unique_tokens}\n' for d in DOMAINS]
    (folder / "domains.toml").write_text("".join(lines))
    mixlaw.import_runs(folder / "study", folder / "runs.csv", unit="bits/byte", domains=folder / "domains.toml")
    study().surfaces.save(folder / "study" / "surfaces")
    with (folder / "study" / "study.toml").open("a") as file:
        file.write('\n[target]\nparams = "60M"\ntokens = 4_000_000\n')
    return folder / "study"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_law_or_a_table_of_ones_own_is_fitted_to_look_at_unless_it_is_saved(foreign: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(foreign, tmp_path / "study")
    opened, before = mixlaw.open_study(folder), contents(folder)
    opened.fit(law="Chinchilla")
    assert contents(folder) == before
    opened.fit(law="Chinchilla", save=True)
    assert contents(folder) != before
    with pytest.raises(InputError, match="there is no law 'Chinchila'; did you mean 'Chinchilla'"):
        opened.fit(law="Chinchila")


def test_what_is_misspelt_is_answered_with_what_was_meant(foreign: Path) -> None:
    opened = mixlaw.open_study(foreign)
    run = opened.records()[0].run
    with pytest.raises(InputError, match=f"did you mean '{run}'"):
        opened.what_if(f"{run}x")
    with pytest.raises(InputError, match="did you mean 'proportional'"):
        opened.what_if(run, "proportionl")
    with pytest.raises(InputError, match="there is no trainer 'megatrom'; did you mean 'megatron'"):
        opened.export(run, "megatrom")
    assert str(unknown("law", "x", ["a", "b"])) == "there is no law 'x'; choose one of a, b"


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_last_proposal_is_the_last_that_was_made_whatever_its_file_says(foreign: Path, tmp_path: Path) -> None:
    opened = mixlaw.open_study(shutil.copytree(foreign, tmp_path / "study"))
    targets = [opened.target().model_copy(update={"tokens": tokens}) for tokens in (6_000_000, 4_000_000, 5_000_000)]
    made = [opened.propose(target=target).id for target in targets]
    assert [proposal.id for proposal in opened.proposals()] == made
    for number, name in enumerate(sorted(made)):  # a clone writes files in the order of their names
        os.utime(opened.proposals_folder / f"{name}.json", (number, number))
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["add", "proposals", "study.toml"], ["commit", "-qm", "study"]):
        subprocess.run([*git, *command], cwd=opened.path, check=True)
    subprocess.run([*git, "clone", "-q", str(opened.path), str(tmp_path / "clone")], check=True)
    for path in (opened.path, tmp_path / "clone"):
        assert [proposal.id for proposal in mixlaw.open_study(path).proposals()] == made
    assert opened.proposals()[-1].target.tokens == 5_000_000
    assert recipe_of(opened, "proposal").tokens == recipe_of(opened, made[-1]).tokens == 5_000_000
    assert recipe_of(opened, "1").tokens == 6_000_000
    shown = [opened.show(name) for name in ("proposal", None, "1")]
    assert [one.id for one in shown if isinstance(one, Proposal)] == [made[-1], made[-1], made[0]]


def test_looking_for_runs_or_a_proposal_queues_nothing(foreign: Path, tmp_path: Path) -> None:
    opened = mixlaw.open_study(shutil.copytree(foreign, tmp_path / "study"))
    before = contents(opened.path)
    opened.suggest(2e15, 2)
    assert contents(opened.path) == before


def test_two_recipes_are_compared_task_by_task(foreign: Path) -> None:
    opened = mixlaw.open_study(foreign)
    one, other = (record.run for record in opened.records()[:2])
    told = subprocess.run(
        [sys.executable, "-m", "mixlaw", "compare", str(foreign), one, other, "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    printed, what_if = json.loads(told.stdout), opened.what_if(one, other)
    assert printed["names"] == [one, other]
    for task, gain in what_if.gains.items():  # the same posterior samples
        assert printed["gain"]["by_task"][task] == pytest.approx(dataclasses.asdict(gain))
    swapped = opened.compare(other, one)
    for task, chance in swapped.gain.better.items():
        assert chance == pytest.approx(1 - printed["gain"]["better"][task])
        assert swapped.gain.by_task[task].mean == pytest.approx(-printed["gain"]["by_task"][task]["mean"])
    assert swapped.gain.probability == pytest.approx(1 - printed["gain"]["probability"])
    assert opened.compare(one, one).sentence == f"{one} and {one} are one recipe."
    assert opened.compare(one).names == (one, "proportional")
    turned, straight = opened.compare("proportional", one), opened.compare(one, "proportional")
    assert turned.recipes == straight.recipes[::-1]
    assert turned.gain.total.mean == pytest.approx(-straight.gain.total.mean)
    both = opened.compare("uniform", "proportional")
    assert {recipe.params for recipe in both.recipes} == {opened.target().params}
    assert opened.what_if("uniform").recipe == both.recipes[0]
    with pytest.raises(InputError, match="did you mean 'uniform'"):
        opened.compare("unifrom")
    small, large = (pick(opened.records(), key=lambda record: record.recipe.params) for pick in (min, max))
    sizes = [f"{size(one.recipe.params)} params, {size(one.recipe.tokens)} tokens" for one in (small, large)]
    assert f"both have {sizes[0]}" in str(opened.compare(small.run))
    beside = " ".join(str(opened.compare(small.run, large.run)).split())
    assert f"{small.run} has {sizes[0]}; {large.run} has {sizes[1]}: part of the gain" in beside


def test_where_no_domain_has_a_source_the_next_step_is_a_list_of_runs_for_another_trainer(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(
        '[domains]\nweb = { unique_tokens = "1B" }\n[tasks]\nweb = "bits/byte"\n'
        '[[phases]]\nname = "init"\nshare = 1.0\n',
        encoding="utf-8",
    )
    said = str(mixlaw.open_study(tmp_path))
    assert "nothing is measured yet; suggest() lists runs for your trainer, import_runs() takes" in said
    assert "prepare()" not in said
