"""Contamination of the training text with evaluation items: overlap of word n-grams, as in GPT-3's check.

Brown et al. 2020 (arXiv:2005.14165), appendix C: words are compared without case, punctuation and white space, and an
item is called contaminated if any of its n-grams is in a training document. n is the 5th percentile of the
items' lengths in words, no less than 8 and no more than 13; items with fewer words cannot be checked.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixlaw.errors import InputError
from mixlaw.printable import Page, Printable
from mixlaw.runner.batches.manifest import Manifest, ShardFile
from mixlaw.runner.batches.shards import open_shards
from mixlaw.runner.batches.tokenizer import load
from mixlaw.runner.corpora.process_pool import ProcessPool, Report
from mixlaw.runner.evaluate.items import read_items
from mixlaw.tables import Cell, Column, Table, Tone

LEAST, MOST = 8, 13  # words of an n-gram
SHORTEST = 5  # per cent of the items may be shorter than n
SHOWN = 3  # examples of a task
WIDTH = 100  # characters of an example
BATCH = 256  # documents decoded at once

_WORD = re.compile(r"\w+")
Words = tuple[str, ...]


def words(text: str) -> list[str]:
    """Words of a text, in lower case: runs of letters, digits and underscores."""
    return _WORD.findall(text.lower())


def size_for(lengths: Sequence[int]) -> int:
    """n for items of these lengths in words."""
    return int(np.clip(np.percentile(lengths, SHORTEST), LEAST, MOST)) if lengths else MOST


@dataclass(frozen=True)
class Hit:
    """An n-gram of an item in training text, the first of the item in that domain."""

    task: str
    item: int
    domain: str
    words: str


@dataclass(frozen=True)
class TaskOverlap:
    """Overlap of one task's items with the training text.

    Attributes:
        size: n, the words of an n-gram.
        items: number of items.
        short: items of fewer words than n, which cannot be checked.
        found: numbers of the contaminated items.
        by_domain: the same by domain.
        examples: a few hits.
    """

    task: str
    size: int
    items: int
    short: int
    found: tuple[int, ...]
    by_domain: Mapping[str, tuple[int, ...]]
    examples: tuple[Hit, ...]


@dataclass(frozen=True)
class Contamination(Printable):
    """Contaminated items by task and domain; prints as a table with examples."""

    tasks: tuple[TaskOverlap, ...]

    def as_json(self) -> dict[str, Any]:
        """All fields, by task."""
        return {"contamination": [asdict(task) for task in self.tasks]}

    def page(self) -> Page:
        """A row per task, examples, and how many items are in the training text."""
        rows: list[list[object]] = []
        for one in self.tasks:
            domains = ", ".join(f"{name} {len(numbers)}" for name, numbers in one.by_domain.items() if numbers)
            count = Cell(f"{len(one.found):,}", len(one.found), "worse" if one.found else "")
            rows.append(
                [
                    one.task,
                    Cell(f"{one.items:,}", one.items),
                    one.size,
                    Cell(f"{one.items - one.short:,}", one.items - one.short),
                    count,
                    domains or "-",
                ]
            )
        heads = (Column("items"), Column("n"), Column("checked"), Column("found"))
        table = Table("tasks", ["task", *heads, "by domain"], rows)
        notes = [
            f"{t.task}, item {hit.item} in {hit.domain}: {hit.words[:WIDTH]}" for t in self.tasks for hit in t.examples
        ]
        found, items = sum(len(one.found) for one in self.tasks), sum(one.items for one in self.tasks)
        tone: Tone = "worse" if found else "better"
        return Page(f"{found:,} of {items:,} items are in the training text", tone, tables=[table], notes=notes)


class Finder:
    """The n-grams of items, to look up in any amount of text.

    Memory holds the n-grams of the items; text is looked at a document at a time. A window with a word that no
    item has cannot be a hit, so most windows are skipped before any hash is looked up.
    """

    def __init__(self, items: Mapping[str, Sequence[str]]) -> None:
        """Take the texts of the items of every task, question and right answer together."""
        split = {task: [words(text) for text in texts] for task, texts in items.items()}
        self.sizes = {task: size_for([len(text) for text in texts]) for task, texts in split.items()}
        self.items = {task: len(texts) for task, texts in items.items()}
        self.short = {task: sum(len(text) < self.sizes[task] for text in texts) for task, texts in split.items()}
        self._ids = {word: n for n, word in enumerate({word for texts in split.values() for t in texts for word in t})}
        rng = np.random.default_rng(0)
        self._codes = rng.integers(1, 2**63, len(self._ids) + 1, dtype=np.uint64) | np.uint64(1)
        self._grams: dict[int, dict[Words, list[tuple[str, int]]]] = defaultdict(dict)
        for task, texts in split.items():
            for number, text in enumerate(texts):
                for gram in set(_grams(text, self.sizes[task])):
                    self._grams[self.sizes[task]].setdefault(gram, []).append((task, number))
        self._hashes = {
            size: np.unique(np.array([self._hash(self._numbers(gram), size)[0] for gram in grams], np.uint64))
            for size, grams in self._grams.items()
        }

    def find(self, text: str) -> Iterator[tuple[str, int, Words]]:
        """Task, item and n-gram of every n-gram that a text shares with an item."""
        split = words(text)
        numbers = self._numbers(split)
        known = np.concatenate([[0], np.cumsum(numbers < 0)])
        for size, hashes in self._hashes.items():
            if len(split) < size or not hashes.size:
                continue
            whole = np.flatnonzero(known[size:] == known[:-size])
            if whole.size:
                keys = self._hash(numbers, size)[whole]
                near = hashes[np.minimum(np.searchsorted(hashes, keys), hashes.size - 1)] == keys
                for start in whole[near].tolist():
                    gram = tuple(split[start : start + size])
                    yield from ((task, item, gram) for task, item in self._grams[size].get(gram, ()))

    def _numbers(self, text: Sequence[str]) -> NDArray[np.int64]:
        return np.fromiter((self._ids.get(word, -1) for word in text), np.int64, len(text))

    def _hash(self, numbers: NDArray[np.int64], size: int) -> NDArray[np.uint64]:
        """A number for each window of `size` words; equal windows have equal numbers."""
        codes = self._codes[numbers]  # -1 takes the last code, which no word has
        total = np.zeros(len(numbers) - size + 1, np.uint64)
        for offset in range(size):
            total = total * np.uint64(0x9E3779B97F4A7C15) + codes[offset : len(codes) - size + 1 + offset]
        return total


def _grams(text: Sequence[str], size: int) -> Iterator[Words]:
    return (tuple(text[start : start + size]) for start in range(len(text) - size + 1))


@dataclass(frozen=True)
class Scan:
    """The search of one shard file of a domain's training text; can be pickled."""

    finder: Finder
    data: Path
    domain: str
    file: ShardFile

    def __call__(self, report: Report) -> list[Hit]:
        """The first hit of every item that has one; memory holds a batch of documents."""
        hits: dict[tuple[str, int], Hit] = {}
        for share, text in self._texts():
            for task, item, gram in self.finder.find(text):
                hits.setdefault((task, item), Hit(task, item, self.domain, " ".join(gram)))
            report(share)
        return list(hits.values())

    def _texts(self) -> Iterator[tuple[float, str]]:
        """Share of the file read, and the text of every document, decoded."""
        shards = open_shards(self.data)
        domain, tokenizer = shards[self.domain], load(shards.tokenizer)
        tokens = domain.stored(self.file)
        starts = domain.index(self.file)[:, 0]
        ends = np.append(starts[1:], self.file.tokens) - 1  # without the end of text
        for first in range(0, len(starts), BATCH):
            batch = slice(first, first + BATCH)
            encoded = [tokens[a:b].tolist() for a, b in zip(starts[batch], ends[batch], strict=True)]
            for text in tokenizer.decode_batch(encoded, skip_special_tokens=False):
                yield min(1.0, (first + BATCH) / len(starts)), text


