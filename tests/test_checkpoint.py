"""Checkpoints: whole or absent, every byte checked, Hugging Face directories as they are."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from mixlaw.errors import InputError
from mixlaw.runner.models.ladder import Shape
from mixlaw.runner.models.llama import initialise, optimizer
from mixlaw.runner.models.loss import LossModule
from mixlaw.runner.train import checkpoint
from mixlaw.runner.train.step import train_step
from mixlaw.runner.train.store import STATE, verify

VOCABULARY, SEQUENCE = 300, 32
NOWHERE = Path("no tokenizer here")


def batch(number: int) -> torch.Tensor:
    return torch.randint(VOCABULARY, (4, SEQUENCE + 1), generator=torch.Generator().manual_seed(number))


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint after three steps, with a tokenizer beside it."""
    folder = tmp_path_factory.mktemp("checkpoint")
    tokenizer = folder / "tokenizer"
    tokenizer.mkdir()
    (tokenizer / "tokenizer.json").write_text('{"some": "tokenizer"}')
    model = initialise(Shape(32, 2), VOCABULARY, SEQUENCE, seed=0)
    adamw = optimizer(model, 1e-3, 0.95)
    for number in range(3):
        train_step(LossModule(model), adamw, batch(number), 1e-3)
    checkpoint.save(folder / "saved", model, adamw, 3, tokenizer)
    return folder / "saved"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_transformers_loads_a_checkpoint_as_it_is(saved: Path) -> None:
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(saved)
    ours = checkpoint.load(saved).model
    tokens = batch(9)[:, :-1]
    with torch.no_grad():
        assert torch.allclose(plain(tokens).logits, ours(input_ids=tokens).logits, atol=1e-5, rtol=0)
    assert (saved / "tokenizer.json").read_text() == '{"some": "tokenizer"}'


def test_training_goes_on_bit_for_bit_from_a_checkpoint(tmp_path: Path) -> None:
    model = initialise(Shape(64, 2), VOCABULARY, SEQUENCE, seed=1)
    adamw = optimizer(model, 1e-3, 0.95)
    losses = [train_step(LossModule(model), adamw, batch(number), 1e-3 / (number + 1)) for number in range(6)]

    other = initialise(Shape(64, 2), VOCABULARY, SEQUENCE, seed=1)
    moments, again = optimizer(other, 1e-3, 0.95), []
    for number in range(6):
        again.append(train_step(LossModule(other), moments, batch(number), 1e-3 / (number + 1)))
        checkpoint.save(tmp_path / "one", other, moments, number + 1, NOWHERE)
        restored = checkpoint.load(tmp_path / "one")
        assert restored.step == number + 1
        other = restored.model.train()
        moments = optimizer(other, 1e-3, 0.95)
        checkpoint.restore_moments(moments, other, restored.moments)
    assert again == losses
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_loaded_weights_lie_in_memory_like_fresh_ones(saved: Path) -> None:
    # Not in the memory-mapped file, at any odd address: kernels may sum in another order there.
    assert {weight.data_ptr() % 64 for weight in checkpoint.load(saved).model.parameters()} == {0}


def test_a_flipped_byte_anywhere_is_found_and_the_folder_named(saved: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, content in files(saved).items():
        places = {0, len(content) - 1, *rng.integers(len(content), size=12).tolist()}
        # All of state.json: the checksums of the rest stand in it, and the step.
        for place in places if name != STATE else range(len(content)):
            folder = tmp_path / "copy"
            shutil.copytree(saved, folder)
            spoilt = bytearray(content)
            spoilt[place] ^= 1 << int(rng.integers(8))
            (folder / name).write_bytes(spoilt)
            with pytest.raises(InputError, match=r"damaged.*delete that folder") as caught:
                verify(folder)
            assert str(folder) in str(caught.value)
            shutil.rmtree(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "config.json", "state.json"])
def test_a_missing_or_truncated_file_is_found(name: str, saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(saved, folder)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1])
    with pytest.raises(InputError, match="damaged"):
        checkpoint.load(folder)
    (folder / name).unlink()
    with pytest.raises(InputError, match="damaged"):
        checkpoint.load(folder)


def test_a_missing_checkpoint_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="damaged"):
        checkpoint.load(tmp_path / "none")


def test_saving_again_replaces_the_checkpoint(saved: Path, tmp_path: Path) -> None:
    restored = checkpoint.load(saved)
    adamw = optimizer(restored.model, 1e-3, 0.95)
    checkpoint.restore_moments(adamw, restored.model, restored.moments)
    for step in (3, 4):
        checkpoint.save(tmp_path / "twice", restored.model, adamw, step, NOWHERE)
        assert verify(tmp_path / "twice") == step
    assert [path.name for path in tmp_path.iterdir()] == ["twice"]


def test_a_kill_while_saving_leaves_no_damaged_checkpoint(saved: Path, tmp_path: Path) -> None:
    restored = checkpoint.load(saved)
    adamw = optimizer(restored.model, 1e-3, 0.95)
    checkpoint.restore_moments(adamw, restored.model, restored.moments)
    rng, whole, target = np.random.default_rng(2), 0, tmp_path / "target"
    for attempt in range(8):
        child = os.fork()
        if child == 0:  # saves until it is killed
            for step in range(1, 10**6):
                checkpoint.save(target, restored.model, adamw, step, NOWHERE)
        until = time.monotonic() + 60
        while attempt == 3 and not target.exists() and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(rng.uniform(0.02, 0.2))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if target.exists():
            assert verify(target) > 0
            whole += 1
    assert whole
