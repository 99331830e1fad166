"""Shards of tokens that another program wrote: Megatron's .bin with .idx, NumPy's .npy, flat .bin, Mosaic's MDS.

A source names the tokenizer that made them. Where that is the study's, the tokens are read where they are; else the
documents are decoded and tokenised anew. A document is what the format has as one, cut at the tokenizer's end of text;
that token, and the one that begins a text, are no part of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mixlaw.errors import InputError
from mixlaw.runner.batches.manifest import TokenSource
from mixlaw.runner.batches.tokenizer import encode, named_tokenizer, vocabulary_of
from mixlaw.runner.batches.tokenizer import identity as tokenizer_identity
from mixlaw.runner.corpora.sources.address import Address, Scheme, at_home, stats
from mixlaw.runner.corpora.sources.document import Document, StoredTokens
from mixlaw.runner.corpora.sources.part import Part
from mixlaw.runner.corpora.sources.token_files import File, files_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PART = 64 * 2**20  # tokens that one process reads
TOGETHER = 2**18  # tokens decoded at once
CHECKED, LEADING = 64, 256  # documents, and tokens of each, that are tokenised again to see whose they are
AGREEING = 0.5  # share of them, at least; a document that is cut inside a character differs


def token_files(address: Address) -> list[TokenSource]:
    """The files of a source in the order of their numbers.

    Raises:
        InputError: as `files_of`.
    """
    return [file.source for file in files_of(address)]


def tokenizer_of(address: Address) -> Path:
    """The tokenizer that a source names.

    Raises:
        InputError: it names none.
    """
    if not (named := address.text("tokenizer")):
        raise InputError(
            f"the source {address.source!r} does not say whose tokens these are: add ?tokenizer=FILE, a tokenizer.json "
            "or a folder that holds one"
        )
    return address.root / at_home(named)


def _parts(address: Address) -> list[Part]:
    named_tokenizer(tokenizer_of(address))  # reject a wrong one before anything is read
    read = partial(_read, str(tokenizer_of(address)))
    parts = []
    for number, file in enumerate(files_of(address)):
        name, width = Path(file.source.path).name, np.dtype(file.source.dtype).itemsize
        for first, last in _slices(file):
            own = file if file.spans is None else replace(file, spans=file.spans[first:last])
            tokens = last - first if own.spans is None else int(own.spans[:, 1].sum())
            job = partial(read, number, own, first, last)
            parts.append(Part(f"{name}:{first}", job, max(1, tokens * width)))
    return parts


def _slices(file: File) -> list[tuple[int, int]]:
    """Ranges of documents, or of tokens where documents are not known yet, of about PART tokens."""
    if file.spans is None:
        tokens = (file.source.bytes - file.begin) // np.dtype(file.source.dtype).itemsize
        return list(pairwise([*range(0, tokens, PART), tokens]))
    if not len(file.spans):
        return []
    number = np.cumsum(file.spans[:, 1]) // PART
    cuts = [0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), len(file.spans)]
    return [(a, b) for a, b in pairwise(cuts) if a < b]


# --- documents ------------------------------------------------------------------------------------------------------


def _read(tokenizer: str, number: int, file: File, first: int, last: int) -> Iterator[Document]:
    """Documents of a slice of a file, decoded; empty ones are left out."""
    coder, end, begin = named_tokenizer(Path(tokenizer))
    vocabulary, width = vocabulary_of(coder), np.dtype(file.source.dtype).itemsize
    data = np.memmap(file.source.path, np.uint8, "r")
    spans = _flat(file, data, first, last, end) if file.spans is None else iter(file.spans.tolist())
    cut = (part for span in spans for part in _without_ends(data, file.source.dtype, span, end, begin))
    checked = 0
    while batch := list(_batch(cut)):
        for offset, tokens in batch:
            if int(tokens.max()) >= vocabulary or int(tokens.min()) < 0:
                wrong = tokens[(tokens >= vocabulary) | (tokens < 0)][0]
                raise InputError(
                    f"{file.source.path} holds the token {wrong} after byte {offset}, and {tokenizer} has "
                    f"{vocabulary:,}: name the tokenizer that made the file, and its type with dtype="
                )
        if first == 0 and checked < CHECKED:
            _check(file.source.path, tokenizer, coder, [tokens for _, tokens in batch[: CHECKED - checked]])
            checked += len(batch)
        texts = coder.decode_batch([tokens.tolist() for _, tokens in batch], skip_special_tokens=False)
        for (offset, tokens), text in zip(batch, texts, strict=True):
            yield Document(text, f"{file.source.path}:{offset // width}", "", StoredTokens(number, offset, len(tokens)))


def _batch(documents: Iterator[tuple[int, NDArray[Any]]]) -> Iterator[tuple[int, NDArray[Any]]]:
    size = 0
    for offset, tokens in documents:
        yield offset, tokens
        size += len(tokens)
        if size >= TOGETHER:
            return


def _without_ends(
    data: NDArray[np.uint8], dtype: str, span: tuple[int, int], end: int, begin: int | None
) -> Iterator[tuple[int, NDArray[Any]]]:
    """First byte and tokens of the parts of a document between ends of text."""
    (offset, tokens), width = span, np.dtype(dtype).itemsize
    values = data[offset : offset + tokens * width].view(dtype)
    for a, b in pairwise([-1, *np.flatnonzero(values == end).tolist(), len(values)]):
        start = a + 1 + (a + 1 < b and values[a + 1] == begin)
        if start < b:
            yield offset + start * width, values[start:b]


def _flat(file: File, data: NDArray[np.uint8], first: int, last: int, end: int) -> Iterator[tuple[int, int]]:
    """Spans of the documents that begin among the tokens `first` to `last` - 1 of a flat file."""
    values = data[file.begin :].view(file.source.dtype)
    width, place = values.itemsize, first
    if first:
        place = next(_ends(values, first - 1, end), len(values)) + 1
    for stop in _ends(values, place, end):
        if place >= last:
            return
        yield file.begin + place * width, stop - place
        place = stop + 1
    if place < min(last, len(values)):
        if place == 0:
            raise InputError(
                f"{file.source.path} holds no token {end}, with which the tokenizer ends a text, so that its documents "
                "cannot be distinguished: name the tokenizer that made the file, and its type with dtype="
            )
        yield file.begin + place * width, len(values) - place


def _ends(values: NDArray[Any], start: int, end: int) -> Iterator[int]:
    """Positions of the end of text from `start` on, read block by block."""
    for block in range(start, len(values), TOGETHER):
        yield from (np.flatnonzero(values[block : block + TOGETHER] == end) + block).tolist()


def _check(path: str, tokenizer: str, coder: Tokenizer, documents: Sequence[NDArray[Any]]) -> None:
    """Refuse tokens that are another tokenizer's: tokenised again, the text of most documents must give them."""
    starts = [tokens[:LEADING].tolist() for tokens in documents]
    again = encode(coder, coder.decode_batch(starts, skip_special_tokens=False))
    half = [max(1, len(start) // 2) for start in starts]
    same = sum(start[:n] == ids[:n].tolist() for start, ids, n in zip(starts, again, half, strict=True))
    if same < AGREEING * len(starts):
        raise InputError(
            f"the tokens of {path} are not those of {tokenizer}: {same} of the first {len(starts)} documents have the "
            "same tokens when decoded and tokenised again; name the tokenizer that made the file"
        )


def _identity(address: Address) -> object:
    files = [Path(file.path) for file in token_files(address)]
    beside = [index for file in files if (index := file.with_suffix(".idx")).is_file()]
    return [stats([*files, *beside]), tokenizer_identity(tokenizer_of(address))]


TOKENS = Scheme(_parts, _identity, {"tokenizer": "", "dtype": "", "column": "tokens"})
