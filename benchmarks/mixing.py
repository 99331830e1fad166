"""The mixture loader beside those of others on the same shards: exactness of shares, tokens per second.

    python benchmarks/mixing.py

Shards of token ids are written to disk, one file per domain. The loader maps them; for `datasets.interleave_datasets`
the same windows become datasets of Arrow files, which it interleaves with the same shares as probabilities, map-style
and streamed; for Mosaic's streaming they become shards of its own, of which its `StreamingDataset` takes each in
proportion. All give batches of 8 sequences of 128 tokens as numpy arrays, in turns, and the ratio is the median over
rounds. Of Megatron the order of its blend is compared. Peers that are not installed are named. What training
consumes is measured in between: tokens per second of a step at 0.1M, the size that is fastest to train for its batch.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mixlaw.recipe import Mixture, Phase, Recipe
from mixlaw.runner.batches.loader import Batches
from mixlaw.runner.batches.order import Order, _in_lanes, _one_by_one
from mixlaw.runner.batches.shards import TokenStream
from mixlaw.runner.models.ladder import shape
from mixlaw.runner.models.llama import initialise, optimizer
from mixlaw.runner.models.loss import LossModule
from mixlaw.runner.train.step import train_step

SHARES = {"code": 0.25, "docs": 0.05, "facts": 0.2, "markup": 0.04, "math": 0.01, "prose": 0.45}
LENGTH, SEQUENCE, BATCH, ROUNDS = 200_000, 128, 8, 5
TOKENS = 1_000_000  # per domain
BATCHES = 400  # per round


# --- exactness --------------------------------------------------------------------------------------------------------


def deviation(codes: NDArray[Any]) -> float:
    """Largest distance of any domain's count from its exact share, in sequences, over all prefixes."""
    share = np.array([SHARES[name] for name in sorted(SHARES)])
    counts = np.cumsum(codes[:, None] == np.arange(len(share)), axis=0)
    return float(np.abs(counts - np.arange(1, len(codes) + 1)[:, None] * share).max())


def interleaved_codes() -> NDArray[Any]:
    """Domains of the first sequences that `interleave_datasets` draws."""
    from datasets import IterableDataset, interleave_datasets

    def endless(code: int) -> Iterator[dict[str, int]]:
        return ({"code": code} for _ in itertools.count())

    parts = [IterableDataset.from_generator(endless, gen_kwargs={"code": code}) for code in range(len(SHARES))]
    mixed = interleave_datasets(parts, probabilities=[SHARES[name] for name in sorted(SHARES)], seed=0)
    return np.fromiter((row["code"] for row in mixed.take(LENGTH)), np.int64, LENGTH)


def bare(name: str) -> None:
    """Make a package importable part by part: its own `__init__` imports what is not needed, such as torchvision."""
    found = find_spec(name)
    if found is None or found.submodule_search_locations is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    package = types.ModuleType(name)
    package.__path__ = list(found.submodule_search_locations)
    sys.modules[name] = package


def blended_codes() -> NDArray[Any]:
    """Domains of the first sequences in Megatron's order."""
    bare("megatron.core")
    from megatron.core.datasets.helpers_cpp import build_blending_indices

    index, sample = np.zeros(LENGTH, np.int16), np.zeros(LENGTH, np.int64)
    shares = np.array([SHARES[name] for name in sorted(SHARES)])
    build_blending_indices(index, sample, shares, len(shares), LENGTH, False)
    return index


# --- speed ------------------------------------------------------------------------------------------------------------


