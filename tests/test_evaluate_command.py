"""`mixlaw evaluate`: any checkpoint on a study's tasks, into a record where asked, by one process or several ranks."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from typer.testing import CliRunner

import small_study
from mixlaw.cli import app
from mixlaw.errors import InputError
from mixlaw.recipe import Mixture, Phase, Recipe
from mixlaw.records import Measurement, Record, read_records, write_record
from mixlaw.runner.batches.shards import open_shards
from mixlaw.runner.batches.tokenizer import load
from mixlaw.runner.evaluate.generate import generate
from mixlaw.runner.evaluate.measure import Subject
from mixlaw.runner.evaluate.run import evaluate
from mixlaw.runner.evaluate.team import leading, serve, shared
from mixlaw.runner.train.parallel import Ranks
from mixlaw.study import open_study
from ranks import together

RECIPE = Recipe(25_248, (Phase("init", 4096, Mixture({"text": 1.0})),))


def save(folder: Path, tokenizer: Any, vocabulary: int, scale: float = 0.2) -> Path:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64, initializer_range=scale, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.lm_head.weight.data *= scale > 0
    model.save_pretrained(folder)
    if isinstance(tokenizer, Path):
        shutil.copytree(tokenizer, folder, dirs_exist_ok=True)
    else:
        words: Any = PreTrainedTokenizerFast
        words(tokenizer_object=tokenizer, eos_token="<|endoftext|>").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = small_study.prepare(tmp_path_factory.mktemp("evaluate") / "study")
    save(folder / "theirs", folder / "data" / "tokenizer", 300)
    write_record(folder / "runs", Record("old", RECIPE, {"text": Measurement(3.0, 0.1, 10)}))
    shutil.copytree(folder / "theirs", folder / "runs" / RECIPE.lineage / "checkpoint")
    return folder


@pytest.fixture
def copy(study: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(study, tmp_path / "study"))


def run(*words: object, code: int = 0) -> Any:
    device = [] if "--device" in words else ["--device", "cpu"]  # as `evaluate` takes where no rank has another
    result = CliRunner().invoke(app, ["evaluate", *map(str, words), *device])
    if code == 2:
        assert isinstance(result.exception, InputError)
        return str(result.exception)
    assert result.exit_code == code, result.output
    return result.stdout


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_foreign_checkpoint_gets_the_values_of_evaluate_and_nothing_is_written(copy: Path) -> None:
    before = files(copy)
    found = json.loads(run(copy, copy / "theirs", "--json"))
    assert files(copy) == before
    expected = evaluate(copy / "theirs", copy / "data", ["text", "code"], sequence=32)
    assert found["values"]["text"]["value"] == expected["text"].value
    assert found["values"]["code"]["stderr"] == expected["code"].stderr
    # Two independent means differ at 5 % by 1.96 standard errors of their difference.
    assert found["values"]["text"]["smallest_effect"] == pytest.approx(2.772 * (expected["text"].stderr or 0), rel=1e-3)
    assert f"{expected['text'].value:.4g}" in run(copy, RECIPE.lineage)


def test_a_model_of_another_tokenizer_reads_the_same_text_in_its_own_tokens(copy: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    letters = Tokenizer(models.BPE({"<|endoftext|>": 0, **{letter: n + 1 for n, letter in enumerate(alphabet)}}, []))
    letters.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    letters.decoder = decoders.ByteLevel()
    save(copy / "bytes", letters, 257, scale=0.0)
    found = json.loads(run(copy, copy / "bytes", "--json"))["values"]
    for task in ("text", "code"):  # a token is a byte, each as likely as 257
        assert found[task]["value"] == pytest.approx(math.log2(257), abs=1e-5)
        assert found[task]["count"] == len(open_shards(copy / "data")[task].held_out)


def test_values_go_into_a_run_and_what_it_has_is_replaced_only_when_asked(copy: Path) -> None:
    assert "has values of text already" in run(copy, copy / "theirs", "--into", "old", code=2)
    run(copy, copy / "theirs", "--into", "old", "--task", "code")
    (record,) = read_records(copy / "runs")
    assert record.values["text"] == Measurement(3.0, 0.1, 10)
    assert record.values["code"].value == evaluate(copy / "theirs", copy / "data", ["code"], sequence=32)["code"].value
    run(copy, copy / "theirs", "--into", "old", "--replace")
    assert read_records(copy / "runs")[0].values["text"].value != 3.0


def test_a_recipe_in_a_file_makes_a_run_of_the_checkpoints_name(copy: Path) -> None:
    (copy / "target.json").write_text(json.dumps(RECIPE.as_json()))
    assert "recorded as run theirs" in run(copy, copy / "theirs", "--into", copy / "target.json")
    (record,) = [record for record in read_records(copy / "runs") if record.run == "theirs"]
    assert record.recipe == RECIPE
    assert set(record.values) == {"text", "code"}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["gone"], "no checkpoint at gone"),
        (["theirs", "--task", "texxt"], "did you mean 'text'?"),
        (["theirs", "--device", "abacus"], "there is no device 'abacus' here"),
        (["theirs", "--into", "nothing"], "'nothing' is not a file, a run or proposal"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_changes(copy: Path, words: list[str], sentence: str) -> None:
    before = files(copy)
    place = copy / words[0] if words[0] == "theirs" else words[0]
    assert sentence in run(copy, place, *words[1:], code=2)
    assert files(copy) == before


def test_a_checkpoint_without_tokenizer_is_refused(copy: Path) -> None:
    (copy / "theirs" / "tokenizer.json").unlink()
    done = " ".join(run(copy, copy / "theirs", code=1).split())
    assert "text has no value" in done
    assert "has no tokenizer.json" in done


# --- several ranks ----------------------------------------------------------------------------------------------------


PROMPTS = ["the cat", "def", "a much longer prompt than the others are"] * 7


def _values(ranks: Ranks, study: Path, out: Path) -> None:
    torch.set_num_threads(1)
    values = evaluate(study / "theirs", study / "data", ["text", "code"], sequence=32, ranks=ranks)
    subject = Subject.load(study / "theirs", study, ranks)
    if not ranks.first:
        serve(subject)
        return
    with leading(subject):
        texts = [generate(subject, PROMPTS, tokens=8, temperature=heat) for heat in (0.0, 1.0)]
    found = {task: [m.value, m.stderr, m.count] for task, m in values.items()}
    (out / f"{ranks.world}.json").write_text(json.dumps([found, texts]))


def test_ranks_share_an_evaluation_and_get_the_bits_of_one_process(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mixlaw.runner.evaluate.measure.BATCH_TOKENS", {"cpu": 64})  # several batches for each rank
    for world in (1, 2):
        together(world, _values, study, tmp_path)
    alone, both = (json.loads((tmp_path / f"{world}.json").read_text()) for world in (1, 2))
    assert alone == both
    assert len(set(alone[1][1])) > 1


def _half(subject: Subject, number: int) -> int:
    if subject.ranks.rank == 1:
        raise InputError(f"rank 1 fails at {number}")
    return number


def _failing(ranks: Ranks, study: Path) -> None:
    subject = Subject.load(study / "theirs", study, ranks)
    if not ranks.first:
        serve(subject)
        return
    with leading(subject):
        with pytest.raises(InputError, match="rank 1 fails at 1"):
            shared(subject, _half, [0, 1, 2])
        assert shared(subject, _rank, [0, 1, 2]) == [0, 1, 0]


def _rank(subject: Subject, _: int) -> int:
    return subject.ranks.rank


def test_a_rank_that_fails_fails_the_task_and_the_next_one_is_shared_again(study: Path) -> None:
    together(2, _failing, study)


def test_the_study_in_python_has_the_same_verb(study: Path) -> None:
    measured = open_study(study).evaluate(study / "theirs", tasks=["code"], device="cpu")
    assert list(measured.values) == ["code"]
    assert load(study / "data" / "tokenizer").get_vocab_size() == 300
