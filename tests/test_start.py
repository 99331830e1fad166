"""Foreign checkpoints to go on from: steps are those of transformers and torch, and what does not fit is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    T5Config,
)

from hub_server import serve
from mixlaw.errors import InputError
from mixlaw.recipe import Mixture, Phase, Recipe
from mixlaw.runner.batches.loader import Batches
from mixlaw.runner.corpora import tokenizer as bpe
from mixlaw.runner.execute.worker import Worker
from mixlaw.runner.models.foreign import OPTIMIZER, InitialCheckpoint, check_start, read_start
from mixlaw.runner.models.llama import optimizer
from mixlaw.runner.models.load import load_model
from mixlaw.runner.models.memory import training_bytes
from mixlaw.runner.plan.devices import Machine, devices_for
from mixlaw.runner.plan.setup import Setup
from mixlaw.runner.plan.tree import Segment, plan
from mixlaw.runner.train import checkpoint
from mixlaw.runner.train.loop import Stopped, train_segment

VOCABULARY, SEQUENCE, BATCH, RATE = 300, 32, 4, 2e-3
TEXTS = ["the quick brown fox jumps over the lazy dog", "def f(x): return x + 1 if x else None"]
STREAMS = {"text": np.random.default_rng(0).integers(VOCABULARY, size=4000).astype(np.uint16)}


def llama(**more: Any) -> Any:
    """Unlike ours: shared keys and values, a head of its own, a vocabulary with room to spare."""
    return LlamaForCausalLM(LlamaConfig(**{
        "vocab_size": 320, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
        "tie_word_embeddings": False, **more,
    }))  # fmt: skip


def gpt2() -> Any:
    """Another architecture: learned positions, biases, tied embeddings, and dropout that must not be used."""
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=2, n_positions=64, resid_pdrop=0.5)
    )


MODELS: dict[str, Callable[[], Any]] = {"llama": llama, "gpt2": gpt2}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    bpe.save(bpe.train(TEXTS * 20, VOCABULARY), folder)
    return folder


def saved(model: Any, tokenizer: Path, folder: Path) -> Path:
    """A checkpoint in several files of weights, as large models have them."""
    shutil.copytree(tokenizer, folder)
    model.save_pretrained(folder, max_shard_size="40KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    return folder


def read(folder: Path, tokenizer: Path, loaded: bool = False, sequence: int = SEQUENCE) -> InitialCheckpoint:
    return read_start(
        str(folder), Path(), optimizer=loaded, tokenizer=tokenizer, vocabulary=VOCABULARY, sequence=sequence
    )


def study(start: InitialCheckpoint, tokenizer: Path, steps: int) -> tuple[Segment, Setup]:
    """So many steps at a constant rate."""
    setup = Setup(
        data=str(tokenizer.parent), data_hash="", vocabulary=VOCABULARY, sequence=SEQUENCE, tasks=(), batch=BATCH,
        learning_rate=RATE, warmup_tokens=0, start=start,
    )  # fmt: skip
    phase = Phase("continue", steps * BATCH * SEQUENCE, Mixture({"text": 1.0}))
    (segment,) = plan([setup.adopt(Recipe(start.params, (phase,)))]).segments
    return segment, setup


def plain(model: Any, adamw: torch.optim.Optimizer, batches: list[torch.Tensor]) -> list[float]:
    """Losses of the same steps as transformers and torch make them by themselves."""
    losses = []
    for tokens in batches:  # transformers moves the labels itself, so the token to tell is inside
        loss = model(input_ids=tokens[:, :-1], labels=tokens[:, :-1], shift_labels=tokens[:, 1:].contiguous()).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
        adamw.zero_grad()
        losses.append(float(loss.detach()))
    return losses


def batches(segment: Segment, steps: int) -> list[torch.Tensor]:
    drawn = Batches(segment.recipe, STREAMS, SEQUENCE, BATCH)
    return [torch.from_numpy(drawn.at(step)) for step in range(steps)]


@pytest.mark.parametrize("loaded", [False, True], ids=["fresh", "loaded"])
@pytest.mark.parametrize("name", MODELS)
def test_steps_from_a_foreign_checkpoint_are_those_of_plain_transformers(
    name: str, loaded: bool, tokenizer: Path, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    theirs = MODELS[name]().eval()
    adamw = optimizer(theirs, RATE, 0.95)
    before = [torch.randint(VOCABULARY, (BATCH, SEQUENCE + 1), generator=torch.Generator().manual_seed(2))] * 3
    plain(theirs, adamw, before)  # moments worth loading
    folder = saved(theirs, tokenizer, tmp_path / "theirs")
    named = {f"{key}.{n}": value for n, w in theirs.named_parameters() for key, value in adamw.state[w].items()}
    save_file(named, folder / OPTIMIZER)

    segment, setup = study(read(folder, tokenizer, loaded), tokenizer, steps=4)
    train_segment(segment, setup, STREAMS, tmp_path / "runs")
    made = tmp_path / "runs" / segment.lineage / "checkpoint"
    losses = json.loads((made / checkpoint.EXTRA).read_text())["losses"]

    theirs.load_state_dict(AutoModelForCausalLM.from_pretrained(folder).state_dict())
    expected = plain(theirs, adamw if loaded else optimizer(theirs, RATE, 0.95), batches(segment, 4))
    assert losses == pytest.approx(expected, abs=1e-5)
    ours = AutoModelForCausalLM.from_pretrained(made)
    assert type(ours) is type(theirs)
    tokens = torch.arange(VOCABULARY)[None, :SEQUENCE]
    with torch.no_grad():
        assert torch.allclose(ours(tokens).logits, theirs(tokens).logits, atol=2e-4)


def test_the_moments_of_a_checkpoint_make_a_difference(tokenizer: Path, tmp_path: Path) -> None:
    """What was trained here before is a foreign checkpoint, too, with moments; a segment in pieces ends the same."""
    torch.manual_seed(1)
    first, setup = study(read(saved(gpt2(), tokenizer, tmp_path / "theirs"), tokenizer), tokenizer, steps=6)
    train_segment(first, setup, STREAMS, tmp_path / "runs")
    shutil.copytree(tokenizer, made := tmp_path / "runs" / first.lineage / "checkpoint", dirs_exist_ok=True)
    ends = {}
    for loaded in (False, True):
        segment, setup = study(read(made, tokenizer, loaded), tokenizer, steps=5)
        asked = iter(range(10))
        with pytest.raises(Stopped):
            train_segment(segment, setup, STREAMS, tmp_path / "pieces", stop=lambda asked=asked: next(asked) == 2)  # type: ignore[misc]
        for runs in ("pieces", "whole"):
            train_segment(segment, setup, STREAMS, tmp_path / runs)
        one, other = (
            load_file(tmp_path / runs / segment.lineage / "checkpoint" / "model.safetensors")
            for runs in ("pieces", "whole")
        )
        assert all(torch.equal(one[name], other[name]) for name in one)
        ends[segment.lineage] = one["transformer.wte.weight"]
    fresh, continued = ends.values()
    assert not torch.allclose(fresh, continued, atol=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_parameters_and_flops_of_a_foreign_model_are_those_that_are_counted(
    name: str, tokenizer: Path, tmp_path: Path
) -> None:
    model = MODELS[name]()
    start = read(saved(model, tokenizer, tmp_path / "theirs"), tokenizer)
    tables = {"llama": 2 * 320 * 48, "gpt2": (VOCABULARY + 64) * 32}
    assert start.weights == sum(weight.numel() for weight in model.parameters())
    assert start.params == start.weights - tables[name]
    model.set_attn_implementation("eager")  # see test_ladder
    with FlopCounterMode(display=False) as counter:
        tokens = torch.zeros(BATCH, SEQUENCE, dtype=torch.long)
        model(input_ids=tokens, use_cache=False).logits.sum().backward()
    assert counter.get_total_flops() == pytest.approx(start.flops_per_token * BATCH * SEQUENCE, rel=1e-6)


def test_memory_is_estimated_by_the_dimensions_of_the_model_itself(tokenizer: Path, tmp_path: Path) -> None:
    start = read(saved(MODELS["llama"](), tokenizer, tmp_path / "llama"), tokenizer)
    _, setup = study(start, tokenizer, steps=1)
    config = json.loads((tmp_path / "llama" / "config.json").read_text())
    size = setup.built(start.params)
    assert (size.embedded, size.width, size.untied) == (320, 48, True), "its tables are not those of the shards"
    assert (size.depth, size.inner) == (config["num_hidden_layers"], config["intermediate_size"])
    # Llama 3 8B: 16 bytes each for the weights, gradients and moments of both its tables of 128,256 x 4,096.
    dimensions = {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "intermediate_size": 14_336}
    (tmp_path / "config.json").write_text(json.dumps({**dimensions, "vocab_size": 128_256}))
    tables = 2 * 128_256 * 4096
    large = InitialCheckpoint(str(tmp_path), "", 6_979_588_096, 6_979_588_096 + tables, 1.0)
    built = replace(setup, start=large).built(large.params)
    needed = training_bytes(built, built.embedded, 2048, 1, bf16=True, recompute=True, untied=built.untied)
    assert needed > 16 * large.weights
    assert devices_for(replace(setup, start=large), large.params, [Machine("a", 8, "cuda", 80 * 10**9)]) == 4


def test_of_experts_those_count_that_a_token_goes_through(tokenizer: Path, tmp_path: Path) -> None:
    config = MixtralConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, num_local_experts=8, num_experts_per_tok=2, max_position_embeddings=64,
    )  # fmt: skip
    config._experts_implementation = config._attn_implementation = "eager"  # what torch counts
    model = MixtralForCausalLM(config)
    start = read(saved(model, tokenizer, tmp_path / "theirs"), tokenizer)
    with FlopCounterMode(display=False) as counter:
        tokens = torch.randint(VOCABULARY, (BATCH, SEQUENCE), generator=torch.Generator().manual_seed(0))
        model(input_ids=tokens, use_cache=False).logits.sum().backward()
    assert counter.get_total_flops() == pytest.approx(start.flops_per_token * BATCH * SEQUENCE, rel=1e-6)
    assert start.weights == sum(weight.numel() for weight in model.parameters()), "memory holds all"


# --- what is refused --------------------------------------------------------------------------------------------------


def pickled(folder: Path) -> None:
    for path in folder.glob("*.safetensors"):
        path.unlink()
    torch.save(llama().state_dict(), folder / "pytorch_model.bin")


def in_part(folder: Path) -> None:
    sorted(folder.glob("model-*.safetensors"))[-1].unlink()


def other_words(folder: Path) -> None:
    bpe.save(bpe.train(["completely different things"] * 20, VOCABULARY), folder)


def small(folder: Path) -> None:
    llama(vocab_size=290).save_pretrained(folder)


def translator(folder: Path) -> None:
    T5Config(vocab_size=320).save_pretrained(folder)


def both_ways(folder: Path) -> None:
    config = BertConfig(vocab_size=320, hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    BertForMaskedLM(config).save_pretrained(folder)


def unknown(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "abacus"}')


def misnamed(folder: Path) -> None:
    save_file({"step.weight": torch.zeros(())}, folder / OPTIMIZER)


def misshapen(folder: Path) -> None:
    names = dict(llama().named_parameters())
    moments = {f"{key}.{name}": torch.zeros(7) for name in names for key in ("exp_avg", "exp_avg_sq")}
    save_file({**moments, **{f"step.{name}": torch.zeros(()) for name in names}}, folder / OPTIMIZER)


@pytest.mark.parametrize(
    ("spoil", "loaded", "message"),
    [
        (shutil.rmtree, False, r"is neither a folder at .* nor a model on the Hugging Face hub"),
        (pickled, False, r"pickled weights are not read: load them in transformers once and save_pretrained\(\) them"),
        (in_part, False, r"lacks 1 of \d+ files of weights, such as model-\d+-of-\d+.safetensors; copy or download"),
        (
            other_words,
            False,
            r"has another tokenizer \(\d+ entries\) than the shards \(300\); make the shards with",
        ),
        (small, False, r"knows 290 token ids and the shards have 300; make the shards with its tokenizer"),
        (translator, False, r"cannot build a causal language model from .*T5Config"),
        (both_ways, False, r"is a BertForMaskedLM, not a causal language model; choose another"),
        (unknown, False, r"cannot build a causal language model from .*abacus"),
        (lambda _: None, True, r'has no optimizer.safetensors; set training.optimizer = "fresh", or write one'),
        (misnamed, True, r"has nothing for step.model.embed_tokens.weight, which has shape \(\)"),
        (misshapen, True, r"has \(7,\) for exp_avg.model.embed_tokens.weight, which has shape \(320, 48\)"),
    ],
)
def test_what_cannot_be_gone_on_from_is_refused_before_anything_is_trained(
    spoil: Callable[[Path], None], loaded: bool, message: str, tokenizer: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    spoil(saved(llama(), tokenizer, tmp_path / "theirs"))
    with pytest.raises(InputError, match=message) as found:
        read(tmp_path / "theirs", tokenizer, loaded)
    assert "\n" not in str(found.value)


def test_a_context_shorter_than_the_sequences_of_training_is_refused(tokenizer: Path, tmp_path: Path) -> None:
    folder = saved(gpt2(), tokenizer, tmp_path / "theirs")
    assert read(folder, tokenizer, sequence=64).params > 0
    with pytest.raises(InputError, match=r"has a context of 64 tokens; lower training.sequence = 65"):
        read(folder, tokenizer, sequence=65)


def test_weights_that_are_missing_misshapen_or_changed_are_refused(tokenizer: Path, tmp_path: Path) -> None:
    folder = saved(llama(), tokenizer, tmp_path / "theirs")
    whole = read(folder, tokenizer)
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    part = folder / index["model.layers.1.mlp.up_proj.weight"]
    weights = load_file(part)
    for spoilt, message in ((torch.zeros(80, 47), "are not those of its config.json"), (None, "lacks the weights")):
        kept = {name: tensor for name, tensor in weights.items() if name != "model.layers.1.mlp.up_proj.weight"}
        more = {} if spoilt is None else {"model.layers.1.mlp.up_proj.weight": spoilt}
        save_file({**kept, **more}, part, metadata={"format": "pt"})
        with pytest.raises(InputError, match=message):
            load_model(folder)
    with pytest.raises(InputError, match="has changed since the run began"):
        check_start(whole)


def test_recipes_of_another_size_than_the_model_are_refused(tokenizer: Path, tmp_path: Path) -> None:
    start = read(saved(llama(), tokenizer, tmp_path / "theirs"), tokenizer)
    _, setup = study(start, tokenizer, steps=1)
    phase = Phase("continue", BATCH * SEQUENCE, Mixture({"text": 1.0}))
    assert setup.adopt(Recipe(round(start.params * 1.2), (phase,))).params == start.params
    with pytest.raises(InputError, match=r"a recipe has 470,000,000 parameters and training.start is a model of"):
        setup.adopt(Recipe(470_000_000, (phase,)))


def test_another_start_is_another_lineage_and_none_is_none(tokenizer: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    one, other = (study(read(saved(llama(), tokenizer, tmp_path / n), tokenizer), tokenizer, 1)[1] for n in "ab")
    assert one.identity != other.identity
    assert Setup.from_json(json.loads(json.dumps(one.as_json()))) == one


NODE = """\
import json, sys
from mixlaw.runner.models.foreign import InitialCheckpoint, check_start, on_this_machine, read_start
from pathlib import Path
if len(sys.argv) == 3:
    print(json.dumps(vars(read_start(
        sys.argv[1], Path(), optimizer=False, tokenizer=Path(sys.argv[2]), vocabulary=300, sequence=32
    ))))
