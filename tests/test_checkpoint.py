"""Checkpoints: whole or absent, every byte checked, Hugging Face directories as they are."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mixlaw.errors import InputError
from mixlaw.runner.models.ladder import Shape
from mixlaw.runner.models.llama import initialise, optimizer
from mixlaw.runner.models.loss import LossModule
from mixlaw.runner.train import checkpoint
from mixlaw.runner.train.parallel import Ranks, shard_model
from mixlaw.runner.train.step import train_step
from mixlaw.runner.train.store import STATE, seal, verify
from ranks import together

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


def test_a_flipped_bit_of_a_header_passes_the_look_at_lengths_or_is_called_damaged(saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(saved, folder)
    assert verify(folder, tensors=False) == verify(folder)
    head, refused = (folder / "optimizer.safetensors").read_bytes()[:250], 0
    with (folder / "optimizer.safetensors").open("r+b", buffering=0) as file:
        for bit in range(8 * len(head)):  # the length of the header, and its first tensors
            file.seek(bit // 8)
            file.write(bytes([head[bit // 8] ^ 1 << bit % 8]))
            try:
                verify(folder, tensors=False)
            except InputError as error:
                refused += "is damaged" in str(error)
            file.seek(bit // 8)
            file.write(head[bit // 8 : bit // 8 + 1])
    assert refused > 8 * 125


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
    checkpoint.save(tmp_path / "older", restored.model, adamw, 1, NOWHERE)
    rng, whole, target = np.random.default_rng(2), 0, tmp_path / "target"
    for attempt in range(8):
        child = os.fork()
        if child == 0:  # saves until it is killed, in turns while it waits and while it trains on
            for step in range(1, 10**6):
                saving = checkpoint.save(target, restored.model, adamw, step, NOWHERE, wait=step % 2 == 0)
                for weight in restored.model.parameters():
                    weight.data.fill_(step)
                saving.wait()
        until = time.monotonic() + 60
        while attempt == 3 and not target.exists() and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(rng.uniform(0.02, 0.2))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert verify(tmp_path / "older") == 1
        if target.exists():
            step, model = verify(target), checkpoint.load(target).model
            if step > 1:
                assert all(bool((weight == step - 1).all()) for weight in model.parameters())
            whole += 1
    assert whole


def test_a_checkpoint_written_in_the_background_is_of_the_step_that_began_it(saved: Path, tmp_path: Path) -> None:
    restored = checkpoint.load(saved)
    adamw = optimizer(restored.model, 1e-3, 0.95)
    checkpoint.restore_moments(adamw, restored.model, restored.moments)
    saving = checkpoint.save(tmp_path / "background", restored.model, adamw, 3, NOWHERE, restored.extra, wait=False)
    train_step(LossModule(restored.model), adamw, batch(7), 1e-3)
    saving.wait()
    checkpoint.save(tmp_path / "later", restored.model, adamw, 3, NOWHERE)
    same, later = files(tmp_path / "background"), files(tmp_path / "later")
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert same[name] == files(saved)[name]
        assert same[name] != later[name], "training went on"


def test_a_checkpoint_that_safetensors_wrote_is_read_as_before(saved: Path, tmp_path: Path) -> None:
    whole, folder = checkpoint.load(saved), tmp_path / "old"
    whole.model.save_pretrained(tmp_path / "draft")
    save_file(whole.moments, tmp_path / "draft" / "optimizer.safetensors")
    seal(tmp_path / "draft", folder, 3)
    again = checkpoint.load(folder)
    assert (again.step, again.moments.keys()) == (3, whole.moments.keys())
    assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), again.model.parameters(), strict=True))
    assert load_file(saved / "model.safetensors").keys() == load_file(folder / "model.safetensors").keys()
    assert (saved / "config.json").read_bytes() == (folder / "config.json").read_bytes()


def _limited(ranks: Ranks, folder: Path) -> None:
    model = initialise(Shape(32, 2), VOCABULARY, SEQUENCE, seed=0)
    shard_model(model, ranks)
    adamw = optimizer(model, 1e-3, 0.95)
    checkpoint.save(folder / "older", model, adamw, 1, NOWHERE, ranks=ranks)
    if ranks.rank == 1:  # its disk is full
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    with pytest.raises(RuntimeError, match=r"rank 1 could not write .*newer: .*File too large"):
        checkpoint.save(folder / "newer", model, adamw, 2, NOWHERE, ranks=ranks, wait=False).wait()
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))  # coverage writes too


def test_all_ranks_meet_a_full_disk_of_one_and_the_older_checkpoint_stays(tmp_path: Path) -> None:
    together(2, _limited, tmp_path)
    assert verify(tmp_path / "older") == 1
    assert not (tmp_path / "newer").exists()
