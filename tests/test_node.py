"""What runs on a node of a cluster, without the cluster: the actors' classes with real workers and a real store."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mixlaw.recipe import Recipe
from mixlaw.runner.execute.node import RayWorker, read_results, write_results
from mixlaw.runner.execute.worker import Worker
from mixlaw.runner.plan.tree import Segment, Tree, plan
from mixlaw.study import Study
from small_study import SETTINGS, copy, prepare

#: Long enough to be stopped in the middle.
STUDY = SETTINGS.replace("24_000", "48_000").replace("checkpoint_seconds = 0.1", "checkpoint_seconds = 0.02")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with its data, nothing trained."""
    return prepare(tmp_path_factory.mktemp("node") / "study", STUDY)


@pytest.fixture(scope="module")
def trained(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The study, its first recipe trained in this process."""
    study = copy(prepared, tmp_path_factory.mktemp("trained") / "study")
    (tree, segments), worker = first_run(study), Worker(study.setup, study.runs)
    for segment in segments:
        worker.work(segment, finished(tree, segment))
    return study


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a node has its own disk."""
    folder = tmp_path / "disk"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def worker_of(study: Study, store: Path) -> RayWorker:
    return RayWorker(json.dumps(study.setup.as_json()), f"file://{store}", shared=False, devices=1, cpu=True)


def finished(tree: Tree, segment: Segment) -> Recipe | None:
    """The recipe that ends with a segment."""
    return segment.finished({recipe.lineage: recipe for recipe in tree.recipes})


def begin(worker: RayWorker, tree: Tree, segment: Segment, *more: Any) -> None:
    recipe = finished(tree, segment)
    order = {"segment": segment.as_json(), "finished": recipe.as_json() if recipe else None, "plan": None}
    worker.work(json.dumps({**order, "results": {}}), *more)


def heard(worker: RayWorker) -> Iterator[dict[str, Any]]:
    """The events of a segment until its last one."""
    while True:
        for event in json.loads(worker.poll()):
            yield event
            if event["event"] in ("done", "failed", "stopped", "died"):
                return


def first_run(study: Study) -> tuple[Tree, list[Segment]]:
    """The tree, and the segments of its first recipe."""
    tree = plan(study.recipes())
    by_lineage = {segment.lineage: segment for segment in tree.segments}
    path = [by_lineage[tree.recipes[0].lineage]]
    while path[0].parent:
        path.insert(0, by_lineage[path[0].parent])
    return tree, path


def checkpoint(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "checkpoint").iterdir()}


def test_a_node_trains_stops_and_another_one_goes_on_from_the_store(
    prepared: Path, trained: Study, scratch: Path, tmp_path: Path
) -> None:
    study, store = copy(prepared, tmp_path / "study"), tmp_path / "store"
    tree, (root, *rest) = first_run(study)
    first = worker_of(study, store)
    begin(first, tree, root)
    events = []
    for event in heard(first):
        events.append(event["event"])
        if event["event"] == "log":
            first.stop()
    first.close()
    assert events[-1] == "stopped"
    assert {path.name.partition("-")[0] for path in (store / root.lineage).iterdir()} == {"partial"}

    second = worker_of(study, store)
    for segment in (root, *rest):
        begin(second, tree, segment)
        assert [event["event"] for event in heard(second)][-1] == "done"
        assert checkpoint(store / segment.lineage) == checkpoint(trained.runs / segment.lineage)
    assert {path.name for path in second.scratch.iterdir() if path.is_dir()} <= {
        *(segment.lineage for segment in rest[-2:]),
        "outbox",
    }
    begin(second, tree, rest[-1])  # trained, but its driver has no record of it
    (*_, last) = heard(second)
    assert json.loads(last["results"]["record.json"]) == json.loads(
        (trained.runs / rest[-1].lineage / "record.json").read_text()
    )
    assert second.process is not None
    second.process.kill()
    begin(second, tree, rest[-1])
    (died,) = heard(second)
    assert (died["event"], died["how"]) == ("died", "with code -9")
    second.close(at_once=True)
    assert not list(scratch.glob("*/*"))


def test_a_damaged_checkpoint_in_the_store_stops_its_segment_alone_and_says_which(
    prepared: Path, trained: Study, scratch: Path, tmp_path: Path
) -> None:
    study = copy(prepared, tmp_path / "study")
    tree, (root, child, *_) = first_run(study)
    store = tmp_path / "store"
    for segment in (root, child):
        (store / segment.lineage).mkdir(parents=True)
    for name in (f"{root.lineage}/checkpoint", f"{child.lineage}/partial-000000000400"):
        (store / name).mkdir()
        for file, content in checkpoint(trained.runs / root.lineage).items():
            (store / name / file).write_bytes(content if file == "state.json" else content[:-1])
    worker = worker_of(study, store)
    begin(worker, tree, child)
    (event,) = heard(worker)
    worker.close()
    assert (event["event"], event["everywhere"]) == ("failed", False)
    assert f"{root.lineage}/checkpoint is damaged; delete it and run again" in event["error"]
    assert socket.gethostname() in event["error"]


def test_a_disk_that_fails_ends_a_worker_and_not_the_run(prepared: Path, scratch: Path, tmp_path: Path) -> None:
    study = copy(prepared, tmp_path / "study")
    tree, (root, *_) = first_run(study)
    worker = worker_of(study, tmp_path / "store")
    worker.scratch.rmdir()
    begin(worker, tree, root)
    (event,) = heard(worker)
    worker.close()
    assert event["event"] == "died"
    assert "FileNotFoundError" in event["how"]


def test_a_folder_that_a_node_does_not_see_is_named(prepared: Path, scratch: Path, tmp_path: Path) -> None:
    study = copy(prepared, tmp_path / "study")
    tree, (root, *_) = first_run(study)
    setup = json.dumps(study.setup.as_json())
    worker = RayWorker(setup, f"file://{tmp_path}/elsewhere", shared=True, devices=1, cpu=True)
    begin(worker, tree, root)
    (event,) = heard(worker)
    worker.close()
    assert (event["event"], event["everywhere"]) == ("failed", True)
    assert f"there is no {tmp_path}/elsewhere; put the study on a shared file system" in event["error"]


def test_results_are_carried_whole_and_old_gaps_are_closed(tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    (there / "evaluation").mkdir(parents=True)
    (there / "evaluation" / "win.jsonl").write_text("{}\n")
    (there / "record.json").write_text('{"é": 1}')
    here.mkdir()
    (here / "unmeasured.json").write_text("{}")
    write_results(here, read_results(there))
    assert read_results(here) == read_results(there)
    (there / "unmeasured.json").write_text('{"win": "no judge"}')
    write_results(here, read_results(there))
    assert read_results(here) == read_results(there)
