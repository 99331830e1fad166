"""An action, begun anew in a copy of its study, come to harm, looked at, repeated and compared."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cache, partial
from pathlib import Path

from fault_actions import ACTIONS, check_left, different, state
from fault_processes import Ended, at_operation, call, kill_one, send_all, start, wait
from mixlaw.files import to_disk

FAULTS = ("kill -9", "power off", "Ctrl-C", "disk full", "read-only", "2 at once", "10 at once")
DISK = 64_000_000  # bytes
#: A file system that writes nothing before it is asked to, or only after minutes.
LAZY = ("-o", "loop,noauto_da_alloc,commit=300")


class Trial:
    """An action and its undisturbed end.

    Args:
        name: of the action.
        folder: for its copies.
        seed: every fault draws from this, its own name and its number.
        kill_a_node: kills a node of the cluster that the action uses, if it uses one.
    """

    def __init__(self, name: str, folder: Path, seed: int, kill_a_node: Callable[[int], None] | None = None) -> None:
        self.name, self.action, self.folder, self.seed = name, ACTIONS[name], folder, seed
        self.kill_a_node, self.rng = kill_a_node, random.Random()
        self.first = folder / "first"
        self.first.mkdir(parents=True)
        begun = call(self.action.begin, self.first)
        assert begun.code == 0, begun.output
        self.before = state(self.first)
        done, counter = self._copy(), folder / "operations"
        undisturbed = call(self.action.act, done, lambda: at_operation(0, 0, counter))
        assert undisturbed.code == 0, undisturbed.output
        self.wanted, self.seconds, self.operations = state(done), undisturbed.seconds, int(counter.read_text() or 0)
        shutil.rmtree(done)

    def suffer(self, fault: str, number: int) -> str:
        """One fault, and what went wrong; empty if nothing did."""
        self.rng.seed(f"{self.seed} {self.name} {fault} {number}")
        acts: dict[str, Callable[[], None]] = {
            "kill -9": self._kill,
            "power off": self._power_off,
            "Ctrl-C": self._interrupt,
            "disk full": self._fill_disk,
            "read-only": self._read_only,
            "2 at once": partial(self._at_once, 2),
            "10 at once": partial(self._at_once, 10),
        }
        try:
            acts[fault]()
        except Exception as error:
            return f"{type(error).__name__}: {str(error)[-1500:]}"
        return ""

    def _copy(self) -> Path:
        """The study as it was, in the folder that all copies have in turn."""
        shutil.rmtree(self.folder / "copy", ignore_errors=True)
        return Path(shutil.copytree(self.first, self.folder / "copy"))

    def _check(self, folder: Path) -> None:
        """Look at what is left, do it once more, and compare."""
        left = call(partial(check_left, before=self.before), folder)
        assert left.code == 0, left.output
        again = call(self.action.act, folder)
        assert again.code == 0, f"the repeat ended with {again.code}: {again.output}"
        assert (now := state(folder)) == self.wanted, f"differ: {different(now, self.wanted)}"

    def _send(self, sent: int, folder: Path, one: bool = False) -> Ended:
        """Begin it, and send a signal: before an operation on files, or at any time, then perhaps to one process."""
        if not one and self.operations and self.rng.random() < 0.6:
            number = self.rng.randint(1, self.operations)
            return call(self.action.act, folder, lambda: at_operation(number, sent))
        one_of_them = partial(kill_one, self.rng) if self.kill_a_node is None else self.kill_a_node
        harm = one_of_them if one else partial(send_all, sent)
        return wait(start(self.action.act, folder), folder, self.rng.uniform(0, self.seconds), harm)

    def _kill(self) -> None:
        folder, one = self._copy(), self.action.starts_others and self.rng.random() < 0.5
        gone = self._send(signal.SIGKILL, folder, one)
        if one and gone.code != -signal.SIGKILL:  # a worker was killed, and replaced
            assert gone.code == 0, f"ended with {gone.code}: {gone.output}"
            assert (now := state(folder)) == self.wanted, f"differ: {different(now, self.wanted)}"
        self._check(folder)

    def _power_off(self) -> None:
        """Kill it, or let it end; what the system has not written by then never reaches the disk."""
        image, ended = self.folder / "image", self.rng.random() < 0.3
        with lazy_disk(self.folder / "disk", image) as where:
            folder = Path(shutil.copytree(self.first, where / "copy"))
            subprocess.run(["sync", "-f", where], check=True)
            if ended:
                assert (gone := call(self.action.act, folder)).code == 0, gone.output
            else:
                self._send(signal.SIGKILL, folder)
            if self.rng.random() < 0.5:  # names reach the disk before contents, as another program asks for its own
                (where / "other").touch()
                to_disk(where / "other")
            shutil.copyfile(image, found := self.folder / "found")
        with mounted(found, self.folder / "disk", LAZY) as where:
            shutil.rmtree(self.folder / "copy", ignore_errors=True)
            folder = Path(shutil.copytree(where / "copy", self.folder / "copy"))
        if ended:
            assert (now := state(folder)) == self.wanted, f"it had ended; differ: {different(now, self.wanted)}"
        self._check(folder)

    def _interrupt(self) -> None:
        folder = self._copy()
        gone = self._send(signal.SIGINT, folder)
        assert gone.code in (0, 1, 130, -2), f"ended with {gone.code}: {gone.output}"
        own = gone.output.partition("Exception ignored in")[0]  # pydantic swallows one while it imports
        assert "Traceback" not in own, gone.output
        self._check(folder)

    def _refused(self, folder: Path) -> None:
        """Do it where it cannot be done: one sentence, exit code 2, or 1 where a worker failed."""
        gone = call(self.action.act, folder)
        assert gone.code in (0, 1, 2), f"ended with {gone.code}: {gone.output}"
        assert "Traceback" not in gone.output, gone.output

    def _fill_disk(self) -> None:
        with disk(self.folder / "disk") as where:
            shutil.copytree(self.first, where / "copy")
            room = self.rng.choice([0, 4096, 65536, self.rng.randint(0, 600_000), self.rng.randint(0, 3_000_000)])
            now = os.statvfs(where)
            _remount(where, f"size={(now.f_blocks - now.f_bfree) * now.f_frsize + room}")
            self._refused(where / "copy")
            _remount(where, f"size={DISK}")
            shutil.rmtree(self.folder / "copy", ignore_errors=True)
            self._check(Path(shutil.copytree(where / "copy", self.folder / "copy")))

    def _read_only(self) -> None:
        with disk(self.folder / "disk") as where:
            shutil.copytree(self.first, where / "copy")
            _remount(where, "ro")
            self._refused(where / "copy")
            assert state(where / "copy") == self.before

    def _at_once(self, count: int) -> None:
        """Several processes; who is refused is told so."""
        folder = self._copy()
        pids = [start(self.action.act, folder) for _ in range(count)]
        ends = [wait(pid, folder) for pid in pids]
        assert all(end.code in (0, 2) for end in ends), "\n".join(end.output for end in ends if end.code)
        self._check(folder)


def faults_of(name: str, share: float) -> list[tuple[str, int]]:
    """Faults of an action, numbered: as often as its figures say, times a share; some on machines that allow mounts."""
    action = ACTIONS[name]
    kills, others = max(1, round(action.kills * share)), max(1, round(action.kills * share / 4))
    counts = {"kill -9": kills}
    if mounts() and name != "run, Ray":
        counts["power off"] = others
    if action.is_command:
        counts |= {"Ctrl-C": others, **({"disk full": others, "read-only": 1} if mounts() else {})}
    if not name.startswith("train"):  # `run` keeps workers apart by a lock
        counts |= {"2 at once": 1, "10 at once": int(not action.starts_others)}
    return [(fault, number) for fault in FAULTS for number in range(counts.get(fault, 0))]


@cache
def mounts() -> bool:
    """Whether this process may mount file systems."""
    with tempfile.TemporaryDirectory() as folder:
        tried = subprocess.run(["mount", "-t", "tmpfs", "none", folder], capture_output=True, check=False)
        if tried.returncode == 0:
            subprocess.run(["umount", folder], check=True)
        return tried.returncode == 0


@contextlib.contextmanager
def mounted(what: str | Path, folder: Path, words: Sequence[str]) -> Iterator[Path]:
    """A file system in a folder."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", *words, what, folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def disk(folder: Path) -> AbstractContextManager[Path]:
    """A small file system in memory."""
    return mounted("none", folder, ["-t", "tmpfs", "-o", f"size={DISK}"])


def lazy_disk(folder: Path, image: Path) -> AbstractContextManager[Path]:
    """A small ext4, whose blocks are in a file: what this holds is what would be left if the power failed."""
    image.unlink(missing_ok=True)
    with image.open("wb") as file:
        file.truncate(DISK)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    return mounted(image, folder, LAZY)


def _remount(folder: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", folder], check=True)