else:
    here = on_this_machine(InitialCheckpoint(**json.loads(sys.argv[1])))
    check_start(here)
    print(here.path)
"""


def test_a_model_of_the_hub_is_fetched_once_by_the_workers_of_a_node_that_has_it_not(
    tokenizer: Path, tmp_path: Path
) -> None:
    folder = saved(llama(), tokenizer, tmp_path / "model")
    with serve("org/model", {path.name: path.read_bytes() for path in folder.iterdir()}) as hub:

        def begun(home: str, *arguments: str) -> Any:
            where = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / home), "HF_HUB_DISABLE_XET": "1"}
            return subprocess.Popen(
                [sys.executable, "-c", NODE, *arguments], env={**os.environ, **where}, stdout=subprocess.PIPE, text=True
            )

        read, _ = begun("driver", "org/model", str(tokenizer)).communicate()
        (tmp_path / "driver").rename(tmp_path / "elsewhere")
        hub.fetched.clear()
        workers = [begun("node", read) for _ in range(2)]
        found = {worker.communicate()[0].strip() for worker in workers}
        assert found == {json.loads(read)["path"].replace("/driver/", "/node/")}
        assert sorted(hub.fetched) == sorted(path.name for path in folder.iterdir()), "each once"
    _, gone = study(InitialCheckpoint(str(tmp_path / "gone"), "", 25_000, 1, 1.0), tokenizer, 1)
    with pytest.raises(InputError, match="every node sees it"):
        Worker(gone, tmp_path)
