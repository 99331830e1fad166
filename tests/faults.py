"""Faults of a machine, in real processes: killed, interrupted, disk full, read-only, bytes flipped, tails cut, copied.

`make faults` runs them all and prints the table of docs/faults.md; tests/test_faults.py runs a few. An action is what a
user does to a study. It is done undisturbed once. Then it is begun again and again in a copy, each time in a process
that comes to harm; what is left is read; and it is repeated, which must end as if nothing had happened.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from functools import partial
from pathlib import Path
from typing import Any

import small_study
import studies
from mixlaw import cli
from mixlaw.analysis.laws import Exposure
from mixlaw.errors import InputError, of_machine
from mixlaw.optimizer.answers.propose import propose
from mixlaw.optimizer.target.target import Target
from mixlaw.runner.batches import shards
from mixlaw.runner.batches.shards import open_shards
from mixlaw.runner.train.store import verify
from mixlaw.study import open_study
from ranks import together

#: What processes import before they are forked; nothing is computed then, as threads of polars do not survive a fork.
MODULES = [
    "transformers.models.llama.modeling_llama",
    "torch._dynamo",
    "mixlaw.runner.execute.worker",
    "mixlaw.runner.train.loop",
    "mixlaw.analysis.fit",
    "mixlaw.optimizer.answers.propose",
    "mixlaw.optimizer.next_runs.suggest",
    "mixlaw.report.page",
    "mixlaw.export.write",
    "mixlaw.adapters.importing",
    "mixlaw.study.showing",
    "mixlaw.study.choosing",
    "mixlaw.study.next_runs",
]
#: A study of four segments, each some steps of the smallest model, with a checkpoint every few steps.
SETTINGS = (
    small_study.SETTINGS.replace("24_000", "4_000")
    .replace("checkpoint_seconds = 0.1", "checkpoint_seconds = 0.02")
    .rpartition("[[recipes]]")[0]
    .replace('continue = "half", ', "")
    .replace('[[phases]]\nname = "continue"\nshare = 0.25\n', "")
    .replace("share = 0.5", "share = 0.75")
)
TARGET = "[target]\nparams = 330_000\ntokens = 6_600_000\n"
MEMORY = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None
#: Operations on files, by the name under which Python audits them; a process is killed before the n-th of them.
OPERATIONS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.chmod", "shutil.copyfile")
SECONDS = 300.0  # until a process that has not ended counts as one that hangs


def command(*words: str) -> Callable[[Path], None]:
    """A command of mixlaw, in the folder that holds the study."""

    def act(folder: Path) -> None:
        os.chdir(folder)
        sys.argv = ["mixlaw", *words]
        cli.main()

    return act


def train(folder: Path) -> None:
    """All segments, one after the other, as a worker does."""
    small_study.train_here(open_study(folder / "study"))


def train_on_two(folder: Path) -> None:
    """The same on two ranks, as under torchrun."""

    def work(ranks: Any) -> None:
        from mixlaw.runner.execute.worker import Worker
        from mixlaw.runner.plan.tree import plan

        study = open_study(folder / "study")
        tree, worker = plan(study.recipes()), Worker(study.setup, study.runs, ranks)
        recipes = {recipe.lineage: recipe for recipe in tree.recipes}
        for segment in tree.segments:
            worker.work(segment, segment.finished(recipes))

    together(2, work)


def fit_one_law(folder: Path) -> None:
    """New surfaces over old ones of fewer runs."""
    open_study(folder / "study").fit(law=Exposure, save=True)


def freeze(folder: Path) -> None:
    """A proposal of a short search, frozen."""
    study = open_study(folder / "study")
    found = propose(study.surfaces(), study.target(), studies.DOMAINS, draws=16, starts=1)
    found.freeze(study.proposals_folder)


# --- studies that actions begin with ----------------------------------------------------------------------------------


def with_sources(folder: Path) -> None:
    """Settings and sources, nothing else."""
    (folder / "study").mkdir()
    (folder / "study" / "study.toml").write_text(SETTINGS)
    small_study.write_documents(folder / "study")


def with_data(folder: Path) -> None:
    """Shards."""
    with_sources(folder)
    open_study(folder / "study").prepare()


def with_checkpoints(folder: Path) -> None:
    """Trained, but no record."""
    with_data(folder)
    train(folder)
    for record in folder.glob("study/runs/*/record.json"):
        record.unlink()


def with_table(folder: Path) -> None:
    """A table of runs, and no study yet."""
    studies.measured()[1].write_csv(folder / "runs.csv")


def with_runs(folder: Path) -> None:
    """Imported runs, a target, and surfaces of half of the runs."""
    studies.on_disk(folder, TARGET)
    old = studies.measured()[1].head(9)
    unique = {d.name: float(d.unique_tokens) for d in studies.DOMAINS}
    studies.quick_fit(old, studies.measured()[0].units, unique).save(folder / "study" / "surfaces")


def with_surfaces(folder: Path) -> None:
    """Imported runs and their surfaces."""
    studies.on_disk(folder, TARGET)


def with_proposal(folder: Path) -> None:
    """The same with a frozen proposal."""
    with_surfaces(folder)
    freeze(folder)


# --- what is left ---------------------------------------------------------------------------------------------------


def state(folder: Path) -> dict[str, str]:
    """Hashes of what counts in a study by path: data, records, final checkpoints, surfaces, proposals, exports."""
    found = {}
    for path in sorted((folder / "study").rglob("*")):
        parts = path.relative_to(folder / "study").parts
        if not path.is_file() or any(part.startswith(".") for part in parts) or parts[0] == "logs":
            continue
        if "partial-" in str(path) or path.suffix in (".log", ".html") or path.name == "fitted_from.json":
            continue
        content = path.read_bytes()
        if parts[0] == "proposals":
            content = json.dumps({**json.loads(content), "created": ""}).encode()
        found["/".join(parts)] = hashlib.sha256(content).hexdigest()
    return found


def look(folder: Path, before: dict[str, str]) -> None:
    """Read everything there is, as mixlaw does: it is whole or not there, and nothing that was finished is gone."""
    if not (folder / "study" / "study.toml").exists():
        return
    study = open_study(folder / "study")
    study.records()
    study.proposals()
    if (study.path / "surfaces" / "surfaces.json").exists():
        study.surfaces()
    if study.has_data:
        open_shards(study.data)
        study.recipes()
    for path in study.runs.glob("*/[cp]*"):
        if path.is_dir():
            verify(path)
    for path in study.path.glob("suggestions/*.jsonl"):
        for line in path.read_text().splitlines():
            json.loads(line)
    if (page := study.path / "report.html").exists():
        assert page.read_text().rstrip().endswith("</html>"), "half a report"
    left = state(folder)
    for name, content in before.items():
        if name.startswith(("runs/", "proposals/")):
            assert left.get(name) == content, f"{name} is gone or was changed"


# --- processes that come to harm --------------------------------------------------------------------------------------


@dataclass
class Ended:
    """How a process ended: its exit code, negative for a signal, what it printed, and seconds."""

    code: int
    output: str
    seconds: float


def at_operation(number: int, sent: int, counter: Path | None = None) -> None:
    """Send this process a signal before its n-th operation on files."""
    count = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if event in OPERATIONS or (writes and not str(arguments[0]).startswith("/dev/")):
            count += 1
            if counter is not None:
                os.pwrite(handle, b"%9d" % count, 0)
            if count == number:
                os.kill(os.getpid(), sent)

    handle = os.open(counter, os.O_CREAT | os.O_WRONLY) if counter is not None else -1
    sys.addaudithook(hook)


def process(
    act: Callable[[Path], None], folder: Path, harm: Callable[[], None] = lambda: None, wait: bool = True
) -> Any:
    """Do something in a process of its own, forked, so that it need not import anything."""
    log = _log(folder)
    pid = os.fork()
    if pid == 0:
        code = 3
        try:
            code = _inside(act, folder, harm, log)
        finally:  # nothing escapes into what the parent does
            os._exit(code)
    return ended(pid, folder) if wait else pid


def _log(folder: Path) -> Path:
    """File of what a process prints: beside the folder, which may be on a disk that is full."""
    return folder.parent.parent / f"{folder.name}.txt" if folder.parent.name == "disk" else folder / "output.txt"


def _inside(act: Callable[[Path], None], folder: Path, harm: Callable[[], None], log: Path) -> int:
    """The process itself; its exit code."""
    os.setsid()
    out = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(out, stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    code = 0
    try:
        harm()
        act(folder)
    except SystemExit as end:
        code = int(end.code or 0)
    except InputError as error:
        print(error)
        code = 2
    except KeyboardInterrupt:
        code = 1
    except BaseException as error:
        if isinstance(error, Exception) and (sentence := of_machine(error)):  # as the command line does
            print(sentence)
            code = 2
        else:
            traceback.print_exc()
            code = 3
    with contextlib.suppress(Exception):
        sys.stdout.flush(), sys.stderr.flush()
    return code


def ended(pid: int, folder: Path, kill_after: float | None = None, sent: int = signal.SIGKILL) -> Ended:
    """Wait for a process; send it a signal after some seconds if it is still there."""
    begun = time.monotonic()
    while (done := os.waitpid(pid, os.WNOHANG))[0] == 0:
        passed = time.monotonic() - begun
        if kill_after is not None and passed > kill_after:
            os.kill(pid, sent)
            kill_after = None
        if passed > SECONDS:
            os.killpg(pid, signal.SIGKILL)
        time.sleep(0.002)
    with contextlib.suppress(ProcessLookupError):  # what it started and did not take along
        os.killpg(pid, signal.SIGKILL)
    output = _log(folder).read_text(errors="replace") if _log(folder).exists() else ""
    return Ended(os.waitstatus_to_exitcode(done[1]), output, time.monotonic() - begun)


@dataclass
class Action:
    """What is done to a study.

    Attributes:
        act: takes the folder that holds the study.
        begin: makes the study that it begins with.
        kills: how often it is killed in `make faults`.
        others: whether disk full, read-only and Ctrl-C are tried as well.
    """

    act: Callable[[Path], None]
    begin: Callable[[Path], None]
    kills: int
    others: bool = True


ACTIONS = {
    "prepare": Action(command("prepare", "study"), with_sources, 50),
    "train": Action(train, with_data, 20, others=False),
    "train on two ranks": Action(train_on_two, with_data, 4, others=False),
    "run": Action(command("run", "study", "--workers", "1"), with_data, 3),
    "evaluate, write records": Action(train, with_checkpoints, 20, others=False),
    "import": Action(command("import", "study", "runs.csv", "--unit", "bits/byte"), with_table, 60),
    "fit": Action(command("fit", "study"), with_runs, 2),
    "write surfaces": Action(fit_one_law, with_runs, 20),
    "freeze": Action(freeze, with_surfaces, 10),
    "propose": Action(command("propose", "study"), with_surfaces, 2),
    "suggest": Action(command("suggest", "study", "--budget", "1e15"), with_surfaces, 3),
    "export": Action(command("export", "study", "-o", "study/exports"), with_proposal, 40),
    "report": Action(command("report", "study"), with_proposal, 4),
}


@dataclass
class Figures:
    """What became of an action: how often each fault was tried, and what went wrong."""

    tried: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


class Trial:
    """An action, begun anew in a copy of its study as often as wanted."""

    def __init__(self, name: str, folder: Path, seed: int) -> None:
        self.name, self.action, self.folder = name, ACTIONS[name], folder
        self.rng, self.figures, self.number = random.Random(f"{seed} {name}"), Figures(), 0
        self.first = folder / "first"
        self.first.mkdir(parents=True)
        start = process(self.action.begin, self.first)
        assert start.code == 0, start.output
        self.before = state(self.first)
        done, counter = self.copied(), folder / "operations"
        undisturbed = process(self.action.act, done, lambda: at_operation(0, 0, counter))
        assert undisturbed.code == 0, undisturbed.output
        self.wanted, self.seconds, self.operations = state(done), undisturbed.seconds, int(counter.read_text() or 0)
        shutil.rmtree(done)

    def copied(self) -> Path:
        """A copy of the study as it was."""
        self.number += 1
        return Path(shutil.copytree(self.first, self.folder / f"copy{self.number}"))

    @contextlib.contextmanager
    def noted(self, fault: str) -> Iterator[None]:
        """Count a fault, and note what went wrong."""
        self.figures.tried[fault] += 1
        try:
            yield
        except Exception as error:
            self.figures.wrong.append(f"{self.name}, {fault}: {type(error).__name__}: {str(error)[-1500:]}")

    def after(self, folder: Path) -> None:
        """Look at what is left, do it once more, and compare."""
        sight = process(lambda where: look(where, self.before), folder)
        assert sight.code == 0, sight.output
        again = process(self.action.act, folder)
        assert again.code == 0, f"the repeat ended with {again.code}: {again.output}"
        assert (now := state(folder)) == self.wanted, f"differ: {different(now, self.wanted)}"
        shutil.rmtree(folder)

    def stop(self, fault: str, sent: int) -> None:
        """Send a signal, at an operation on files or at any time."""
        with self.noted(fault):
            folder = self.copied()
            if self.operations and self.rng.random() < 0.6:
                number = self.rng.randint(1, self.operations)
                gone = process(self.action.act, folder, lambda: at_operation(number, sent))
            else:
                pid = process(self.action.act, folder, wait=False)
                gone = ended(pid, folder, self.rng.uniform(0, self.seconds), sent)
            if sent == signal.SIGINT:
                assert gone.code in (0, 1, 130, -2), f"ended with {gone.code}: {gone.output}"
                own = gone.output.partition("Exception ignored in")[0]  # pydantic swallows one while it imports
                assert "Traceback" not in own, gone.output
            self.after(folder)

    def refused(self, folder: Path, fault: str) -> None:
        """Do it where it cannot be done: one sentence, exit code 2."""
        gone = process(self.action.act, folder)
        if gone.code != 0:
            assert gone.code in (1, 2), f"{fault} gave {gone.code}: {gone.output}"
            assert "Traceback" not in gone.output, gone.output

    def disk_full(self) -> None:
        """On a disk of which any share of what is needed is free."""
        with self.noted("disk full"), disk(self.folder / "disk", 64_000_000) as where:
            shutil.copytree(self.first, where / "copy")
            room = self.rng.choice([0, 4096, 65536, self.rng.randint(0, 600_000), self.rng.randint(0, 3_000_000)])
            stat = os.statvfs(where)
            resize(where, (stat.f_blocks - stat.f_bfree) * stat.f_frsize + room)
            self.refused(where / "copy", "disk full")
            resize(where, 64_000_000)
            (self.folder / "copy0").mkdir()
            shutil.copytree(where / "copy", self.folder / "copy0", dirs_exist_ok=True)
            self.after(self.folder / "copy0")

    def read_only(self) -> None:
        """A study on a disk that cannot be written to."""
        with self.noted("read-only"), disk(self.folder / "disk", 64_000_000) as where:
            shutil.copytree(self.first, where / "copy")
            subprocess.run(["mount", "-o", "remount,ro", where], check=True)
            gone = process(lambda _: self.action.act(where / "copy"), self.folder)
            assert gone.code in (0, 1, 2), f"gave {gone.code}: {gone.output}"
            assert "Traceback" not in gone.output, gone.output
            assert state(where / "copy") == self.before

    def together(self, count: int) -> None:
        """Several processes at once; who is refused is told so."""
        with self.noted(f"{count} at once"):
            folder = self.copied()
            pids = [process(self.action.act, folder, wait=False) for _ in range(count)]
            ends = [ended(pid, folder) for pid in pids]
            assert all(end.code in (0, 2) for end in ends), "\n".join(end.output for end in ends if end.code)
            self.after(folder)

    def every(self, share: float) -> Figures:
        """All faults, as often as the action's figures say, times a share."""
        for _ in range(max(1, round(self.action.kills * share))):
            self.stop("kill -9", signal.SIGKILL)
        if self.action.others:
            for _ in range(max(1, round(self.action.kills * share / 4))):
                self.stop("Ctrl-C", signal.SIGINT)
            if mounts():
                for _ in range(max(1, round(self.action.kills * share / 4))):
                    self.disk_full()
                self.read_only()
        for count in (2, 10) if self.seconds < 4 else (2,):
            self.together(count)
        return self.figures


