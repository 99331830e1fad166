"""A checkpoint as a folder: whole or absent, every byte checked, and which one a segment goes on from.

What drivers and nodes do with checkpoints, without the libraries that it takes to load one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from mixlaw.errors import InputError
from mixlaw.files import sha256_of, write_text
from mixlaw.runner.plan.setup import Setup
from mixlaw.runner.plan.tree import Segment

STATE = "state.json"


def seal(draft: Path, folder: Path, step: int) -> None:
    """Write the checksums of a draft, and put it in the place of `folder`, which may be there.

    Args:
        draft: all files of the checkpoint, beside `folder`.
        step: optimizer steps since the start of the recipe.
    """
    checksums = {path.name: sha256_of(path) for path in sorted(draft.iterdir())}
    write_text(draft / STATE, _state(step, checksums))
    remove(folder)
    os.replace(draft, folder)


def remove(folder: Path) -> None:
    """Delete a checkpoint if there is one; under its name it is whole until it is gone."""
    hidden = folder.with_name(f".{folder.name}.{os.getpid()}.gone.tmp")
    shutil.rmtree(hidden, ignore_errors=True)  # of a killed process that had the same number
    with suppress(FileNotFoundError):
        os.replace(folder, hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def verify(folder: Path) -> int:
    """Check every file of a checkpoint against its checksum; return the steps it has done.

    Raises:
        InputError: a file is missing or differs from its checksum.
    """
    try:
        text = (folder / STATE).read_text(encoding="utf-8")
        state = json.loads(text)
        step, checksums = state["step"], state["sha256"]
        wrong = [name for name, digest in checksums.items() if sha256_of(folder / name) != digest]
        wrong += [STATE] if text != _state(step, checksums) else []
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"checkpoint {folder} is damaged ({error}); delete that folder and run again to retrain it"
        ) from error
    if wrong:
        raise InputError(
            f"checkpoint {folder} is damaged: {wrong[0]} differs from its checksum; "
            "delete that folder and run again to retrain it"
        )
    return int(step)


def origin(segment: Segment, setup: Setup, runs: Path, most: int | None = None) -> Path | None:
    """The checkpoint a segment goes on from: its own, else its newest partial one, else its parent's, else none.

    Args:
        most: steps that it may have done; None sets no limit.
    """
    home, begin = runs / segment.lineage, segment.start // setup.step_tokens(segment.recipe.params)
    if (home / "checkpoint").is_dir():
        return home / "checkpoint"
    # One that another plan left before this segment's beginning is behind the parent's.
    steps = {path: int(path.name.partition("-")[2]) for path in sorted(home.glob("partial-*"))}
    partial = [path for path, step in steps.items() if begin < step <= (step if most is None else most)]
    if partial:
        return partial[-1]
    return None if segment.parent is None else runs / segment.parent / "checkpoint"


def _state(step: int, checksums: Mapping[str, str]) -> str:
    """The text of state.json: steps done, the checksum of every other file, and its own."""
    own = hashlib.sha256(json.dumps([step, checksums]).encode()).hexdigest()
    return json.dumps({"step": step, "sha256": checksums, "own": own}, indent=1) + "\n"
