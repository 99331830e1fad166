"""`mixlaw suggest` over a real process: a first design, runs after a fit, what is written, and what is refused."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mixlaw import import_runs
from mixlaw.analysis.fit import fit
from mixlaw.errors import InputError
from mixlaw.report.evidence import suggested
from mixlaw.runner.plan.tree import plan
from mixlaw.study import open_study
from mixlaw.study.next_runs import at_proxies
from mixlaw.testing.worlds import random_recipes, random_world
from test_cli import DOMAINS, TINY, contents, document, document_here, here, refused_here

TARGET = '\n[target]\nparams = "{params}"\ntokens = {tokens}\n'


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny study of our own corpora with a target, tokenised; nothing is trained."""
    folder = tmp_path_factory.mktemp("own")
    words = random.Random(5)
    for name, vocabulary in (("text", ["the", "cat", "sat", "on", "a"]), ("code", ["def", "x", "(", ")", ":"])):
        documents = ({"text": " ".join(words.choices(vocabulary, k=120)) + f" {i}"} for i in range(150))
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(d) + "\n" for d in documents))
    (folder / "study.toml").write_text(TINY + TARGET.format(params="0.1M", tokens=40_000))
    open_study(folder).prepare()
    return folder


def flops_planned(folder: Path) -> float:
    """FLOPs of all recipes of a study, what they share counted once."""
    study = open_study(folder)
    return sum(study.setup.flops(s.recipe.params, s.tokens) for s in plan(study.recipes()).segments)


@pytest.mark.slow
def test_a_first_design_is_queued_and_costs_what_the_plan_says(own: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(own, tmp_path / "copy"))
    before, recipes = flops_planned(folder), open_study(folder).recipes()
    found = document("suggest", folder, "--budget", "1e12", "-n", "6", "--queue")
    assert found["cold_start"]
    assert not found["stop"]
    assert len(found["jobs"]) == len(found["recipe_files"]) == 6
    assert flops_planned(folder) - before == pytest.approx(found["flops"])
    lines = [json.loads(line) for line in Path(found["job_file"]).read_text().splitlines()]
    assert {line.pop("verdict") for line in lines} == {found["sentence"]}
    assert lines == found["jobs"]
    queued = {recipe.lineage for recipe in open_study(folder).recipes()} - {recipe.lineage for recipe in recipes}
    assert {line["run"] for line in lines} == queued
    more = open_study(folder).suggest(1e12, 6)
    assert not {job.recipe.lineage for job in more.jobs} & queued


@pytest.mark.slow
def test_new_runs_have_the_seed_of_those_that_are_planned(own: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(own, tmp_path / "copy"))
    settings = (folder / "study.toml").read_text()
    (folder / "study.toml").write_text(re.sub(r"(size = .*\n)", r"\1seeds = [7]\n", settings))
    study = open_study(folder)
    assert {recipe.seed for recipe in study.recipes()} == {7}
    jobs = study.suggest(1e12, 6).jobs
    repeats = [job.recipe.seed for job in jobs if "another seed" in job.why]
    assert {job.recipe.seed for job in jobs if "another seed" not in job.why} == {7}
    assert not {*repeats} & {0, 7}
    larger = replace(study.recipes()[0], params=100_672, seed=0)
    assert {recipe.seed for recipe in at_proxies(study, larger)} == {7}


