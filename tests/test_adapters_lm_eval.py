"""Results of lm-evaluation-harness, in the shape that version 0.4.13 wrote them, joined to a table of runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mixlaw import import_runs
from mixlaw.adapters.gather import gather
from mixlaw.adapters.importing import Understood, understand
from mixlaw.adapters.lm_eval import add_results
from mixlaw.adapters.mapping import Results
from mixlaw.errors import InputError
from mixlaw.study import open_study

RUNS = "run,params,progress,tokens:init:web\nrun-a,1000000,1,1000000\nrun-b,1000000,1,2000000\n"


def result(model: str, accuracy: float, date: float = 1.0, shots: int = 0, **more: Any) -> dict[str, Any]:
    """What the harness writes for a multiple-choice task, a rolling one and their group; the shape, not the numbers."""
    choice = {"name": "arc_easy", "alias": "arc_easy", "sample_len": 20, "acc,none": accuracy, "acc_stderr,none": 0.1}
    choice |= {"acc_norm,none": 0.3, "acc_norm_stderr,none": 0.1}
    rolling = {"name": "wikitext", "alias": " - wikitext", "sample_len": 5, "bits_per_byte,none": 0.9}
    rolling |= {"bits_per_byte_stderr,none": "N/A", "word_perplexity,none": 17.0, "word_perplexity_stderr,none": "N/A"}
    gsm = {"alias": "gsm8k", "exact_match,strict-match": 0.25, "exact_match_stderr,strict-match": 0.05}
    group = {"alias": "both", "sample_len": 25, "acc,none": accuracy, "sample_count": {"acc,none": 20}}
    return {
        "results": {"arc_easy": choice, "wikitext": rolling, "gsm8k": gsm, "both": group},
        "groups": {"both": group},
        "group_subtasks": {"both": ["arc_easy", "wikitext"]},
        "versions": {"arc_easy": 1.0, "wikitext": 2.0, "gsm8k": 3.0, "both": "3"},
        "n-shot": {"arc_easy": shots, "wikitext": 0},
        "n-samples": {"arc_easy": {"original": 50, "effective": 20}, "wikitext": {"original": 5, "effective": 5}},
        "config": {"model": "hf", "model_args": {"pretrained": model, "dtype": "bfloat16"}, "limit": None},
        "date": date,
        "lm_eval_version": "0.4.13",
        "model_source": "hf",
        "model_name": model,
        "model_name_sanitized": model.replace("/", "__"),
        **more,
    }


def written(folder: Path, *results: dict[str, Any]) -> Path:
    """Result files where the harness puts them."""
    for number, data in enumerate(results):
        name = data.get("model_name_sanitized", "old")
        path = folder / "out" / name / f"results_2026-01-01T00-00-0{number}.000000.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(data))
    (folder / "out" / "samples_arc_easy.jsonl").write_text("{}\n")
    return folder / "out"


def understood(folder: Path, out: Path, runs: str = RUNS, how: Results | None = None) -> Understood:
    (folder / "runs.csv").write_text(runs)
    sheet, _ = gather(folder / "runs.csv")
    return understand(add_results(sheet, [out], how or Results()), {})


def test_results_join_the_run_that_the_path_of_the_model_ends_with(tmp_path: Path) -> None:
    out = written(tmp_path, result("/ckpt/run-a", 0.5), result("org/run-b", 0.75))
    found = understood(tmp_path, out)
    a, b = found.records
    assert found.tasks == {
        "arc_easy/acc": "accuracy",
        "arc_easy/acc_norm": "accuracy",
        "wikitext/bits_per_byte": "bits/byte",
        "gsm8k/exact_match/strict-match": "accuracy",
        "both/acc": "accuracy",
    }
    assert (a.values["arc_easy/acc"].value, b.values["arc_easy/acc"].value) == (0.5, 0.75)
    assert (a.values["arc_easy/acc"].stderr, a.values["arc_easy/acc"].count) == (0.1, 20)
    assert (a.values["wikitext/bits_per_byte"].stderr, a.values["both/acc"].count) == (None, 20)
    assert "metrics without a unit, left out: word_perplexity" in found.notes


def test_a_later_evaluation_counts_and_is_said_and_tasks_can_be_chosen(tmp_path: Path) -> None:
    out = written(tmp_path, result("run-a", 0.75, date=9.0), result("run-a", 0.5, date=2.0), result("gone", 0.1))
    found = understood(tmp_path, out, how=Results(tasks=["arc_*/acc", "wiki*"]))
    assert set(found.tasks) == {"arc_easy/acc", "wikitext/bits_per_byte"}
    assert found.records[0].values["arc_easy/acc"].value == 0.75
    assert "1 result files are of models that no row names and are left out: gone" in found.warnings
    assert any("arc_easy/acc of run-a (0.5, then 0.75)" in warning for warning in found.warnings)


def test_checkpoints_of_one_run_need_a_column_that_tells_them_apart(tmp_path: Path) -> None:
    runs = "run,params,progress,tokens:init:web,MODEL\na,1000000,0.5,1000000,a/step1\na,1000000,1,2000000,a@step2\n"
    out = written(
        tmp_path,
        result("ckpt/a/step1", 0.25),
        result("a", 0.5, config={"model_args": "pretrained=a,revision=step2,dtype=float32"}),
    )
    found = understood(tmp_path, out, runs.replace("MODEL", "model"))
    assert [r.values["arc_easy/acc"].value for r in found.records] == [0.25, 0.5]
    assert found.ignored == ()
    with pytest.raises(InputError, match="model 'a' is in row 1 and row 2; add a column `model`"):
        understood(tmp_path, written(tmp_path / "plain", result("a", 0.5)), runs.replace("MODEL", "else"))


def test_results_of_versions_before_0_4_have_no_filter_and_no_model_name(tmp_path: Path) -> None:
    old = {
        "results": {"piqa": {"acc": 0.5, "acc_stderr": 0.01, "acc_norm": 0.5}},
        "versions": {"piqa": 0},
        "config": {"model": "gpt2", "model_args": "pretrained=run-a,use_accelerate=True", "num_fewshot": 0},
    }
    found = understood(tmp_path, written(tmp_path, old))
    assert (found.records[0].values["piqa/acc"].stderr, found.tasks["piqa/acc_norm"]) == (0.01, "accuracy")


def test_other_versions_and_numbers_of_shots_are_audited(tmp_path: Path) -> None:
    other = result("run-b", 0.5, shots=5, lm_eval_version="0.4.2")
    other["versions"]["wikitext"] = 3.0
    warnings = understood(tmp_path, written(tmp_path, result("run-a", 0.5), other)).warnings
    for said in ("number of shots of arc_easy differs", "version of wikitext differs", "lm_eval_version differs"):
        assert any(warning.startswith(said) for warning in warnings), said
    assert not any("version of arc_easy" in warning for warning in warnings)


def test_a_setting_belongs_to_the_metrics_of_its_own_task(tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text(RUNS)
    sheet, _ = gather(tmp_path / "runs.csv")
    labels = add_results(sheet, [written(tmp_path, result("run-a", 0.5))], Results()).labels
    tasks = {label.name: label.tasks for label in labels}
    assert tasks["version of arc_easy"] == ("arc_easy/acc", "arc_easy/acc_norm")
    assert tasks["version of gsm8k"] == ("gsm8k/exact_match/strict-match",)
    assert tasks["lm_eval_version"] is None


def test_what_is_no_result_or_of_no_run_is_refused(tmp_path: Path) -> None:
    out = written(tmp_path, result("gone", 0.5))
    with pytest.raises(InputError, match="no model of the results is in column 'run': 'gone' against 'run-a'"):
        understood(tmp_path, out)
    with pytest.raises(InputError, match="there are no results at"):
        understood(tmp_path, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no results of evaluations in"):
        understood(tmp_path, tmp_path / "empty")
    (tmp_path / "other.json").write_text('{"results": [1]}')
    with pytest.raises(InputError, match="holds no results"):
        understood(tmp_path, tmp_path / "other.json")
    (tmp_path / "other.json").write_text('{"results": ')
    with pytest.raises(InputError, match="is not JSON"):
        understood(tmp_path, tmp_path / "other.json")


def test_results_go_into_a_study(tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text(RUNS)
    out = written(tmp_path, result("run-a", 0.5), result("run-b", 0.75))
    import_runs(tmp_path / "study", tmp_path / "runs.csv", results=[out])
    study = open_study(tmp_path / "study")
    assert study.table().sort("run")["metric:arc_easy/acc"].to_list() == [0.5, 0.75]
    assert study.units["wikitext/bits_per_byte"] == "bits/byte"
