"""Curves that trackers keep on disk become checkpoints of runs; the files are those that the real programs write."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from mixlaw import import_runs
from mixlaw.adapters.trackers import Curves, Point
from mixlaw.errors import InputError

TABLE = (
    "run,params,web_share,code_share,per_step,all_steps\nr-web,6e7,0.9,0.1,1000000,100\n007,6e7,0.5,0.5,1000000,100\n"
)
MAPPING = """
join = [{ file = "runs.csv", on = "run" }]
progress = { column = "step", over = "all_steps" }
tokens = { column = "step", scale = "per_step" }
tasks = { "eval/loss" = "nats/token" }
[[phase]]
name = "pretrain"
shares = { web_share = "web", code_share = "code" }
"""
#: Run, step, what both programs below log.
LOGGED = [("r-web", 50, 2.4), ("r-web", 100, 1.9), ("007", 50, 2.0), ("007", 100, 1.5)]
EXPECTED = sorted((run, step / 100, step * 10**6, loss) for run, step, loss in LOGGED)


def imported(folder: Path, what: str, mapping: str = MAPPING) -> tuple[list[tuple[str, float, int, float]], str]:
    """Run, progress, tokens and loss of each record, and what the import says."""
    (folder / "runs.csv").write_text(TABLE)
    (folder / "map.toml").write_text(mapping)
    study = import_runs(folder / "S", folder / what, mapping=folder / "map.toml")
    rows: list[Any] = [
        (r.run, r.progress, r.recipe.tokens, pytest.approx(next(iter(r.values.values())).value, rel=1e-6))
        for r in study.records()
    ]
    return sorted(rows, key=lambda row: row[:2]), str(study.imported)


def mlflow_database(path: Path) -> None:
    """The tables and columns that matter, as MLflow 2.22 and 3.17 make them; NaN and infinity as they store them."""
    with sqlite3.connect(path) as database:
        database.execute("create table runs (run_uuid, name, status, lifecycle_stage, start_time)")
        database.execute("create table params (key, value, run_uuid)")
        database.execute("create table metrics (key, value, timestamp, run_uuid, step, is_nan)")
        database.executemany(
            "insert into runs values (?, ?, ?, ?, 0)",
            [
                ("a", "r-web", "FINISHED", "active"),
                ("b", "007", "FINISHED", "active"),
                ("c", "bad", "FAILED", "active"),
                ("d", "007", "FINISHED", "deleted"),
            ],
        )
        database.execute("insert into params values ('lr', '3e-4', 'a')")
        rows = [("eval/loss", loss, step, {"r-web": "a", "007": "b"}[run], step, 0) for run, step, loss in LOGGED]
        rows += [("eval/loss", 0.0, 70, "a", 70, 1), ("eval/loss", 1.7976931348623157e308, 80, "b", 80, 0)]
        rows += [("eval/loss", 9.0, 1, run, 100, 0) for run in "cd"]
        database.executemany("insert into metrics values (?, ?, ?, ?, ?, ?)", rows)


def test_a_database_of_mlflow(tmp_path: Path) -> None:
    mlflow_database(tmp_path / "mlflow.db")
    rows, said = imported(tmp_path, "mlflow.db")
    assert rows == EXPECTED  # NaN is stored as 0, infinity as the largest number: neither is a loss
    assert "bad (FAILED)" in said
    assert "config.lr" in said  # a rate, not one over that of the rule for the size


def test_folders_of_mlflow(tmp_path: Path) -> None:
    for number, (run, status, stage) in enumerate([("r-web", 3, "active"), ("007", 3, "active"), ("bad", 4, "active")]):
        folder = tmp_path / "mlruns" / "1" / f"id{number}"
        for inner in ("metrics/eval", "tags", "params"):
            (folder / inner).mkdir(parents=True)
        (folder / "meta.yaml").write_text(f"lifecycle_stage: {stage}\nrun_name: '{run}'\nstatus: {status}\n")
        (folder / "tags" / "mlflow.runName").write_text(run)
        lines = [f"{100 + step} {loss} {step}\n" for name, step, loss in LOGGED if name == run]
        (folder / "metrics" / "eval" / "loss").write_text("".join(reversed(lines)) + "140 nan 70\n")
    rows, said = imported(tmp_path, "mlruns")
    assert rows == EXPECTED
    assert "bad (FAILED)" in said


def test_the_table_that_mlflow_searches_runs_into(tmp_path: Path) -> None:
    head = "run_id,experiment_id,status,metrics.loss,params.n,params.web,params.code,tags.mlflow.runName\n"
    rows = "a,1,FINISHED,1.9,6e7,9e8,1e8,r-web\nb,1,FAILED,5.0,6e7,5e8,5e8,bad\nc,1,FINISHED,1.5,6e7,5e8,5e8,007\n"
    (tmp_path / "found.csv").write_text(head + rows)
    mapping = """
