"""Results of OLMES and inspect-ai, joined to a table of runs like those of lm-evaluation-harness."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from mixlaw import import_runs
from mixlaw.errors import InputError

RUNS = "run,params,tokens:init:web\nrun-a,1000000,1000000\nrun-b,1000000,2000000\n"


def results(folder: Path, *files: Path) -> dict[str, dict[str, float]]:
    (folder / "runs.csv").write_text(RUNS)
    study = import_runs(folder / "S", folder / "runs.csv", results=files)
    return {r.run: {task: value.value for task, value in r.values.items()} for r in study.records()}


def olmes_line(task: str, model: str, primary: str = "acc_raw", **metrics: float) -> str:
    """A line of metrics-all.jsonl; the shape, not the numbers."""
    entry = {
        "task_name": task,
        "task_hash": "h",
        "model_config": {"model": "name", "model_path": model, "revision": None},
        "task_config": {"primary_metric": primary, "num_shots": 5, "metadata": {"alias": f"{task}:rc"}},
        "num_instances": 50,
        "metrics": metrics,
    }
    return json.dumps(entry) + "\n"


def test_lines_of_olmes(tmp_path: Path) -> None:
    path = tmp_path / "metrics-all.jsonl"
    arc = olmes_line("arc", "/ckpt/run-a", acc_raw=0.4, acc_per_char=0.5, bits_per_byte_corr=0.9, primary_score=0.4)
    path.write_text(arc + olmes_line("mean", "/ckpt/run-a", "macro", primary_score=0.4))
    found = results(tmp_path, path)
    assert found["run-a"] == {"arc:rc/acc_raw": 0.4, "arc:rc/acc_per_char": 0.5, "arc:rc/bits_per_byte_corr": 0.9}
    assert found["run-b"] == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (olmes_line("arc", "run-a", acc_raw=0.4) * 2, "occurs twice"),
        (olmes_line("arc", "run-a", acc_raw=0.4) + olmes_line("hs", "run-b", acc_raw=0.4), "several models"),
        ('{"oom": true}\n', "holds no results of OLMES: line 1"),
        (olmes_line("arc", "run-a", acc_raw=40), "must be between 0 and 1"),
        (olmes_line("arc", "run-a/step500-hf", acc_raw=0.4), "may be a checkpoint of 'run-a'"),
    ],
)
def test_what_is_refused_of_olmes(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "metrics-all.jsonl").write_text(text)
    with pytest.raises(InputError, match=message):
        results(tmp_path, tmp_path / "metrics-all.jsonl")


def inspect_log(model: str, status: str = "success", scorers: tuple[str, ...] = ("match",)) -> dict[str, Any]:
    """A log as inspect-ai 0.3.99 writes it."""
    metrics = {"accuracy": {"name": "accuracy", "value": 0.5}, "stderr": {"name": "stderr", "value": 0.1}}
    about = {
        "task": "tiny",
        "task_version": 0,
        "model": model,
        "model_args": {},
        "created": "2026-01-01T00:00:00+00:00",
    }
    scores = [{"name": name, "scorer": name, "metrics": metrics} for name in scorers]
    return {"version": 2, "status": status, "eval": about, "results": {"completed_samples": 20, "scores": scores}}


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("scorers", [("match",), ("match", "model_graded")])
def test_logs_of_inspect(packed: bool, scorers: tuple[str, ...], tmp_path: Path) -> None:
    content = json.dumps(inspect_log("hf/run-a", scorers=scorers))
    path = tmp_path / ("log.eval" if packed else "log.json")
    if packed:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("header.json", content)
    else:
        path.write_text(content)
    names = ["tiny/accuracy"] if len(scorers) == 1 else [f"tiny/accuracy/{name}" for name in scorers]
    assert results(tmp_path, path)["run-a"] == dict.fromkeys(names, 0.5)


def test_an_evaluation_that_did_not_end_well_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log.json").write_text(json.dumps(inspect_log("hf/run-a", "error")))
    with pytest.raises(InputError, match="this evaluation is 'error'"):
        results(tmp_path, tmp_path / "log.json")


def test_inspect_itself(tmp_path: Path) -> None:
    inspect_ai = pytest.importorskip("inspect_ai", reason="inspect-ai is not installed: pip install --group trackers")
    from inspect_ai.log import write_eval_log

    log = inspect_ai.log.EvalLog.model_validate(
        inspect_log("hf/run-a")
        | {
            "eval": {
                **inspect_log("hf/run-a")["eval"],
                "dataset": {},
                "config": {},
                "eval_id": "a",
                "run_id": "b",
                "task_id": "c",
            }
        }
    )
    for ending in ("eval", "json"):
        write_eval_log(log, str(tmp_path / f"log.{ending}"))
        assert results(tmp_path, tmp_path / f"log.{ending}")["run-a"] == {"tiny/accuracy": 0.5}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("i.json", {"status": "success", "eval": {"task": "arc"}}, "no 'model'"),
        ("i.json", {"status": "success", "eval": {"model": "a"}}, "no 'task'"),
        ("i.json", {"status": "success", "eval": {"model": "a", "task": "t", "created": "soon"}}, "Invalid isoformat"),
        (
            "i.json",
            {"status": "success", "eval": {"model": "a", "task": "t"}, "results": 5},
            "no result as its program",
        ),
        ("metrics-all.jsonl", {"task_name": "t", "task_config": {}, "model_config": 5, "metrics": {}}, "no result"),
        ("metrics-all.jsonl", {"task_name": "t", "task_config": {}, "model_config": {}, "metrics": 5}, "no result"),
        ("r.json", {"results": {"t": {"acc,none": 10**400}}}, "no result as its program"),
    ],
)
def test_damaged_results_are_one_sentence(tmp_path: Path, name: str, content: dict[str, Any], said: str) -> None:
    (tmp_path / "runs.csv").write_text("run,params,tokens:init:web\na,60M,1B\n")
    (tmp_path / name).write_text(json.dumps(content) + "\n")
    with pytest.raises(InputError, match=said) as error:
        import_runs(tmp_path / "study", tmp_path / "runs.csv", results=[tmp_path / name])
    assert name in str(error.value)
