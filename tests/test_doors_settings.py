"""study.toml, recipes and proposals as people and other programs leave them: read right, or refused in one sentence."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mixlaw.errors import InputError
from mixlaw.recipe import Mixture, Phase, Recipe
from mixlaw.settings import read_settings
from mixlaw.settings.recipes import read_recipe, read_recipes
from mixlaw.study import open_study
from studies import on_disk
from studies import study as simulated
from test_cli import contents, refused, refused_here
from test_settings import GOOD, write

BOMS = {"utf-8-sig": "", "utf-8": "", "latin-1": "is not UTF-8: byte 0xe9 in line 1; save it as UTF-8"}


@pytest.mark.parametrize("encoding", BOMS)
def test_a_byte_order_mark_is_no_part_of_a_file_and_other_encodings_are_named(encoding: str, tmp_path: Path) -> None:
    settings = f"# café\n{GOOD}"
    recipe = '# café\nparams = "1M"\nphases = [{ name = "init", tokens = "2M", mixture = "half" }]\n'
    (tmp_path / "study.toml").write_bytes(settings.encode(encoding))
    (tmp_path / "recipe.toml").write_bytes(recipe.encode(encoding))
    if BOMS[encoding]:
        with pytest.raises(InputError, match="study.toml is not TOML: it " + re.escape(BOMS[encoding])):
            open_study(tmp_path)
        settings_of_it = read_settings(write(tmp_path, GOOD))
        with pytest.raises(InputError, match="recipe.toml is not a recipe: .*" + re.escape(BOMS[encoding])):
            read_recipe(tmp_path / "recipe.toml", settings_of_it)
        return
    study = open_study(tmp_path)
    assert study.settings.name == "try"
    assert read_recipe(tmp_path / "recipe.toml", study.settings).tokens == 2_000_000


# What is put for what in the good study, and what the message must say.
WRONG = {
    "suites that are a number": ("version = 1", "version = 1\nsuites = 5", "suites = 5: input should be a valid list"),
    "NaN as weight": (
        "tokens = 4_000_000",
        "tokens = 4_000_000\nweights = { text = nan }",
        "target.weights.text = nan",
    ),
    "infinite weight": ("tokens = 4_000_000", "tokens = 4_000_000\nweights = { text = inf }", "finite number"),
    "negative weight": (
        "tokens = 4_000_000",
        "tokens = 4_000_000\nweights = { text = -1 }",
        "target.weights.text = -1",
    ),
    "infinite flops": (
        'params = "0.1M"\ntokens = 4_000_000',
        'flops = inf\nsizes = ["1M", "2M"]',
        "target.flops = inf: input should be a finite number",
    ),
    "NaN as flops": ('params = "0.1M"\ntokens = 4_000_000', 'flops = nan\nsizes = ["1M", "2M"]', "target.flops = nan"),
    "NaN as epochs": ("tokens = 4_000_000", "tokens = 4_000_000\nmax_epochs = nan", "target.max_epochs"),
    "a length of a phase that is none": (
        "tokens = 4_000_000",
        "tokens = 4_000_000\nlengths = { inti = [0.5, 0.6] }",
        "target.lengths: unknown phase 'inti'; did you mean 'init'?",
    ),
    "a length of the last phase": (
        "tokens = 4_000_000",
        "tokens = 4_000_000\nlengths = { cooldown = [0.4, 0.5] }",
        "'cooldown' is the last phase, which takes what the others leave; give its range as cooldown = [least",
    ),
    "a length of a phase that is over": (
        "tokens = 4_000_000",
        'tokens = 4_000_000\nlengths = { init = 1 }\nprefix = [{ phase = "init", tokens = 1000 }]',
        "target.lengths: unknown phase 'init'",
    ),
    "epochs of a phase that is none": (
        "tokens = 4_000_000",
        "tokens = 4_000_000\nphase_epochs = { cooldwn = 2 }",
        "target.phase_epochs: unknown phase 'cooldwn'; did you mean 'cooldown'?",
    ),
    "params above 2^63": (
        'params = "0.1M"',
        "params = 9223372036854775808",
        "target.params: a size is a positive number",
    ),
    "tokens above 2^63": ("4_000_000", "9223372036854775808", "target.tokens = 9223372036854775808"),
    "tokens with 400 digits": ("4_000_000", '"' + "9" * 400 + '"', "tokens are a number below 2^63"),
    "a size with 400 digits": ('params = "0.1M"', f'params = "{"9" * 400}B"', "a size is a positive number below 2^63"),
    "a truth value for tokens": ("4_000_000", "true", "target.tokens = True: it must not be a truth value"),
    "a truth value for a size": ('params = "0.1M"', "params = true", "target.params = True"),
    "a truth value for a share": ("text = 0.5, code = 0.5", "text = true", "mixtures.half.text = True"),
    "a truth value for a number": ("batch = 4", "batch = true", "training.batch = True"),
    "a key like one": (
        "batch = 4",
        "bach = 4",
        "unknown key 'training.bach'; remove it or fix its spelling, did you mean 'batch'?",
    ),
    "a key like one in a list": (
        "seeds = [0, 1]",
        "seed = [0, 1]",
        "'recipes.0.seed'; remove it or fix its spelling, did you mean 'seeds'?",
    ),
    "a key like one of the target": (
        "floors = {",
        "flors = {",
        "'target.flors'; remove it or fix its spelling, did you mean 'floors'?",
    ),
    "a domain like one": ("code = { code = 1 }", "code = { cod = 1 }", "unknown domain 'cod'; did you mean 'code'?"),
    "a size like one": ('size = "0.025M"', 'size = "0.25M"', "unknown size '0.25M'; did you mean '0.025M'?"),
    "a mixture like one": ('init = "half"', 'init = "hlf"', "unknown mixture 'hlf'; did you mean 'half'?"),
    "a line end in a domain": ("[domains.text]", '["domains"."a\\nb"]', r"domains: 'a\nb' needs a name"),
    "a line end in a key": ("batch = 4", '"a\\nb" = 4', r"unknown key"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_in_study_toml_is_said_when_it_is_opened(name: str, tmp_path: Path) -> None:
    old, new, said = WRONG[name]
    assert GOOD.count(old) == 1
    write(tmp_path, GOOD.replace(old, new))
    with pytest.raises(InputError) as caught:
        open_study(tmp_path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


RECIPE = Recipe(1_000_000, (Phase("init", 2_000_000, Mixture({"text": 1.0})),)).as_json()
DAMAGED = {
    "no object": ([1, 2], "it holds [1, 2] instead of a table"),
    "params above 2^63": ({**RECIPE, "params": 2**63}, "a size is a positive number below 2^63"),
    "tokens above 2^63": ({**RECIPE, "phases": [{**RECIPE["phases"][0], "tokens": 2**63}]}, "phases.0.tokens"),
    "a truth value": ({**RECIPE, "params": True}, "params = True: it must not be a truth value"),
    "text for phases": ({**RECIPE, "phases": "init"}, "phases = 'init'"),
    "no phases": ({**RECIPE, "phases": []}, "needs at least one phase"),
    "a seed that is text": ({**RECIPE, "seed": "x"}, "seed = 'x'"),
    "a share that is NaN": (
        {**RECIPE, "phases": [{**RECIPE["phases"][0], "mixture": {"text": float("nan")}}]},
        "phases.0.mixture",
    ),
    "a key that is none": (
        {**RECIPE, "sed": 1},
        "unknown key 'sed'; remove it or fix its spelling, did you mean 'seed'?",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_recipe_is_refused_with_key_and_value(name: str, tmp_path: Path) -> None:
    data, said = DAMAGED[name]
    (tmp_path / "a.json").write_text(json.dumps(data))
    settings = read_settings(write(tmp_path, GOOD))
    for look in (lambda: list(read_recipes(tmp_path)), lambda: read_recipe(tmp_path / "a.json", settings)):
        with pytest.raises(InputError) as caught:
            look()
        assert said in str(caught.value)
        assert f"{tmp_path / 'a.json'} is not a recipe" in str(caught.value)


def test_a_recipe_survives_its_file(tmp_path: Path) -> None:
    settings = read_settings(write(tmp_path, GOOD))
    phases = (Phase("init", 10, Mixture({"text": 0.25, "code": 0.75}), None), Phase("x", 20, Mixture({"code": 1}), 0.5))
    recipe = Recipe(5, phases, 3, {"code": 7}, "abc", lr=0.5, warmup=0)
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "a.json").write_text(json.dumps(recipe.as_json()), encoding="utf-8-sig")
    assert list(read_recipes(tmp_path / "recipes")) == [recipe]
    assert read_recipe(tmp_path / "recipes" / "a.json", settings) == recipe


PROPOSALS: dict[str, Callable[[str], str]] = {
    "a list": lambda text: "[]",
    "a number for the target": lambda text: json.dumps({**json.loads(text), "target": 5}),
    "nothing but a target": lambda text: '{"format": 4, "target": 5}',
    "another format": lambda text: json.dumps({**json.loads(text), "format": 2}),
    "half a file": lambda text: text[: len(text) // 2],
    "no text": lambda text: "\udcff\udcfe",
    "a changed share": lambda text: json.dumps({**json.loads(text), "sentence": "It is sure."}),
    "a number that is text": lambda text: json.dumps({**json.loads(text), "number": "1"}),
    "a recipe too much": lambda text: json.dumps({**json.loads(text), "baselines": {"a": {}}}),
    "brackets": lambda text: "[" * 100_000,
    "a key of two lines": lambda text: json.dumps(
        {**json.loads(text), "target": {**json.loads(text)["target"], "a\nb": 1}}
    ),
}


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with surfaces and a proposal."""
    folder = on_disk(tmp_path_factory.mktemp("frozen"), '[target]\nparams = 330_000\ntokens = "6.6M"\n')
    simulated().proposal.freeze(folder / "proposals")
    return folder


