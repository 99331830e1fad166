"""Scoring text: windows of tokens, their negative log-likelihood in batches, and the values computed from it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mixlaw.errors import InputError
from mixlaw.records import Measurement, Unit
from mixlaw.runner.batches.shards import HeldOut, open_shards
from mixlaw.runner.batches.tokenizer import encode
from mixlaw.runner.evaluate.coding import Coding, Documents, spread
from mixlaw.runner.evaluate.items import Item, read_items
from mixlaw.runner.evaluate.measure import Measure, Measured, Subject, in_halves, mean
from mixlaw.runner.evaluate.team import shared

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Window:
    """Tokens for one forward pass, of which those from index `start` (at least 1) on are scored.

    `bytes` is the size of the text of the scored tokens; `group` the document or item that they belong to.
    """

    tokens: Ints
    start: int
    bytes: int
    group: int


def held_out_windows(documents: Documents, sizes: Ints, length: int, most: int) -> Iterator[Window]:
    """Windows of `length` predictions as in training, every document beginning after the end of text.

    Of all windows, in the order of the documents' hash, evenly spaced ones are taken, `most` tokens in all.
    """
    for number, first in spread(documents.sizes, length, most):
        document = documents.documents[number]
        before = document.tokens[first - 1] if first else documents.end
        tokens = np.append(np.int64(before), document.tokens[first : first + length].astype(np.int64))
        yield Window(tokens, 1, _share_of(document, sizes, first, first + length), document.group)


def _share_of(document: HeldOut, sizes: Ints, first: int, last: int) -> int:
    """Bytes of the document's text in tokens first to last - 1; all windows together have all bytes.

    Where the tokens' lengths add up to the text, as those of byte-level tokenizers do, it is the sum of the lengths;
    else the text's bytes in proportion to them.
    """
    until = np.append(0, np.cumsum(sizes[document.tokens]))
    begin, end = int(until[first]), int(until[min(last, document.tokens.size)])
    whole = max(1, int(until[-1]))
    return end * document.bytes // whole - begin * document.bytes // whole


def item_windows(items: Sequence[Item], tokenizer: Tokenizer, length: int, end_of_text: int) -> Iterator[Window]:
    """Windows of the choices of items, each in its context, as a document that begins with it; groups are items."""
    tokens = encode(tokenizer, [text for item in items for text in (item.context, *item.choices)])
    for group, item in enumerate(items):
        yield from _item_windows(item, group, tokens, length, end_of_text)


def _item_windows(item: Item, group: int, tokens: Iterator[Ints], length: int, end_of_text: int) -> Iterator[Window]:
    context = np.append(end_of_text, next(tokens))
    for choice in item.choices:
        answer = next(tokens)
        bounds = slide(context.size, context.size + answer.size, length)
        whole = np.append(context, answer)
        for number, (begin, start, end) in enumerate(bounds):
            size = len(choice.encode()) if number == 0 else 0
            yield Window(whole[begin:end], start - begin, size, group)


def slide(start: int, end: int, length: int) -> list[tuple[int, int, int]]:
    """Cut predictions `start` to `end` into windows (begin, first scored, end) of at most `length` predictions.

    Every window but the first scores half of its length and has the other half as context.
    """
    stop = min(end, max(length + 1, start + length // 2))
    bounds = [(max(0, stop - length - 1), start, stop)]
    while stop < end:
        start, stop = stop, min(end, stop + max(1, length // 2))
        bounds.append((max(0, stop - length - 1), start, stop))
    return bounds


def score(subject: Subject, windows: Sequence[Window]) -> Floats:
    """Negative log-likelihood of each window's scored tokens, in nats, shape (windows,); ranks share the batches."""
    nats = np.zeros(len(windows))
    with subject.at_rest():
        batches = list(_batches(windows, subject.batch_tokens))
        parts = shared(subject, _score, [[windows[number] for number in batch] for batch in batches])
    for batch, part in zip(batches, parts, strict=True):
        nats[batch] = part
    return nats


def _score(subject: Subject, windows: list[Window]) -> list[float]:
    numbers = list(range(len(windows)))
    return in_halves(numbers, lambda part: _score_batch(subject.model, [windows[number] for number in part]))


def _batches(windows: Sequence[Window], most: int) -> Iterator[list[int]]:
    """Numbers of windows of like length, at most `most` tokens together with their padding."""
    order = sorted(range(len(windows)), key=lambda number: (windows[number].tokens.size, windows[number].start, number))
    batch: list[int] = []
    for number in order:
        if batch and (len(batch) + 1) * windows[number].tokens.size > most:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def _score_batch(model: Any, windows: Sequence[Window]) -> Floats:
    import torch

    # Padding is on the right, where a causal model cannot see it, and its predictions are not scored:
    # no attention mask is needed, and the fast causal kernel is used.
    longest = max(window.tokens.size for window in windows)
    inputs = np.zeros((len(windows), longest - 1), np.int64)
    targets = np.full((len(windows), longest - 1), -100)
    for row, window in enumerate(windows):
        inputs[row, : window.tokens.size - 1] = window.tokens[:-1]
        targets[row, window.start - 1 : window.tokens.size - 1] = window.tokens[window.start :]
    keep = longest - min(window.start for window in windows)  # no logits for positions that no window scores
    logits = model(input_ids=torch.from_numpy(inputs).to(model.device), use_cache=False, logits_to_keep=keep).logits
    wanted = torch.from_numpy(targets[:, -keep:]).to(model.device)
    nats = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), wanted.flatten(), reduction="none")
    total: Floats = nats.view(wanted.shape).sum(1, dtype=torch.float64).cpu().numpy()
    return total


