"""Items of a data folder measured in another unit than their own: accuracy, choice probability, bits of the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from mixlaw.errors import InputError
from mixlaw.records import Unit
from mixlaw.runner.batches.shards import open_shards
from mixlaw.runner.batches.tokenizer import encode, load
from mixlaw.runner.evaluate.items import Item, read_items
from mixlaw.runner.evaluate.measure import Measure, Measured, Subject, mean
from mixlaw.runner.evaluate.scoring import bits_per_byte, choice_probability, item_windows, score


def choice_accuracy(nats: NDArray[np.float64], sizes: NDArray[np.float64], groups: NDArray[np.int64]) -> Measured:
    """Share of items whose right choice, the first, is the likeliest; where several are, it counts one over as many.

    Args:
        nats, sizes: of each window, shape (windows,); windows that continue a choice have no bytes.
        groups: the item of each window.
    """
    choice = np.cumsum(sizes > 0) - 1
    total, item = np.bincount(choice, nats), groups[sizes > 0]
    each = [total[item == number] for number in np.unique(item)]
    right = [float(found[0] == found.min()) / int((found == found.min()).sum()) for found in each]
    return mean(right, {"chance": chance([found.size for found in each])})


def chance(choices: list[int]) -> float:
    """Accuracy of guessing among so many choices per item."""
    return float(np.mean([1 / count for count in choices]))


@dataclass(frozen=True)
class Items(Measure):
    """Items of the data folder by name, in a unit of one's choice.

    Attributes:
        items: name of the items, such as capitals.
        unit: accuracy or choice-prob, of items with several choices; bits/byte, of the right answer.
    """

    kind: ClassVar[str] = "items"

    items: str
    unit: str = Unit.ACCURACY.value

    def check(self) -> None:
        """Nothing to find out: items lie in the data folder, or `of` says that they do not."""

    def of(self, subject: Subject) -> tuple[Item, ...]:
        """The items, of the right choice alone where it is what counts.

        Raises:
            InputError: there are none, or they have one choice and several are needed.
        """
        if subject.data is None:
            raise InputError(f"the items {self.items!r} lie in a data folder; give one")
        items = read_items(subject.data, self.items)
        if Unit(self.unit) is Unit.BITS_PER_BYTE:
            return tuple(Item(item.context, item.choices[:1]) for item in items)
        if min(len(item.choices) for item in items) < 2:
            raise InputError(f"the items {self.items!r} have one choice: their unit is bits/byte, not {self.unit}")
        return items

    def measure(self, task: str, subject: Subject) -> Measured:
        """Score every choice given its context, as a document that begins with it."""
        items = self.of(subject)
        assert subject.data is not None, "checked"
        shards = open_shards(subject.data)
        tokens = encode(load(shards.tokenizer), [text for item in items for text in (item.context, *item.choices)])
        windows = [
            window
            for group, item in enumerate(items)
            for window in item_windows(item, group, tokens, subject.length, shards.manifest.end)
        ]
        nats = score(subject.model, windows)
        groups = np.array([window.group for window in windows])
        sizes = np.array([window.bytes for window in windows], dtype=float)
        if Unit(self.unit) is Unit.ACCURACY:
            return choice_accuracy(nats, sizes, groups)
        found = (bits_per_byte if Unit(self.unit) is Unit.BITS_PER_BYTE else choice_probability)(nats, sizes, groups)
        return Measured(found.value, found.stderr, found.count)
