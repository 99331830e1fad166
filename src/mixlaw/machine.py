"""The machine this process runs on, as far as the process may use it: cores, memory, GPU drivers.

Linux and macOS. Containers limit a process by control groups (cgroups, versions 1 and 2) without hiding the other cores
and the rest of the memory from it, so their limits are read as well: `docker --cpus 2` on 64 cores means two.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")  # where the limits of control groups are mounted
MEMBERSHIP = Path("/proc/self/cgroup")  # a line "ID:CONTROLLERS:PATH" per hierarchy; version 2 has no controllers
#: Device files whose presence means a GPU driver is installed: NVIDIA's, a Jetson's (two), WSL's, AMD's.
GPU_DRIVERS = ("/dev/nvidiactl", "/dev/nvhost-gpu", "/dev/nvgpu", "/dev/dxg", "/dev/kfd")
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENAS = -1, -3, -8  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX of malloc.h


def cores() -> int:
    """Cores this process may use, at least one: its affinity, or all, but no more than the CPU quota of its cgroups.

    A quota that is not whole is rounded down: a worker too many would wait for the others all the time.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # macOS has none
    available = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, int(min([available, *_cpu_quotas()])))


def has_gpu_driver() -> bool:
    """Whether a GPU driver is installed; much cheaper than asking torch, which takes seconds to load."""
    return any(Path(driver).exists() for driver in GPU_DRIVERS)


def peak_memory() -> int:
    """Most bytes of memory that this process has held so far."""
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2) counts bytes on macOS and kilobytes on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def is_alive(pid: int) -> bool:
    """Whether a process exists on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def available_memory() -> int | None:
    """Bytes that processes can still take without swapping; None where the system does not say."""
    with suppress(OSError, ValueError, IndexError):
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    return None


def keep_freed_memory() -> None:
    """Let the C library of this process keep the memory that tensors free, instead of returning it after every step.

    On a CPU every tensor beyond some megabytes would be fresh pages from the system, zeroed one by one: a fifth to a
    half of the time of a step; fits and searches have such tensors too. Threads share one heap, as those of their own
    return what is larger than 32 MiB at once. Does nothing where the C library is not glibc.
    """
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "gnu_get_libc_version"):
        library.mallopt(_ARENAS, 1)
        library.mallopt(_MMAP_THRESHOLD, 2**29)
        library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def _cpu_quotas() -> Iterator[float]:
    """Cores' worth of time that each cgroup around this process may use, where it has a quota."""
    for path in _limits("cpu", "cpu.max", "cpu.cfs_quota_us"):
        if path.name == "cpu.max":  # "QUOTA PERIOD" in microseconds, or "max PERIOD"
            quota, period = [*_words(path), "", ""][:2]
            if quota.isdecimal() and period.isdecimal():
                yield int(quota) / int(period)
        elif (used := _number(path)) and (of := _number(path.with_name("cpu.cfs_period_us"))):
            yield used / of


def _limits(controller: str, version_2: str, version_1: str) -> Iterator[Path]:
    """Files with the limits of this process's cgroup and of those around it; not all of them exist."""
    for line in _lines(MEMBERSHIP):
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and controller not in controllers.split(","):
            continue
        root = CGROUPS / controllers if (CGROUPS / controllers).is_dir() else CGROUPS / controller
        home = (root if controllers else CGROUPS) / path.lstrip("/")
        # A container may see the path that its cgroup has outside: then only the mount's own folder exists.
        for folder in (home, *home.parents):
            yield folder / (version_1 if controllers else version_2)
            if folder in (root, CGROUPS):
                break


def _lines(path: Path) -> list[str]:
    with suppress(OSError):
        return path.read_text(encoding="utf-8").splitlines()
    return []


def _words(path: Path) -> list[str]:
    return " ".join(_lines(path)).split()


def _number(path: Path) -> int | None:
    """The positive number that a file holds; None for "max", -1 or a file that is not there."""
    words = _words(path)
    return int(words[0]) if words and words[0].isdecimal() else None


#: Thresholds of Python's garbage collector: rarely, and its own.
_RARE, _USUAL = (50_000, 20, 50), gc.get_threshold()


def collect_rarely() -> None:
    """Let the garbage collector alone in a process that imports much and ends soon.

    It would walk through a million objects of libraries again and again: importing torch and transformers and ending
    takes a third less time without (`benchmarks/startup.py`).
    """
    gc.set_threshold(*_RARE)
    atexit.register(gc.freeze)


def collect_as_usual() -> None:
    """Back to Python's own pace, sparing loaded modules: for a process that lives on after its imports."""
    gc.freeze()
    gc.set_threshold(*_USUAL)


def device_name() -> str:
    """What trains here: the GPU as its driver calls it, or "cpu"; without a driver torch is not asked."""
    if not has_gpu_driver():
        return "cpu"
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu"