# --- files that are damaged, studies that are moved -------------------------------------------------------------------


def with_everything(folder: Path) -> None:
    """Shards, checkpoints, records, surfaces, a proposal and a suggestion, in one folder each of two studies."""
    with_proposal(folder)
    command_in_place(folder, "suggest", "study", "--budget", "1e15")
    (folder / "study").rename(folder / "imported")
    with_data(folder)
    train(folder)


def command_in_place(folder: Path, *words: str) -> None:
    """A command that ends well."""
    with contextlib.suppress(SystemExit):
        command(*words)(folder)


def _verified(folder: Path) -> None:
    shards.verify(folder / "study" / "data", lambda *_: None)


#: Kind of file -> the first of these files is damaged, and this reads it.
KINDS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "shard": ("study/data/text/train-*.bin", lambda f: open_shards(f / "study" / "data")),
    "shard, prepare --verify": ("study/data/text/train-*.bin", _verified),
    "index, prepare --verify": ("study/data/text/train-*.index.npy", _verified),
    "manifest": ("study/data/manifest.json", lambda f: open_shards(f / "study" / "data")),
    "weights": ("study/runs/*/checkpoint/model.safetensors", lambda f: _checkpoints(f)),
    "moments": ("study/runs/*/checkpoint/optimizer.safetensors", lambda f: _checkpoints(f)),
    "state of a checkpoint": ("study/runs/*/checkpoint/state.json", lambda f: _checkpoints(f)),
    "record": ("study/runs/*/record.json", lambda f: open_study(f / "study").records()),
    "surfaces": ("imported/surfaces/surfaces.json", lambda f: open_study(f / "imported").surfaces()),
    "tensors of surfaces": ("imported/surfaces/*.safetensors", lambda f: open_study(f / "imported").surfaces()),
    "proposal": ("imported/proposals/*.json", lambda f: open_study(f / "imported").proposals()),
}