def write_shards(folder: Path) -> dict[str, TokenStream]:
    """Two files of token ids per domain, mapped."""
    rng = np.random.default_rng(0)
    for name in SHARES:
        for part in range(2):
            rng.integers(1024, size=TOKENS // 2, dtype=np.uint16).tofile(folder / f"{name}{part}.bin")
    return {
        name: TokenStream([np.memmap(folder / f"{name}{part}.bin", np.uint16, "r") for part in range(2)])
        for name in SHARES
    }


def ours(streams: dict[str, TokenStream]) -> Iterator[NDArray[Any]]:
    """Batches of the loader."""
    steps = LENGTH // BATCH
    recipe = Recipe(1, (Phase("init", steps * BATCH * SEQUENCE, Mixture(SHARES)),))
    batches = Batches(recipe, streams, SEQUENCE, BATCH)
    return (batches.at(step % steps) for step in itertools.count())


def datasets_of(streams: dict[str, TokenStream], folder: Path) -> list[Any]:
    """The same windows as datasets on disk, mapped by Arrow."""
    from datasets import Dataset, Features, Sequence, Value, disable_progress_bars, load_from_disk

    disable_progress_bars()
    found = []
    for name in sorted(SHARES):
        last = (TOKENS - 1) // SEQUENCE
        rows = [streams[name][k * SEQUENCE : (k + 1) * SEQUENCE + 1] for k in range(last)]
        features = Features({"input_ids": Sequence(Value("uint16"), length=SEQUENCE + 1)})
        Dataset.from_dict({"input_ids": rows}, features).save_to_disk(folder / name)
        found.append(load_from_disk(folder / name).with_format("numpy"))
    return found


def theirs(parts: list[Any], streamed: bool) -> Iterator[NDArray[Any]]:
    """Batches of `interleave_datasets`, again from the beginning when it ends."""
    from datasets import interleave_datasets

    shares = [SHARES[name] for name in sorted(SHARES)]
    given = [part.to_iterable_dataset().with_format("numpy") for part in parts] if streamed else parts
    mixed = interleave_datasets(given, probabilities=shares, seed=0, stopping_strategy="all_exhausted")
    while True:
        yield from (np.asarray(batch["input_ids"]) for batch in mixed.iter(batch_size=BATCH))


def mosaic(streams: dict[str, TokenStream], folder: Path) -> Iterator[NDArray[Any]]:
    """Batches of Mosaic's StreamingDataset, shuffled as it does by default, epoch after epoch."""
    bare("streaming")
    from streaming.base.dataset import StreamingDataset
    from streaming.base.format.mds.writer import MDSWriter
    from streaming.base.stream import Stream

    for name in sorted(SHARES):
        with MDSWriter(out=str(folder / f"mds-{name}"), columns={"tokens": f"ndarray:uint16:{SEQUENCE + 1}"}) as out:
            for k in range((TOKENS - 1) // SEQUENCE):
                out.write({"tokens": np.asarray(streams[name][k * SEQUENCE : (k + 1) * SEQUENCE + 1])})
    parts = [Stream(local=str(folder / f"mds-{name}"), proportion=SHARES[name]) for name in sorted(SHARES)]
    mixed = StreamingDataset(streams=parts, batch_size=BATCH, shuffle=True)
    while True:
        rows = (row["tokens"] for row in mixed)
        while len(batch := list(itertools.islice(rows, BATCH))) == BATCH:
            yield np.stack(batch)


def training() -> Iterator[NDArray[Any]]:
    """Steps of a model of 0.1M on one resident batch; each yields the tokens it consumed."""
    model = initialise(shape("0.1M"), 1024, SEQUENCE, seed=0)
    losses, adamw = LossModule(model), optimizer(model, 1e-3, 0.95)
    tokens = torch.randint(1024, (BATCH, SEQUENCE + 1))
    while True:
        train_step(losses, adamw, tokens, 1e-3)
        yield tokens.numpy()


def rate(batches: Iterable[NDArray[Any]], count: int) -> float:
    """Tokens per second of the next `count` batches."""
    began = time.perf_counter()
    seen = sum(batch.size for batch in itertools.islice(batches, count))
    return seen / (time.perf_counter() - began)


def speed(folder: Path) -> None:
    """Print tokens per second of each, in turns."""
    streams = write_shards(folder)
    parts = datasets_of(streams, folder)
    ways: dict[str, tuple[Iterator[NDArray[Any]], int]] = {
        "loader": (ours(streams), BATCHES),
        "interleave_datasets, map-style": (theirs(parts, streamed=False), BATCHES),
        "interleave_datasets, streamed": (theirs(parts, streamed=True), BATCHES),
        "Mosaic's StreamingDataset": (mosaic(streams, folder), BATCHES),
        "training at 0.1M, one thread": (training(), 20),
    }
    for name, (batches, count) in [*ways.items()]:
        try:
            rate(batches, count // 10)
        except ImportError as error:
            print(f"{name:34} not installed: {error.name}")
            del ways[name]
    seen: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, (batches, count) in ways.items():
            seen[name].append(rate(batches, count))
    print(f"\n{'':34} {'tokens/s':>12} {'loader is faster by':>20}")
    for name, rates in seen.items():
        times = statistics.median(a / b for a, b in zip(seen["loader"], rates, strict=True))
        print(f"{name:34} {statistics.median(rates):12,.0f} {times:19.1f}x")


def stretches(count: int = 10_000_000) -> float:
    """How many times faster a long phase is worked out in stretches than slot by slot; both give the same order."""
    steps, done = 1 / np.array(list(SHARES.values())), np.zeros(len(SHARES), np.int64)
    seconds, orders = [], []
    for schedule in (_one_by_one, _in_lanes):
        began = time.perf_counter()
        orders.append(schedule(steps, done, count))
        seconds.append(time.perf_counter() - began)
    assert np.array_equal(orders[0], orders[1])
    return seconds[0] / seconds[1]


def main() -> None:
    """Print deviation of both ways, then their speed."""
    torch.set_num_threads(1)
    ways: dict[str, Callable[[], NDArray[Any]]] = {
        "exact order": lambda: Order(SHARES, LENGTH).codes(0, LENGTH),
        "Megatron's blend": blended_codes,
        "interleave_datasets": interleaved_codes,
    }
    print(f"{'':24} {'largest deviation over prefixes, sequences':>44}")
    for name, codes in ways.items():
        try:
            print(f"{name:24} {deviation(codes()):44.2f}", flush=True)
        except ImportError as error:
            print(f"{name:24} not installed: {error.name}")
    print(f"\nstretches at once, over slot by slot: {stretches():.1f} times as fast")
    with tempfile.TemporaryDirectory() as folder:
        speed(Path(folder))


if __name__ == "__main__":
    main()