@pytest.mark.parametrize("name", PROPOSALS)
def test_a_damaged_proposal_is_one_sentence_and_other_verbs_work(name: str, frozen: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    shutil.copytree(frozen, study)
    path = next((study / "proposals").glob("*.json"))
    path.write_text(PROPOSALS[name](path.read_text()), errors="surrogateescape")
    before = contents(study)
    for command in (["verify"], ["propose"], ["report"], ["export"], ["what-if"], ["export", path.stem]):
        said = refused_here(study, command[0], study, *command[1:])
        assert str(path) in said
        assert "\n" not in said
    assert str(path) in str(open_study(study))
    run = open_study(study).records()[0].run
    assert open_study(study).export(run, ["mosaic"], tmp_path / "out").files
    assert not open_study(study).table().is_empty()
    assert contents(study) == before
    if name == "a list":
        assert "is not a proposal" in refused(study, "verify", study)


CORE = """
import sys
for name in ("tokenizers", "transformers", "datasets", "zstandard", "openai"):
    sys.modules[name] = None  # as if it were not installed
from mixlaw.cli import main
main()
"""


@pytest.mark.slow
def test_without_extras_every_verb_works_or_names_the_extra(small: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    shutil.copytree(small, study)

    def core(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", CORE, *map(str, arguments)], capture_output=True, text=True)

    commands = (
        ("prepare", str(study)),
        ("run", str(study), "--workers", "1"),
        ("demo", str(tmp_path / "demo"), "--smoke"),
    )
    for command in commands:
        done = core(*command)
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert "pip install 'mixlaw[train]'" in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr
    assert core("new", tmp_path / "new").returncode == 0
    assert "no records" in core("fit", study).stderr


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from small_study import prepare

    return prepare(tmp_path_factory.mktemp("small") / "study")


@pytest.mark.parametrize("command", ["fit", "plan", "prepare", "propose", "report", "new"])
def test_a_path_to_study_toml_is_its_study_and_another_file_is_none(command: str, tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text("run\n")
    assert "runs.csv is a file, not a study; give the folder" in refused_here(tmp_path, command, tmp_path / "runs.csv")
    study = tmp_path / "study"
    study.mkdir()
    write(study, GOOD)
    said = refused_here(study, command, study / "study.toml")
    assert said == refused_here(study, command, study)
    assert "not a study" not in said