def _checkpoints(folder: Path) -> None:
    for path in folder.glob("study/runs/*/checkpoint"):
        verify(path)


def damaged(folder: Path, kind: str, rng: random.Random, times: int) -> Counter[str]:
    """How often a flipped bit and a cut tail were noticed in a kind of file; the file is as before afterwards."""
    pattern, read = KINDS[kind]
    path = min(folder.glob(pattern))
    whole, counts = path.read_bytes(), Counter[str]()
    for fault in ("flipped", "cut"):
        for _ in range(times):
            at = rng.randrange(len(whole))
            other = bytearray(whole)
            other[at] ^= 1 << rng.randrange(8)
            path.write_bytes(bytes(other) if fault == "flipped" else whole[:at])
            try:
                read(folder)
                counts[f"{fault}, not noticed"] += 1
            except InputError as error:
                counts[f"{fault}, refused" if "\n" not in str(error) else "no sentence"] += 1
    path.write_bytes(whole)
    read(folder)
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
    packed = shutil.make_archive(str(source.parent / "packed"), form, source)
    shutil.unpack_archive(packed, target)
    Path(packed).unlink()


MOVES: dict[str, Callable[[Path, Path], object]] = {
    "copied": lambda source, target: shutil.copytree(source, target),
    "copied, all files of 2001": lambda source, target: _touched(source, target, 1e9),
    "copied, all files of 2096": lambda source, target: _touched(source, target, 4e9),
    "cloned with git": _cloned,
    "zipped and unzipped": lambda source, target: _unpacked(source, target, "zip"),
    "packed with tar and unpacked": lambda source, target: _unpacked(source, target, "gztar"),
}


