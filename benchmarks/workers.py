"""Workers of the local executor: what a second one adds, and what it saves to give a worker many segments.

    python benchmarks/workers.py

One worker and two take turns over the same segments, since a machine is not equally fast for ten minutes; told are the
medians over the rounds. Run it on a quiet machine of two cores or more.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from mixlaw.runner.execute.local import LocalExecutor
from mixlaw.runner.execute.queue import RunProgress
from mixlaw.runner.plan.devices import Machine
from mixlaw.runner.plan.tree import Tree, plan
from mixlaw.study import Study, open_study

SEGMENTS, ROUNDS = 6, 2
SETTINGS = """\
[domains.text]
source = "text.jsonl"
[tasks]
text = "bits/byte"
[tokenizer]
vocabulary = 300
[training]
sequence = 128
batch = 8
[sizes]
"{size}" = {tokens}
[[phases]]
name = "init"
share = 1.0
[mixtures]
text = {{ text = 1.0 }}
[[recipes]]
size = "{size}"
phases = {{ init = "text" }}
seeds = {seeds}
"""


def study_of(folder: Path, size: str, tokens: int) -> Study:
    """A study of equal segments, one per seed, that have nothing in common."""
    folder.mkdir()
    (folder / "study.toml").write_text(SETTINGS.format(size=size, tokens=tokens, seeds=list(range(SEGMENTS))))
    letters = np.random.default_rng(0).integers(97, 123, (60, 4000)).astype(np.uint8)
    lines = (f'{{"text": "{row.tobytes().decode()}"}}\n' for row in letters)
    (folder / "text.jsonl").write_text("".join(lines))
    open_study(folder).prepare()
    return open_study(folder)


def trained(study: Study, tree: Tree, workers: int) -> tuple[float, float]:
    """Wall seconds of all segments from nothing, and seconds per segment once every worker has finished one."""
    shutil.rmtree(study.runs, ignore_errors=True)
    ends: list[float] = []

    def watch(state: RunProgress) -> None:
        ends.extend([time.perf_counter()] * (state.segments_done - len(ends)))

    began = time.perf_counter()
    outcome = LocalExecutor(study.setup, study.runs, Machine("local", workers), watch).run(tree, list(tree.segments))
    assert len(outcome.done) == SEGMENTS, outcome
    return time.perf_counter() - began, (ends[-1] - ends[workers - 1]) / (SEGMENTS - workers)


def apart(study: Study, tree: Tree) -> float:
    """Wall seconds of all segments, each in a process of its own, one after the other."""
    shutil.rmtree(study.runs, ignore_errors=True)
    began = time.perf_counter()
    for segment in tree.segments:
        LocalExecutor(study.setup, study.runs, Machine("local", 1)).run(tree, [segment])
    return time.perf_counter() - began


def median(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    """The median of both."""
    first, second = (statistics.median(values) for values in zip(*pairs, strict=True))
    return first, second


def main() -> None:
    """Print both ratios with what they are made of."""
    with tempfile.TemporaryDirectory() as folder:
        study = study_of(Path(folder, "long"), "1M", 150_000)
        tree = plan(study.recipes())
        rounds = [{workers: trained(study, tree, workers) for workers in (1, 2)} for _ in range(ROUNDS)]
        found = {workers: median([one[workers] for one in rounds]) for workers in (1, 2)}
        print(f"{SEGMENTS} equal segments of 1M parameters        wall s   s per segment, going")
        for workers, (wall, each) in found.items():
            print(f"{workers} worker{'s' * (workers > 1):32} {wall:14.1f} {each:14.2f}")
        wall, each = median([(one[1][0] / one[2][0], one[1][1] / one[2][1]) for one in rounds])
        print(f"two over one: {wall:.2f} with start-up, {each:.2f} going")

        study = study_of(Path(folder, "short"), "0.025M", 20_480)
        tree = plan(study.recipes())
        together, own = trained(study, tree, 1), apart(study, tree)
        print(f"\n{SEGMENTS} short segments of 0.025M parameters   s per segment")
        print(f"a process each {own / SEGMENTS:31.2f}")
        print(f"one process for all {together[0] / SEGMENTS:26.2f}")
        print(f"going {together[1]:40.2f}")
        saved = own / together[0]
        print(f"start-up {own / SEGMENTS - together[1]:.2f} s; one process for all is {saved:.1f} times faster")


if __name__ == "__main__":
    main()
