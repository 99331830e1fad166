"""Evaluation agrees with a plain loop over transformers' own loss, one text at a time, and its errors with theory."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mixlaw.demo.prose import documents as read_prose
from mixlaw.errors import InputError
from mixlaw.records import Unit
from mixlaw.runner.batches.shards import open_shards
from mixlaw.runner.batches.tokenizer import encode, load
from mixlaw.runner.corpora.prepare import prepare
from mixlaw.runner.evaluate.coding import spread
from mixlaw.runner.evaluate.items import read_items
from mixlaw.runner.evaluate.run import TASKS, evaluate, tasks_of
from mixlaw.runner.evaluate.scoring import Items, bits_per_byte, choice_accuracy, choice_probability, slide
from mixlaw.runner.packages import standard_library

SEQUENCE = 48
DOMAINS = {"prose": "speeches.jsonl", "code": "code/*.py"}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("study")
    rows = [json.dumps({"text": document.text[:12_000]}) for document in read_prose()][::3]
    (root / "speeches.jsonl").write_text("\n".join(rows), encoding="utf-8")
    (root / "code").mkdir()
    for path in sorted(standard_library().glob("[a-h]*.py"))[:20]:
        shutil.copy(path, root / "code" / path.name)
    prepare(root / "data", DOMAINS, root=root, vocabulary=512, held_out=0.2)
    for path in (root / "data" / "items").glob("*.json"):  # forty of each: the loops compared with stay short
        whole = json.loads(path.read_text())
        path.write_text(json.dumps({**whole, "items": whole["items"][:40]}))
    return root / "data"


@pytest.fixture(scope="module")
def model() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=SEQUENCE, initializer_range=0.2,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def loss(model: Any, tokens: np.ndarray, start: int) -> float:
    """Nats of tokens[start:], by transformers' own loss, without batches."""
    labels = torch.tensor(tokens.astype(np.int64))[None]
    masked = labels.clone()
    masked[:, :start] = -100
    with torch.no_grad():
        return float(model(input_ids=labels, labels=masked).loss) * (len(tokens) - start)


def test_bits_per_byte_of_a_domain_are_those_of_a_loop_over_its_documents(model: Any, data: Path) -> None:
    nats: dict[int, float] = {}
    sizes: dict[int, int] = {}
    documents = open_shards(data)["code"].held_out
    for document in documents:
        stream = np.append(0, document.tokens)
        for begin in range(0, len(document.tokens), SEQUENCE):
            window = stream[begin : begin + SEQUENCE + 1]
            nats[document.group] = nats.get(document.group, 0.0) + loss(model, window, 1)
        sizes[document.group] = sizes.get(document.group, 0) + document.bytes
    found = evaluate(model, data, ["code"], held_out_tokens=10**9)["code"]
    assert found.value == pytest.approx(sum(nats.values()) / sum(sizes.values()) / math.log(2), rel=1e-6)
    assert found.count == len(sizes)


