"""Making the tokenizer of a study: train a byte-level BPE on its corpora, or copy a `tokenizer.json`.

Either is saved so that `AutoTokenizer` loads it and gives the same tokens.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mixlaw.errors import InputError
from mixlaw.files import replacing, sha256_of, write_text
from mixlaw.runner.batches.tokenizer import (
    END_OF_TEXT as END_OF_TEXT,
)
from mixlaw.runner.batches.tokenizer import (
    dtype_of,
    end_of_text,
    end_token,
    load,
    located,
    parse,
    special_tokens,
    vocabulary_of,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

END_ID = 0  # of a tokenizer trained here; the manifest holds that of another
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


@dataclass(frozen=True)
class SavedTokenizer:
    """A tokenizer on disk.

    Attributes:
        folder: that `AutoTokenizer.from_pretrained` loads.
        hash: sha256 of its `tokenizer.json`.
        vocabulary: one more than the highest token id.
        end: id of the token that ends a document.
        begin: what its own model has before a text, which documents here do not begin with; empty for none.
        unused: tokens of the vocabulary that its training did not fill.
    """

    folder: Path
    hash: str
    vocabulary: int
    end: int
    begin: str = ""
    unused: int = 0

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger]:
        """Smallest integer type that holds every token."""
        return dtype_of(self.vocabulary)


def train_and_save(texts: Iterable[str], vocabulary: int, folder: Path) -> SavedTokenizer:
    """Train a tokenizer and save it, unless the folder already holds a complete one."""
    if not (folder / "tokenizer_config.json").exists():  # written last
        save(train(texts, vocabulary), folder)
    unused = vocabulary - vocabulary_of(load(folder))
    return SavedTokenizer(folder, sha256_of(folder / "tokenizer.json"), vocabulary, END_ID, unused=unused)


def save(tokenizer: Tokenizer, folder: Path) -> str:
    """Write `tokenizer.json` and the configuration by which `AutoTokenizer` finds it; returns its hash."""
    names = {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT, "pad_token": END_OF_TEXT}
    return _write(folder, tokenizer.to_str().encode(), names)


def _write(folder: Path, text: bytes, names: dict[str, str]) -> str:
    # The class that takes tokenizer.json as it is; the classes of model families rebuild parts of it their own way.
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **names, "clean_up_tokenization_spaces": False}
    with replacing(folder / "tokenizer.json") as temporary:
        temporary.write_bytes(text)
    write_text(folder / "tokenizer_config.json", json.dumps(settings, indent=2) + "\n")
    return hashlib.sha256(text).hexdigest()


def adopt(source: Path, folder: Path) -> SavedTokenizer:
    """Copy a tokenizer to `folder`, with the names of its special tokens from the configuration beside it.

    Raises:
        InputError: there is none, it cannot be read, or it does not say which token ends a document.
    """
    path = located(source)
    text = path.read_bytes()
    tokens = parse(text, path).get_vocab(with_added_tokens=True)
    named = special_tokens(path.parent / "tokenizer_config.json")
    names = {name: token for name, token in named.items() if token in tokens}
    end = end_token(path, names, tokens)
    checksum = _write(folder, text, {"bos_token": end, "pad_token": end, **names, "eos_token": end})
    begin = _first_token(load(folder)) or (named.get("bos_token", "") if _adds_bos(path) else "")
    return SavedTokenizer(folder, checksum, vocabulary_of(load(folder)), end_of_text(folder), begin)


def _first_token(tokenizer: Tokenizer) -> str:
    """The special token that a tokenizer puts before a text; empty if none."""
    encoding = tokenizer.encode("a")
    return str(encoding.tokens[0]) if encoding.special_tokens_mask[:1] == [1] else ""


def _adds_bos(path: Path) -> bool:
    """Whether the configuration beside a tokenizer asks for a token at the beginning of each text."""
    beside = path.parent / "tokenizer_config.json"
    return beside.exists() and json.loads(beside.read_text(encoding="utf-8-sig")).get("add_bos_token") is True
