"""Results of lm-evaluation-harness as bug reports have them, varied: the right row and value, or one sentence."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from mixlaw import InputError, import_runs
from mixlaw.adapters.importing import Understood

RUNS = "run,params,tokens:init:web\na,60000000,1000000000\nb,60000000,1000000000\n"


def result(model: Any, accuracy: float = 0.3, args: Any = None, **more: Any) -> dict[str, Any]:
    """What version 0.4 of the harness writes."""
    return {
        "results": {"arc_easy": {"alias": "arc_easy", "acc,none": accuracy, "acc_stderr,none": 0.01}},
        "versions": {"arc_easy": 1.0},
        "n-shot": {"arc_easy": 0},
        "n-samples": {"arc_easy": {"original": 100, "effective": 100}},
        "config": {"model": "hf", "model_args": args or f"pretrained={model}", "limit": None},
        "model_name": model,
    } | more


def imported(folder: Path, *results: dict[str, Any], runs: str = RUNS, **options: Any) -> Understood:
    (folder / "out").mkdir()
    (folder / "runs.csv").write_text(runs)
    for number, data in enumerate(results):
        (folder / "out" / f"results_{number}.json").write_text(json.dumps(data))
    return import_runs(folder / "study", folder / "runs.csv", results=[folder / "out"], **options).imported


def value(understood: Understood, run: str, task: str = "arc_easy/acc") -> float | None:
    found = next(record for record in understood.records if record.run == run).values
    return found[task].value if task in found else None


EARLY = {
    "a revision": result("org/a", args="pretrained=org/a,revision=step1000"),
    "a revision in the configuration": result("org/a", config={"model": "hf", "model_revision": "step3"}),
    "a checkpoint of a trainer": result("out/a/checkpoint-500"),
    "a step": result("/ckpts/a/step500"),
    "another model in a folder of that name": result("/ckpt/a/codeheavy"),
    "a final model of another run": result("/ckpt/a/other/final"),
    "a folder of the name": result("/a/models/somebody-elses-7b"),
}


@pytest.mark.parametrize("name", EARLY)
def test_results_of_another_checkpoint_are_never_those_of_the_finished_run(tmp_path: Path, name: str) -> None:
    found = imported(tmp_path, EARLY[name], result("org/b", 0.6))
    assert (value(found, "a"), value(found, "b")) == (None, 0.6)
    assert any("may be a checkpoint of 'a' or another model" in warning for warning in found.warnings)


def test_alone_they_are_refused_with_the_way_to_name_the_row(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'out/a/checkpoint-500' may be a checkpoint of 'a' or .* a column `model`"):
        imported(tmp_path, EARLY["a checkpoint of a trainer"], result("out/a/checkpoint-1000", 0.6))


@pytest.mark.parametrize(
    "model", ["a", "org/a", "/ckpts/a", "./out/a/", "C:\\ckpts\\a", "/ckpts/a/final", "out/a/hf", "org/a@main"]
)
def test_the_end_of_a_path_names_the_run(tmp_path: Path, model: str) -> None:
    name = model.removesuffix("@main")
    args = f"pretrained={name},revision=main" if model != name else None
    assert value(imported(tmp_path, result(name, 0.5, args)), "a") == 0.5


@pytest.mark.parametrize(
    ("model", "args", "cell"),
    [
        ("org/a", "pretrained=org/a,revision=step1000", "org/a@step1000"),
        ("org/a", "pretrained=org/a,revision=step1000", "a@step1000"),
        ("out/a/checkpoint-500", None, "a/checkpoint-500"),
        ("out/a/checkpoint-500", None, "out/a/checkpoint-500"),
    ],
)
def test_a_row_that_names_a_checkpoint_gets_its_results(
    tmp_path: Path, model: str, args: str | None, cell: str
) -> None:
    runs = f"run,params,progress,tokens:init:web,model\na,6e7,0.5,5e8,{cell}\na,6e7,1,1e9,org/a\n"
    found = imported(tmp_path, result(model, 0.3, args), result("org/a", 0.6), runs=runs)
    assert [r.values["arc_easy/acc"].value for r in found.records] == [0.3, 0.6]


def test_results_named_by_the_run_alone_are_not_those_of_a_checkpoint(tmp_path: Path) -> None:
    runs = RUNS.replace("\n", ",progress\n", 1).replace("1000000000\n", "1000000000,0.5\n", 1)
    found = imported(tmp_path, result("a"), result("b", 0.6), runs=runs)
    assert (value(found, "a"), value(found, "b")) == (None, 0.6)


def test_two_models_for_one_row_are_named(tmp_path: Path) -> None:
    other = result("lab/a", 0.4)
    other["results"] = {"piqa": {"acc,none": 0.4}}
    found = imported(tmp_path, result("org/a"), other)
    assert "results of several models are given to one row: lab/a, org/a" in found.warnings


@pytest.mark.parametrize(
    "change",
    [
        {"config": None},
        {"n-samples": None, "versions": None, "n-shot": None},
        {"n-samples": {"arc_easy": None}, "versions": {"arc_easy": None}},
        {"config": {"model_args": ["pretrained=a"]}, "n-samples": []},
        {"config": {"model_args": {"pretrained": "a"}}, "date": "2026-01-01"},
        {"config": "hf", "versions": "1"},
    ],
    ids=str,
)
def test_odd_fields_do_not_matter(tmp_path: Path, change: dict[str, Any]) -> None:
    found = imported(tmp_path, result("a", 0.5, **change))
    assert value(found, "a") == 0.5
    assert found.records[0].values["arc_easy/acc"].stderr == 0.01


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_not_finite_was_not_measured_and_its_error_is_unknown(tmp_path: Path, odd: float) -> None:
    data = result("a", odd)
    data["results"]["piqa"] = {"acc,none": 0.5, "acc_stderr,none": odd, "sample_count": None}
    found = imported(tmp_path, data)
    assert (value(found, "a"), value(found, "a", "piqa/acc")) == (None, 0.5)
    assert found.records[0].values["piqa/acc"].stderr is None
    assert "1 results are not finite numbers and are left out: arc_easy/acc in results_0.json" in found.warnings


@pytest.mark.parametrize("accuracy", [52.5, -0.1, 1.5])
def test_an_impossible_value_names_file_and_task_and_tasks_can_be_chosen(tmp_path: Path, accuracy: float) -> None:
    data = result("a", accuracy)
    data["results"]["piqa"] = {"acc,none": 0.5}
    with pytest.raises(
        InputError, match=rf"results_0.json: arc_easy/acc = {accuracy} in accuracy must be between 0 and 1"
    ):
        imported(tmp_path, data)
    (tmp_path / "map.toml").write_text('results = { tasks = ["piqa/*"] }\n')
    study = import_runs(
        tmp_path / "s", tmp_path / "runs.csv", results=[tmp_path / "out"], mapping=tmp_path / "map.toml"
    )
    assert value(study.imported, "a", "piqa/acc") == 0.5


@pytest.mark.parametrize("encoding", ["utf-8-sig", "gzip"])
def test_results_are_read_with_a_mark_and_packed(tmp_path: Path, encoding: str) -> None:
    text = json.dumps(result("a", 0.5))
    name = "r.json.gz" if encoding == "gzip" else "r.json"
    (tmp_path / name).write_bytes(gzip.compress(text.encode()) if encoding == "gzip" else text.encode(encoding))
    (tmp_path / "runs.csv").write_text(RUNS)
    study = import_runs(tmp_path / "study", tmp_path / "runs.csv", results=[tmp_path / name])
    assert value(study.imported, "a") == 0.5


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("metrics-all.jsonl", b'{"task_name": "arc"}\n{"task_name": "piqa"}\n', "holds no results"),
        ("samples_arc.jsonl", b'{"doc_id": 0}\n', "holds no results"),
        ("other.json", b'{"a": 1}', "holds no results"),
        ("cut.json", b'{"results": ', r"is not JSON: .* write it again"),
        ("latin.json", b'{"results": {"\xfc": 1}}', "is not UTF-8: byte 0xfc in line 1"),
    ],
)
def test_what_is_no_result_is_said_to_be_none_and_never_to_be_deleted(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    (tmp_path / "runs.csv").write_text(RUNS)
    with pytest.raises(InputError, match=said) as error:
        import_runs(tmp_path / "study", tmp_path / "runs.csv", results=[tmp_path / name])
    assert "delete" not in str(error.value)


def test_the_means_that_lighteval_writes_are_no_tasks(tmp_path: Path) -> None:
    data = {
        "config_general": {"model_name": "org/a", "model_sha": "1"},
        "results": {"leaderboard|arc:challenge|25": {"acc": 0.5}, "mmlu:_average|5": {"acc": 0.5}, "all": {"acc": 0.5}},
    }
    assert list(imported(tmp_path, data).tasks) == ["leaderboard|arc:challenge|25/acc"]
