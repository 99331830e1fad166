"""One step: the loss in blocks is the plain cross-entropy, and a batch in passes is the batch at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from mixlaw.runner.models.ladder import shape
from mixlaw.runner.models.llama import config, initialise, optimizer
from mixlaw.runner.models.loss import IGNORED, PLAIN_HEADS, LossModule, _Head, loss_of_logits
from mixlaw.runner.train.step import train_step

VOCABULARY, SEQUENCE = 300, 32
SIZE = shape("0.02M")


def batch(rows: int) -> torch.Tensor:
    return torch.randint(VOCABULARY, (rows, SEQUENCE + 1), generator=torch.Generator().manual_seed(3))


def test_loss_and_gradients_are_those_of_plain_cross_entropy_also_with_labels_that_do_not_count() -> None:
    model = initialise(SIZE, VOCABULARY, SEQUENCE, seed=1)
    tokens = batch(70)  # more rows of logits than one block holds
    inputs, labels = tokens[:, :-1], tokens[:, 1:].clone()
    labels[5:9] = IGNORED
    loss = LossModule(model)(inputs, labels)
    loss.backward()
    ours = [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]
    model.zero_grad()
    logits = model(input_ids=inputs, use_cache=False).logits.flatten(0, 1)
    plain = functional.cross_entropy(logits, labels.flatten(), reduction="sum", ignore_index=IGNORED)
    plain.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == pytest.approx(float(plain.detach()), rel=1e-6)
    for mine, weight in zip(ours, model.parameters(), strict=True):
        assert weight.grad is not None
        assert torch.allclose(mine, weight.grad, rtol=1e-4, atol=1e-4 * float(weight.grad.abs().max()))


@pytest.mark.parametrize("name", PLAIN_HEADS)
def test_the_head_of_every_known_architecture_gives_the_loss_and_gradients_of_its_own_forward_pass(name: str) -> None:
    """Logits of 300 rows exist in two blocks."""
    import transformers

    torch.manual_seed(0)
    kind = getattr(transformers, name)
    size = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "max_position_embeddings": 64}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16, "pad_token_id": 0}
    model = kind(kind.config_class(vocab_size=VOCABULARY, tie_word_embeddings=True, **size, **heads)).eval()
    tokens = torch.randint(VOCABULARY, (10, 31), generator=torch.Generator().manual_seed(3))
    ours = LossModule(model)
    assert ours.plain
    found: list[tuple[float, list[torch.Tensor]]] = []
    for ours.plain in (True, False):
        loss = ours(tokens[:, :-1], tokens[:, 1:])
        loss.backward()
        grads = [torch.zeros(1) if weight.grad is None else weight.grad.clone() for weight in model.parameters()]
        found.append((float(loss.detach()), grads))
        model.zero_grad()
    (one, first), (two, second) = found
    assert one == pytest.approx(two, rel=1e-6)
    for mine, theirs in zip(first, second, strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


def test_a_batch_in_passes_trains_what_the_batch_at_once_trains() -> None:
    models = [initialise(SIZE, VOCABULARY, SEQUENCE, seed=1) for _ in range(2)]
    adamws = [optimizer(model, 3e-3, 0.95) for model in models]
    for number in range(20):
        tokens = batch(12).roll(number, 1)
        seen = [
            train_step(LossModule(model), adamw, tokens, 3e-3, micro_batch=micro_batch)
            for model, adamw, micro_batch in zip(models, adamws, (12, 5), strict=True)  # 5, 5 and 2
        ]
        assert seen[0].loss == pytest.approx(seen[1].loss, abs=1e-5)
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-4)


@pytest.mark.parametrize("size", ["0.02M", "1M", "30M", "470M", "1B", "2.8B", "13B"])
def test_a_size_on_the_meta_device_has_exactly_the_parameters_that_it_is_said_to_have(size: str) -> None:
    from transformers import LlamaForCausalLM

    chosen = shape(size)
    with torch.device("meta"):
        model = LlamaForCausalLM(config(chosen, 32_768, 2048))
    counted = sum(weight.numel() for weight in model.parameters())
    assert counted == chosen.params + 32_768 * chosen.width


def test_a_saved_model_gives_the_same_logits_in_transformers_in_another_process(tmp_path: Path) -> None:
    from mixlaw.runner.train import checkpoint

    model = initialise(SIZE, VOCABULARY, SEQUENCE, seed=1)
    adamw = optimizer(model, 3e-3, 0.95)
    train_step(LossModule(model), adamw, batch(8), 3e-3)
    checkpoint.save(tmp_path / "checkpoint", model, adamw, 1, tmp_path)
    with torch.no_grad():
        np.save(tmp_path / "logits.npy", model(input_ids=batch(2)[:, :-1]).logits.numpy())
    np.save(tmp_path / "tokens.npy", batch(2)[:, :-1].numpy())
    code = (
        "import sys, torch, numpy as np; from transformers import AutoModelForCausalLM; folder = sys.argv[1];"
        "model = AutoModelForCausalLM.from_pretrained(folder + '/checkpoint');"
        "logits = model(input_ids=torch.from_numpy(np.load(folder + '/tokens.npy'))).logits.detach().numpy();"
        "print(abs(logits - np.load(folder + '/logits.npy')).max())"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert float(done.stdout.splitlines()[-1]) <= 1e-5


def test_the_gradient_of_the_head_is_as_exact_in_bf16_however_many_blocks_it_is_summed_over() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(4096, 64, generator=generator).bfloat16()
    weight = (0.1 * torch.randn(300, 64, generator=generator)).bfloat16()
    labels = torch.randint(300, (4096,), generator=generator)
    exact = weight.double().requires_grad_()
    functional.cross_entropy(hidden.double() @ exact.t(), labels, reduction="sum").backward()  # type: ignore[no-untyped-call]
    errors = []
    for rows in (4096, 512, 32):
        leaf = weight.clone().requires_grad_()
        blocks = (hidden.clone().requires_grad_(), leaf, labels, rows, loss_of_logits, torch.empty(4096))
        loss: torch.Tensor = _Head.apply(*blocks)  # type: ignore[no-untyped-call]
        torch.autograd.backward(loss)
        assert leaf.grad is not None
        assert leaf.grad.dtype == torch.bfloat16
        assert exact.grad is not None
        errors.append(float((leaf.grad.double() - exact.grad).norm() / exact.grad.norm()))
    assert max(errors) < 1.5 * errors[0] < 0.004
