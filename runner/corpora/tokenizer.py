"""The tokenizer of a study: a byte-level BPE trained on its corpora, or a `tokenizer.json` that is there already.

Either is saved so that `AutoTokenizer` loads it and gives the same tokens.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mixlaw.errors import InputError
from mixlaw.files import sha256_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer

END_OF_TEXT = "<|endoftext|>"
END_ID = 0  # of a tokenizer trained here; that of another stands in the manifest
SMALLEST = 257  # every byte, and the end of text
BATCH = 250_000  # characters tokenised at once: some 30 MB in the library's own structures

#: Tokens that may end a text, where `tokenizer_config.json` names no `eos_token`.
ENDS = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>", "[SEP]")
NAMED = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")


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
class Words:
    """A tokenizer that was saved: its folder and hash, how many tokens there are, and which one ends a text."""

    folder: Path
    hash: str
    vocabulary: int
    end: int

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger]:
        """Smallest integer type that holds every token."""
        return dtype_of(self.vocabulary)


def dtype_of(vocabulary: int) -> np.dtype[np.unsignedinteger]:
    """Smallest integer type that holds every token."""
    return np.dtype("<u2") if vocabulary <= 2**16 else np.dtype("<u4")


def trained(texts: Iterable[str], vocabulary: int, folder: Path) -> Words:
    """Train and save a tokenizer, unless it is there."""
    if not (folder / "tokenizer_config.json").exists():  # written last
        save(train(texts, vocabulary), folder)
    return Words(folder, sha256_of(folder / "tokenizer.json"), vocabulary, END_ID)


def adopted(source: Path, folder: Path) -> Words:
    """Copy a tokenizer.

    Raises:
        InputError: as `adopt`.
    """
    checksum = adopt(source, folder)
    return Words(folder, checksum, vocabulary_of(load(folder)), end_of_text(folder))


def save(tokenizer: Tokenizer, folder: Path) -> str:
    """Write `tokenizer.json` and the configuration by which `AutoTokenizer` finds it; returns its hash."""
    names = {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT, "pad_token": END_OF_TEXT}
    return _write(folder, tokenizer.to_str().encode(), names)


def _write(folder: Path, text: bytes, names: dict[str, str]) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    # The class that takes tokenizer.json as it is; the classes of model families rebuild parts of it their own way.
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **names, "clean_up_tokenization_spaces": False}
    (folder / "tokenizer.json").write_bytes(text)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    return hashlib.sha256(text).hexdigest()


def located(source: Path) -> Path:
    """The `tokenizer.json` that a path means: the file itself, or the one in a folder.

    Raises:
        InputError: there is none.
    """
    path = source / "tokenizer.json" if source.is_dir() else source
    if not path.is_file():
        raise InputError(
            f"there is no tokenizer at {path}: name a tokenizer.json or a folder that holds one, such as a checkpoint; "
            "AutoTokenizer.from_pretrained(...).save_pretrained(folder) writes it for other formats"
        )
    return path


def identity(source: Path) -> str:
    """What decides whether a tokenizer has changed: a hash of its file and of the configuration beside it.

    Raises:
        InputError: there is none.
    """
    path = located(source)
    beside = path.parent / "tokenizer_config.json"
    return hashlib.sha256(path.read_bytes() + (beside.read_bytes() if beside.exists() else b"")).hexdigest()


def adopt(source: Path, folder: Path) -> str:
    """Copy a tokenizer to `folder` with its special tokens' names from the configuration beside it; returns its hash.

    Raises:
        InputError: there is none, it cannot be read, or nobody knows which token ends a text.
    """
    path = located(source)
    text = path.read_bytes()
    tokens = _parsed(text, path).get_vocab(with_added_tokens=True)
    told = _named(path.parent / "tokenizer_config.json")
    names = {name: token for name, token in told.items() if token in tokens}
    end = next((token for token in (names.get("eos_token"), names.get("sep_token"), *ENDS) if token in tokens), None)
    if end is None:
        raise InputError(
            f"nobody knows which token of {path} ends a text: name it as eos_token in a tokenizer_config.json beside it"
        )
    return _write(folder, text, {"bos_token": end, "pad_token": end, **names, "eos_token": end})


def _parsed(text: bytes, path: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(text.decode())
    except Exception as error:  # the library raises bare exceptions
        raise InputError(f"{path} is no tokenizer of Hugging Face's tokenizers: {error}") from error


def _named(path: Path) -> dict[str, str]:
    """Special tokens that a configuration names; a token is text, or an object with its content."""
    if not path.exists():
        return {}
    try:
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}): mend it or leave it out") from error
    values = {name: told[name] for name in NAMED if name in told}
    found = {name: value["content"] if isinstance(value, dict) else value for name, value in values.items()}
    return {name: found[name] for name in NAMED if isinstance(found.get(name), str)}


def load(folder: Path) -> Tokenizer:
    """Read a tokenizer written by `save` or `adopt`, to be used by `encode`.

    Raises:
        InputError: there is none in the folder.
    """
    path = folder / "tokenizer.json"
    if not path.exists():
        raise InputError(f"there is no tokenizer at {path}: run `mixlaw data` on the study again")
    tokenizer = _parsed(path.read_bytes(), path)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def end_of_text(folder: Path) -> int:
    """Token that ends a text: the `eos_token` of a tokenizer written by `save` or `adopt`."""
    token = load(folder).token_to_id(_named(folder / "tokenizer_config.json")["eos_token"])
    assert token is not None, "checked when it was saved"
    return int(token)


def vocabulary_of(tokenizer: Tokenizer) -> int:
    """Numbers of tokens, one more than the highest; there may be gaps."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1


