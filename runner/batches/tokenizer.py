"""The tokenizer of a data folder: loading it, token ids of texts, and bytes of each token."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mixlaw.errors import InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BATCH = 250_000  # characters tokenised at once: some 30 MB in the library's own structures
END_OF_TEXT = "<|endoftext|>"
SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")

#: Tokens that may end a document, tried in this order where `tokenizer_config.json` names no `eos_token`.
ENDS = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>", "[SEP]")


def load(folder: Path) -> Tokenizer:
    """Load the tokenizer of a data folder, without truncation and padding.

    Raises:
        InputError: there is none in the folder.
    """
    path = folder / "tokenizer.json"
    if not path.exists():
        raise InputError(f"there is no tokenizer at {path}: run `mixlaw prepare` on the study again")
    tokenizer = parse(path.read_bytes(), path)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def end_of_text(folder: Path) -> int:
    """Id of the token that ends a document: the `eos_token` of the configuration."""
    token = load(folder).token_to_id(special_tokens(folder / "tokenizer_config.json")["eos_token"])
    assert token is not None, "checked when it was saved"
    return int(token)


def vocabulary_of(tokenizer: Tokenizer) -> int:
    """One more than the highest token id; ids may have gaps."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1


def encode(tokenizer: Tokenizer, texts: Iterable[str]) -> Iterator[NDArray[np.int64]]:
    """Token ids of each text, shape (tokens,), without the special tokens that a model family adds around it.

    A literal `<|endoftext|>` in a text is ordinary characters, never the separator.
    """
    for ids in encode_ids(tokenizer, texts):
        yield np.asarray(ids, dtype=np.int64)


def encode_ids(tokenizer: Tokenizer, texts: Iterable[str]) -> Iterator[list[int]]:
    """As `encode`, but as the lists that the library returns."""
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
    """Length of each token in bytes, shape (vocabulary,); 0 for special tokens, such as the end of text.

    Exact for byte-level tokenizers: the lengths of a text's tokens add up to the bytes of the text. Others normalise
    text, replace unknown characters, and treat spaces in their own way: for them the lengths (of the characters that a
    token is written with, at least 1) only say how the bytes of a document are divided among its tokens.
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


def parse(text: bytes, path: Path) -> Tokenizer:
    """A tokenizer from the content of a `tokenizer.json`; `path` is for the error.

    Raises:
        InputError: the content is not a tokenizer.
    """
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(text.decode())
    except Exception as error:  # the library raises bare exceptions
        raise InputError(f"{path} is no tokenizer of Hugging Face's tokenizers: {error}") from error


def special_tokens(path: Path) -> dict[str, str]:
    """Special tokens by name from a `tokenizer_config.json`, where a token is a string or an object with `content`."""
    if not path.exists():
        return {}
    try:
        settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}): fix it or remove it") from error
    values = {name: settings[name] for name in SPECIAL if name in settings}
    texts = {name: value["content"] if isinstance(value, dict) else value for name, value in values.items()}
    return {name: texts[name] for name in SPECIAL if isinstance(texts.get(name), str)}


def dtype_of(vocabulary: int) -> np.dtype[np.unsignedinteger]:
    """Smallest integer type that holds every token."""
    return np.dtype("<u2") if vocabulary <= 2**16 else np.dtype("<u4")


def located(source: Path) -> Path:
    """Path of the `tokenizer.json`: `source` itself, or the file in the folder `source`.

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
    """Hash of a tokenizer's file and of the configuration beside it; another hash means that data are built again.

    Raises:
        InputError: there is none.
    """
    path = located(source)
    beside = path.parent / "tokenizer_config.json"
    return hashlib.sha256(path.read_bytes() + (beside.read_bytes() if beside.exists() else b"")).hexdigest()


@lru_cache(maxsize=4)
def named_tokenizer(source: Path) -> tuple[Tokenizer, int, int | None]:
    """A tokenizer where it is, the id of the token that ends a document, and of one that begins it, if it has another.

    Raises:
        InputError: there is none, it cannot be read, or it does not say which token ends a document.
    """
    path = located(source)
    tokenizer = parse(path.read_bytes(), path)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokens, names = tokenizer.get_vocab(with_added_tokens=True), special_tokens(path.parent / "tokenizer_config.json")
    end, begin = tokens[end_token(path, names, tokens)], tokens.get(names.get("bos_token", ""))
    return tokenizer, end, None if begin == end else begin


def end_token(path: Path, names: Mapping[str, str], tokens: Mapping[str, int]) -> str:
    """The token that ends a document.

    Raises:
        InputError: the tokenizer does not say.
    """
    for token in (names.get("eos_token"), names.get("sep_token"), *ENDS):
        if token in tokens:
            return str(token)
    raise InputError(
        f"cannot tell which token of {path} ends a document: set eos_token in a tokenizer_config.json beside it"
    )
