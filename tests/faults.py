"""Faults of a machine, in real processes: killed, interrupted, disk full, read-only, bytes flipped, tails cut, copied.

`make faults` runs them all and prints the tables of docs/faults.md; tests/test_faults.py runs a few. An action is what
a user does to a study. It is done undisturbed once. Then it is begun again and again in a copy, each time in a process
that comes to harm; what is left is read; and it is repeated, which must end as if nothing had happened.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from fault_actions import ACTIONS, RAY_ADDRESS
from fault_files import try_files
from fault_trials import FAULTS, Trial, faults_of

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
MEMORY = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None
Tried = dict[tuple[str, str, int], str]  # action, fault, number -> what went wrong, or nothing


@contextmanager
def ray_nodes() -> Iterator[Callable[[int], None]]:
    """Three nodes, whose address is in the environment; yields what kills one of them, which is replaced."""
    script = Path(__file__).with_name("ray_nodes.py")
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, script], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL) as nodes:
        assert nodes.stdin is not None
        assert nodes.stdout is not None
        lines, answers = nodes.stdin, nodes.stdout
        os.environ[RAY_ADDRESS] = answers.readline().decode().strip()

        def kill(_: int) -> None:
            lines.write(b"\n")
            lines.flush()
            assert answers.readline(), "the nodes of the harness have ended"

        yield kill
        lines.close()


def read_journal(path: Path | None, seed: int) -> Tried:
    """What was tried before with this seed."""
    lines = path.read_text().splitlines() if path is not None and path.exists() else []
    entries = [json.loads(line) for line in lines]
    return {(e["action"], e["fault"], e["number"]): e["wrong"] for e in entries if e["seed"] == seed}


def try_action(name: str, folder: Path, seed: int, share: float, tried: Tried, journal: Path | None) -> None:
    """All faults of an action that were not tried before; each is noted when it is over."""
    left = [fault for fault in faults_of(name, share) if (name, *fault) not in tried]
    if not left:
        return
    with ray_nodes() if name == "run, Ray" else nullcontext() as kill_a_node:
        trial = Trial(name, folder, seed, kill_a_node)
        for fault, number in left:
            begun = time.monotonic()
            wrong = tried[name, fault, number] = trial.suffer(fault, number)
            took = time.monotonic() - begun
            print(f"{name}, {fault} {number}: {wrong or 'as undisturbed'} ({took:.0f} s)", flush=True)
            entry: dict[str, Any] = {"seed": seed, "action": name, "fault": fault, "number": number, "wrong": wrong}
            if journal is not None:
                with journal.open("a") as file:
                    file.write(json.dumps(entry) + "\n")


def print_table(names: list[str], tried: Tried) -> int:
    """Print how often each fault was tried, and how often the end was another; return that."""
    counts = Counter((name, fault) for name, fault, _ in tried)
    wrong = Counter(name for (name, _, _), what in tried.items() if what)
    print(f"\n| action | {' | '.join(FAULTS)} | ends otherwise than undisturbed |")
    print("| --- |" + " ---: |" * (len(FAULTS) + 1))
    for name in names:
        print(f"| {name} | {' | '.join(str(counts[name, fault]) for fault in FAULTS)} | {wrong[name]} |")
    sums = [sum(counts[name, fault] for name in names) for fault in FAULTS]
    failed = sum(wrong[name] for name in names)
    print(f"| all | {' | '.join(map(str, sums))} | {failed} |")
    return failed


def main() -> None:
    """Try everything, print the tables and what went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="of the usual number of faults")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--only", choices=ACTIONS, nargs="*", default=list(ACTIONS), help="these actions")
    parser.add_argument("--no-files", action="store_true", help="leave damaged files and moved studies out")
    parser.add_argument("--journal", type=Path, help="file of what was tried; a repeat resumes from there")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    for module in MODULES:
        importlib.import_module(module)
    tried = read_journal(options.journal, options.seed)
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        for name in options.only:
            where = Path(folder) / name.replace(" ", "-").replace(",", "")
            try_action(name, where, options.seed, options.share, tried, options.journal)
        wrong = 0 if options.no_files else try_files(Path(folder), options.seed, max(1, round(100 * options.share)))
    sys.exit(1 if print_table(options.only, tried) + wrong else 0)


if __name__ == "__main__":
    main()