def moved(first: Path, *, way: str, target: Path) -> None:
    """Move both studies; everything is read, and training again changes nothing."""
    target.mkdir()
    for name in ("study", "imported"):
        MOVES[way](first / name, target / name)
    wanted = state(first)
    look(target, wanted)
    train(target)
    assert state(target) == wanted
    open_study(target / "imported").surfaces()
    assert len(open_study(target / "imported").proposals()) == 1


def set_back(folder: Path) -> None:
    """A proposal that is frozen while the clock shows 2001 is the last one all the same."""
    from mixlaw.optimizer.answers import proposal as module

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Clock:
            return cls(2001, 1, 1, tzinfo=tz)

    study = open_study(folder / "imported")
    vars(module)["datetime"] = Clock
    longer = Target(330_000, 9_000_000)
    found = propose(study.surfaces(), longer, studies.DOMAINS, draws=16, starts=1)
    frozen = found.freeze(study.proposals_folder)
    assert study.proposals()[-1].id == frozen.id
    assert frozen.number == 2


def files_and_moves(folder: Path, seed: int, times: int) -> int:
    """Damage every kind of file and move a study in every way; print a table, and return how much went wrong."""
    first = folder / "everything"
    first.mkdir()
    made = process(with_everything, first)
    assert made.code == 0, made.output
    rng, wrong = random.Random(seed), 0
    print("\n| file | bit flipped: refused | not noticed | tail cut: refused | not noticed |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for kind in KINDS:

        def count(where: Path, kind: str = kind) -> None:
            counts = damaged(where, kind, rng, times)
            names = ("flipped, refused", "flipped, not noticed", "cut, refused", "cut, not noticed")
            print(f"| {kind} | " + " | ".join(str(counts[name]) for name in names) + " |")

        done = process(count, first)
        print(done.output.strip().splitlines()[-1] if done.code == 0 else done.output, flush=True)
        wrong += done.code != 0
    for number, way in enumerate(MOVES):
        done = process(partial(moved, way=way, target=folder / f"moved{number}"), first)
        print(f"{way}: {'as before' if done.code == 0 else done.output}", flush=True)
        wrong += done.code != 0
    done = process(set_back, first)
    print(f"frozen with the clock set back: {'the last one' if done.code == 0 else done.output}", flush=True)
    return wrong + int(done.code != 0)


# --- the whole ------------------------------------------------------------------------------------------------------


def different(found: dict[str, str], wanted: dict[str, str]) -> list[str]:
    """Names that two states do not share."""
    return sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))


