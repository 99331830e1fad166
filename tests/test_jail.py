"""Programs that mean harm, each really run: all fail, and the machine is as it was before."""

from __future__ import annotations

import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from mixlaw.errors import InputError
from mixlaw.runner.evaluate.sandbox import jail
from mixlaw.runner.evaluate.sandbox.run import OUTPUT, Status, run_untrusted


def unable() -> str:
    """Why bubblewrap cannot be used here; nothing where it can."""
    try:
        jail.require()
    except InputError as error:
        return str(error)
    return ""


needs_bubblewrap = pytest.mark.skipif(bool(unable()), reason=unable() or "works")


def inside(folder: Path) -> list[str]:
    """Processes of this machine whose command, or whose mounts, name a folder: bubblewrap and all that runs in it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            text = (process / "cmdline").read_text() + (process / "mountinfo").read_text()
        except OSError:
            continue
        if str(folder) in text and int(process.name) != os.getpid():
            found.append(text[:300])
    return found


def gone(folder: Path) -> bool:
    for _ in range(3000):  # a minute, where a machine is very busy
        if not inside(folder):
            return True
        time.sleep(0.02)
    return False


SYSCALL = "import ctypes\ncall = ctypes.CDLL(None, use_errno=True)\n"
MACHINE_CODE = """
import ctypes, mmap, sys
print("begins", file=sys.stderr, flush=True)
def run(code):
    memory = mmap.mmap(-1, 4096, prot=7)
    memory.write(code)
    return ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))()
