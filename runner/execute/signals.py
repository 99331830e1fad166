"""Ctrl-C and SIGTERM while a run is under way."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Interrupts:
    """Turns Ctrl-C, and SIGTERM, which cluster schedulers send before they take a machine back, into KeyboardInterrupt.

    Inside `deferred` the first signal waits for the end of the block; a second Ctrl-C does not. After the first signal
    SIGTERM is ignored. Only the main thread receives signals: in another one nothing changes.
    """

    def __init__(self) -> None:
        self.deferring = self.received = False
        self.before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self.before[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._receive)
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # background processes ignore it
                self.before[signal.SIGINT] = signal.signal(signal.SIGINT, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if self.received or not self.deferring:
            raise KeyboardInterrupt
        self.received = True

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Let this block end first: a worker that was started and is not noted yet would be left alone."""
        self.deferring = True
        try:
            yield
        finally:
            self.deferring = False
        if self.received:
            raise KeyboardInterrupt
