"""Bubblewrap around a Python of its own: a program written by a model can see and do next to nothing.

Namespaces of its own for users, processes, network, host name and messages; a root folder that holds Python, the
system's libraries and the program, all read-only, and no place to write; no capabilities; and a filter on system calls,
as limits on processes and memory that are set from outside do not hold for root: no second process or thread, no
sockets, no memory that the limit on the address space does not count.
Bubblewrap: https://github.com/containers/bubblewrap
"""

from __future__ import annotations

import os
import platform
import shutil
import struct
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from mixlaw.errors import InputError

HOME = "/python"  # folder of the interpreter inside
WORK = "/program"  # folder of the program inside, and the working folder
LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")

#: System calls that are refused, by architecture: number in the kernel's table (asm/unistd_64.h, asm-generic/unistd.h).
_PROCESSES = {"x86_64": (56, 57, 58, 435), "aarch64": (220, 435)}  # clone, fork, vfork, clone3
_SOCKETS = {"x86_64": (41, 53), "aarch64": (198, 199)}  # socket, socketpair
# shmget, semget, msgget, mq_open, memfd_create, memfd_secret
_MEMORY = {"x86_64": (29, 64, 68, 240, 319, 447), "aarch64": (194, 190, 186, 180, 279, 447)}
# ptrace, process_vm_readv and _writev, mount, umount2, unshare, setns, bpf, perf_event_open, userfaultfd,
# io_uring_setup, add_key, request_key, keyctl; pidfd_send_signal, pidfd_open and pidfd_getfd, which takes files of
# bubblewrap's own process inside; modify_ldt
_KERNEL = {
    "x86_64": (101, 310, 311, 165, 166, 272, 308, 321, 298, 323, 425, 248, 249, 250, 424, 434, 438, 154),
    "aarch64": (117, 270, 271, 40, 39, 97, 268, 280, 241, 282, 425, 217, 218, 219, 424, 434, 438),
}
_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # linux/audit.h
_X32 = 0x40000000  # the second table of x86_64 begins here

_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # linux/bpf_common.h
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050001, 0x80000000  # linux/seccomp.h; refused with EPERM


def _filter(machine: str) -> bytes:
    """A seccomp program: another architecture kills, a call of the lists above is refused, all else is let through."""
    refused = [number for table in (_PROCESSES, _SOCKETS, _MEMORY, _KERNEL) for number in table[machine]]
    tests = [(_AT_LEAST, _X32), *((_EQUAL, number) for number in refused)]
    program = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, _AUDIT[machine]), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    program += [(kind, len(tests) - place, 0, value) for place, (kind, value) in enumerate(tests)]
    program += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _REFUSE)]
    return b"".join(struct.pack("=HBBI", *line) for line in program)


def _command(folder: Path, fd: int, arguments: list[str]) -> list[str]:
    executable, prefix = os.path.realpath(sys.executable), Path(sys.base_prefix)
    limits = (
        "--unshare-user --unshare-pid --unshare-net --unshare-ipc --unshare-uts --unshare-cgroup-try --uid 65534 "
        f"--gid 65534 --cap-drop ALL --hostname sandbox --die-with-parent --new-session --seccomp {fd}"
    )
    command = [_bwrap(), *limits.split(), "--ro-bind", executable, f"{HOME}/bin/python"]
    for path, inside in [
        *((path, path) for path in LIBRARIES),
        *((prefix / n, f"{HOME}/{n}") for n in ("lib", "lib64")),
    ]:
        command += ["--ro-bind-try", str(path), inside]
    for path in DEVICES:
        command += ["--dev-bind", path, path]
    command += ["--setenv", "LD_LIBRARY_PATH", f"{HOME}/lib:{HOME}/lib64"]
    command += ["--ro-bind", str(folder), WORK, "--chdir", WORK, "--remount-ro", "/"]
    return [*command, "--", f"{HOME}/bin/python", "-I", "-S", *arguments]


def start(
    folder: Path, arguments: list[str], *, stdin: int, stdout: int, stderr: int, pass_fds: tuple[int, ...] = ()
) -> subprocess.Popen[bytes]:
    """Start Python inside, with the files of a folder in its working folder; killing it kills all that it started.

    Args:
        folder: its files can be read inside; of this machine's other files only Python itself can.
        arguments: of the interpreter, such as the program's name.
        stdin, stdout, stderr, pass_fds: file descriptors that go along; nothing else does, nor does the environment.
    """
    read, write = os.pipe()
    try:
        os.write(write, _filter(platform.machine()))
        os.close(write)
        return subprocess.Popen(
            _command(folder, read, arguments), env={}, stdin=stdin, stdout=stdout, stderr=stderr,
            pass_fds=(read, *pass_fds), start_new_session=True,
        )  # fmt: skip
    finally:
        os.close(read)


def _bwrap() -> str:
    path = shutil.which("bwrap")
    if path is None:
        raise InputError(
            "programs written by models run only in bubblewrap, which is not installed here: "
            "`apt-get install bubblewrap` (Debian, Ubuntu) or `dnf install bubblewrap` (Fedora)"
        )
    return path


@cache
def require() -> None:
    """Check, once, that bubblewrap works here.

    Raises:
        InputError: it is not installed, or the system does not let it make namespaces.
    """
    bwrap, machine = _bwrap(), platform.machine()
    if machine not in _AUDIT:
        raise InputError(f"programs written by models run on {' or '.join(_AUDIT)} only, this machine is {machine}")
    null = subprocess.DEVNULL
    with tempfile.TemporaryDirectory(prefix="mixlaw-") as folder:
        pipe = subprocess.PIPE
        process = start(Path(folder), ["-c", "print(6 * 7)"], stdin=null, stdout=pipe, stderr=pipe)
        out, err = process.communicate()
    if out != b"42\n":
        lines = err.decode(errors="replace").strip().splitlines()
        raise InputError(
            f"programs written by models run only in bubblewrap, and {bwrap} does not work here: "
            f"{lines[-1] if lines else f'exit code {process.returncode}'}; allow user namespaces "
            "(kernel.unprivileged_userns_clone, AppArmor; in a container, its seccomp profile), or evaluate elsewhere"
        )