params = "params.n"
tasks = { "metrics.*" = "nats/token" }
[[phase]]
name = "pretrain"
domain_tokens = { "params.web" = "web", "params.code" = "code" }
"""
    found, said = imported(tmp_path, "found.csv", mapping)
    assert found == [("007", 1.0, 10**9, 1.5), ("r-web", 1.0, 10**9, 1.9)]
    assert "1 of 3 runs did not finish" in said
    assert "search_runs of MLflow" in said
    assert "Weights" not in said


@pytest.mark.parametrize("ids", [True, False])
def test_a_database_of_trackio(tmp_path: Path, ids: bool) -> None:
    """With an id per run, as 0.43 has it, and by names alone, as versions before."""
    with sqlite3.connect(tmp_path / "sweep.db") as database:
        run_id = "run_id, " if ids else ""
        database.execute(f"create table metrics (id, {run_id}timestamp, run_name, step, metrics)")
        database.execute(f"create table configs ({run_id}run_name, config)")
        for number, (run, step, loss) in enumerate(LOGGED):
            logged: dict[str, Any] = {"eval/loss": loss, "odd": "NaN", "text": "x"}
            values = [number, *([run + "-id"] if ids else []), number, run, step, json.dumps(logged).encode()]
            database.execute(f"insert into metrics values ({', '.join('?' * len(values))})", values)
    assert imported(tmp_path, "sweep.db")[0] == EXPECTED


def test_states_of_the_trainer_of_hugging_face(tmp_path: Path) -> None:
    trainer = pytest.importorskip("transformers.trainer_callback", reason="transformers is not installed")
    for run in ("r-web", "007"):
        for last in (50, 100):
            history: list[dict[str, float]] = [{"step": last, "train_loss": 9.0, "epoch": 1.0}]
            for name, step, loss in LOGGED:
                if name == run and step <= last:
                    history += [{"loss": 9.0, "step": step}, {"eval/loss": loss, "step": step}]
            folder = tmp_path / "out" / run / f"checkpoint-{last}"
            folder.mkdir(parents=True)
            state = trainer.TrainerState(max_steps=100, global_step=last, log_history=history)
            state.save_to_json(str(folder / "trainer_state.json"))
    mapping = MAPPING.replace("all_steps", "max_steps")
    assert imported(tmp_path, "out", mapping)[0] == EXPECTED


def test_event_files_of_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from torch.utils.tensorboard import SummaryWriter

    for style, run in enumerate(("r-web", "007")):
        with SummaryWriter(str(tmp_path / "events" / run)) as writer:
            for name, step, loss in LOGGED:
                if name == run:
                    writer.add_scalar("eval/loss", loss, step, new_style=bool(style))
    assert imported(tmp_path, "events")[0] == EXPECTED


def test_mlflow_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed: pip install --group trackers")
    pytest.importorskip("sqlalchemy")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/own.db")
    for run in ("r-web", "007"):
        with mlflow.start_run(run_name=run):
            for name, step, loss in LOGGED:
                if name == run:
                    mlflow.log_metric("eval/loss", loss, step=step)
            mlflow.log_metric("other", float("nan"), step=100)
    assert imported(tmp_path, "own.db")[0] == EXPECTED


def test_what_a_resumed_run_logged_again_counts() -> None:
    points = [Point("a", step, "loss", value) for step, value in [(1, 5.0), (2, 4.0), (3, 9.0), (2, 3.0), (4, 2.0)]]
    table = Curves("it", points, {"a": {"loss": "setting", "depth": 1}}).table()
    assert table.rows() == [("a", 1, "setting", 1, 5.0), ("a", 2, "setting", 1, 3.0), ("a", 4, "setting", 1, 2.0)]
    assert table.columns == ["run", "step", "config.loss", "depth", "loss"]


def test_what_has_no_step_is_warned_of() -> None:
    curves = Curves("it", [Point("a", 10, "loss", 1.0), Point("a", 0, "acc", 0.5)])
    assert "at step 0 alone, and so before any token: acc" in " ".join(curves.warnings)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.db", b"no database", "cannot be read as a database"),
        ("trainer_state.json", b'{"global_step": 1}', "no state of a trainer"),
        ("trainer_state.json", b'{"global_step": 1, "log_history": []}', "holds no curve"),
        ("trainer_state.json", b'{"global_step": 1, "log_history": [{"loss": 2}]}', "no state of a trainer"),
        ("trainer_state.json", b'{"global_step": 1, "log_history": [7]}', "no state of a trainer"),
        ("x.tfevents.1", b"junk", "holds no curve"),
    ],
)
def test_damaged_files_are_one_sentence(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        imported(tmp_path, name)
    assert not (tmp_path / "S").exists()
