"""Progress of a real run, read back by the programs that it is written for."""

from __future__ import annotations

import importlib
import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mixlaw.adapters.trackers import read_curves
from mixlaw.errors import InputError
from mixlaw.runner.execute.worker import Worker
from mixlaw.runner.plan.tree import plan
from mixlaw.runner.train import log
from mixlaw.study import Study, open_study
from small_study import SETTINGS, prepare

HEAD, _, _ = SETTINGS.partition("[[recipes]]")
PLAIN = f'{HEAD}[[recipes]]\nsize = "0.025M"\nphases = {{ init = "half", continue = "code", cooldown = "text" }}\n'
PLAIN = PLAIN.replace("checkpoint_seconds = 0.1", "checkpoint_seconds = 300")
LOGGED = PLAIN.replace("[training]\n", '[training]\nsinks = ["tensorboard", "wandb"]\n')
NUMBERS = {
    "tokens",
    "loss",
    "learning_rate",
    "gradient_norm",
    "tokens_per_second",
    "mfu",
    "memory_bytes",
    "eta_seconds",
}


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    """A study whose three segments were trained as a worker does, both clients writing to disk."""
    study = open_study(prepare(tmp_path_factory.mktemp("sinks") / "study", LOGGED))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        tree, worker = plan(study.recipes()), Worker(study.setup, study.runs)
        for segment in tree.segments:
            worker.work(segment, segment.finished({recipe.lineage: recipe for recipe in tree.recipes}))
        yield study


def entries(study: Study, lineage: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (study.runs / f"{lineage}.training.jsonl").read_text().splitlines()]


def lineages(study: Study) -> list[str]:
    return sorted(path.parent.name for path in study.runs.glob("*/checkpoint"))


def test_every_segment_tells_its_steps_loss_speed_and_what_is_left(logged: Study) -> None:
    assert len(lineages(logged)) == 3
    for lineage in lineages(logged):
        told = entries(logged, lineage)
        domains = {name for entry in told for name in entry if name.startswith("loss:")}
        assert {"loss:text"} <= domains or {"loss:code"} <= domains
        for entry in told:  # the loss lies between those of the domains
            parts = [entry[name] for name in domains if name in entry]
            assert min(parts) - 1e-5 <= entry["loss"] <= max(parts) + 1e-5
        assert all(entry.keys() - domains == {"step", *NUMBERS} for entry in told)
        assert [entry["step"] for entry in told] == sorted({entry["step"] for entry in told})
        assert all(entry["tokens"] == entry["step"] * 4 * 32 for entry in told)
        assert all(0 < entry["mfu"] < 1 and entry["tokens_per_second"] > 0 for entry in told)
        assert all(entry["memory_bytes"] > 100 * 2**20 for entry in told), "torch alone takes more"
        assert told[-1]["eta_seconds"] == 0
    (record,) = logged.records()
    ends = sorted(told["tokens"] for told in (entries(logged, lineage)[-1] for lineage in lineages(logged)))
    tokens = [phase.tokens for phase in record.recipe.phases]
    assert ends == [sum(tokens[: number + 1]) for number in range(3)]
    last = record.details["learning_rate"] * 4 * 32 / tokens[-1]  # of a linear fall to zero
    assert entries(logged, record.run)[-1]["learning_rate"] == pytest.approx(last)


def test_tensorboards_own_reader_finds_every_number(logged: Study) -> None:
    reader: Any = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    for lineage in lineages(logged):
        read = reader.EventAccumulator(str(logged.path / "tensorboard" / lineage))
        read.Reload()
        told = entries(logged, lineage)
        domains = {name for entry in told for name in entry if name.startswith("loss:")}
        assert set(read.Tags()["scalars"]) == NUMBERS | domains
        for name in NUMBERS:
            seen = [(event.step, event.value) for event in read.Scalars(name)]
            assert seen == [(entry["step"], pytest.approx(entry[name], rel=1e-6)) for entry in told]
        (about,) = read.Tensors("about/text_summary")
        assert json.loads(about.tensor_proto.string_val[0])["lineage"] == lineage