def check(
    data: Path,
    items: Mapping[str, Sequence[str]] | None = None,
    *,
    processes: int = 1,
    progress: Callable[[float, str], None] = lambda *_: None,
) -> Contamination:
    """Look for evaluation items in all training text of a data folder.

    Documents are those that the shards hold: an n-gram across the cut of a longer one is missed.

    Args:
        data: folder that `prepare` wrote.
        items: texts of the items by task, question and right answer together; those of the data folder where None.
        processes: number of processes that share the work.
        progress: called with the share done, 0 to 1, and a message.

    Raises:
        InputError: there is no data, or no items.
    """
    shards = open_shards(data)
    finder = Finder(stored_items(data, shards.manifest) if items is None else items)
    jobs = [Scan(finder, data, name, file) for name, domain in shards.domains.items() for file in domain.manifest.train]
    sizes = [job.file.tokens for job in jobs]
    done = [0.0] * len(jobs)

    def report(number: int, share: float) -> None:
        done[number] = share * sizes[number]
        progress(sum(done) / sum(sizes), f"looking for items in {jobs[number].domain}")

    with ProcessPool(processes if processes > 1 and len(jobs) > 1 else 0) as pool:
        by_job: dict[int, list[Hit]] = {}
        for number, hits in pool.run(jobs, report):
            by_job[number] = hits
            report(number, 1.0)
    return overlap(finder, [hit for number in range(len(jobs)) for hit in by_job[number]])


def stored_items(data: Path, manifest: Manifest) -> dict[str, list[str]]:
    """Question and right answer of all items of a data folder, by task.

    Raises:
        InputError: there are none.
    """
    items = {
        task: [item.context + item.choices[0] for item in read_items(data, task)]
        for task, known in manifest.items.items()
        if known.count
    }
    if not items:
        raise InputError(f"{data} holds no items to look for: pass some, or add a domain that items are built from")
    return items


def overlap(finder: Finder, hits: Iterable[Hit]) -> Contamination:
    """The result by task from all hits; an item counts once a domain."""
    first: dict[tuple[str, int, str], Hit] = {}
    for hit in hits:
        first.setdefault((hit.task, hit.item, hit.domain), hit)
    domains = dict.fromkeys(hit.domain for hit in first.values())
    unique = sorted(first.values(), key=lambda hit: hit.item)
    tasks = []
    for task, size in finder.sizes.items():
        mine = [hit for hit in unique if hit.task == task]
        by_domain = {name: tuple(hit.item for hit in mine if hit.domain == name) for name in domains}
        numbers = tuple(dict.fromkeys(hit.item for hit in mine))
        shown = tuple({hit.item: hit for hit in reversed(mine)}.values())[::-1][:SHOWN]
        tasks.append(TaskOverlap(task, size, finder.items[task], finder.short[task], numbers, by_domain, shown))
    return Contamination(tuple(tasks))