@pytest.mark.slow
def test_the_table_says_what_why_and_what_it_costs(own: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(own, tmp_path / "copy"))
    shown = " ".join(str(open_study(folder).suggest(1e12, 4, queue=True)).split())
    assert "4 runs for a first fit: " in shown
    assert "the centre of what the target allows" in shown
    assert "4 recipes are queued: `mixlaw run` trains them" in shown
    assert str(folder / "suggestions") in shown.replace(" ", "")
    before = contents(folder)
    with pytest.raises(InputError, match="pays for no run"):
        open_study(folder).suggest(1000, queue=True, progress=lambda *_: pytest.fail("nothing is searched"))
    assert contents(folder) == before


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of imported runs from a known world, with a target; not fitted."""
    folder = tmp_path_factory.mktemp("foreign")
    world = random_world(DOMAINS, tasks=2, seed=4)
    runs = random_recipes([2_000_000, 8_000_000], 20, DOMAINS, count=8, seed=4)
    world.measure(runs, seed=4).write_csv(folder / "runs.csv")
    kinds = "\n".join(f'{d.name} = {{ kind = "{d.kind.value}", unique_tokens = {d.unique_tokens} }}' for d in DOMAINS)
    (folder / "domains.toml").write_text(f"[domains]\n{kinds}\n")
    import_runs(folder / "study", folder / "runs.csv", unit="bits/byte", domains=folder / "domains.toml")
    with (folder / "study" / "study.toml").open("a") as file:
        file.write(TARGET.format(params="60M", tokens=1_200_000_000))
    return folder / "study"


def test_runs_that_are_not_fitted_have_to_be(foreign: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(foreign, tmp_path / "copy", ignore=shutil.ignore_patterns("surfaces")))
    before = contents(copy)
    with pytest.raises(InputError, match="run `mixlaw fit"):
        open_study(copy).suggest(1e15)
    assert contents(copy) == before
    text = (copy / "study.toml").read_text()
    (copy / "study.toml").write_text(text[: text.index("[target]")])
    with pytest.raises(InputError, match=r"write \[target\]"):
        open_study(copy).suggest(1e15)


def test_after_a_fit_runs_are_weighed_by_what_they_bring(
    foreign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = open_study(foreign)
    fit(study.table(), units=study.units, unique=study.unique, audited=False).save(foreign / "surfaces")
    before = contents(foreign)
    found = document_here(capsys, "suggest", foreign, "--budget", "2e15", "-n", "3", "--queue")
    assert not found["cold_start"]
    assert found["regret"] >= found["gain"] >= 0
    assert 1 <= len(found["jobs"]) <= 3
    assert sum(job["flops"] for job in found["jobs"]) == pytest.approx(found["flops"])
    assert found["flops"] <= 2e15
    for guard in ({"most": 1.0}, {"most": 0.0}):  # may not be charged: it is of a baseline of as many tokens
        suggestion = open_study(foreign, target={"guard": guard}).suggest(2e15, 2)
        assert suggestion.value is not None
        assert suggestion.value.longer == pytest.approx(_gain_of_longer_training(foreign, suggestion.cost), rel=0.3)
    os.utime(found["job_file"], (1e9, 1e9))  # as a copy or a clone may leave it
    assert {job["run"] for job in suggested(study)} == {job["run"] for job in found["jobs"]}
    for job in found["jobs"]:
        assert job["params"] in (2_000_000, 8_000_000)
        assert job["flops"] + job["flops_paid"] == pytest.approx(6 * job["params"] * job["tokens"])
        assert job["task"] in ("task0", "task1")
        scale = 20 * job["params"] / 1_200_000_000  # data are repeated as often as by the target
        assert job["unique"] == {d.name: round(d.unique_tokens * scale) for d in DOMAINS}
    assert found["recipe_files"] == []  # runs of another trainer: the job lines are what it takes
    after = contents(foreign)
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() == {str(Path(found["job_file"]).relative_to(foreign))}

    copy = Path(shutil.copytree(foreign, tmp_path / "copy"))
    _import_by_name(copy, found["jobs"], tmp_path / "results.csv")
    fit(study.table(), units=study.units, unique=study.unique, audited=False, resamples=8).save(copy / "surfaces")
    assert suggested(open_study(copy)) == (), "they were chosen by another fit"
    with (copy / "study.toml").open("a") as file:
        file.write('guard = { than = "nobody" }\n')
    with pytest.raises(InputError, match="'nobody' is not a file, a run or proposal"):
        open_study(copy).suggest(2e15)


def _gain_of_longer_training(study: Path, flops: float) -> float:
    """Percent of loss that about the best mixture gains where the target's training is longer by these FLOPs."""
    mixture = {"web": 0.65, "books": 0.065, "stack": 0.285}
    now, then = (
        [forecast.mean for forecast in open_study(study, target={"tokens": tokens}).what_if(mixture).forecasts]
        for tokens in (1_200_000_000, 1_320_000_000)
    )
    slope = np.mean(np.log(now) - np.log(then)) / np.log(1.1)
    return float(100 * slope * np.log1p(flops / (6 * 60e6 * 1.2e9)))


def _import_by_name(study: Path, jobs: list[dict[str, Any]], table: Path) -> None:
    """A table of names and values takes recipes from the job lines, and may not contradict them."""
    runs, (first, *_) = [f"{job['run']},1.9,1.8" for job in jobs], jobs
    table.write_text("\n".join(["run,metric:task0,metric:task1", *runs, "x1,2,2"]))
    assert "run 'x1' is none of the suggested runs" in refused_here(study, "import", study, table)
    table.write_text(f"run,params,metric:task0\n{first['run']},3M,1.9\n")
    wrong = f"row 1: params 3M, suggested {first['params'] // 10**6}M"
    assert wrong in refused_here(study, "import", study, table)
    table.write_text(f"run,tokens:init:{DOMAINS[0].name},metric:task0\n{first['run']},10,1.9\n")
    assert f"tokens:init:{DOMAINS[0].name} 10, suggested" in refused_here(study, "import", study, table)
    table.write_text("\n".join(["run,metric:task0,metric:task1", *runs]))
    here("import", study, table)
    there = {record.run: record.recipe for record in open_study(study).records()}
    for job in jobs:
        assert [(p.name, p.tokens, p.lr_end) for p in there[job["run"]].phases] == [
            (phase["name"], phase["tokens"], phase["lr_end"]) for phase in job["phases"]
        ]
        mixtures = [dict(phase.mixture) for phase in there[job["run"]].phases]
        assert mixtures == [pytest.approx(phase["mixture"]) for phase in job["phases"]]
        assert (there[job["run"]].params, dict(there[job["run"]].unique)) == (job["params"], job["unique"])


def test_a_domain_that_no_run_has_used_calls_for_a_first_design(foreign: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(foreign, tmp_path / "copy"))
    study = open_study(copy)
    fit(study.table(), units=study.units, unique=study.unique, audited=False, resamples=8).save(copy / "surfaces")
    with (copy / "study.toml").open("a") as file:
        file.write('\n[domains.maths]\nkind = "math"\nunique_tokens = 50_000_000\n')
    found = open_study(copy).suggest(1e17, 6)
    assert found.value is None
    assert sum("maths" in job.recipe.domains for job in found.jobs) >= 3
