"""What the reader of a page has in the folder: a study of imported runs, and one that was trained, as the demo is."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl

import small_study
from mixlaw import import_runs
from mixlaw.analysis.fit import fit
from mixlaw.recipe import Domain, Kind
from mixlaw.study import open_study
from mixlaw.testing.worlds import random_recipes, random_world

DOMAINS = [
    Domain("web", Kind.TEXT, 400_000_000),
    Domain("books", Kind.TEXT, 40_000_000),
    Domain("python", Kind.CODE, 300_000_000),
]
TASKS = ("hellaswag", "triviaqa", "humaneval")
KINDS = "[domains]\n" + "".join(
    f'{d.name} = {{ kind = "{d.kind.value}", unique_tokens = {d.unique_tokens} }}\n' for d in DOMAINS
)
#: What a study with a target has besides its runs.
GOAL = """
[mixtures]
mostly_text = { web = 0.9, books = 0.1 }
[target]
params = "60M"
tokens = 1_200_000_000
"""
WORDS = {
    "prose": "the model sees a word and another one after it",
    "facts": "it is the capital of a country with rivers and hills",
    "code": "def f(x): return x + 1 if x else None # end",
}
#: As the demo's: its domains, phases, groups and target in small.
DEMO = """\
name = "demo"
[domains]
prose = { kind = "text", source = "prose.jsonl" }
facts = { kind = "text", source = "facts.jsonl" }
code = { kind = "code", source = "code.jsonl" }
[tasks]
prose = "bits/byte"
code = "bits/byte"
[tokenizer]
vocabulary = 300
[training]
sequence = 32
batch = 4
warmup_tokens = 2000
held_out = 0.2
[sizes]
"0.025M" = 8_000
[[phases]]
name = "init"
share = 0.5
[[phases]]
name = "continue"
share = 0.25
[[phases]]
name = "cooldown"
share = 0.25
lr_end = 0.0
[mixtures]
text = { prose = 0.5, facts = 0.5 }
code = { code = 1.0 }
half = { prose = 0.3, facts = 0.2, code = 0.5 }
[groups]
language = ["prose"]
code = ["code"]
[target]
params = "0.1M"
tokens = 40_000
"""
RECIPES = "".join(
    f'[[recipes]]\nsize = "0.025M"\nphases = {{ init = "{a}", continue = "{b}", cooldown = "{c}" }}\n'
    for a, b, c in [*product(("half", "text", "code"), repeat=3)][::3]
)


def foreign_study(folder: Path) -> Path:
    """A fitted study of imported runs from a known world, with what a reader would have at hand beside it."""
    world = random_world(DOMAINS, tasks=3, seed=4)
    runs = world.measure(random_recipes([2_000_000, 8_000_000], 20, DOMAINS, count=6, seed=4), seed=4)
    runs = runs.rename({f"metric:task{i}": f"metric:{task}" for i, task in enumerate(TASKS)})
    runs = runs.with_columns(run=pl.when(pl.int_range(pl.len()) == 0).then(pl.lit("RUN")).otherwise(pl.col("run")))
    runs.write_csv(folder / "runs.csv")
    runs.drop([f"metric:{task}" for task in TASKS]).head(3).write_csv(folder / "recipes.csv")
    (folder / "kinds.toml").write_text(KINDS)
    (folder / "evaluations").mkdir()
    for run in runs["run"]:
        measured = {"model_name": run, "results": {"boolq": {"acc,none": 0.6, "acc_stderr,none": 0.01}}}
        (folder / "evaluations" / f"results_{run}.json").write_text(json.dumps(measured))
    import_runs(folder / "STUDY", folder / "runs.csv", unit="bits/byte", domains=folder / "kinds.toml")
    with (folder / "STUDY" / "study.toml").open("a") as file:
        file.write(GOAL)
    study = open_study(folder / "STUDY")
    fit(study.table(), units=study.units, unique=study.unique, audited=False, resamples=16).save(
        study.path / "surfaces"
    )
    study.propose()
    return folder


def train(folder: Path) -> Path:
    """A study that was trained, fitted and proposed for here, as the demo is."""
    draw = np.random.default_rng(0)
    (folder / "study.toml").write_text(DEMO + RECIPES)
    for name, words in WORDS.items():
        (folder / f"{name}.jsonl").write_text(small_study.documents(words, draw))
    study = open_study(folder)
    study.prepare()
    assert not study.run(workers=1).failed
    fit(study.table(), units=study.units, unique=study.unique, audited=False, resamples=16).save(folder / "surfaces")
    study.propose()
    return folder