"""
#: What is tried, and what of it may be seen in what the program leaves on stderr.
HARM = {
    "fork bomb": ("import os\nwhile True: os.fork()", "Operation not permitted"),
    "fork bomb past Python": (SYSCALL + "assert call.fork() >= 0 or call.vfork() >= 0", "AssertionError"),
    "thread bomb": (
        "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(60,)).start()",
        "can't start new thread",
    ),
    "daemon": ("import subprocess\nsubprocess.Popen(['/python/bin/python', '-c', 'while True: pass'])", "permitted"),
    "shell": ("import os\nassert os.system('true') == 0", "AssertionError"),
    "endless loop": ("while True: pass", ""),
    "endless sleep": ("import time\ntime.sleep(60)", ""),
    "sleep that ignores signals": (
        "import signal, time\nfor n in (1, 2, 13, 15, 24): signal.signal(n, signal.SIG_IGN)\nwhile True: pass",
        "",
    ),
    "memory bomb": ("x = []\nwhile True: x.append(bytearray(2**20))", "MemoryError"),
    "shared memory bomb": ("import mmap\nx = [mmap.mmap(-1, 2**26) for _ in range(64)]", "Cannot allocate memory"),
    "memory in files": ("import os\nos.memfd_create('x')", "Operation not permitted"),
    "memory in segments": (SYSCALL + "assert call.shmget(0, 2**30, 0o600 | 0o1000) >= 0", "AssertionError"),
    "raised limits": (
        "import resource\nresource.setrlimit(resource.RLIMIT_AS, (2**40, 2**40))",
        "not allowed to raise maximum limit",
    ),
    "file bomb": ("while True: open('x', 'ab').write(bytes(2**20))", "Read-only file system"),
    "file bomb in a temporary folder": ("import tempfile\ntempfile.mkstemp()", "No usable temporary directory"),
    "file bomb of names": ("import os\nfor n in range(10**6): os.mkdir(f'/{n}')", "Read-only file system"),
    "output bomb": ("while True: print('x' * 2**20)", "File too large"),
    "program overwritten": ("open('/program/program.py', 'w')", "Read-only file system"),
    "interpreter overwritten": ("import os\nopen(os.__file__, 'w')", "Read-only file system"),
    "socket": ("import socket\nsocket.socket()", "Operation not permitted"),
    "local socket": ("import socket\nsocket.socketpair()", "Operation not permitted"),
    "download": ("import urllib.request\nurllib.request.urlopen('http://127.0.0.1:9')", "Operation not permitted"),
    "home folder": ("import pathlib\nlist(pathlib.Path('{home}').iterdir())", "No such file"),
    "passwords": ("open('/etc/passwd')", "No such file"),
    "study": ("open('{secret}')", "No such file"),
    "other processes": ("import os\nos.listdir('/proc')", "No such file"),
    "environment": ("import os\nos.environ['MIXLAW_SECRET']", "KeyError"),
    "disk": ("import os\nos.mknod('disk', 0o60600, os.makedev(8, 0))", "Read-only file system"),
    "parent killed": ("import os, signal\nos.kill({parent}, signal.SIGKILL)", "No such process"),
    "everybody killed": ("import os, signal\nos.kill(-1, signal.SIGKILL)", "No such process"),
    "mount": (SYSCALL + "assert call.mount(b'none', b'/program', b'tmpfs', 0, None) == 0", "AssertionError"),
    "new namespaces": (SYSCALL + "assert call.unshare(0x10000000) == 0", "AssertionError"),
    "another table of system calls": (SYSCALL + "assert call.syscall(0x40000000 + 57) >= 0", "AssertionError"),
    "parent's environment": ("import os\nopen(f'/proc/{os.getppid()}/environ')", "No such file"),
    "sockets of every family": (
        SYSCALL + "assert any(call.socket(family, 2, 0) >= 0 for family in (1, 2, 10, 16, 17, 38, 40))",
        "AssertionError",
    ),
    "debugger": (SYSCALL + "import os\nassert call.ptrace(16, os.getppid(), 0, 0) == 0", "AssertionError"),
    "files of the parent": (SYSCALL + "assert call.syscall(434, 1, 0) >= 0", "AssertionError"),
    "fork in machine code": (MACHINE_CODE + "assert run(b'\\xb8\\x39\\0\\0\\0\\x0f\\x05\\xc3') == 0", "begins"),
    "fork of 32 bits": (MACHINE_CODE + "assert run(b'\\xb8\\x02\\0\\0\\0\\xcd\\x80\\xc3') == 0", "begins"),
    "link out of its folder": ("import os\nos.symlink('/etc/passwd', 'x')", "Read-only file system"),
    "errors without end": ("import sys\nwhile True: print('x' * 2**20, file=sys.stderr)", "xxx"),
    "a file with a hole": ("import os\nos.lseek(1, 2**40, 0)\nos.write(1, b'x')", "File too large"),
    "doors of the kernel": (
        SYSCALL + "permitted = [n for n in {calls} if call.syscall(n, 0, 0, 0, 0, 0) >= 0 or ctypes.get_errno() != 1]\n"
        "assert permitted",
        "AssertionError",
    ),
}


@needs_bubblewrap
@pytest.mark.parametrize("name", HARM)
def test_harm_ends_as_a_failed_program_with_the_machine_untouched(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("MIXLAW_SECRET", "1")
    secret = tmp_path / "secret"
    secret.write_text("study")
    code, said = HARM[name]
    code = code.replace("{home}", str(Path.home())).replace("{secret}", str(secret))
    code = code.replace("{calls}", str(jail._KERNEL.get(platform.machine())))
    outcome = run_untrusted(code.replace("{parent}", str(os.getpid())), seconds=60 if said else 1, memory=256 * 2**20)
    assert outcome.status is (Status.FAILED if said else Status.TIMEOUT), outcome
    assert said in outcome.stderr
    assert len(outcome.stdout) <= OUTPUT
    assert gone(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]
    assert secret.read_text() == "study"


#: Tries every way out, one after another, and says which were open.
ESCAPE = """
import ctypes, os, pathlib, socket, subprocess, urllib.request
call = ctypes.CDLL(None, use_errno=True)

def connect(): socket.create_connection(("127.0.0.1", {port}), 1)
def fetch(): urllib.request.urlopen("http://127.0.0.1:{port}", timeout=1)
def bare():
    if call.socket(2, 1, 0) < 0: raise OSError(ctypes.get_errno())
def start(): subprocess.Popen(["/python/bin/python", "-c", "import time; time.sleep(60)"])
def split(): os.fork()

