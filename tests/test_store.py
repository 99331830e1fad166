"""Checkpoints in other file systems: in memory, on disk, and in S3 (a server on this machine, spoken to over HTTP)."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mixlaw.errors import InputError
from mixlaw.recipe import Mixture, Phase, Recipe
from mixlaw.runner.models.ladder import Shape
from mixlaw.runner.models.llama import initialise, optimizer
from mixlaw.runner.plan.setup import Setup
from mixlaw.runner.plan.tree import Segment, plan
from mixlaw.runner.train import checkpoint
from mixlaw.runner.train.store import Copier, Damaged, Store, remove
from s3_server import serving

TEXT = Mixture({"text": 1.0})


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """URL of a bucket in a server that speaks S3."""
    with serving() as url:
        yield url


@pytest.fixture(params=["memory", "disk", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store."""
    if request.param == "s3":
        return Store(f"{request.getfixturevalue('s3')}/{tmp_path.name}")
    return Store(f"memory://{tmp_path.name}" if request.param == "memory" else f"file://{tmp_path}/store")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a small model, before its first step."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoint"
    model = initialise(Shape(32, 2), vocabulary=300, sequence=32, seed=0)
    checkpoint.save(folder, model, optimizer(model, 1e-3, 0.95), 0, Path("no tokenizer"))
    return folder


SETUP = Setup("", "", vocabulary=300, sequence=1, tasks=(), batch=1)  # a step is a token


def segments() -> tuple[Segment, ...]:
    return plan([Recipe(1000, (Phase("init", 8, TEXT), Phase("cooldown", 4, TEXT, 0.0)), data="x")]).segments


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_comes_back_is_what_was_put(store: Store, saved: Path, tmp_path: Path) -> None:
    assert store.trained() == frozenset()
    store.put(saved, "abc/checkpoint")
    store.put(saved, "abd/partial-000000000003")
    store.get("abc/checkpoint", tmp_path / "back")
    assert files(tmp_path / "back") == files(saved)
    assert store.trained() == {"abc"}
    store.put(saved, "abc/checkpoint")
    store.get("abc/checkpoint", tmp_path / "again")
    assert files(tmp_path / "again") == files(saved)


def test_a_segment_goes_on_from_its_own_newest_checkpoint_else_from_its_parents(store: Store, saved: Path) -> None:
    trunk, leaf = segments()
    assert store.origins(trunk, SETUP) == []
    assert store.origins(leaf, SETUP) == [f"{trunk.lineage}/checkpoint"]
    for step in (3, 9, 11):  # 3 is before the segment's beginning: another plan left it
        store.put(saved, f"{leaf.lineage}/partial-{step:012}")
    newest, older = f"{leaf.lineage}/partial-000000000011", f"{leaf.lineage}/partial-000000000009"
    assert store.origins(leaf, SETUP) == [newest, older, f"{trunk.lineage}/checkpoint"]
    store.put(saved, f"{leaf.lineage}/checkpoint")
    assert store.origins(leaf, SETUP)[0] == f"{leaf.lineage}/checkpoint"
    store.remove_partial(leaf.lineage, but={"partial-000000000009"})
    assert store.origins(leaf, SETUP)[1:] == [older, f"{trunk.lineage}/checkpoint"]


class Broken(Exception):
    """The connection is gone."""


def breaking(store: Store, after: int) -> None:
    """Let a store fail when it has taken so many files."""
    whole = store.fs.put_file
    taken: list[Any] = []

    def put_file(*args: Any, **options: Any) -> None:
        if len(taken) == after:
            raise Broken
        taken.append(args)
        whole(*args, **options)

    store.fs.put_file = put_file


@pytest.mark.parametrize("after", range(4))
@pytest.mark.parametrize("before", [False, True], ids=["new", "replaced"])
def test_a_checkpoint_that_was_put_in_part_is_not_there(
    s3: str, saved: Path, tmp_path: Path, after: int, before: bool
) -> None:
    store = Store(f"{s3}/{tmp_path.name}")
    if before:
        store.put(saved, "abc/checkpoint")
    whole = store.fs.put_file
    breaking(store, after)
    try:
        with pytest.raises(Broken):
            store.put(saved, "abc/checkpoint")
    finally:
        store.fs.put_file = whole  # one client serves all stores of a process
    other = Store(store.url)
    assert len(files(saved)) > after
    assert other.trained() == frozenset()
    assert len(other.fs.glob(f"{other.root}/abc/checkpoint/*")) == after
    with pytest.raises(Damaged, match="abc/checkpoint is damaged; delete it"):
        other.get("abc/checkpoint", tmp_path / "back")
    assert list(tmp_path.iterdir()) == []
    other.put(saved, "abc/checkpoint")
    assert other.trained() == {"abc"}


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "config.json", "state.json"])
def test_a_changed_or_missing_file_is_refused(store: Store, saved: Path, tmp_path: Path, name: str) -> None:
    for damage in ("changed", "cut", "gone"):
        store.put(saved, "abc/checkpoint")
        path = f"{store.root}/abc/checkpoint/{name}"
        content = bytearray(store.fs.cat_file(path))
        content[len(content) // 2] ^= 1
        if damage == "gone":
            store.fs.rm(path)
        else:
            store.fs.pipe_file(path, bytes(content) if damage == "changed" else bytes(content[:-1]))
        with pytest.raises(Damaged):
            store.get("abc/checkpoint", tmp_path / "back")
        assert not (tmp_path / "back").exists()


def test_a_state_cannot_send_files_elsewhere(store: Store, saved: Path, tmp_path: Path) -> None:
    store.put(saved, "abc/checkpoint")
    state = json.loads(store.fs.cat_file(f"{store.root}/abc/checkpoint/state.json"))
    store.fs.pipe_file(f"{store.root}/abc/elsewhere", b"x")
    state["sha256"] = {"../elsewhere": "0" * 64}
    store.fs.pipe_file(f"{store.root}/abc/checkpoint/state.json", json.dumps(state).encode())
    with pytest.raises(Damaged):
        store.get("abc/checkpoint", tmp_path / "inner" / "back")
    assert not any((tmp_path / folder / "elsewhere").exists() for folder in (".", "inner"))


def test_copies_are_made_while_training_goes_on_and_survive_the_removal_of_what_is_copied(
    saved: Path, tmp_path: Path
) -> None:
    store, go = Store(str(tmp_path / "store")), threading.Event()
    complaints: list[str] = []
    put = store.put

    def slow_put(folder: Path, name: str) -> None:
        assert go.wait(20)
        put(folder, name)

    store.put = slow_put  # type: ignore[method-assign]
    copier = Copier(store, tmp_path / "outbox", complaints.append)
    first, second = (checkpoint_at(saved, tmp_path / "runs" / "abc" / f"partial-{step:012}") for step in (1, 2))
    copier.offer(first)
    remove(first)  # as the worker does when there is a newer one
    copier.offer(second)  # not now: one is being copied
    go.set()
    copier.finish(second)
    _, leaf = segments()
    named = replace(leaf, lineage="abc", start=0)
    assert store.origins(named, SETUP)[0] == "abc/partial-000000000002"
    store.get("abc/partial-000000000002", tmp_path / "back")
    assert files(tmp_path / "back") == files(saved)
    assert not list((tmp_path / "store" / "abc").glob("partial-*1"))
    assert complaints == []


def checkpoint_at(saved: Path, folder: Path) -> Path:
    folder.mkdir(parents=True)
    for path in saved.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_a_store_that_nobody_can_open_is_refused() -> None:
    with pytest.raises(InputError, match=r"the store nothing://x cannot be opened.*fix --store"):
        Store("nothing://x")
