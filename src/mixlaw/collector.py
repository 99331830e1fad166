"""Python's garbage collector, told that libraries stay: it would look through their million objects again and again."""

from __future__ import annotations

import atexit
import gc

#: Objects made and not freed before it looks at the newest, and rounds until it looks at older ones.
SELDOM, USUAL = (50_000, 20, 50), gc.get_threshold()


def collect_seldom() -> None:
    """For a process that imports much and ends soon: look around seldom, and not at all when it ends.

    To import torch and transformers and to end takes a quarter less time then: `benchmarks/startup.py`.
    """
    gc.set_threshold(*SELDOM)
    atexit.register(gc.freeze)


def collect_as_usual() -> None:
    """After the imports of a process that goes on for long: Python's own pace, without what is there by now."""
    gc.freeze()
    gc.set_threshold(*USUAL)