def test_a_part_of_the_held_out_text_is_every_nth_window_of_it(model: Any, data: Path) -> None:
    documents, tokenizer = open_shards(data)["prose"].held_out, load(data / "tokenizer")
    windows = [
        (np.append(0, document.tokens)[first : first + SEQUENCE + 1], document.group)
        for document in documents
        for first in range(0, len(document.tokens), SEQUENCE)
    ]
    count = len(windows) // 8
    part = [windows[n * len(windows) // count] for n in range(count)]
    nats = [loss(model, tokens, 1) for tokens, _ in part]
    written = {token: text for text, token in tokenizer.get_vocab().items()}
    size = sum(len(written[token]) for tokens, _ in part for token in tokens[1:].tolist())  # a byte a character
    found = evaluate(model, data, ["prose"], held_out_tokens=count * SEQUENCE)["prose"]
    assert found.value == pytest.approx(sum(nats) / size / math.log(2), rel=1e-6)
    assert found.count == len({group for _, group in part})


def test_a_part_of_the_held_out_text_errs_no_more_than_its_error_says() -> None:
    """Known truth: 400 documents whose loss has a mean of its own, 20 % apart; which come first is drawn 400 times."""
    rng = np.random.default_rng(0)
    sizes, level = rng.integers(20, 4000, 400), rng.normal(2.5, 0.5, 400)
    whole = float(np.sum(level * sizes) / np.sum(sizes)) / math.log(2)
    errors, said = [], []
    for _ in range(400):
        order = rng.permutation(400)
        windows = spread(sizes[order], 128, 16_384)
        tokens = np.array([min(128, sizes[order][n] - first) for n, first in windows], float)
        groups = np.array([order[n] for n, _ in windows])
        found = bits_per_byte(level[groups] * tokens, tokens, groups)
        errors.append(found.value - whole)
        said.append(found.stderr or math.nan)
    assert abs(np.mean(errors)) < 3 * np.std(errors) / math.sqrt(400), "no bias"
    assert 0.5 < np.std(errors) / np.mean(said) < 1.1


@pytest.mark.parametrize("task", ["humaneval", "cloze"])
def test_bits_per_byte_of_answers_are_those_of_a_loop_over_items(model: Any, data: Path, task: str) -> None:
    tokenizer = load(data / "tokenizer")
    nats = size = 0.0
    for item in read_items(data, task):
        context, answer = encode(tokenizer, [item.context, item.choices[0]])
        whole = np.concatenate([[0], context, answer])
        for begin, start, end in slide(1 + len(context), len(whole), SEQUENCE):
            nats += loss(model, whole[begin:end], start - begin)
        size += len(item.choices[0].encode())
    found = evaluate(model, data, [task])[task]
    assert found.value == pytest.approx(nats / size / math.log(2), rel=1e-6)
    assert found.count == len(read_items(data, task))


@pytest.mark.parametrize("task", ["capitals", "agreement"])
def test_choice_probabilities_are_those_of_a_loop_over_choices(model: Any, data: Path, task: str) -> None:
    tokenizer = load(data / "tokenizer")
    right = []
    for item in read_items(data, task):
        logs = []
        for choice in item.choices:
            context, answer = encode(tokenizer, [item.context, choice])
            whole = np.concatenate([[0], context, answer])[-SEQUENCE - 1 :]
            logs.append(-loss(model, whole, len(whole) - len(answer)))
        right.append(np.exp(logs[0]) / np.exp(logs).sum())
    found = evaluate(model, data, [task])[task]
    assert found.value == pytest.approx(np.mean(right), rel=1e-5)
    assert found.stderr == pytest.approx(np.std(right, ddof=1) / math.sqrt(len(right)), rel=1e-5)


@pytest.mark.parametrize("task", ["capitals", "agreement"])
def test_accuracy_of_items_is_that_of_a_loop_over_choices(model: Any, data: Path, task: str) -> None:
    tokenizer = load(data / "tokenizer")
    right = []
    for item in read_items(data, task):
        losses = []
        for choice in item.choices:
            context, answer = encode(tokenizer, [item.context, choice])
            whole = np.concatenate([[0], context, answer])[-SEQUENCE - 1 :]
            losses.append(loss(model, whole, len(whole) - len(answer)))
        right.append(float(np.argmin(losses) == 0))
    found = evaluate(model, data, ["right"], measures={"right": Items(task)})["right"]
    assert found.value == pytest.approx(np.mean(right))
    assert found.stderr == pytest.approx(np.std(right, ddof=1) / math.sqrt(len(right)))
    assert found.count == 40


def test_items_have_other_units_and_probability_is_the_same_under_another_name(model: Any, data: Path) -> None:
    tokenizer = load(data / "tokenizer")
    nats = size = 0.0
    for item in read_items(data, "capitals"):
        context, answer = encode(tokenizer, [item.context, item.choices[0]])
        nats += loss(model, np.concatenate([[0], context, answer]), 1 + len(context))
        size += len(item.choices[0].encode())
    measures = {"bits": Items("capitals", "bits/byte"), "chosen": Items("capitals", "choice-prob")}
    found = evaluate(model, data, ["bits", "capitals", "chosen"], measures=measures)
    assert list(found) == ["bits", "capitals", "chosen"]
    assert found["bits"].value == pytest.approx(nats / size / math.log(2), rel=1e-6)
    assert found["chosen"].value == pytest.approx(found["capitals"].value, rel=1e-6)


def test_accuracy_by_hand_counts_equal_choices_by_halves() -> None:
    """Right, wrong, and one of two likeliest; of two, three and two choices: guessing gives (1/2 + 1/3 + 1/2) / 3."""
    nats, sizes = np.array([1.0, 2, 3, 1, 4, 2, 2]), np.full(7, 5.0)
    found = choice_accuracy(nats, sizes, np.array([0, 0, 1, 1, 1, 2, 2]))
    assert found.value == pytest.approx(0.5)
    assert found.count == 3
    assert found.details["chance"] == pytest.approx(4 / 9)


def test_the_same_weights_give_the_same_bits_alone_and_together(model: Any, data: Path) -> None:
    tasks = list(tasks_of(data))
    once, twice = evaluate(model, data, tasks), evaluate(model, data, tasks)
    assert once == twice
    assert evaluate(model, data, ["cloze"])["cloze"].value == pytest.approx(once["cloze"].value, rel=1e-6)


def test_a_model_that_knows_nothing_pays_the_logarithm_of_the_vocabulary(model: Any, data: Path) -> None:
    blank = type(model)(model.config)
    torch.nn.init.zeros_(blank.lm_head.weight)
    held = open_shards(data)["prose"].held_out
    tokens, size = sum(len(document.tokens) for document in held), sum(document.bytes for document in held)
    found = evaluate(blank, data, ["prose", "capitals", "agreement"], held_out_tokens=10**9)
    assert found["prose"].value == pytest.approx(math.log2(512) * tokens / size, rel=1e-6)


def test_training_mode_and_gradients_are_left_as_they_were(model: Any, data: Path) -> None:
    model.train()
    evaluate(model, data, ["capitals"])
    assert model.training
    assert all(weight.grad is None for weight in model.parameters())
    model.eval()


def test_tasks_are_the_domains_and_the_items_with_their_units(data: Path) -> None:
    tasks = tasks_of(data)
    assert list(tasks) == ["prose", "code", *TASKS]
    assert tasks["code"].unit is Unit.BITS_PER_BYTE
    assert tasks["capitals"].unit is Unit.CHOICE_PROB


def test_an_unknown_task_names_those_there_are(model: Any, data: Path) -> None:
    with pytest.raises(InputError, match=r"'poems' cannot be measured.*there are prose, code, humaneval"):
        evaluate(model, data, ["poems"])


@pytest.mark.parametrize(("start", "end"), [(5, 9), (5, 200), (100, 103), (100, 130), (100, 300), (1, 49)])
def test_sliding_windows_score_every_token_of_an_answer_once_within_the_length(start: int, end: int) -> None:
    windows = slide(start, end, SEQUENCE)
    scored = [place for _, first, stop in windows for place in range(first, stop)]
    assert scored == list(range(start, end))
    assert all(0 <= begin < first and stop - begin <= SEQUENCE + 1 for begin, first, stop in windows)
    assert all(first - begin >= SEQUENCE // 2 for begin, first, _ in windows[1:])


def test_the_error_of_a_ratio_is_its_spread_over_repeated_samples() -> None:
    """Known truth: documents whose bytes and bits per byte vary together; 4,000 samples of 60 documents."""
    rng = np.random.default_rng(0)
    values, errors = [], []
    for _ in range(4000):
        sizes = rng.lognormal(6, 0.6, 60)
        nats = sizes * (1.5 + 0.3 * rng.standard_normal(60) + 0.1 * np.log(sizes / 400))
        found = bits_per_byte(np.repeat(nats / 2, 2), np.repeat(sizes / 2, 2), np.repeat(np.arange(60), 2))
        values.append(found.value)
        errors.append(found.stderr or math.nan)
    assert np.std(values) == pytest.approx(float(np.mean(errors)), rel=0.06)


def test_choice_probability_by_hand() -> None:
    """Items with probabilities 2 / (2 + 1 + 1) and 1 / (1 + 3); a choice cut in two windows counts once."""
    nats = -np.log([2, 1, 1, 0.5, 2, 3])
    sizes = np.array([5.0, 5, 5, 4, 0, 4])
    found = choice_probability(nats, sizes, np.array([0, 0, 0, 1, 1, 1]))
    assert found.value == pytest.approx((0.5 + 0.25) / 2)
    assert found.stderr == pytest.approx(0.125)
    assert found.count == 2
