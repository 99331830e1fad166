"""Checkpoints as folders, on disk or in any store that fsspec reaches: whole or absent, every byte verified.

A checkpoint is a folder `LINEAGE/checkpoint` or `LINEAGE/partial-STEP`. Its `state.json` holds the checksums of the
other files and its own. In an object store it is written last and deleted first: without it there is no checkpoint, and
one whose files do not match it is damaged. Drivers and nodes use this module, so it imports neither torch nor
transformers.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from mixlaw.errors import InputError
from mixlaw.files import publish, sha256_of, write_text
from mixlaw.runner.models.foreign import optimizer_files
from mixlaw.runner.plan.setup import Setup
from mixlaw.runner.plan.tree import Segment
from mixlaw.runner.train.spikes import BEFORE, IN_A_ROW

FINAL, PARTIAL = "checkpoint", "partial-"
STATE = "state.json"
TENSORS = ".safetensors"
LONGEST_HEADER = 10**8  # bytes, of a file of tensors: no longer one is read
KEPT = 3  # partial checkpoints of a segment


def seal(draft: Path, folder: Path, step: int, known: Mapping[str, str] | None = None) -> None:
    """Write the checksums of a draft, and rename it to `folder`, replacing an older one.

    Args:
        draft: all files of the checkpoint, beside `folder`.
        step: optimizer steps since the start of the recipe.
        known: checksums of files that were hashed while they were written.
    """
    known = known or {}
    checksums = {path.name: known.get(path.name) or sha256_of(path) for path in sorted(draft.iterdir())}
    write_text(draft / STATE, _state(step, checksums))
    remove(folder)
    publish(draft, folder)


def remove(folder: Path) -> None:
    """Delete a checkpoint if there is one; a folder under its name is complete at any moment."""
    hidden = folder.with_name(f".{folder.name}.{os.getpid()}.gone.tmp")
    shutil.rmtree(hidden, ignore_errors=True)  # of a killed process with the same id
    with suppress(FileNotFoundError):
        os.replace(folder, hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def verify(folder: Path, part: int = 0, parts: int = 1, *, tensors: bool = True) -> int:
    """Check the files of a checkpoint against their checksums; return its steps.

    Args:
        part, parts: files are dealt out to `parts` readers, the largest first; by default all are checked here.
        tensors: False looks only at the length of files of tensors, which whoever reads them verifies: a moment
            whatever the size of the model.

    Raises:
        InputError: a file is missing or differs from its checksum.
    """
    try:
        text = (folder / STATE).read_text(encoding="utf-8")
        state = json.loads(text)
        step, checksums = state["step"], state["sha256"]
        sizes = {name: (folder / name).stat().st_size for name in checksums}
        mine = sorted(checksums, key=lambda name: (-sizes[name], name))[part::parts]
        short = set() if tensors else {name for name in mine if name.endswith(TENSORS)}
        wrong = [name for name in mine if name not in short and sha256_of(folder / name) != checksums[name]]
        wrong += [name for name in short if _is_cut(folder / name)]
        wrong += [STATE] if text != _state(step, checksums) else []
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(
            f"checkpoint {folder} is damaged ({error}); delete that folder and run again to retrain it"
        ) from error
    if wrong:
        raise InputError(
            f"checkpoint {folder} is damaged: {wrong[0]} differs from its checksum; "
            "delete that folder and run again to retrain it"
        )
    return int(step)


def _is_cut(path: Path) -> bool:
    """Whether a file of tensors has another length than its header says."""
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
        told = json.loads(file.read(min(header, LONGEST_HEADER)))
    ends = [about["data_offsets"][1] for name, about in told.items() if name != "__metadata__"]
    return path.stat().st_size != 8 + header + max(ends, default=0)


def check_optimizer(folder: Path) -> None:
    """Check that training can resume from a checkpoint, that it has the optimizer's state.

    Raises:
        InputError: it was the end of a recipe, written under `training.keep_optimizer = false`.
    """
    if not optimizer_files(folder):
        raise InputError(
            f"{folder} has no optimizer state, as training.keep_optimizer = false dropped it, and a recipe now "
            "resumes from there; delete that folder and run again to retrain it"
        )


def partial_name(step: int) -> str:
    """Name of a checkpoint inside a segment, after `step` steps of the recipe; sorts by step."""
    return f"{PARTIAL}{step:012}"


def partial_steps(home: Path) -> list[int]:
    """Steps of the checkpoints inside a segment, in ascending order."""
    return sorted(int(path.name.removeprefix(PARTIAL)) for path in home.glob(f"{PARTIAL}*"))


def expendable(steps: Iterable[int], begin: int = 0) -> list[int]:
    """Which of a segment's partial checkpoints can go: all but KEPT, one of which a rollback now could resume from.

    A rollback goes to before the bad steps and those skipped with them, which steps of minutes can put before the
    second checkpoint: the oldest is deleted only once the second is old enough, and else the one before the newest.

    Args:
        steps: of the checkpoints, the newest just written.
        begin: first step of the segment; a checkpoint from before is another plan's.

    Example:
        >>> expendable([100, 200, 300, 400]), expendable([100, 395, 398, 400])
        ([100], [398])
    """
    gone = [step for step in steps if step <= begin]
    kept = sorted(step for step in steps if step > begin)
    while len(kept) > KEPT:
        gone.append(kept.pop(0 if kept[1] <= kept[-1] - IN_A_ROW - BEFORE else -2))
    return gone


def resume_order(segment: Segment, setup: Setup, names: Iterable[str], most: int | None = None) -> list[str]:
    """Checkpoints that a segment can resume from, the best first: its own, its newest partial ones, its parent's.

    Args:
        segment: what is to be trained.
        setup: how, which says at which step it begins: a partial checkpoint from before is older than the parent's.
        names: of the checkpoints under its lineage.
        most: steps that a partial one may have done; None sets no limit.

    Returns:
        Names as LINEAGE/NAME; empty if it begins with a fresh model.
    """
    names, begin = set(names), segment.start // setup.step_tokens(segment.recipe.params)
    steps = {int(name.removeprefix(PARTIAL)): name for name in names if name.startswith(PARTIAL)}
    partial = [steps[step] for step in sorted(steps, reverse=True) if begin < step <= (step if most is None else most)]
    own = [f"{segment.lineage}/{name}" for name in [FINAL] * (FINAL in names) + partial]
    return own + ([f"{segment.parent}/{FINAL}"] if segment.parent else [])


def origin(segment: Segment, setup: Setup, runs: Path, most: int | None = None) -> Path | None:
    """Folder of the checkpoint in `runs` that a segment resumes from; None for a fresh model."""
    names = [path.name for path in (runs / segment.lineage).glob("*") if path.is_dir()]
    return next((runs / name for name in resume_order(segment, setup, names, most)), None)


def sweep(runs: Path, lineage: str = "*") -> None:
    """Delete what killed workers left: half-written checkpoints, and partial ones beside the final one."""
    drafts = [*runs.glob(f"{lineage}/.{FINAL}.*.tmp"), *runs.glob(f"{lineage}/.{PARTIAL}*.tmp")]
    outlived = [path for path in runs.glob(f"{lineage}/{PARTIAL}*") if (path.parent / FINAL).is_dir()]
    for path in (*drafts, *outlived):
        shutil.rmtree(path)


def _state(step: int, checksums: Mapping[str, str]) -> str:
    """The text of state.json: steps done, the checksum of every other file, and its own."""
    own = hashlib.sha256(json.dumps([step, checksums]).encode()).hexdigest()
    return json.dumps({"step": step, "sha256": checksums, "own": own}, indent=1) + "\n"


class Damaged(InputError):
    """A checkpoint in a store that does not match its checksums."""


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
            raise InputError(f"the store {url} cannot be opened: {error}; fix --store or install its client") from None
        self.url, self.local = url, isinstance(self.fs, LocalFileSystem)

    def trained(self) -> frozenset[str]:
        """Lineages with a complete final checkpoint."""
        self.fs.invalidate_cache()
        return frozenset(path.split("/")[-3] for path in self.fs.glob(f"{self.root}/*/{FINAL}/{STATE}"))

    def origins(self, segment: Segment, setup: Setup) -> list[str]:
        """Names of the checkpoints in the store that a segment can resume from, the best first."""
        self.fs.invalidate_cache()
        states = self.fs.glob(f"{self.root}/{segment.lineage}/*/{STATE}")
        return resume_order(segment, setup, [path.split("/")[-2] for path in states])

    def put(self, folder: Path, name: str) -> None:
        """Copy a checkpoint into the store, where it appears complete or not at all."""
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
        publish(draft, target)

    def get(self, name: str, folder: Path) -> None:
        """Copy a checkpoint from the store to `folder`, which must not exist.

        Raises:
            Damaged: a file is missing, or differs from its checksum.
        """
        draft = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.tmp")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        try:
            state = self.state(name)
            write_text(draft / STATE, state)
            for file in json.loads(state)["sha256"]:
                self.fs.get_file(f"{self.root}/{name}/{file}", str(draft / Path(file).name))
            verify(draft)
        except (FileNotFoundError, ValueError, KeyError, TypeError, InputError):
            shutil.rmtree(draft)
            where = f"{self.url.rstrip('/')}/{name}"
            raise Damaged(f"checkpoint {where} is damaged; delete it and run again to retrain it") from None
        publish(draft, folder)

    def state(self, name: str) -> str:
        """Steps and checksums of a checkpoint, as text."""
        return bytes(self.fs.cat_file(f"{self.root}/{name}/{STATE}")).decode()

    def remove(self, name: str) -> None:
        """Delete a checkpoint if there is one."""
        if self.local:
            remove(Path(self.root, name))
            return
        self.fs.invalidate_cache()
        for path in (f"{self.root}/{name}/{STATE}", f"{self.root}/{name}"):
            with suppress(FileNotFoundError):
                self.fs.rm(path, recursive=True)

    def remove_partial(self, lineage: str, but: Collection[str] = ()) -> None:
        """Delete the partial checkpoints of a lineage, except those named in `but`."""
        self.fs.invalidate_cache()
        for path in self.fs.glob(f"{self.root}/{lineage}/{PARTIAL}*"):
            name = path.rstrip("/").split("/")[-1]
            if name not in but:
                self.remove(f"{lineage}/{name}")


class Copier:
    """Copies the checkpoints of a worker to a store while training continues, one at a time.

    Args:
        store: where to.
        outbox: folder on the file system of the checkpoints, for hard links to the one being copied: the worker
            may delete it meanwhile.
        complain: called with what went wrong with a partial checkpoint; the next one replaces it.
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
        with suppress(OSError):  # deleted already: a newer one will be offered
            links = self._link(folder)
            self.last, self.running = folder, self.thread.submit(self._copy, links, folder)

    def finish(self, folder: Path) -> None:
        """Wait until a checkpoint is copied."""
        if self.running is not None:
            self.running.result()
        if self.last != folder:
            self._put(folder, folder)
        self.last = None

    def _copy(self, links: Path, folder: Path) -> None:
        try:
            self._put(links, folder)
        except Exception as error:  # clients raise their own types; only time is lost
            self.last = None
            self.complain(f"{folder} was not copied to {self.store.url}: {error}")
        finally:
            shutil.rmtree(links, ignore_errors=True)

    def _put(self, source: Path, folder: Path) -> None:
        lineage, name = folder.parent.name, folder.name
        self.store.put(source, f"{lineage}/{name}")
        beside = () if name == FINAL else {path.name for path in folder.parent.glob(f"{PARTIAL}*")} | {name}
        self.store.remove_partial(lineage, but=beside)

    def _link(self, folder: Path) -> Path:
        links = self.outbox / folder.parent.name / folder.name
        shutil.rmtree(links, ignore_errors=True)
        shutil.copytree(folder, links, copy_function=os.link)
        return links
