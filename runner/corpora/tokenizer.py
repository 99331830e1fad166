"""Byte-level BPE trained on the corpora themselves, saved so that transformers loads it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mixlaw.errors import InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

END_OF_TEXT = "<|endoftext|>"
END_ID = 0
SMALLEST = 257  # every byte, and the end of text


def train(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Train a byte-level BPE tokenizer (GPT-2's pre-tokenisation); any text survives encoding and decoding unchanged.

    Raises:
        InputError: the vocabulary has no room for the 256 bytes and the end of text.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    if vocabulary < SMALLEST:
        raise InputError(f"vocabulary is {vocabulary}: a byte-level tokenizer needs at least {SMALLEST}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path) -> str:
    """Write `tokenizer.json` and the configuration by which `AutoTokenizer` finds it; returns its hash."""
    folder.mkdir(parents=True, exist_ok=True)
    text = tokenizer.to_str()
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "pad_token": END_OF_TEXT,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    return hashlib.sha256(text.encode()).hexdigest()


def load(folder: Path) -> Tokenizer:
    """Read a tokenizer written by `save`, to be used by `encode`.

    Raises:
        InputError: there is none in the folder.
    """
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.exists():
        raise InputError(f"there is no tokenizer at {path}: run `mixlaw data` on the study again")
    return Tokenizer.from_file(str(path))


def encode(tokenizer: Tokenizer, texts: Iterable[str]) -> Iterator[NDArray[np.int64]]:
    """Tokens of each text; a literal `<|endoftext|>` in a text is ordinary characters, never the separator."""
    tokenizer.encode_special_tokens = True
    for batch in _batches(texts, characters=1_000_000):
        for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=False):
            yield np.asarray(encoding.ids, dtype=np.int64)


def _batches(texts: Iterable[str], characters: int) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= characters:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def token_bytes(tokenizer: Tokenizer) -> NDArray[np.int64]:
    """Length of each token in bytes, shape (vocabulary,); the end of text has none."""
    lengths = np.zeros(tokenizer.get_vocab_size(), dtype=np.int64)
    for token, index in tokenizer.get_vocab().items():
        lengths[index] = len(token)  # the byte-level alphabet has one character a byte
    lengths[END_ID] = 0
    return lengths
