"""`mixlaw what-if`, over a real process, and `mixlaw pareto`: which recipe is meant, what is printed and written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mixlaw import import_runs
from mixlaw.analysis.data.recipes import design_of
from mixlaw.analysis.fit import fit
from mixlaw.cli import app
from mixlaw.errors import InputError
from mixlaw.optimizer.goal.baselines import named
from mixlaw.optimizer.goal.values import Interval
from mixlaw.recipe import Recipe
from mixlaw.study import open_study
from mixlaw.testing.worlds import random_recipes, random_world
from test_cli import DOMAINS, document, document_here, refused_here

RECIPE = """
params = "60M"
phases = [
    { name = "init", tokens = "800M", mixture = "half" },
    { name = "continue", tokens = 300_000_000, mixture = { web = 0.9, books = 0.1 } },
    { name = "cooldown", tokens = 100_000_000, mixture = { stack = 1.0 }, lr_end = 0.1 },
]
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fitted study of imported runs from a known world, with a target and groups."""
    folder = tmp_path_factory.mktemp("fronts")
    world = random_world(DOMAINS, tasks=3, seed=4)
    world.measure(random_recipes([2_000_000, 8_000_000], 20, DOMAINS, count=8, seed=4), seed=4).write_csv(
        folder / "runs.csv"
    )
    kinds = "\n".join(f'{d.name} = {{ kind = "{d.kind.value}", unique_tokens = {d.unique_tokens} }}' for d in DOMAINS)
    (folder / "domains.toml").write_text(f"[domains]\n{kinds}\n")
    import_runs(folder / "study", folder / "runs.csv", unit="bits/byte", domains=folder / "domains.toml")
    with (folder / "study" / "study.toml").open("a") as file:
        file.write(
            '\n[target]\nparams = "60M"\ntokens = 1_200_000_000\n\n[mixtures]\nhalf = { web = 0.5, stack = 0.5 }\n'
        )
        file.write('\n[groups]\nlanguage = ["task0", "task1"]\ncode = ["task2"]\n')
    opened = open_study(folder / "study")
    fit(opened.table(), units=opened.units, unique=opened.unique, audited=False, resamples=16).save(
        folder / "study" / "surfaces"
    )
    (folder / "recipe.toml").write_text(RECIPE)
    return folder / "study"


def test_a_recipe_in_a_file_is_predicted_beside_a_baseline_of_its_own_phases(study: Path) -> None:
    found = document("what-if", study, study.parent / "recipe.toml", "--baseline", "proportional")
    recipe = found["recipe"]
    assert (recipe["params"], [p["tokens"] for p in recipe["phases"]]) == (60_000_000, [800e6, 300e6, 100e6])
    assert recipe["phases"][0]["mixture"] == {"stack": 0.5, "web": 0.5}
    assert recipe["phases"][2]["lr_end"] == 0.1
    opened = open_study(study)
    asked = opened.what_if(study.parent / "recipe.toml").recipe
    beside = named("proportional")(60_000_000, {p.name: p.tokens for p in asked.phases}, opened.domains, 0.1)
    again = opened.what_if(asked, beside)
    assert again.gains["task0"].mean == pytest.approx(found["gains"]["task0"]["mean"])
    assert found["against"] == "proportional"
    surfaces = opened.surfaces()
    (row,) = surfaces.predict(design_of([asked], surfaces.phases, surfaces.domains, opened.unique)).mean
    assert [f["mean"] for f in found["forecasts"]] == pytest.approx(row.tolist())


def test_a_run_goes_by_its_name_and_the_proposal_without_one(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opened = open_study(study)
    record = opened.records()[3]
    assert opened.what_if(record.run).recipe == record.recipe
    with pytest.raises(InputError, match="there is no proposal yet"):
        opened.what_if()
    proposal = opened.propose()
    assert opened.what_if().recipe == opened.what_if(proposal.id).recipe == proposal.recipe
    app(["what-if", str(study)], standalone_mode=False)
    assert "What one more point is worth" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (RECIPE.replace('"half"', '"third"'), "no mixture 'third' in study.toml, but half"),
        (RECIPE.replace("lr_end", "lr"), "unknown key 'phases.2.lr'"),
        (RECIPE.replace('tokens = "800M", ', ""), "it needs params and"),
        (RECIPE.replace("web = 0.9", "web = 0.8"), "shares must sum to 1, got 0.9"),
        (RECIPE.replace("web = 0.9", "wiki = 0.9"), "wiki"),
        ("params = ", "is not a recipe"),
    ],
)
def test_files_that_are_no_recipe_are_refused(study: Path, tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "recipe.toml").write_text(text)
    with pytest.raises(InputError, match=words):
        open_study(study).what_if(tmp_path / "recipe.toml")


def test_what_is_no_recipe_at_all_is_refused(study: Path) -> None:
    with pytest.raises(InputError, match="'nothing' is not a file, a run or proposal of"):
        open_study(study).what_if("nothing")
    with pytest.raises(InputError, match="or a baseline"):
        open_study(study).what_if(study.parent / "recipe.toml", "nobody")


def test_a_front_is_printed_and_written_as_a_page(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = document_here(capsys, "pareto", study, "-o", tmp_path / "front.html")
    assert shown["groups"] == {"language": ["task0", "task1"], "code": ["task2"]}
    page = (tmp_path / "front.html").read_text(encoding="utf-8")
    assert page.count('<script id="plotly"') == 1
    for point in shown["points"]:
        assert all(Interval(**point["gains"][name]).text() in page for name in shown["groups"])
        mixture = Recipe.from_json(point["recipe"]).phases[0].mixture
        assert all(f'"name":"{name}"' in page for name in mixture)  # a bar of the mixtures
    report = open_study(study).report(tmp_path / "report.html").read_text(encoding="utf-8").replace("\u00a0", " ")
    assert f"{len(shown['points'])} recipes between language, code" in report
    assert all(Interval(**point["gains"]["code"]).text() in report for point in shown["points"])


def test_groups_that_make_no_sense_are_refused(study: Path) -> None:
    assert "got 'language'; correct it" in refused_here(study, "pareto", study, "--group", "language")
    with pytest.raises(InputError, match="group 'code' has a task 'task7'"):
        open_study(study).pareto({"language": ["task0"], "code": ["task7"]})
    with pytest.raises(InputError, match="got language; write"):
        open_study(study).pareto({"language": ["task0"]})


def test_where_there_is_no_front_the_report_says_why(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study, tmp_path / "copy", ignore=shutil.ignore_patterns("proposals"))
    file = tmp_path / "copy" / "study.toml"
    file.write_text(file.read_text().replace("\ncode = [", "\n# code = ["))
    page = open_study(tmp_path / "copy").report().read_text(encoding="utf-8")
    assert "There is no front: a front needs two groups of tasks or more, got language" in page
