"""Start-up and size of mixlaw beside tools for parts of its work: processor seconds to import, megabytes on disk.

    python benchmarks/install.py

Sizes are those of the files that the distributions installed here list, by themselves and with all that they require
on this machine; extras are not followed but those named. What is not installed is named.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROUNDS = 2
#: What is imported or run, and the distribution with its extras.
TOOLS = {
    "import mixlaw": ("-c", "import mixlaw"),
    "mixlaw --help": ("-m", "mixlaw", "--help"),
    "import mixlaw; mixlaw.fit": ("-c", "import mixlaw; mixlaw.fit"),
    "import sklearn.linear_model": ("-c", "import sklearn.linear_model"),
    "import lightgbm": ("-c", "import lightgbm"),
    "import optuna": ("-c", "import optuna"),
    "import torch": ("-c", "import torch"),
    "import botorch": ("-c", "import botorch"),
    "transformers.Trainer": ("-c", "from transformers import Trainer"),
    "import litgpt": ("-c", "import litgpt"),
    "import streaming": ("-c", "import streaming"),
}
PACKAGES = (
    "mixlaw",
    "mixlaw[train]",
    "mixlaw[train,eval,ray,app]",
    "torch",
    "scikit-learn",
    "lightgbm",
    "optuna",
    "botorch",
    "transformers[torch]",
    "litgpt",
    "mosaicml-streaming",
)


def processor_seconds(arguments: tuple[str, ...]) -> float | None:
    """User and system time of one process; None where it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *arguments], check=False, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return None if done.returncode else after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def required(requirement: Requirement, found: dict[str, Distribution]) -> None:
    """Add the distribution of a requirement and all that it requires, as far as they are installed."""
    name = canonicalize_name(requirement.name)
    try:
        there = distribution(name)
    except PackageNotFoundError:
        return
    extras = {"", *requirement.extras}
    if name in found and not requirement.extras:
        return
    found[name] = there
    for line in there.requires or []:
        needed = Requirement(line)
        if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
            required(needed, found)


def megabytes(there: Distribution) -> float:
    """Size of a distribution's files, byte code left out."""
    return sum(file.size or 0 for file in there.files or [] if file.suffix != ".pyc") / 1e6


def starts() -> None:
    """Print processor seconds of each start."""
    rounds: dict[str, list[float]] = {name: [] for name in TOOLS}
    for _ in range(ROUNDS + 1):  # the first one, left out, warms the disk cache
        for name, arguments in TOOLS.items():
            seconds = processor_seconds(arguments)
            rounds[name] += [] if seconds is None else [seconds]
    middle = {name: statistics.median(times[1:]) for name, times in rounds.items() if times}
    print(f"{'':32} {'processor s':>12} {'over import mixlaw':>19}")
    for name in TOOLS:
        cells = f"{middle[name]:12.2f} {middle[name] / middle['import mixlaw']:18.1f}x" if name in middle else "fails"
        print(f"{name:32} {cells}")


def sizes() -> None:
    """Print megabytes of each package."""
    print(f"{'':32} {'MB itself':>10} {'MB in all':>10} {'distributions':>14}")
    for name in PACKAGES:
        wanted, found = Requirement(name), dict[str, Distribution]()
        required(wanted, found)
        if not found:
            print(f"{name:32} not installed")
            continue
        itself = megabytes(found[canonicalize_name(wanted.name)])
        own = f"{itself:.1f}" if itself >= 0.1 else "checkout"
        print(f"{name:32} {own:>10} {sum(map(megabytes, found.values())):10.0f} {len(found):14}")


if __name__ == "__main__":
    starts()
    print()
    sizes()
