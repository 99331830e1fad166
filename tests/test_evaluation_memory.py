"""Evaluation where memory is short: batches by what is free on a (made-up) GPU, and halves where that was too many."""

from __future__ import annotations

import tracemalloc
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from chat_server import continuing
from mixlaw.errors import InputError
from mixlaw.runner.batches.shards import HeldOutDocuments
from mixlaw.runner.evaluate.generate import generate
from mixlaw.runner.evaluate.measure import Subject, batch_tokens, continued_tokens
from mixlaw.runner.evaluate.run import held_out_rule
from mixlaw.runner.evaluate.scoring import Window, score
from mixlaw.runner.models.ladder import shape
from mixlaw.runner.models.llama import config

PROMPTS = [f"What is {n}?" for n in range(6)]


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder = tmp_path_factory.mktemp("model")
    return Subject.load(continuing(folder / "model", [(prompt, " A number.") for prompt in PROMPTS]), folder)


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The most rows of a pass that this device has memory for."""
    limit, forward = {"rows": 1000}, LlamaForCausalLM.forward

    def limited(self: Any, input_ids: Any = None, **more: Any) -> Any:
        if len(input_ids) > limit["rows"]:
            raise torch.OutOfMemoryError("no room")
        return forward(self, input_ids=input_ids, **more)

    monkeypatch.setattr(LlamaForCausalLM, "forward", limited)
    return limit


def test_what_does_not_fit_is_scored_in_halves(subject: Subject, rows: dict[str, int]) -> None:
    rng = np.random.default_rng(0)
    windows = [Window(rng.integers(100, size=20), 1, 20, group) for group in range(11)]
    whole = score(subject, windows)
    rows["rows"] = 2
    assert score(subject, windows) == pytest.approx(whole, rel=1e-5)
    rows["rows"] = 0
    with pytest.raises(InputError, match="one text does not fit"):
        score(subject, windows)


def test_what_does_not_fit_is_continued_in_halves(subject: Subject, rows: dict[str, int]) -> None:
    whole = generate(subject, PROMPTS, tokens=6)
    rows["rows"] = 1
    assert generate(subject, PROMPTS, tokens=6) == whole


@pytest.mark.parametrize("size", ["470M", "1B", "2.8B", "13B"])
@pytest.mark.parametrize("vocabulary", [32_768, 128_256, 256_000])
def test_batches_take_less_than_what_is_free(size: str, vocabulary: int, monkeypatch: pytest.MonkeyPatch) -> None:
    free = 80e9 - 4 * shape(size).params
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(free), int(80e9)))
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda device: 1.0)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 0)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    llama = config(shape(size), vocabulary, 2048)
    model = SimpleNamespace(device=torch.device("cuda"), config=llama)
    # fp32 logits, and a log-softmax as large, of every token; keys and values of every layer in bf16.
    assert 2048 <= batch_tokens(model) <= 65_536
    assert 8 * vocabulary * batch_tokens(model) < free
    cache = 2 * 2 * llama.num_hidden_layers * shape(size).heads * shape(size).head
    assert 2048 <= continued_tokens(model) <= 262_144
    assert cache * continued_tokens(model) < free


def test_large_models_are_measured_on_a_million_tokens_of_held_out_text() -> None:
    assert held_out_rule(shape("70M").params) == 24_576, "as before"
    assert held_out_rule(shape("160M").params) == held_out_rule(shape("2.8B").params) == 2**20


def test_held_out_documents_are_made_when_they_are_asked_for() -> None:
    # Two files: 100,000 documents of 0, 1 or 2 tokens and a separator, and one of 3 tokens.
    sizes = np.arange(100_000) % 3
    starts = np.cumsum(sizes + 1) - (sizes + 1)
    first = np.column_stack([starts, 5 * sizes, np.arange(100_000)])
    tokens = np.arange(int((sizes + 1).sum())).astype(np.uint32)
    files = [(tokens, first), (np.arange(4, dtype=np.uint32), np.array([[0, 7, 9]]))]
    tracemalloc.start()
    documents = HeldOutDocuments(files)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held / len(documents) < 20, "bytes a document; an object took 600"
    for number in (0, 1, 4, 99_999, 100_000, -1):
        at = range(100_001)[number]
        start, size = (0, 3) if at == 100_000 else (int(starts[at]), int(sizes[at]))
        assert documents[number].tokens.tolist() == list(range(start, start + size))
        assert (documents[number].bytes, documents[number].group) == ((7, 9) if at == 100_000 else (5 * size, at))
    assert sum(document.tokens.size for document in documents[:10]) == sizes[:10].sum()
    with pytest.raises(IndexError):
        documents[100_001]
