"""A worker process from outside: how it is started, spoken to and stopped; over several devices there are many."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mixlaw.runner.plan.setup import Setup

QUIET = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}


class WorkerProcess:
    """A worker in a session of its own, so that Ctrl-C reaches its driver alone.

    Args:
        setup: how to train.
        runs: folder that the worker reads checkpoints from and writes to.
        log: file that its stderr is added to.
        devices: how many it trains on; more than one are as many processes under torchrun.
        environment: variables on top of those of this process.
        launch: command that takes `-m MODULE` and starts a worker or several, in place of Python or torchrun.
        pass_fds: handles that it inherits.
    """

    def __init__(
        self,
        setup: Setup,
        runs: Path,
        log: Path,
        devices: int = 1,
        environment: Mapping[str, str] | None = None,
        launch: Sequence[str] = (),
        pass_fds: Sequence[int] = (),
    ) -> None:
        start = launch or _start(devices)
        self.alone = len(start) == 1
        with log.open("a", encoding="utf-8") as stderr:
            self.process = subprocess.Popen(
                [*start, "-m", "mixlaw.runner.execute.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env={**os.environ, **QUIET, **(environment or {})},
                start_new_session=True,
                pass_fds=pass_fds,
            )
        self.send({"setup": setup.as_json(), "runs": str(runs)})

    def send(self, message: Mapping[str, Any]) -> None:
        """Write one line to the worker; one that has just died is noticed by its closed stdout."""
        assert self.process.stdin is not None  # for the type checker: PIPE was asked for
        with suppress(BrokenPipeError, ValueError):  # ValueError: it was told to stop
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()

    def events(self) -> Iterator[dict[str, Any]]:
        """What the worker tells, until it ends."""
        assert self.process.stdout is not None  # for the type checker: PIPE was asked for
        for line in self.process.stdout:
            with suppress(ValueError):  # half a line: it died over it
                yield json.loads(line)

    def stop(self) -> None:
        """Let the worker save a checkpoint and end; does not wait for it.

        The end of its input says so. A signal is quicker with one that is still starting, which dies of it with nothing
        to lose; torchrun would kill its processes some seconds after a signal, whether they have saved or not.
        """
        if self.alone and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        with suppress(BrokenPipeError):
            if self.process.stdin is not None:
                self.process.stdin.close()

    def wait(self) -> int:
        """Wait for the end of the worker; its exit code."""
        return self.process.wait()


def _start(devices: int) -> list[str]:
    if devices == 1:
        return [sys.executable]
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={devices}"]
    return [sys.executable, *torchrun]
