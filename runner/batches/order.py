"""Which domain the i-th sequence of a phase comes from: exact at every prefix, a pure function of (mixture, i)."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

BLOCK = 4096  # prefix counts are kept once per block of this many sequences


class Order:
    """The domains of the first `length` sequences of a phase.

    After any n sequences every domain has been drawn within less than one sequence of n times its share. That is the
    Pfair property (Baruah et al. 1996, "Proportionate progress"): the m-th sequence of a domain with share s gets the
    window of slots floor((m-1)/s)+1 .. ceil(m/s), and taking the earliest deadline first always meets all windows.

    It is computed only as far as it is read: a phase of 100 million sequences begins at once.

    Attributes:
        names: domains with a share, sorted; their positions are the codes.
    """

    def __init__(self, shares: Mapping[str, float], length: int) -> None:
        self.names = tuple(sorted(name for name, share in shares.items() if share > 0))
        self._codes = np.empty(length, np.uint16)
        self._known = 0  # codes computed so far
        self._before = [np.zeros(len(self.names), np.int64)]  # counts before each block computed so far, and the next
        self._rest = _earliest_deadline_first([shares[name] for name in self.names])

    def __len__(self) -> int:
        return len(self._codes)

    def codes(self, start: int, stop: int) -> NDArray[np.uint16]:
        """Code of the domain of sequences start..stop-1, shape (stop-start,)."""
        while self._known < min(stop, len(self)):
            block = slice(self._known, min(self._known + BLOCK, len(self)))
            self._codes[block] = np.fromiter(self._rest, np.uint16, block.stop - block.start)
            self._before.append(self._before[-1] + np.bincount(self._codes[block], minlength=len(self.names)))
            self._known = block.stop
        return self._codes[start:stop]

    def counts(self, length: int) -> Ints:
        """Sequences of each domain among the first `length`, shape (domains,)."""
        block = length // BLOCK
        rest = self.codes(block * BLOCK, length)
        return np.asarray(self._before[block] + np.bincount(rest, minlength=len(self.names)), dtype=np.int64)

    def occurrences(self, start: int, stop: int) -> Ints:
        """For sequences start..stop-1: how many earlier ones of this phase had the same domain, shape (stop-start,)."""
        codes = self.codes(start, stop)
        one_hot = codes[:, None] == np.arange(len(self.names))
        earlier = np.cumsum(one_hot, axis=0) - one_hot + self.counts(start)
        return np.asarray(earlier[np.arange(len(codes)), codes], dtype=np.int64)


@lru_cache(maxsize=64)
def order(shares: tuple[tuple[str, float], ...], length: int) -> Order:
    """The order of a phase, cached per process by mixture and length."""
    return Order(dict(shares), length)


def _earliest_deadline_first(shares: Sequence[float]) -> Iterator[int]:
    """Codes of the domains slot by slot, without end: a Pfair schedule."""
    steps = [1.0 / share for share in shares]
    done = [0] * len(steps)
    waiting = [(1, code) for code in range(len(steps))]  # (slot from which the domain's next sequence may come, code)
    ready: list[tuple[int, int]] = []  # (slot until which it must come, code)
    for slot in itertools.count(1):
        # Rounding can leave no domain due if the shares sum to a hair below one: take the next in line.
        while waiting and (waiting[0][0] <= slot or not ready):
            _, code = heapq.heappop(waiting)
            heapq.heappush(ready, (math.ceil((done[code] + 1) * steps[code]), code))
        _, code = heapq.heappop(ready)
        yield code
        done[code] += 1
        heapq.heappush(waiting, (math.floor(done[code] * steps[code]) + 1, code))


def shuffled(index: Ints, size: int, key: int) -> Ints:
    """Image of `index` (each in 0..size-1) under a pseudo-random permutation of range(size) chosen by `key`.

    A four-round Feistel network on the smallest even number of bits that holds `size`, walked along its cycle until
    the value is back in range (Black and Rogaway 2002): no table, so a domain of any size costs no memory.
    """
    half = max(1, math.ceil(math.log2(max(size, 2)) / 2))
    mask = np.uint64((1 << half) - 1)
    rounds = np.random.SeedSequence(key).generate_state(4, np.uint64)
    value = np.asarray(index, dtype=np.uint64).copy()
    outside = np.ones(value.shape, bool)
    while outside.any():
        left, right = value[outside] >> np.uint64(half), value[outside] & mask
        for round_key in rounds:
            left, right = right, left ^ (_scramble(right + round_key) & mask)
        value[outside] = (left << np.uint64(half)) | right
        outside = value >= np.uint64(size)
    return value.astype(np.int64)


def _scramble(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Finaliser of SplitMix64 (Steele et al. 2014); wraps modulo 2^64 by design."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
