"""Files of a study that are damaged, and studies that are moved: what of it mixlaw notices, and what changes."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo
from functools import partial
from pathlib import Path

import fault_actions
from fault_actions import check_left, command, state, train
from fault_processes import call
from mixlaw.errors import InputError
from mixlaw.optimizer.answers import proposal
from mixlaw.report import evidence
from mixlaw.runner.batches import shards
from mixlaw.runner.batches.shards import open_shards
from mixlaw.runner.plan.tree import plan
from mixlaw.runner.train.store import verify
from mixlaw.study import open_study


def with_everything(folder: Path) -> None:
    """Two studies, one trained, by one process and by two ranks, and one of imported runs, with all that follows."""
    fault_actions.with_proposal(folder)
    with contextlib.suppress(SystemExit):
        command("suggest", "study", "--budget", "1e15", "--queue")(folder)
    (folder / "study").rename(folder / "imported")
    fault_actions.with_data(folder)
    shutil.copytree(folder / "study", folder / "ranks" / "study")
    train(folder)
    fault_actions.train_on_two(folder / "ranks")


def _settings(folder: Path) -> object:
    """What a study's settings say, of both studies."""
    trained, imported = open_study(folder / "study"), open_study(folder / "imported")
    return [r.lineage for r in trained.recipes()], trained.setup.as_json(), imported.target(), imported.domains


def _suggested(folder: Path) -> object:
    """The runs that the report shows as suggested."""
    return evidence.suggested(open_study(folder / "imported"))


def _surfaces(folder: Path) -> object:
    return list(open_study(folder / "imported").surfaces().tasks)


def _checkpoints(folder: Path) -> object:
    return [verify(path) for path in sorted(folder.glob("study/runs/*/checkpoint"))]


@dataclass(frozen=True)
class Kind:
    """A kind of file: the first of those that match is damaged, and something reads it, in the study or its imports."""

    pattern: str
    read: Callable[[Path], object]


KINDS = {
    "shard": Kind("study/data/text/train-*.bin", lambda f: open_shards(f / "study" / "data")),
    "shard, `prepare --verify`": Kind(
        "study/data/text/train-*.bin", lambda f: shards.verify(f / "study" / "data", lambda *_: None)
    ),
    "index, `prepare --verify`": Kind(
        "study/data/text/train-*.index.npy", lambda f: shards.verify(f / "study" / "data", lambda *_: None)
    ),
    "manifest": Kind("study/data/manifest.json", lambda f: open_shards(f / "study" / "data")),
    "weights of a checkpoint": Kind("study/runs/*/checkpoint/model.safetensors", _checkpoints),
    "its moments": Kind("study/runs/*/checkpoint/optimizer.safetensors", _checkpoints),
    "its state": Kind("study/runs/*/checkpoint/state.json", _checkpoints),
    "weights of two ranks": Kind(
        "ranks/study/runs/*/checkpoint/model-00001-of-*.safetensors", lambda f: _checkpoints(f / "ranks")
    ),
    "moments of two ranks": Kind(
        "ranks/study/runs/*/checkpoint/optimizer-00002-of-*.safetensors", lambda f: _checkpoints(f / "ranks")
    ),
    "record": Kind("study/runs/*/record.json", lambda f: open_study(f / "study").records()),
    "surfaces": Kind("imported/surfaces/surfaces.json", _surfaces),
    "tensors of surfaces": Kind("imported/surfaces/*.safetensors", _surfaces),
    "proposal": Kind("imported/proposals/*.json", lambda f: open_study(f / "imported").proposals()),
    "study.toml": Kind("study/study.toml", _settings),
    "suggestion": Kind("imported/suggestions/*.jsonl", _suggested),
}


def _outcome(read: Callable[[Path], object], folder: Path, wanted: object) -> str:
    """Whether reading is refused, in one sentence, or else gives the same."""
    try:
        return "as before" if read(folder) == wanted else "changed"
    except InputError as error:
        return "refused" if "\n" not in str(error) and len(str(error)) < 1000 else f"no sentence: {error}"


def damage(folder: Path, kind: str, rng: random.Random, times: int) -> Counter[str]:
    """What became of reading a kind of file with flipped bits and cut tails; the file is as before afterwards.

    Bits and lengths are drawn at random; a file that is shorter than `times` is tried at every byte.
    """
    path, read = min(folder.glob(KINDS[kind].pattern)), KINDS[kind].read
    whole, counts = path.read_bytes(), Counter[str]()
    wanted = read(folder)
    places = sorted(rng.sample(range(len(whole)), min(times, len(whole))))
    for fault in ("flipped", "cut"):
        for at in places:
            flipped = bytearray(whole)
            flipped[at] ^= 1 << rng.randrange(8)
            path.write_bytes(bytes(flipped) if fault == "flipped" else whole[:at])
            counts[f"{fault}, {_outcome(read, folder, wanted)}"] += 1
    path.write_bytes(whole)
    assert read(folder) == wanted
    return counts


