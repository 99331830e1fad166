"""Preparing data: speed of tokenising beside that of `tokenizers` alone, and memory at several sizes of a corpus.

`python benchmarks/tokenise.py [MB ...]` prepares that many megabytes of made-up text, by default 50 and 200, and prints
the peak of memory. Memory is counted as the sum over all processes of resident memory, mapped
files included, beyond what a process has that imported the pipeline and does nothing.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mixlaw.demo.prose import documents as read_prose
from mixlaw.machine import cores
from mixlaw.runner.batches.tokenizer import load
from mixlaw.runner.corpora.prepare import prepare
from mixlaw.runner.packages import standard_library

CORES = cores()
VOCABULARY = 32_768
REPEATS = 3
WORDS = 30_000
FILE = 64e6  # bytes


# --- speed ----------------------------------------------------------------------------------------------------------


def texts() -> list[str]:
    """Speeches and the modules of the standard library, whole as they are stored."""
    code = (path.read_text(encoding="utf-8") for path in sorted(standard_library().glob("*.py")))
    return [*(document.text for document in read_prose()), *code]


@dataclass
class Clock:
    """When each stage of a preparation began."""

    began: dict[str, float] = field(default_factory=dict)

    def report(self, share: float, what: str) -> None:
        """Keep the time at which a stage is first reported."""
        self.began.setdefault(what.partition(" ")[0], time.perf_counter())


def ours(corpus: Path, folder: Path) -> float:
    """Seconds of the stage that tokenises, in as many processes as there are cores."""
    clock = Clock()
    prepare(
        folder, {"all": corpus.name}, root=corpus.parent, vocabulary=VOCABULARY, processes=CORES, progress=clock.report
    )
    return clock.began["writing"] - clock.began["tokenising"]


def theirs(given: list[str], tokenizer_folder: Path) -> tuple[float, float]:
    """Seconds of the library's own parallel batches, in its own form, and with the tokens taken out of it."""
    seconds = []
    for taken in (False, True):
        tokenizer = load(tokenizer_folder)
        began = time.perf_counter()
        for start in range(0, len(given), 1000):
            batch = tokenizer.encode_batch_fast(given[start : start + 1000], add_special_tokens=False)
            if taken:
                np.concatenate([np.asarray(encoding.ids, np.uint16) for encoding in batch])
        seconds.append(time.perf_counter() - began)
    return seconds[0], seconds[1]


def speed(folder: Path) -> None:
    """Print bytes per second of both, in turns."""
    given = texts()
    corpus = folder / "real.jsonl"
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in given), encoding="utf-8")
    size = sum(len(text.encode()) for text in given) / 1e6
    print(f"speed: {size:.0f} MB of speeches and modules, vocabulary {VOCABULARY:,}, {CORES} cores")
    rows = []
    for repeat in range(REPEATS):
        own = ours(corpus, folder / f"speed {repeat}")
        rows.append((own, *theirs(given, folder / f"speed {repeat}" / "tokenizer")))
    mine, batch, taken = (size / statistics.median(column) for column in zip(*rows, strict=True))
    print(f"{'mixlaw, texts from disk to shards':>44} {mine:8.2f} MB/s")
    print(f"{'encode_batch_fast, texts in memory':>44} {batch:8.2f} MB/s   ratio {mine / batch:.2f}")
    print(f"{'the same and its tokens as arrays':>44} {taken:8.2f} MB/s   ratio {mine / taken:.2f}")


# --- memory ---------------------------------------------------------------------------------------------------------


def make(folder: Path, size: float) -> None:
    """Files of made-up words in Zipf's proportions: documents of lognormal length, 1.6 kB on average."""
    rng = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwypvbgkqjxz"))
    words = np.array(["".join(rng.choice(letters, rng.integers(2, 9))) for _ in range(WORDS)])
    shares = 1 / np.arange(10, WORDS + 10)
    folder.mkdir()
    for number in range(int(-(-size // FILE))):
        left = min(FILE, size - number * FILE)
        with (folder / f"part-{number:05d}.jsonl").open("w", encoding="utf-8") as file:
            while left > 0:
                drawn = rng.choice(words, int(rng.lognormal(5.0, 1.0)) + 10, p=shares / shares.sum())
                left -= file.write(json.dumps({"text": " ".join(drawn)}) + "\n")


def resident(process: int) -> int:
    """Bytes of resident memory; 0 where the process has ended."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


#: What every process of the pool imports; what a job loads beyond that, such as the tokenizers' library, counts.
IDLE = """
import os
import mixlaw.runner.corpora.tokenise, mixlaw.runner.corpora.shard_files, mixlaw.runner.corpora.sources.registry
import mixlaw.runner.corpora.process_pool, joblib.externals.loky
print(int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
"""


def idle() -> int:
    """Resident memory of a process that has imported the pipeline, and does nothing."""
    return int(subprocess.run([sys.executable, "-c", IDLE], check=True, capture_output=True, text=True).stdout)


@contextmanager
def progress_or_bar(base: int) -> Iterator[list[int]]:
    """Peak of what this process and its children hold, beyond what they had or have when idle."""
    peak, own, done = [0], resident(os.getpid()), threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
            held = sum(max(0, resident(int(child)) - base) for child in children)
            peak[0] = max(peak[0], held + resident(os.getpid()) - own)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def memory(folder: Path, sizes: list[float]) -> None:
    """Print the peak of memory at each size, and the bound."""
    base = idle()
    print(f"\nmemory: {CORES} processes, beyond the {base / 1e6:.0f} MB that each has when idle")
    for size in sizes:
        make(folder / f"text {size:g}", size * 1e6)
        began = time.perf_counter()
        with progress_or_bar(base) as peak:
            prepare(
                folder / f"data {size:g}",
                {"all": f"text {size:g}"},
                root=folder,
                vocabulary=VOCABULARY,
                processes=CORES,
            )
        print(f"{size:10,.0f} MB: peak {peak[0] / 1e6:6.0f} MB   ({time.perf_counter() - began:.0f} s)")


def main() -> None:
    """Speed, then memory at the sizes given."""
    with tempfile.TemporaryDirectory() as folder:
        speed(Path(folder))
        memory(Path(folder), [float(size) for size in sys.argv[1:]] or [50, 200])


if __name__ == "__main__":
    main()
