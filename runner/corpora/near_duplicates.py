"""Near-duplicates by MinHash (Broder 1997) over 5-grams of words, found by bands that agree (LSH).

The numbers are those of FineWeb (Penedo et al. 2024, arXiv:2406.17557): 112 hashes in 14 bands of 8, which find 77 % of
pairs that share three quarters of their n-grams, and 2 % of those that share half. Unlike there, a pair that agrees in
a band counts only if three quarters of all 112 hashes agree. Everything is deterministic.
"""

from __future__ import annotations

from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mixlaw.runner.corpora.contamination import words
from mixlaw.runner.corpora.spill_files import Ints

WORDS, BANDS, ROWS, SIMILAR = 5, 14, 8, 0.75
HASHES = BANDS * ROWS
CHUNK = 2**16  # signatures compared at once: 29 MB

Signatures = NDArray[np.uint32]
Bools = NDArray[np.bool_]

_RNG = np.random.default_rng(0)
_FACTORS = _RNG.integers(0, 2**64, HASHES, np.uint64) | np.uint64(1)
_TERMS = _RNG.integers(0, 2**64, HASHES, np.uint64)
_MIX = np.uint64(0x9E3779B97F4A7C15)


def signature(text: str) -> Signatures:
    """The least hashes of a text's n-grams of words, shape (HASHES,).

    A hash of two texts agrees with the chance of the share of n-grams that they have in common (Jaccard's). A text of
    fewer words has one n-gram; one without words is itself one.
    """
    found = [crc32(word.encode("utf-8", "replace")) for word in words(text)] or [crc32(text.encode("utf-8", "replace"))]
    codes, size = np.array(found, np.uint64), min(WORDS, len(found))
    grams = np.zeros(len(found) - size + 1, np.uint64)
    for offset in range(size):
        grams = (grams + codes[offset : offset + len(grams)] + np.uint64(1)) * _MIX
        grams ^= grams >> np.uint64(29)
    least = np.full(HASHES, 2**64 - 1, np.uint64)
    for start in range(0, len(grams), CHUNK // 8):
        block = np.unique(grams[start : start + CHUNK // 8])
        np.minimum(least, (block[:, None] * _FACTORS + _TERMS).min(0), out=least)
    return (least >> np.uint64(32)).astype(np.uint32)


def near_duplicates(signatures: Signatures, rank: Ints) -> Bools:
    """Which texts are dropped: of those that are linked, directly or by others, the one of lowest rank stays.

    Memory holds some 60 bytes a text; signatures, shape (texts, HASHES), may be memory-mapped.
    """
    cluster = np.arange(len(signatures), dtype=np.int32 if len(signatures) < 2**31 else np.int64)
    for band in range(BANDS):
        keys = _keys(signatures, band)
        order = np.lexsort((rank, keys))
        begins = np.append(True, keys[order][1:] != keys[order][:-1])[: len(order)]
        first = order[np.maximum.accumulate(np.where(begins, np.arange(len(order)), 0))][~begins]
        other = order[~begins]
        same = _similar(signatures, first, other)
        links = cluster[first[same]], cluster[other[same]]
        if len(links[0]):
            graph = coo_array((np.ones(len(links[0]), np.int8), links), shape=(len(cluster), len(cluster)))
            cluster = connected_components(graph, directed=False)[1][cluster]
    order = np.lexsort((rank, cluster))
    dropped = np.zeros(len(cluster), bool)
    dropped[order[1:]] = cluster[order[1:]] == cluster[order[:-1]]
    return dropped


def _keys(signatures: Signatures, band: int) -> NDArray[np.uint64]:
    keys = np.zeros(len(signatures), np.uint64)
    for start in range(0, len(signatures), CHUNK):
        block = np.asarray(signatures[start : start + CHUNK, band * ROWS : (band + 1) * ROWS], np.uint64)
        for column in block.T:
            part = keys[start : start + CHUNK]
            part[:] = (part ^ column) * _MIX
            part ^= part >> np.uint64(31)
    return keys


def _similar(signatures: Signatures, first: Ints, other: Ints) -> Bools:
    same = np.zeros(len(first), bool)
    for start in range(0, len(first), CHUNK):
        span = slice(start, start + CHUNK)
        same[span] = (signatures[first[span]] == signatures[other[span]]).mean(1) >= SIMILAR
    return same