def _touched(source: Path, target: Path, when: float) -> None:
    shutil.copytree(source, target)
    for path in target.rglob("*"):
        os.utime(path, (when, when))


def _cloned(source: Path, target: Path) -> None:
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main", "-C", str(source)]
    for words in (["init", "-q"], ["add", "-f", "."], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *words], check=True)
    subprocess.run(["git", "clone", "-q", str(source), str(target)], check=True)
    shutil.rmtree(source / ".git")
    shutil.rmtree(target / ".git")


def _unpacked(source: Path, target: Path, form: str) -> None:
    packed = shutil.make_archive(str(target), form, source)
    shutil.unpack_archive(packed, target)
    Path(packed).unlink()


def _synced(source: Path, target: Path) -> None:
    """As rsync without -a: neither times nor permissions, and into a folder where an older copy is."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("record.json", "partial-*"))
    subprocess.run(["rsync", "-r", f"{source}/", str(target)], check=True)


MOVES: dict[str, Callable[[Path, Path], object]] = {
    "copied": shutil.copytree,
    "copied, all files of 2001": partial(_touched, when=1e9),
    "copied, all files of 2096": partial(_touched, when=4e9),
    **({"cloned with git": _cloned} if shutil.which("git") else {}),
    "zipped and unzipped": partial(_unpacked, form="zip"),
    "packed with tar and unpacked": partial(_unpacked, form="gztar"),
    **({"rsync -r over an older copy": _synced} if shutil.which("rsync") else {}),
}


def move(first: Path, *, way: str, target: Path) -> None:
    """Move both studies; everything is read, and training again changes nothing, nor does training what is gone."""
    target.mkdir()
    for name in ("study", "imported"):
        MOVES[way](first / name, target / name)
    wanted = state(first)
    check_left(target, wanted)
    train(target)
    assert state(target) == wanted
    assert evidence.suggested(open_study(target / "imported")) == evidence.suggested(open_study(first / "imported"))
    last = min(plan(open_study(target / "study").recipes()).recipes, key=lambda recipe: recipe.lineage)
    shutil.rmtree(target / "study" / "runs" / last.lineage)
    train(target)
    assert state(target) == wanted
    open_study(target / "imported").surfaces()
    assert len(open_study(target / "imported").proposals()) == 1


def set_clock_back(folder: Path) -> None:
    """A proposal that is frozen while the clock shows 2001 is the last one all the same."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Clock:
            return cls(2001, 1, 1, tzinfo=tz)

    vars(proposal)["datetime"] = Clock
    study = open_study(folder / "imported")
    (other,) = proposal.load_proposals(folder / "searched")
    frozen = replace(other, number=0, created="").freeze(study.proposals_folder)
    assert study.proposals()[-1].id == frozen.id
    assert frozen.number == 2


def try_files(folder: Path, seed: int, times: int) -> int:
    """Damage every kind of file and move a study in every way; print a table, and return how much went wrong."""
    first = folder / "everything"
    first.mkdir()
    made = call(with_everything, first)
    assert made.code == 0, made.output
    said = ("refused", "changed", "as before")
    outcomes = [f"{fault}, {one}" for fault in ("flipped", "cut") for one in said]
    print(f"\n| file | bit flipped: {' | '.join(said)} | tail cut: {' | '.join(said)} |")
    print("| --- |" + " ---: |" * len(outcomes))
    wrong = 0
    for kind in KINDS:

        def count(where: Path, kind: str = kind) -> None:
            counts = damage(where, kind, random.Random(f"{seed} {kind}"), times)
            print(f"| {kind} | " + " | ".join(str(counts.pop(outcome, 0)) for outcome in outcomes) + " |")
            assert not counts, counts

        done = call(count, first)
        print(done.output.strip().splitlines()[-1] if done.code == 0 else f"{kind}: {done.output}", flush=True)
        wrong += done.code != 0
    print()
    for number, way in enumerate(MOVES):
        done = call(partial(move, way=way, target=folder / f"moved{number}"), first)
        print(f"{way}: {'as before' if done.code == 0 else done.output}", flush=True)
        wrong += done.code != 0
    done = call(set_clock_back, first)
    print(f"frozen with the clock set back: {'the last one' if done.code == 0 else done.output}", flush=True)
    return wrong + int(done.code != 0)
