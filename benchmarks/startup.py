"""Seconds of `import mixlaw` and `mixlaw --help` as whole processes, beside a bare interpreter and `import torch`.

The last two rows are a process that imports what a worker trains with and ends: as Python does it, and as a worker.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

RUNS = 7
LIBRARIES = "import torch; from transformers import LlamaForCausalLM"
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import mixlaw": ["-c", "import mixlaw"],
    "mixlaw --help": ["-m", "mixlaw", "--help"],
    "open_study needs pydantic": ["-c", "import mixlaw; mixlaw.open_study"],
    "import torch (for comparison)": ["-c", "import torch"],
    "libraries of a worker": ["-c", LIBRARIES],
    "the same, collecting rarely": ["-c", f"from mixlaw.machine import *; collect_rarely(); {LIBRARIES}"],
}


def seconds(arguments: list[str]) -> float:
    """Wall time of one process."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    """Time every command in turn, several rounds, after one round that warms the disk cache."""
    for arguments in COMMANDS.values():
        seconds(arguments)
    rounds = [{name: seconds(arguments) for name, arguments in COMMANDS.items()} for _ in range(RUNS)]
    print(f"{'':32} {'median s':>9} {'fastest':>9} {'slowest':>9}")
    for name in COMMANDS:
        times = [found[name] for found in rounds]
        print(f"{name:32} {statistics.median(times):9.3f} {min(times):9.3f} {max(times):9.3f}")


if __name__ == "__main__":
    main()
