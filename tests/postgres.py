"""A PostgreSQL server of one's own, where Debian's packages have it."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

POSTGRES = Path("/usr/lib/postgresql")  # where Debian puts it, a folder for each version


def programs() -> Path | None:
    """The folder of initdb and pg_ctl; as root on a system with Debian's packages, they are installed first."""

    def installed() -> list[Path]:
        return sorted(POSTGRES.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))

    if not installed() and os.geteuid() == 0 and shutil.which("apt-get"):
        settings = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for words in (["update"], ["install", "-y", "postgresql"]):
            subprocess.run(["apt-get", *words], capture_output=True, timeout=300, env=settings, check=False)
    return installed()[-1].parent if installed() else None


@contextmanager
def server(folder_of_programs: Path) -> Iterator[str]:
    """URL of a server with a new cluster in a temporary folder, on a unix socket without a port."""
    user = pwd.getpwnam("postgres") if os.geteuid() == 0 else None  # the server refuses to run as root
    folder = Path(tempfile.mkdtemp(prefix="mixlaw-pg-"))
    if user:
        os.chown(folder, user.pw_uid, user.pw_gid)

    def run(program: str, *words: str) -> None:
        command = [*(["runuser", "-u", "postgres", "--"] if user else []), str(folder_of_programs / program), *words]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, timeout=120)

    data = str(folder / "data")
    try:
        run("initdb", "-D", data, "-A", "trust", "-U", "mixlaw", "-N")
        options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
        run("pg_ctl", "-D", data, "-w", "-o", options, "-l", str(folder / "log"), "start")
        yield f"postgresql+psycopg://mixlaw@/postgres?host={folder}"
        run("pg_ctl", "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