def encode(tokenizer: Tokenizer, texts: Iterable[str]) -> Iterator[NDArray[np.int64]]:
    """Tokens of each text, without those that a model family puts around it.

    A literal `<|endoftext|>` in a text is ordinary characters, never the separator.
    """
    for ids in encode_ids(tokenizer, texts):
        yield np.asarray(ids, dtype=np.int64)


def encode_ids(tokenizer: Tokenizer, texts: Iterable[str]) -> Iterator[list[int]]:
    """As `encode`, as plain lists: the form in which the library gives them."""
    tokenizer.encode_special_tokens = True
    for batch in _batches(texts, BATCH):
        for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=False):
            yield encoding.ids


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
    """Length of each token in bytes, shape (vocabulary,); special tokens, such as the end of text, have none.

    Exact for byte-level tokenizers: the lengths of a text's tokens add up to the bytes of the text. Others normalise
    text, replace what they do not know, and treat spaces in ways of their own: there the lengths (of the characters a
    token is written with, at least 1) only tell how the bytes of a document are shared out among its tokens.
    """
    state = json.loads(tokenizer.to_str())
    added = tokenizer.get_added_tokens_decoder()
    unknown = state["model"].get("unk_token")
    alphabet = _byte_alphabet() if '"ByteLevel"' in json.dumps(state["decoder"]) else None
    lengths = np.zeros(vocabulary_of(tokenizer), dtype=np.int64)
    for token, index in tokenizer.get_vocab(with_added_tokens=True).items():
        if index not in added or token == unknown:
            lengths[index] = len(token) if alphabet and alphabet.issuperset(token) else _written(token)
        elif not added[index].special:
            lengths[index] = len(token.encode())
    if (place := state["model"].get("unk_id")) is not None:
        lengths[place] = max(1, lengths[place])
    return lengths


def _byte_alphabet() -> set[str]:
    from tokenizers import pre_tokenizers

    return set(pre_tokenizers.ByteLevel.alphabet())


def _written(token: str) -> int:
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        return 1  # byte fallback
    return max(1, len(token.removeprefix("##").replace("\u2581", " ").encode()))
