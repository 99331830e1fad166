"""Batches of a recipe: the tokens of a step, as a pure function of the recipe and the step."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import accumulate
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


def lengths(recipe: Recipe, sequence: int) -> list[int]:
    """Tokens per sequence in each phase: its own, else the study's."""
    return [(phase.context.sequence if phase.context else None) or sequence for phase in recipe.phases]


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
    same order (paired comparison). Phases with longer sequences draw from windows of their own: what earlier phases
    read comes again in them as by chance.

    Args:
        recipe: what to train; every phase a whole number of batches long.
        streams: tokens per domain.
        sequence: tokens the model predicts per sequence, where a phase has no length of its own.
        batch: sequences of this length per step; of longer ones there are fewer.

    Raises:
        InputError: a phase names a domain without tokens, or is not a whole number of batches.
    """

    def __init__(self, recipe: Recipe, streams: Mapping[str, Tokens], sequence: int, batch: int) -> None:
        self.recipe, self.streams, self.sequence, self.step_tokens = recipe, streams, sequence, sequence * batch
        self.lengths = lengths(recipe, sequence)
        drawn = {(name, size) for p, size in zip(recipe.phases, self.lengths, strict=True) for name in p.mixture}
        self.windows = {of: self._windows(*of) for of in sorted(drawn)}
        self.keys = {name: np.frombuffer(name.encode().ljust(8, b"\0"), np.uint8) for name in recipe.domains}
        self.orders = [self._order(index) for index in range(len(recipe.phases))]
        self.ends = list(accumulate(phase.tokens // self.step_tokens for phase in recipe.phases))  # in steps
        self._streams = [streams[name] for name in recipe.domains]
        self._cache: dict[tuple[int, int], tuple[Ints, Ints]] = {}

    def _windows(self, domain: str, length: int) -> int:
        return windows(self.recipe, domain, {name: len(stream) for name, stream in self.streams.items()}, length)

    def _order(self, index: int) -> Order:
        phase, per_batch = self.recipe.phases[index], self.step_tokens
        if phase.tokens % per_batch:
            raise InputError(
                f"phase {phase.name!r} has {phase.tokens:,} tokens, not a multiple of the batch of {per_batch:,}; "
                f"make it {max(1, round(phase.tokens / per_batch)) * per_batch:,}"
            )
        return order(tuple(phase.mixture.shares.items()), phase.tokens // self.lengths[index])

    def __len__(self) -> int:
        return self.ends[-1]

    def at(self, step: int, rank: int = 0, world: int = 1) -> Ints:
        """Token ids of a step, shape (sequences of the step / world, tokens of one + 1).

        Inputs are [:, :-1], labels [:, 1:].
        """
        codes, begins, length = self._sequences(step, rank, world)
        rows = np.empty((len(codes), length + 1), np.int64)
        places = zip(codes.tolist(), begins.tolist(), strict=True)
        for row, (code, begin) in enumerate(places):
            rows[row] = self._streams[code][begin : begin + length + 1]
        return rows

    def domains(self, step: int, rank: int = 0, world: int = 1) -> Ints:
        """The domain of each sequence of `at`, as its position among the recipe's, shape (sequences / world,)."""
        return self._sequences(step, rank, world)[0].copy()

    def _sequences(self, step: int, rank: int, world: int) -> tuple[Ints, Ints, int]:
        """Domain and first token of a rank's sequences of a step, and their length."""
        phase = bisect_right(self.ends, step)
        batch = self.step_tokens // self.lengths[phase]
        first = (step - (self.ends[phase - 1] if phase else 0)) * batch
        parts = []
        for block in range(first // BLOCK, -(-(first + batch) // BLOCK)):
            begin, end = max(first, block * BLOCK), min(first + batch, (block + 1) * BLOCK)
            mine = begin + (first + rank - begin) % world  # the first of them that is this rank's
            here = slice(mine - block * BLOCK, end - block * BLOCK, world)
            parts.append([column[here] for column in self._places(phase, block)])
        codes, begins = parts[0] if len(parts) == 1 else map(np.concatenate, zip(*parts, strict=True))
        return codes, begins, self.lengths[phase]

    def _places(self, phase: int, block: int) -> tuple[Ints, Ints]:
        """For each sequence of a block of a phase: the position of its domain in the recipe's, and its first token."""
        if (phase, block) not in self._cache:
            places = self._phase_places(phase, block * BLOCK, min((block + 1) * BLOCK, len(self.orders[phase])))
            kept = dict(list(self._cache.items())[-1:])  # one step may span two
            self._cache = {**kept, (phase, block): places}
        return self._cache[phase, block]

    def _phase_places(self, phase: int, start: int, stop: int) -> tuple[Ints, Ints]:
        """The same as `_places` for sequences start..stop-1 of a phase."""
        names, length = self.orders[phase].names, self.lengths[phase]
        earlier = self.orders[phase].occurrences(start, stop)
        codes, begins = np.empty(stop - start, np.int64), np.empty(stop - start, np.int64)
        for code, name in enumerate(names):
            here = np.flatnonzero(self.orders[phase].codes(start, stop) == code)
            codes[here] = self.recipe.domains.index(name)
            begins[here] = self.positions(name, earlier[here] + self.draws(name, phase, length), length) * length
        return codes, begins

    def draws(self, domain: str, phases: int, length: int | None = None) -> int:
        """Sequences of a length, the study's by default, drawn of a domain in the first `phases` phases."""
        length = length or self.sequence
        done = (phase for phase, own in zip(self.orders[:phases], self.lengths, strict=False) if own == length)
        return sum(int(p.counts(len(p))[p.names.index(domain)]) for p in done if domain in p.names)

    def positions(self, domain: str, draws: Ints, length: int | None = None) -> Ints:
        """Window of a domain's stream for its k-th draw of a length, the study's by default; any shape."""
        length = length or self.sequence
        size, own = self.windows[domain, length], [length] if length != self.sequence else []
        windows = np.empty_like(draws)
        for epoch in np.unique(draws // size):
            here = draws // size == epoch
            entropy = [self.recipe.seed, int(epoch), *self.keys[domain].tolist(), *own]
            key = np.random.SeedSequence(entropy).generate_state(1)
            windows[here] = shuffled(draws[here] % size, size, int(key[0]))
        return windows

    def achieved(self) -> dict[str, dict[str, int]]:
        """Tokens actually drawn, by phase and domain."""
        return {
            phase.name: {name: int(n) * length for name, n in zip(o.names, o.counts(len(o)), strict=True)}
            for phase, o, length in zip(self.recipe.phases, self.orders, self.lengths, strict=True)
        }

    def epochs(self) -> dict[str, float]:
        """Times each domain's windows were seen over the whole recipe."""
        seen = dict.fromkeys(self.recipe.domains, 0.0)
        for (name, length), size in self.windows.items():
            seen[name] += self.draws(name, len(self.orders), length) / size
        return seen


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