def bits_per_byte(nats: Floats, sizes: Floats, groups: Ints) -> Measurement:
    """Total nats over total bytes, in bits; a ratio estimator with its linearised error over groups.

        value = sum n / (sum b ln 2),   stderr^2 = C / (C - 1) sum_c (n_c - R b_c)^2 / (sum b ln 2)^2

    Args:
        nats, sizes: nats and bytes of each window, shape (windows,).
        groups: the document or item of each; windows of one document are not independent.
    """
    _, index = np.unique(groups, return_inverse=True)
    by_group, bytes_by_group = np.bincount(index, nats), np.bincount(index, sizes)
    ratio, count = by_group.sum() / bytes_by_group.sum(), by_group.size
    spread = float(np.sum((by_group - ratio * bytes_by_group) ** 2))
    error = math.sqrt(spread * count / (count - 1)) / bytes_by_group.sum() if count > 1 else math.nan
    return Measurement(float(ratio) / math.log(2), float(error) / math.log(2), int(count))


def choice_probability(nats: Floats, sizes: Floats, groups: Ints) -> Measurement:
    """Mean probability of the right choice, the first of its item, among the choices of the item.

    A choice's log-probability is the sum over its tokens, so the value is the model's conditional probability of the
    right answer given that one of the choices follows (Schaeffer et al. 2024, arXiv:2406.04391). Division by bytes,
    common where choices differ in length, would press all probabilities towards chance; here the items match lengths.

    Args:
        nats, sizes: of each window, shape (windows,); windows that continue a choice have no bytes.
        groups: the item of each window.
    """
    choice = np.cumsum(sizes > 0) - 1
    logs = -np.bincount(choice, nats)
    item = groups[sizes > 0]
    right = np.array([_softmax_first(logs[item == number]) for number in np.unique(item)])
    error = float(right.std(ddof=1)) / math.sqrt(right.size) if right.size > 1 else math.nan
    return Measurement(float(right.mean()), error, right.size)


def _softmax_first(logs: Floats) -> float:
    return float(1 / np.exp(logs - logs[0]).sum())


def choice_accuracy(nats: Floats, sizes: Floats, groups: Ints) -> Measured:
    """Share of items whose right choice, the first, is the likeliest; where several are, it counts one over as many.

    Args:
        nats, sizes: of each window, shape (windows,); windows that continue a choice have no bytes.
        groups: the item of each window.
    """
    choice = np.cumsum(sizes > 0) - 1
    total, item = np.bincount(choice, nats), groups[sizes > 0]
    items = [total[item == number] for number in np.unique(item)]
    right = [float(nats[0] == nats.min()) / int((nats == nats.min()).sum()) for nats in items]
    return mean(right, {"chance": chance([nats.size for nats in items])})


def chance(choices: list[int]) -> float:
    """Accuracy of guessing, given the number of choices of each item."""
    return float(np.mean([1 / count for count in choices]))


def measured(unit: Unit, windows: Sequence[Window], nats: Floats) -> Measurement:
    """The value of a task in bits/byte, accuracy or choice-prob from its windows and their nats."""
    groups = np.array([window.group for window in windows])
    sizes = np.array([window.bytes for window in windows], dtype=float)
    if unit is Unit.BITS_PER_BYTE:
        return bits_per_byte(nats, sizes, groups)
    return (choice_accuracy if unit is Unit.ACCURACY else choice_probability)(nats, sizes, groups)


@dataclass(frozen=True)
class Items(Measure):
    """Items of the data folder by name, in another unit than their own.

    Attributes:
        items: name of the items, such as capitals.
        unit: accuracy or choice-prob, of items with several choices; bits/byte, of the right answer.
    """

    kind: ClassVar[str] = "items"

    items: str
    unit: str = Unit.ACCURACY.value

    def check(self) -> None:
        """Nothing: the items are in the data folder, or `of` reports that they are not."""

    def of(self, subject: Subject) -> tuple[Item, ...]:
        """The items; with the right choice alone in bits/byte.

        Raises:
            InputError: there are none, or they have one choice and several are needed.
        """
        if subject.data is None:
            raise InputError(f"the items {self.items!r} are part of a data folder, and none was given: pass data=")
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
        coding = Coding.of(subject, open_shards(subject.data))
        windows = list(item_windows(items, coding.tokenizer, subject.length, coding.end))
        value = measured(Unit(self.unit), windows, score(subject, windows))
        return value if isinstance(value, Measured) else Measured(value.value, value.stderr, value.count)