ways = [connect, fetch, bare, start, split]
for place in {places}:
    ways.append(lambda place=place: pathlib.Path(place, "mixlaw-was-here").write_text("x"))
    ways.append(lambda place=place: list(pathlib.Path(place).iterdir()) or os.stat(place + "/secret"))
opened = []
for number, way in enumerate(ways):
    try:
        way()
        opened.append(number)
    except Exception:
        pass
print(opened)
"""


@needs_bubblewrap
def test_no_file_no_process_and_no_connection_reaches_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home := tmp_path / "home").mkdir()
    (home / "secret").write_text("mine")
    monkeypatch.setenv("HOME", str(home))
    before = {entry.name for entry in os.scandir(Path(__file__).parents[1])}
    with socket.create_server(("127.0.0.1", 0)) as server:
        places = [str(home), str(Path.home()), str(Path(__file__).parents[1]), "/tmp", "/var/tmp", "/dev/shm"]
        code = ESCAPE.format(port=server.getsockname()[1], places=places)
        outcome = run_untrusted(code, seconds=10)
        server.settimeout(0.2)
        with pytest.raises(TimeoutError):
            server.accept()
        socket.create_connection(server.getsockname()).close()  # from out here it is open
        server.accept()[0].close()
    assert (outcome.status, outcome.stdout) == (Status.DONE, "[]\n"), outcome
    assert not [place for place in places if Path(place, "mixlaw-was-here").exists()]
    assert [path.name for path in home.iterdir()] == ["secret"]
    assert {entry.name for entry in os.scandir(Path(__file__).parents[1])} >= before
    assert gone(tmp_path)


@needs_bubblewrap
def test_an_honest_program_runs_with_its_files_and_the_standard_library() -> None:
    code = "import decimal, json, re, sqlite3, zlib, random\nprint(open('data.txt').read(), random.random() < 1)"
    outcome = run_untrusted(code, files={"data.txt": "seen"})
    assert (outcome.status, outcome.code, outcome.stdout, outcome.stderr) == (Status.DONE, 0, "seen True\n", "")


@needs_bubblewrap
def test_nothing_but_python_its_libraries_and_the_program_is_there() -> None:
    code = (
        "import os\nprint(os.listdir('/'), os.listdir('/usr'), os.listdir('/dev'), os.listdir('/program'), os.getuid())"
    )
    root, usr, dev, work, user = run_untrusted(code + "\n").stdout.replace("] ", "]|").split("|")
    assert set(eval(root)) <= {"dev", "etc", "lib", "lib64", "program", "python", "usr"}
    assert set(eval(usr)) <= {"lib", "lib64"}
    assert set(eval(dev)) == {"null", "zero", "urandom", "random"}
    assert (eval(work), int(user)) == (["program.py"], 65534)


@needs_bubblewrap
def test_a_killed_caller_takes_the_program_along(tmp_path: Path) -> None:
    code = "from mixlaw.runner.evaluate.sandbox.run import run_untrusted\nrun_untrusted('while True: pass', seconds=60)"
    caller = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(tmp_path)})
    while len(inside(tmp_path)) < 3:  # bubblewrap outside, its init and the program inside
        assert caller.poll() is None
        time.sleep(0.02)
    os.kill(caller.pid, signal.SIGKILL)
    caller.wait()
    assert gone(tmp_path)


def test_without_bubblewrap_nothing_is_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    jail.require.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(subprocess, "Popen", None)
    with pytest.raises(InputError, match=r"bubblewrap, which is not installed here: `apt-get install bubblewrap`"):
        run_untrusted("print(1)")


def test_where_bubblewrap_may_not_make_namespaces_its_reason_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A real program in its place that ends as bubblewrap does in a container without user namespaces."""
    jail.require.cache_clear()
    message = "bwrap: No permissions to create new namespace"
    (tmp_path / "bwrap").write_text(f"#!/bin/sh\necho '{message}' >&2\nexit 1\n")
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=f"{message}; allow user namespaces"):
        run_untrusted("print(1)")
