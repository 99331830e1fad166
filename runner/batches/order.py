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
Floats = NDArray[np.float64]

BLOCK = 4096  # prefix counts are kept once per block of this many sequences
LANES = 2048  # stretches of a long phase that are worked out at once
WARM_UP = 64  # slots a domain that each begins earlier


class Order:
    """The domains of the first `length` sequences of a phase.

    After any n sequences every domain has been drawn within less than one sequence of n times its share. That is the
    Pfair property (Baruah et al. 1996, "Proportionate progress"): the m-th sequence of a domain with share s gets the
    window of slots floor((m-1)/s)+1 .. ceil(m/s), and taking the earliest deadline first always meets all windows.

    It is computed only as far as it is read; to begin in the middle of a phase takes 0.1 us for each sequence before.

    Attributes:
        names: domains with a share, sorted; their positions are the codes.
    """

    def __init__(self, shares: Mapping[str, float], length: int) -> None:
        self.names = tuple(sorted(name for name, share in shares.items() if share > 0))
        self._codes = np.empty(length, np.uint16)
        self._known = 0  # codes computed so far
        self._before = [np.zeros(len(self.names), np.int64)]  # counts before each block computed so far, and the next
        self._steps = 1.0 / np.array([shares[name] for name in self.names])

    def __len__(self) -> int:
        return len(self._codes)

    def codes(self, start: int, stop: int) -> NDArray[np.uint16]:
        """Code of the domain of sequences start..stop-1, shape (stop-start,)."""
        first, last = self._known, min(-(-stop // BLOCK) * BLOCK, len(self))
        if last > first:
            schedule = _in_lanes if last - first >= LANES * WARM_UP * len(self.names) else _one_by_one
            self._codes[first:last] = schedule(self._steps, self._before[-1], last - first)
            for begin in range(first, last, BLOCK):
                counted = np.bincount(self._codes[begin : min(begin + BLOCK, last)], minlength=len(self.names))
                self._before.append(self._before[-1] + counted)
            self._known = last
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


def _one_by_one(steps: Floats, done: Ints, count: int) -> NDArray[np.uint16]:
    """Codes of the next `count` slots after those in which the domains were drawn `done` times: a Pfair schedule."""
    return np.fromiter(_earliest_deadline_first(steps.tolist(), done.tolist()), np.uint16, count)


def _earliest_deadline_first(steps: Sequence[float], done: list[int]) -> Iterator[int]:
    """Codes of the domains slot by slot, without end; `steps` are slots per sequence of each."""
    # (slot from which the domain's next sequence may come, code)
    waiting = [(math.floor(done[code] * step) + 1, code) for code, step in enumerate(steps)]
    heapq.heapify(waiting)
    ready: list[tuple[int, int]] = []  # (slot until which it must come, code)
    for slot in itertools.count(sum(done) + 1):
        # Rounding can leave no domain due if the shares sum to a hair below one: take the next in line.
        while waiting and (waiting[0][0] <= slot or not ready):
            _, code = heapq.heappop(waiting)
            heapq.heappush(ready, (math.ceil((done[code] + 1) * steps[code]), code))
        _, code = heapq.heappop(ready)
        yield code
        done[code] += 1
        heapq.heappush(waiting, (math.floor(done[code] * steps[code]) + 1, code))


def _in_lanes(steps: Floats, done: Ints, count: int) -> NDArray[np.uint16]:
    """The same, many stretches of slots at once: counts say all of the past, so a schedule may begin anywhere.

    The counts before a stretch are not known, but within one of their share, and schedules from different counts soon
    meet: each begins a little earlier from likely counts. A stretch whose counts are not those that the one before ends
    with is done again from there, so the result is exact.
    """
    length = -(-count // LANES)
    starts = int(done.sum()) + length * np.arange(LANES)
    before = _likely(steps, np.maximum(starts - WARM_UP * len(steps), 0))
    before[0] = done
    _, warm = _lockstep(steps, before[1:], starts[1:] - before[1:].sum(1))
    before[1:] = warm
    codes, after = _lockstep(steps, before, np.full(LANES, length))
    while (wrong := 1 + np.flatnonzero((before[1:] != after[:-1]).any(1))).size:
        before[wrong] = after[wrong - 1]
        codes[:, wrong], after[wrong] = _lockstep(steps, before[wrong], np.full(wrong.size, length))
    return codes.T.reshape(-1)[:count]


def _likely(steps: Floats, slots: Ints) -> Ints:
    """Counts after these slots by share, what rounding leaves to the largest rests; shape (slots, domains)."""
    exact = slots[:, None] / steps
    counts = np.floor(exact).astype(np.int64)
    rank = np.argsort(np.argsort(counts - exact, axis=1, kind="stable"), axis=1)
    return np.asarray(counts + (rank < (slots - counts.sum(1))[:, None]), dtype=np.int64)


def _lockstep(steps: Floats, done: Ints, lengths: Ints) -> tuple[NDArray[np.uint16], Ints]:
    """Codes of the slots after each row of `done`, shape (longest, rows), and the counts after `lengths` of them."""
    done, rows, code = done.copy(), np.arange(len(done)), np.arange(len(steps))
    slot, codes = done.sum(1), np.empty((int(lengths.max(initial=0)), len(done)), np.uint16)
    release = np.floor(done * steps).astype(np.int64) + 1
    deadline = np.ceil((done + 1) * steps).astype(np.int64) * len(steps) + code
    far = np.int64(2**62)
    for number in range(len(codes)):
        slot += 1
        chosen = np.where(release <= slot[:, None], deadline, far).argmin(1)
        idle = release[rows, chosen] > slot
        if idle.any():  # rounding left no domain due: the next in line
            chosen[idle] = (release[idle] * len(steps) + code).argmin(1)
        codes[number] = chosen
        moving = rows[lengths > number]
        at = moving, chosen[moving]
        done[at] += 1
        release[at] = np.floor(done[at] * steps[at[1]]).astype(np.int64) + 1
        deadline[at] = np.ceil((done[at] + 1) * steps[at[1]]).astype(np.int64) * len(steps) + at[1]
    return codes, done


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