def mounts() -> bool:
    """Whether this process may mount file systems."""
    with tempfile.TemporaryDirectory() as folder:
        tried = subprocess.run(["mount", "-t", "tmpfs", "none", folder], capture_output=True, check=False)
        if tried.returncode == 0:
            subprocess.run(["umount", folder], check=True)
        return tried.returncode == 0


@contextlib.contextmanager
def disk(folder: Path, size: int) -> Iterator[Path]:
    """A file system of some bytes."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def resize(folder: Path, size: int) -> None:
    """Change the size of a file system."""
    subprocess.run(["mount", "-o", f"remount,size={size}", folder], check=True)


def main() -> None:
    """Try everything, print the table and what went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="of the usual number of faults")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--only", choices=ACTIONS, nargs="*", default=list(ACTIONS))
    parser.add_argument("--no-files", action="store_true", help="leave damaged files and moved studies out")
    options = parser.parse_args()
    print(f"seed {options.seed}")
    for module in MODULES:
        importlib.import_module(module)
    found = {}
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        for name in options.only:
            found[name] = Trial(name, Path(folder) / name.replace(" ", "-"), options.seed).every(options.share)
            for line in found[name].wrong:
                print(line, flush=True)
            print(f"{name}: {found[name].tried.total()} faults, {len(found[name].wrong)} wrong", flush=True)
        wrong = 0 if options.no_files else files_and_moves(Path(folder), options.seed, round(100 * options.share))
    tried = ("kill -9", "Ctrl-C", "disk full", "read-only", "2 at once", "10 at once")
    print(f"\n| action | {' | '.join(tried)} | ends otherwise than undisturbed |")
    print("| --- |" + " ---: |" * (len(tried) + 1))
    for name, figures in found.items():
        print(f"| {name} | {' | '.join(str(figures.tried[fault]) for fault in tried)} | {len(figures.wrong)} |")
    sums = [sum(figures.tried[fault] for figures in found.values()) for fault in tried]
    failed = sum(len(figures.wrong) for figures in found.values())
    print(f"| all | {' | '.join(map(str, sums))} | {failed} |")
    sys.exit(1 if failed or wrong else 0)


if __name__ == "__main__":
    main()
