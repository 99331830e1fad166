"""Fuzzing of everything that people write: a result, or one sentence; never a traceback, never a changed study.

`make fuzz` runs every target with many inputs and prints the table of docs/fuzzing.md; tests/test_fuzz.py runs a few. A
target is a strategy for inputs and a function that takes a folder and an input, and looks at it in every way there is.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shutil
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings

from fuzz_inputs import one_sentence
from fuzz_studies import STUDIES
from fuzz_tables import TABLES
from mixlaw.errors import InputError

#: Environment in which inputs are tried: no hub, S3 at a port that refuses, no repository above.
ALONE = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "GIT_CEILING_DIRECTORIES": tempfile.gettempdir(),
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    "AWS_MAX_ATTEMPTS": "1",
    "AWS_ACCESS_KEY_ID": "nobody",
    "AWS_SECRET_ACCESS_KEY": "nobody",
}

MEMORY = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None  # folders of inputs need no disk

TARGETS = STUDIES | TABLES


@dataclass
class Figures:
    """How many inputs gave a result, and how many were refused."""

    counts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


def fuzz(name: str, examples: int, *, fixed: bool = True) -> Figures:
    """Run one target; what is neither a result nor a refusal raises, with the input.

    Args:
        name: of the target.
        examples: inputs to try.
        fixed: take the same inputs every time.
    """
    target, figures, began = TARGETS[name], Figures(), time.monotonic()

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=fixed,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate, Phase.shrink] if fixed else [Phase.generate, Phase.shrink],
    )
    @given(target.inputs())
    def look(given_input: Any) -> None:
        folder = Path(tempfile.mkdtemp(prefix="mixlaw-fuzz-", dir=MEMORY))
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                target.look(folder, given_input)
            figures.counts["result"] += 1
        except InputError as error:
            one_sentence(error)
            figures.counts["refused"] += 1
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    look()
    figures.seconds = time.monotonic() - began
    return figures


def main() -> None:
    """Print the table of docs/fuzzing.md."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--inputs", type=int, default=110_000, help="in all")
    parser.add_argument("--only", action="append", choices=list(TARGETS), help="targets, all if not given")
    chosen = parser.parse_args()
    os.environ |= ALONE
    print("| what is fuzzed | inputs | a result | one sentence | anything else |\n| --- | ---: | ---: | ---: | ---: |")
    total, shares = Counter[str](), sum(target.share for target in TARGETS.values())
    for name in chosen.only or TARGETS:
        counts = fuzz(name, round(chosen.inputs * TARGETS[name].share / shares), fixed=False).counts
        total += counts
        print(f"| {name} | {counts.total():,} | {counts['result']:,} | {counts['refused']:,} | 0 |", flush=True)
    print(f"| all | {total.total():,} | {total['result']:,} | {total['refused']:,} | 0 |")


if __name__ == "__main__":
    main()
