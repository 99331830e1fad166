"""Batches of a recipe: the tokens of a step, as a pure function of the recipe and the step."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mixlaw.errors import InputError
from mixlaw.recipe import Recipe
from mixlaw.runner.batches.order import BLOCK, Order, order, shuffled

Ints = NDArray[np.int64]


class Tokens(Protocol):
    """A one-dimensional stream of token ids, sliced without reading the rest (a memory map)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: slice) -> NDArray[np.unsignedinteger]: ...


def windows(recipe: Recipe, domain: str, stored: Mapping[str, int], sequence: int) -> int:
    """How many windows of `sequence` tokens a recipe draws from before a domain repeats.

    Args:
        recipe: what to train.
        domain: one of its domains.
        stored: tokens by domain.
        sequence: tokens per sequence.

    Raises:
        InputError: the domain has no tokens, or fewer than a sequence.
    """
    if domain not in stored:
        raise InputError(
            f"domain {domain!r} has no token shards; there are {sorted(stored)}: fix the phase or run `mixlaw prepare`"
        )
    available = min(stored[domain] - 1, recipe.unique.get(domain, stored[domain]))
    if available < sequence:
        raise InputError(
            f"domain {domain!r} has {available:,} tokens, fewer than one sequence of {sequence}; "
            "add documents or leave the domain out"
        )
    return available // sequence


