"""Scoring text: windows of tokens, their negative log-likelihood in batches, and what is counted from it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixlaw.records import Measurement
from mixlaw.runner.batches.shards import DomainShards, HeldOut
from mixlaw.runner.evaluate.items import Item

#: Tokens of one forward pass. On a CPU the logits must stay in cache: 2,048 was fastest from 0.02M to 0.3M parameters.
BATCH_TOKENS = {"cpu": 2048, "cuda": 65_536}

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Window:
    """Tokens for one forward pass, of which those from index `start` (at least 1) on are scored.

    `bytes` is the text that the scored tokens stand for; `group` the document or choice it counts for.
    """

    tokens: Ints
    start: int
    bytes: int
    group: int


def held_out_windows(domain: DomainShards, sizes: Ints, length: int, most: int) -> Iterator[Window]:
    """Windows of `length` predictions as in training, every document beginning after the end of text.

    Of all windows, in the order of the documents' hash, evenly spaced ones are taken, `most` tokens in all.
    """
    documents = domain.held_out
    ends = np.cumsum([-(-document.tokens.size // length) for document in documents])
    count = min(int(ends[-1]), max(1, most // length))
    for chosen in (np.arange(count) * int(ends[-1])) // count:
        number = int(np.searchsorted(ends, chosen, side="right"))
        document = documents[number]
        first = (int(chosen) - int(ends[number - 1]) * (number > 0)) * length
        before = document.tokens[first - 1] if first else domain.end
        tokens = np.append(np.int64(before), document.tokens[first : first + length].astype(np.int64))
        yield Window(tokens, 1, _share_of(document, sizes, first, first + length), document.group)


def _share_of(document: HeldOut, sizes: Ints, first: int, last: int) -> int:
    """Bytes of the document's text that tokens first to last - 1 stand for; all windows together have all bytes.

    Where the tokens' lengths add up to the text, as those of byte-level tokenizers do, it is the sum of the lengths;
    else the text's bytes in proportion to them.
    """
    until = np.append(0, np.cumsum(sizes[document.tokens]))
    begin, end = int(until[first]), int(until[min(last, document.tokens.size)])
    whole = max(1, int(until[-1]))
    return end * document.bytes // whole - begin * document.bytes // whole


def item_windows(item: Item, group: int, tokens: Iterator[Ints], length: int, end_of_text: int) -> Iterator[Window]:
    """Windows of an item's choices; `group` numbers the items, the choices of an item follow one another."""
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


def score(model: Any, windows: Sequence[Window]) -> Floats:
    """Negative log-likelihood of each window's scored tokens, in nats, shape (windows,)."""
    import torch

    nats = np.zeros(len(windows))
    training = model.training
    model.eval()
    with torch.inference_mode():
        for batch in _batches(windows, BATCH_TOKENS.get(model.device.type, 2048)):
            nats[batch] = _score_batch(model, [windows[number] for number in batch])
    model.train(training)
    return nats


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

    # Padding stands to the right, where a causal model cannot see it, and its predictions are not scored:
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