def logged_records(data: bytes) -> Iterator[bytes]:
    """Whole records of a .wandb file: seven bytes, then LevelDB's log format, 32 KiB blocks: checksum, length, type."""
    begun, place = b"", 7
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:  # too short for a header
            place += 32768 - place % 32768
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        if place + 7 + length > len(data):  # being written
            return
        begun += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield begun
            begun = b""


def wandb_records(file: Path) -> list[Any]:
    """All records of a run that has ended; the service of wandb may write the last ones after `finish` has returned."""
    messages: Any = importlib.import_module("wandb.proto.wandb_internal_pb2")
    deadline = time.monotonic() + 60
    while True:
        records = [messages.Record.FromString(data) for data in logged_records(file.read_bytes())]
        if any(record.HasField("exit") for record in records) or time.monotonic() > deadline:
            return records
        time.sleep(0.1)


def plain(items: Any) -> dict[str, Any]:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def test_what_wandb_would_upload_is_every_number(logged: Study) -> None:
    files = list((logged.path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert sorted(file.stem.removeprefix("run-") for file in files) == lineages(logged)
    for file in files:
        records = wandb_records(file)
        rows = [plain(record.history.item) for record in records if record.HasField("history")]
        (run,) = (record.run for record in records if record.HasField("run"))
        told = entries(logged, file.stem.removeprefix("run-"))
        assert [row["_step"] for row in rows] == [entry["step"] for entry in told]
        for name in NUMBERS:
            assert [row[name] for row in rows] == pytest.approx([entry[name] for entry in told])
        assert run.project == "study"
        assert plain(run.config.update)["lineage"] == run.run_id == file.stem.removeprefix("run-")
        assert not (file.parent / "files" / "output.log").exists(), "a worker's stdout is no business of wandb"


def test_wandb_keeps_the_steps_after_a_rollback(logged: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    (sink,) = log.open_sinks(["wandb"], tmp_path / "study" / "runs", plan(logged.recipes()).segments[0])[1:]
    for step in (10, 20, 30, 15, 25, 40):
        sink({"step": step, "loss": step / 10})
    sink(None)
    (file,) = (tmp_path / "study" / "wandb").glob("offline-run-*/run-*.wandb")
    records = wandb_records(file)
    rows = [plain(record.history.item) for record in records if record.HasField("history")]
    assert [row["step"] for row in rows] == [10, 20, 30, 15, 25, 40]
    assert [row["_step"] for row in rows] == [10, 20, 30, 31, 32, 40]
    assert [row["loss"] for row in rows] == [1.0, 2.0, 3.0, 1.5, 2.5, 4.0]


def test_a_client_that_is_missing_is_told_before_anything_is_trained(
    logged: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = open_study(prepare(tmp_path / "study", LOGGED))
    monkeypatch.setattr(log, "find_spec", lambda name: None if name == "wandb" else object())
    with pytest.raises(InputError, match=r"training.sinks names wandb, .*: pip install wandb"):
        study.run(workers=1)
    assert not study.runs.exists()


@pytest.mark.parametrize("name", ["mlflow", "trackio"])
def test_our_own_importer_reads_what_the_client_wrote_also_after_a_resume(
    name: str, logged: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/tracker.db")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))  # read on import
    pytest.importorskip(name, reason=f"{name} is not installed: pip install --group trackers")
    segment = plan(logged.recipes()).segments[0]
    told = entries(logged, segment.lineage)[:4]
    for part in (told[:2], told[2:]):
        sinks = log.open_sinks([name], tmp_path / "study" / "runs", segment)
        for entry in (*part, None):
            for sink in sinks:
                sink(entry)
    (database,) = tmp_path.rglob("*.db")
    curves = read_curves(database)
    assert curves
    seen = {point.step: point.value for point in curves.points if point.task == "loss"}
    assert seen == pytest.approx({entry["step"]: entry["loss"] for entry in told})
    assert {point.run for point in curves.points} == {segment.lineage}
    assert curves.unfinished == {}