class Batches:
    """Every batch of a recipe, by step; resuming needs the step and nothing else.

    A domain's stream is cut into windows of `sequence` tokens. The k-th window that a recipe draws from a domain is a
    pure function of (seed, domain, k): epoch k // windows, position shuffled by epoch. Counting continues across
    phases, so that a changed mixture neither repeats nor skips a window, and recipes of one seed see each domain in the
    same order (paired comparison).

    Args:
        recipe: what to train; every phase a whole number of batches long.
        streams: tokens per domain.
        sequence: tokens the model predicts per sequence.
        batch: sequences per step.

    Raises:
        InputError: a phase names a domain without tokens, or is not a whole number of batches.
    """

    def __init__(self, recipe: Recipe, streams: Mapping[str, Tokens], sequence: int, batch: int) -> None:
        self.recipe, self.streams, self.sequence, self.batch = recipe, streams, sequence, batch
        self.windows = {name: self._windows(name) for name in recipe.domains}
        self.keys = {name: np.frombuffer(name.encode().ljust(8, b"\0"), np.uint8) for name in recipe.domains}
        self.orders = [self._order(index) for index in range(len(recipe.phases))]
        self.ends = np.cumsum([len(phase) for phase in self.orders])
        self._streams = [streams[name] for name in recipe.domains]
        self._cache: dict[int, tuple[Ints, Ints]] = {}

    def _windows(self, domain: str) -> int:
        return windows(self.recipe, domain, {name: len(stream) for name, stream in self.streams.items()}, self.sequence)

    def _order(self, index: int) -> Order:
        phase, per_batch = self.recipe.phases[index], self.sequence * self.batch
        if phase.tokens % per_batch:
            raise InputError(
                f"phase {phase.name!r} has {phase.tokens:,} tokens, not a multiple of the batch of {per_batch:,}; "
                f"make it {max(1, round(phase.tokens / per_batch)) * per_batch:,}"
            )
        return order(tuple(phase.mixture.shares.items()), phase.tokens // self.sequence)

    def __len__(self) -> int:
        return int(self.ends[-1]) // self.batch

    def at(self, step: int, rank: int = 0, world: int = 1) -> Ints:
        """Token ids of a step, shape (batch / world, sequence + 1); inputs are [:, :-1], labels [:, 1:]."""
        first = step * self.batch
        wanted = np.arange(first + rank, first + self.batch, world)
        rows = np.empty((len(wanted), self.sequence + 1), np.int64)
        streams, size, done = self._streams, self.sequence + 1, 0
        for block in range(first // BLOCK, -(-(first + self.batch) // BLOCK)):
            codes, begins = self._places(block)
            here = wanted[done : np.searchsorted(wanted, (block + 1) * BLOCK)] - block * BLOCK
            places = zip(codes[here].tolist(), begins[here].tolist(), strict=True)
            for row, (code, begin) in enumerate(places, done):
                rows[row] = streams[code][begin : begin + size]
            done += len(here)
        return rows

    def domains(self, step: int, rank: int = 0, world: int = 1) -> Ints:
        """The domain of each sequence of `at`, as its position among the recipe's, shape (batch / world,)."""
        wanted = np.arange(step * self.batch + rank, (step + 1) * self.batch, world)
        blocks = range(int(wanted[0]) // BLOCK, int(wanted[-1]) // BLOCK + 1) if wanted.size else ()
        parts = [self._places(b)[0][wanted[wanted // BLOCK == b] - b * BLOCK] for b in blocks]
        return np.concatenate([*parts, np.empty(0, np.int64)])

    def _places(self, block: int) -> tuple[Ints, Ints]:
        """For each sequence of a block: the position of its domain in the recipe's, and its first token there."""
        if block not in self._cache:
            pieces = [self._phase_places(*piece) for piece in self._pieces(block * BLOCK, (block + 1) * BLOCK)]
            codes, begins = (np.concatenate(column) for column in zip(*pieces, strict=True))
            self._cache = {**dict(list(self._cache.items())[-1:]), block: (codes, begins)}  # one step may span two
        return self._cache[block]

    def _pieces(self, start: int, stop: int) -> list[tuple[int, int, int]]:
        """(phase, first, last) sequence ranges inside phases that make up sequences start..stop-1 of the recipe."""
        begins = [0, *self.ends[:-1]]
        cuts = [
            (i, max(start, b) - b, min(stop, e) - b) for i, (b, e) in enumerate(zip(begins, self.ends, strict=True))
        ]
        return [(i, int(a), int(z)) for i, a, z in cuts if a < z]

    def _phase_places(self, phase: int, start: int, stop: int) -> tuple[Ints, Ints]:
        """The same as `_places` for sequences start..stop-1 of a phase."""
        names = self.orders[phase].names
        earlier = self.orders[phase].occurrences(start, stop)
        codes, begins = np.empty(stop - start, np.int64), np.empty(stop - start, np.int64)
        for code, name in enumerate(names):
            here = np.flatnonzero(self.orders[phase].codes(start, stop) == code)
            codes[here] = self.recipe.domains.index(name)
            begins[here] = self.positions(name, earlier[here] + self.draws(name, phase)) * self.sequence
        return codes, begins

    def draws(self, domain: str, phases: int) -> int:
        """Sequences of a domain drawn in the first `phases` phases."""
        done = (phase for phase in self.orders[:phases] if domain in phase.names)
        return sum(int(phase.counts(len(phase))[phase.names.index(domain)]) for phase in done)

    def positions(self, domain: str, draws: Ints) -> Ints:
        """Window of a domain's stream for its k-th draw, any shape."""
        size = self.windows[domain]
        windows = np.empty_like(draws)
        for epoch in np.unique(draws // size):
            here = draws // size == epoch
            key = np.random.SeedSequence([self.recipe.seed, int(epoch), *self.keys[domain].tolist()]).generate_state(1)
            windows[here] = shuffled(draws[here] % size, size, int(key[0]))
        return windows

    def achieved(self) -> dict[str, dict[str, int]]:
        """Tokens actually drawn, by phase and domain."""
        return {
            phase.name: {name: int(n) * self.sequence for name, n in zip(o.names, o.counts(len(o)), strict=True)}
            for phase, o in zip(self.recipe.phases, self.orders, strict=True)
        }

    def epochs(self) -> dict[str, float]:
        """Times each domain's windows were seen over the whole recipe."""
        return {name: self.draws(name, len(self.orders)) / size for name, size in self.windows.items()}


class Prefetcher:
    """One rank's batches of a segment, the next of which a thread reads while a device computes.

    Args:
        batches: of the recipe.
        last: the step after the last one.
        rank, world: this rank, and how many there are.
    """

    def __init__(self, batches: Batches, last: int, rank: int = 0, world: int = 1) -> None:
        self.batches, self.last, self.rank, self.world = batches, last, rank, world
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._next: tuple[int, Future[tuple[Ints, Ints]]] | None = None

    def at(self, step: int) -> tuple[Ints, Ints]:
        """Token ids of a step and the domains of its sequences; quickest if steps follow one another."""
        number, future = self._next or (step, self._read(step))
        future = future if number == step else self._read(step)
        batch = future.result()
        self._next = (step + 1, self._read(step + 1)) if step + 1 < self.last else None
        return batch

    def _read(self, step: int) -> Future[tuple[Ints, Ints]]:
        return self._thread.submit(self._batch, step)

    def _batch(self, step: int) -> tuple[Ints, Ints]:
        place = step, self.rank, self.world
        return self.batches.at(*place), self.batches.domains(*place)

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(cancel_futures=True)
