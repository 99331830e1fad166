"""The byte-level tokenizer: lossless, deterministic, of the size asked for, and loaded by transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mixlaw.errors import InputError
from mixlaw.runner.batches.tokenizer import encode, load, token_bytes
from mixlaw.runner.corpora.tokenizer import END_ID, END_OF_TEXT, save, train

CORPUS = [Path(__file__).read_text(encoding="utf-8"), "Fellow citizens of the Senate and of the House. " * 20]
ODD = ["", " ", "\n\n    tab\t", "naïve 日本 🎉", "def f(x):\n        return x\n", "\x00\x7f", f"a{END_OF_TEXT}b"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    save(train(CORPUS, 400), path)
    return path


def test_any_text_comes_back_unchanged_also_the_separator_spelled_out(folder: Path) -> None:
    tokenizer = load(folder)
    for text, tokens in zip(ODD, encode(tokenizer, ODD), strict=True):
        assert tokenizer.decode(tokens.tolist(), skip_special_tokens=False) == text
        assert END_ID not in tokens


def test_the_vocabulary_is_as_large_as_asked_and_begins_with_the_end_of_text(folder: Path) -> None:
    tokenizer = load(folder)
    assert tokenizer.get_vocab_size() == 400
    assert tokenizer.token_to_id(END_OF_TEXT) == END_ID == 0


def test_bytes_of_tokens_add_up_to_the_bytes_of_the_text(folder: Path) -> None:
    tokenizer = load(folder)
    sizes = token_bytes(tokenizer)
    for text, tokens in zip(ODD, encode(tokenizer, ODD), strict=True):
        assert sizes[tokens].sum() == len(text.encode())
    assert sizes[END_ID] == 0


def test_transformers_loads_it_and_encodes_alike(folder: Path) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(folder)
    ours = load(folder)
    assert (theirs.eos_token, theirs.eos_token_id, len(theirs)) == (END_OF_TEXT, 0, 400)
    for text, tokens in zip(ODD[:-1], encode(ours, ODD[:-1]), strict=True):
        assert theirs.encode(text, add_special_tokens=False) == tokens.tolist()
        assert theirs.decode(tokens.tolist()) == text


def test_training_twice_gives_the_same_tokenizer(tmp_path: Path) -> None:
    assert save(train(CORPUS, 350), tmp_path / "a") == save(train(CORPUS, 350), tmp_path / "b")


def test_a_vocabulary_without_room_for_every_byte_is_refused() -> None:
    with pytest.raises(InputError, match="vocabulary is 200: a byte-level tokenizer needs at least 257"):
        train(CORPUS, 200)


def test_a_missing_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no tokenizer at"):
        load(tmp_path)


def test_batches_do_not_change_the_tokens(folder: Path) -> None:
    tokenizer = load(folder)
    texts = [CORPUS[0] * 20, *CORPUS, CORPUS[1] * 1200]
    batched = list(encode(tokenizer, texts))
    assert all(np.array_equal(a, next(encode(tokenizer, [t]))) for a, t in zip(batched, texts, strict=True))
