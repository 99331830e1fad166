"""Tokenizers of other families: the same tokens as transformers, the right end of text, and bytes that add up."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from mixlaw.demo.prose import documents as read_prose
from mixlaw.errors import InputError
from mixlaw.runner.batches.shards import open_shards, verify
from mixlaw.runner.batches.tokenizer import encode, end_of_text, load, token_bytes, vocabulary_of
from mixlaw.runner.corpora.prepare import prepare
from mixlaw.runner.corpora.sources.document import parts
from mixlaw.runner.corpora.tokenizer import adopt
from mixlaw.runner.evaluate.coding import Documents

SPEECHES = [document.text[:20_000] for document in read_prose()][:30]
ODD = [
    "",
    " ",
    "  two  spaces ",
    "naïve ﬁne 日本 🎉",
    "def f(x):\n    return x\n",
    "A</s>b",
    "[SEP] [UNK]",
    "\u00a0ﬀ ½ Straße",
]
TEXTS = [*ODD, *(text[:3000] for text in SPEECHES[:5])]


def metaspace_bpe() -> Tokenizer:
    """As LLaMA's: BPE over text whose spaces are marked, unknown characters as bytes, begin and end set around it."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer.train_from_iterator(SPEECHES, trainers.BpeTrainer(vocab_size=900, special_tokens=special[:3]))
    vocabulary = tokenizer.get_vocab()
    state = json.loads(tokenizer.to_str())
    state["model"]["vocab"] |= {token: len(vocabulary) + n for n, token in enumerate(special[3:])}
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def unigram() -> Tokenizer:
    """As T5's: unigram model with NFKC, marked spaces, a number for what is unknown, and truncation left on."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    tokenizer.train_from_iterator(
        SPEECHES, trainers.UnigramTrainer(vocab_size=800, special_tokens=special, unk_token="<unk>")
    )
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=16)
    return tokenizer


def word_piece() -> Tokenizer:
    """As BERT's: lower case, accents taken off, words cut into pieces, unknown words one token."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer.train_from_iterator(SPEECHES, trainers.WordPieceTrainer(vocab_size=700, special_tokens=special))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def byte_level() -> Tokenizer:
    """As GPT-NeoX's: byte-level, runs of spaces added as tokens, the end of text far beyond 65,536."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(SPEECHES, trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet))
    tokenizer.add_tokens([AddedToken(" " * n, normalized=False) for n in range(2, 9)])
    state = json.loads(tokenizer.to_str())
    filler = {f"unused{n}": len(state["model"]["vocab"]) + 100 + n for n in range(70_000)}
    state["model"]["vocab"] |= filler
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.add_special_tokens(["<|end_of_text|>"])
    return tokenizer


@dataclass(frozen=True)
class Family:
    """A tokenizer, the configuration beside it, and which token ends a text."""

    tokenizer: Tokenizer
    settings: dict[str, Any]
    end: str
    lossless: bool


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Family]:
    ends = {"bos_token": "<s>", "eos_token": {"content": "</s>", "__type": "AddedToken"}, "unk_token": "<unk>"}
    model_class = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True}
    return {
        "metaspace": Family(metaspace_bpe(), {**ends, **model_class}, "</s>", False),
        "unigram": Family(unigram(), {"eos_token": "</s>", "pad_token": "<pad>"}, "</s>", False),
        "wordpiece": Family(word_piece(), {"sep_token": "[SEP]", "unk_token": "[UNK]"}, "[SEP]", False),
        "bytes": Family(byte_level(), {}, "<|end_of_text|>", True),
    }


def written(family: Family, folder: Path) -> Path:
    folder.mkdir()
    family.tokenizer.save(str(folder / "tokenizer.json"))
    if family.settings:
        (folder / "tokenizer_config.json").write_text(json.dumps(family.settings))
    return folder


@pytest.mark.parametrize("name", ["metaspace", "unigram", "wordpiece", "bytes"])
def test_transformers_gives_the_same_tokens_and_the_same_end_of_text(
    families: dict[str, Family], name: str, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    source = written(families[name], tmp_path / "given")
    adopt(source / "tokenizer.json", tmp_path / "saved")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "saved")
    ours = load(tmp_path / "saved")
    assert theirs.eos_token_id == end_of_text(tmp_path / "saved") == ours.token_to_id(families[name].end)
    for text, tokens in zip(TEXTS, encode(ours, TEXTS), strict=True):
        spelled = theirs.encode(text, add_special_tokens=False, split_special_tokens=True)
        assert spelled == tokens.tolist(), text
    assert vocabulary_of(ours) == max(theirs.get_vocab().values()) + 1


@pytest.mark.parametrize("name", ["metaspace", "unigram", "wordpiece", "bytes"])
def test_bits_per_byte_count_the_bytes_of_the_documents_whatever_the_tokenizer(
    families: dict[str, Family], name: str, tmp_path: Path
) -> None:
    from mixlaw.runner.evaluate.scoring import held_out_windows

    texts = [*SPEECHES, *(f"日本 ﬁ {n} Ümläut" for n in range(60))]
    rows = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    (tmp_path / "text.jsonl").write_text(rows, encoding="utf-8")
    source = written(families[name], tmp_path / "given")
    manifest = prepare(
        tmp_path / "data", {"text": "text.jsonl"}, root=tmp_path, tokenizer=source, held_out=0.2, longest=8000
    )
    verify(tmp_path / "data")
    shards = open_shards(tmp_path / "data")
    domain, tokenizer = shards["text"], load(shards.tokenizer)
    assert manifest.end == domain.end == tokenizer.token_to_id(families[name].end)
    assert manifest.dtype == ("<u4" if name == "bytes" else "<u2")
    assert np.count_nonzero(domain.tokens[:] == domain.end) == manifest.domains["text"].documents

    sizes = token_bytes(tokenizer)
    documents = Documents(domain.held_out.sizes, domain.held_out, domain.end)
    windows = list(held_out_windows(documents, sizes, 64, 10**9))  # every window there is
    assert sum(window.bytes for window in windows) == sum(document.bytes for document in domain.held_out)
    pieces = [len(piece.encode()) for text in texts for piece in parts(text, 8000)]
    assert {document.bytes for document in domain.held_out} <= set(pieces)
    assert manifest.domains["text"].bytes + manifest.domains["text"].held_out_bytes == sum(pieces)
    if families[name].lossless:
        for document in domain.held_out:
            assert sizes[document.tokens].sum() == document.bytes
            assert len(tokenizer.decode(document.tokens.tolist()).encode()) == document.bytes


def test_a_model_that_guesses_pays_the_same_bits_however_its_vocabulary_is_written(
    families: dict[str, Family], tmp_path: Path
) -> None:
    """Closed form: log2(vocabulary) a token, over the bytes of the documents, of which none gets lost."""
    import torch

    from mixlaw.runner.evaluate.run import evaluate
    from mixlaw.runner.models.ladder import Shape
    from mixlaw.runner.models.llama import initialise

    rows = "".join(json.dumps({"text": text[:2000]}) + "\n" for text in SPEECHES)
    (tmp_path / "text.jsonl").write_text(rows, encoding="utf-8")
    manifest = prepare(
        tmp_path / "data",
        {"text": "text.jsonl"},
        root=tmp_path,
        tokenizer=written(families["unigram"], tmp_path / "given"),
        held_out=0.3,
    )
    model = initialise(Shape(32, 1), manifest.vocabulary, 64, seed=0, end=manifest.end)
    assert model.config.eos_token_id == model.config.bos_token_id == manifest.end == 1
    with torch.no_grad():
        model.lm_head.weight.zero_()
    held = open_shards(tmp_path / "data")["text"].held_out
    tokens, size = sum(len(document.tokens) for document in held), sum(document.bytes for document in held)
    measured = evaluate(model, tmp_path / "data", ["text"])["text"].value
    assert measured == pytest.approx(tokens * math.log2(manifest.vocabulary) / size, rel=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "there is no tokenizer at"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "is no tokenizer of Hugging Face"),
        (lambda folder: Tokenizer(models.BPE()).save(str(folder / "tokenizer.json")), "cannot tell which"),
    ],
)
def test_what_is_no_tokenizer_is_refused_with_what_to_do(make: Any, message: str, tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "text.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(InputError, match=message):
        prepare(tmp_path / "data", {"text": "text.jsonl"}, root=tmp_path, tokenizer=tmp_path)
