"""Checkpoints in any place that fsspec reaches: S3, Google Cloud, a shared folder; whole or absent, like on disk.

A checkpoint is a folder `LINEAGE/checkpoint` or `LINEAGE/partial-STEP`. Its `state.json`, which holds the checksums of
the other files and its own, is written last and deleted first: without it there is no checkpoint, and one whose files
do not add up to it is damaged.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from mixlaw.errors import InputError
from mixlaw.runner.plan.tree import Segment
from mixlaw.runner.train.checkpoint_files import STATE, remove, verify


class Damaged(InputError):
    """A checkpoint in a store that is not what was put there."""


class Store:
    """Checkpoints under a URL.

    Args:
        url: anything that fsspec opens, `s3://bucket/study` or a folder; credentials come from where its client looks.

    Raises:
        InputError: fsspec does not know the protocol, or the package for it is not installed.
    """

    def __init__(self, url: str) -> None:
        from fsspec.core import url_to_fs  # type: ignore[import-untyped]
        from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]

        try:
            self.fs, self.root = url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise InputError(f"the store {url} cannot be opened: {error}; mend --store or install its client") from None
        self.url, self.local = url, isinstance(self.fs, LocalFileSystem)

    def trained(self) -> frozenset[str]:
        """Lineages with a whole final checkpoint."""
        self.fs.invalidate_cache()
        return frozenset(path.split("/")[-3] for path in self.fs.glob(f"{self.root}/*/checkpoint/{STATE}"))

    def origins(self, segment: Segment, begin: int) -> list[str]:
        """Names of the checkpoints that a segment can go on from, the best first: its own, partial ones, its parent's.

        Args:
            segment: what is to be trained.
            begin: step at which it begins; a partial one from before is behind the parent's.
        """
        self.fs.invalidate_cache()
        states = self.fs.glob(f"{self.root}/{segment.lineage}/*/{STATE}")
        names = sorted((path.split("/")[-2] for path in states), reverse=True)
        partial = [name for name in names if name.startswith("partial-") and _step(name) > begin]
        own = [f"{segment.lineage}/{name}" for name in [*(n for n in names if n == "checkpoint"), *partial]]
        return own + ([f"{segment.parent}/checkpoint"] if segment.parent else [])

    def put(self, folder: Path, name: str) -> None:
        """Copy a checkpoint here; under its name there is the whole of it, or nothing."""
        if self.local:
            self._put_on_disk(folder, Path(self.root, name))
            return
        self.remove(name)
        for path in sorted(folder.iterdir(), key=lambda path: path.name == STATE):
            self.fs.put_file(str(path), f"{self.root}/{name}/{path.name}")

    def _put_on_disk(self, folder: Path, target: Path) -> None:
        draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(folder, draft)
        self.remove(f"{target.parent.name}/{target.name}")
        os.replace(draft, target)

    def get(self, name: str, folder: Path) -> None:
        """Copy a checkpoint from here to `folder`, which is not there yet.

        Raises:
            Damaged: a file is missing, or differs from its checksum.
        """
        draft = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.tmp")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        try:
            state = self.fs.cat_file(f"{self.root}/{name}/{STATE}")
            (draft / STATE).write_bytes(state)
            for file in json.loads(state)["sha256"]:
                self.fs.get_file(f"{self.root}/{name}/{file}", str(draft / Path(file).name))
            verify(draft)
        except (FileNotFoundError, ValueError, KeyError, TypeError, InputError):
            shutil.rmtree(draft)
            where = f"{self.url.rstrip('/')}/{name}"
            raise Damaged(f"checkpoint {where} is damaged; delete it and run again to retrain it") from None
        os.replace(draft, folder)

    def remove(self, name: str) -> None:
        """Delete a checkpoint if there is one."""
        if self.local:
            remove(Path(self.root, name))
            return
        self.fs.invalidate_cache()
        for path in (f"{self.root}/{name}/{STATE}", f"{self.root}/{name}"):
            with suppress(FileNotFoundError):
                self.fs.rm(path, recursive=True)

    def remove_partial(self, lineage: str, but: str = "") -> None:
        """Delete the partial checkpoints of a lineage, except the one named `but`."""
        self.fs.invalidate_cache()
        for path in self.fs.glob(f"{self.root}/{lineage}/partial-*"):
            name = path.rstrip("/").split("/")[-1]
            if name != but:
                self.remove(f"{lineage}/{name}")


class Copier:
    """Copies the checkpoints of a worker to a store behind the training's back, one at a time.

    Args:
        store: where to.
        outbox: folder on the file system of the checkpoints, for hard links to what is being copied: the worker deletes
            a partial checkpoint as soon as it has a newer one.
        complain: told what went wrong with a partial checkpoint, which the next one makes up for.
    """

    def __init__(self, store: Store, outbox: Path, complain: Callable[[str], None]) -> None:
        self.store, self.outbox, self.complain = store, outbox, complain
        self.thread = ThreadPoolExecutor(1)
        self.running: Future[None] | None = None
        self.last: Path | None = None

    def offer(self, folder: Path) -> None:
        """Start to copy a checkpoint, if none is being copied."""
        if self.running is not None and not self.running.done():
            return
        with suppress(OSError):  # it is gone already: a newer one will be offered
            links = self._link(folder)
            self.last, self.running = folder, self.thread.submit(self._copy, links, folder)

    def finish(self, folder: Path) -> None:
        """Have a checkpoint copied when this returns."""
        if self.running is not None:
            self.running.result()
        if self.last != folder:
            self._put(folder, folder)
        self.last = None

    def _copy(self, links: Path, folder: Path) -> None:
        try:
            self._put(links, folder)
        except Exception as error:  # clients have their own; nothing is lost but time
            self.last = None
            self.complain(f"{folder} was not copied to {self.store.url}: {error}")
        finally:
            shutil.rmtree(links, ignore_errors=True)

    def _put(self, source: Path, folder: Path) -> None:
        lineage, name = folder.parent.name, folder.name
        self.store.put(source, f"{lineage}/{name}")
        self.store.remove_partial(lineage, but=name)

    def _link(self, folder: Path) -> Path:
        links = self.outbox / folder.parent.name / folder.name
        shutil.rmtree(links, ignore_errors=True)
        shutil.copytree(folder, links, copy_function=os.link)
        return links


def _step(name: str) -> int:
    return int(name.removeprefix("partial-"))
