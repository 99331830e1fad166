"""Several processes train as one does: same data order, same losses, and each goes on where another number stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from mixlaw.errors import InputError
from mixlaw.recipe import Mixture, Phase, Recipe
from mixlaw.runner.models.ladder import Shape, shape
from mixlaw.runner.models.llama import initialise, optimizer
from mixlaw.runner.plan.setup import Setup
from mixlaw.runner.plan.tree import plan
from mixlaw.runner.train import checkpoint, loop
from mixlaw.runner.train.loop import Stopped, train_segment
from mixlaw.runner.train.parallel import ALONE, Ranks, joined, shard_model
from mixlaw.runner.train.step import train_step
from mixlaw.runner.train.store import sweep, verify
from processes import wait_until
from ranks import begun, together

STEPS = 50
# Six sequences on four ranks are two, two, one and one: the shorter ranks fill up with one that does not count.
SETUP = Setup(data="no data", data_hash="", vocabulary=300, sequence=16, tasks=(), batch=6, warmup_tokens=600)
PARAMS = shape("0.025M").params
RNG = np.random.default_rng(0)
STREAMS = {
    "text": np.tile(RNG.integers(300, size=97), 60).astype(np.uint16),
    "code": RNG.integers(300, size=6000).astype(np.uint16),
}
MIXTURE = Mixture({"text": 0.6, "code": 0.4})
(SEGMENT,) = plan([SETUP.adopt(Recipe(PARAMS, (Phase("init", STEPS * SETUP.step_tokens(PARAMS), MIXTURE),)))]).segments


def train(ranks: Ranks, runs: Path, steps: int | None = None, setup: Setup = SETUP) -> None:
    """Train the segment, or so many steps of it."""
    asked = iter(range(10**6))
    stop: Callable[[], bool] = (lambda: False) if steps is None else lambda: next(asked) + 1 >= steps
    try:
        train_segment(SEGMENT, setup, STREAMS, runs, stop=stop, ranks=ranks)
    except Stopped:
        assert steps is not None


def losses(runs: Path) -> list[float]:
    """Loss of every step, as the last checkpoint remembers them."""
    kept = json.loads((runs / SEGMENT.lineage / "checkpoint" / checkpoint.EXTRA).read_text())
    assert len(kept["losses"]) == STEPS
    return [float(loss) for loss in kept["losses"]]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """Losses of one process."""
    runs = tmp_path_factory.mktemp("alone")
    train(ALONE, runs)
    found = losses(runs)
    assert found[-1] < found[0] - 0.5, "it learns"
    assert max(abs(a - b) for a, b in pairwise(found)) > 1e-2, "batches differ"
    return found


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two ranks."""
    runs = tmp_path_factory.mktemp("two")
    together(2, train, runs)
    return runs


def test_ranks_train_as_one_process_does(two: Path, alone: list[float], tmp_path: Path) -> None:
    together(4, train, tmp_path)
    for runs in (two, tmp_path):
        assert losses(runs) == pytest.approx(alone, abs=1e-5)


def test_two_ranks_that_are_killed_while_they_write_a_checkpoint_end_with_the_same_bits(
    two: Path, tmp_path: Path
) -> None:
    home, often = tmp_path / SEGMENT.lineage, replace(SETUP, checkpoint_seconds=1e-6)
    for _ in range(20):  # until a kill has met a checkpoint that was half written, after one that was whole
        processes = begun(2, train, tmp_path, None, often)
        wait_until(lambda: list(home.glob("partial-*")) and list(home.glob(".partial-*.tmp")))
        for process in processes:
            process.kill()
            process.join()
        if list(home.glob(".partial-*.tmp")):
            break
    else:
        pytest.fail("no kill met a checkpoint that was being written")
    sweep(tmp_path)
    whole = sorted(home.glob("partial-*"))
    assert all(verify(path) == int(path.name.removeprefix("partial-")) for path in whole)
    together(2, train, tmp_path, None, often)
    for path in (two / SEGMENT.lineage / "checkpoint").iterdir():
        assert (home / "checkpoint" / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize("last", [2, 4])
def test_another_number_of_ranks_goes_on_with_the_same_data(last: int, alone: list[float], tmp_path: Path) -> None:
    together(2, train, tmp_path, 15)
    train(ALONE, tmp_path, 15)
    together(last, train, tmp_path)
    assert losses(tmp_path) == pytest.approx(alone, abs=1e-5)


def test_a_checkpoint_of_several_ranks_is_that_of_one(tmp_path: Path) -> None:
    together(2, train, tmp_path / "two", 3)
    train(ALONE, tmp_path / "one", 3)
    one, two = (checkpoint.load(next((tmp_path / n / SEGMENT.lineage).glob("partial-*"))) for n in ("one", "two"))
    assert (one.step, two.step) == (3, 3)
    assert one.moments.keys() == two.moments.keys()
    for name, weight in one.model.state_dict().items():
        assert torch.allclose(weight, two.model.state_dict()[name], atol=1e-5)
    for name, moment in one.moments.items():
        assert torch.allclose(moment, two.moments[name], rtol=1e-3, atol=1e-6)


def _shards(ranks: Ranks, folder: Path) -> None:
    """No rank allocates a weight that is not its shard, and each gets the slices of what one process has."""

    def fresh() -> LlamaForCausalLM:
        return initialise(Shape(32, 2), 301, 16, seed=5)  # 301 rows: shards of several lengths

    whole, written = fresh(), folder / "checkpoint"
    expected = dict(whole.named_parameters())
    for origin in (None, written):
        model, fill = checkpoint.source(origin, fresh, True, ranks)
        assert {weight.device.type for weight in model.parameters()} == {"meta"}
        losses, adamw = shard_model(model, ranks), optimizer(model, 1e-2, 0.95)
        fill(model, adamw)
        sharded: list[Any] = list(losses.parameters())
        held = sum(weight.to_local().numel() for weight in sharded)
        assert held < 0.4 * sum(weight.numel() for weight in whole.parameters())
        weights: dict[str, Any] = dict(model.named_parameters())
        for name, weight in weights.items():
            assert torch.equal(weight.full_tensor(), expected[name]), name
        if origin is None:  # a step, saved by three, read by three
            train_step(losses, adamw, TOKENS[ranks.rank :: ranks.world], 1e-2, sequences=6, ranks=ranks)
            expected = {name: weight.full_tensor().detach() for name, weight in weights.items()}
            moments = {name: adamw.state[weight]["exp_avg"].full_tensor() for name, weight in weights.items()}
            checkpoint.save(written, model, adamw, 1, folder, ranks=ranks, wait=False).wait()
            ranks.broadcast()
        else:
            for name, weight in weights.items():
                assert torch.equal(adamw.state[weight]["exp_avg"].full_tensor(), moments[name])
                assert adamw.state[weight]["step"] == 1
    if ranks.first:
        sizes = [path.stat().st_size for path in sorted(written.glob("optimizer-*.safetensors"))]
        assert len(sizes) == 3
        assert max(sizes) < 0.6 * sum(sizes), "each rank wrote its part"
        alone = checkpoint.load(written)
        for name, weight in alone.model.named_parameters():
            assert torch.equal(weight, expected[name])
        spoilt = written / "optimizer-00002-of-00003.safetensors"
        spoilt.write_bytes(spoilt.read_bytes()[:-1] + b"!")
        with pytest.raises(InputError, match=r"optimizer-00002-of-00003.safetensors differs"):
            checkpoint.load(written)


def test_no_rank_builds_or_reads_more_than_its_shards(tmp_path: Path) -> None:
    together(3, _shards, tmp_path)


TOKENS = torch.randint(300, (6, 17), generator=torch.Generator().manual_seed(0))


def step_of(ranks: Ranks, recompute: bool = False) -> list[float]:
    """Loss and gradient norm of three steps in passes of one sequence, at a rate that clips hard."""
    model = initialise(Shape(32, 2), 300, 16, seed=0)
    model.model.embed_tokens.weight.data *= 30
    wrapped = shard_model(model, ranks, recompute=recompute)
    adamw, seen = optimizer(model, 1e-2, 0.95), []
    for _ in range(3):
        rows = TOKENS[ranks.rank :: ranks.world]
        step = train_step(wrapped, adamw, rows, 1e-2, sequences=len(TOKENS), micro_batch=1, ranks=ranks)
        seen += [step.loss, step.norm]
    return seen


def write_steps(ranks: Ranks, recompute: bool, bf16: bool, out: Path) -> None:
    found = step_of(replace(ranks, bf16=bf16), recompute)
    (out / f"{ranks.rank}.json").write_text(json.dumps(found))


@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_are_clipped_by_their_norm_over_all_shards(recompute: bool, tmp_path: Path) -> None:
    together(2, write_steps, recompute, False, tmp_path)
    alone = step_of(ALONE)
    assert min(alone[1::2]) > 2, "so much is clipped"
    for rank in range(2):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == pytest.approx(alone, rel=1e-5)


def test_bf16_computes_roughly_and_keeps_fp32(tmp_path: Path) -> None:
    together(2, write_steps, False, True, tmp_path)
    rough, alone = json.loads((tmp_path / "0.json").read_text()), step_of(ALONE)
    assert rough == pytest.approx(alone, rel=0.05)
    assert rough[0] != pytest.approx(alone[0], rel=1e-6), "eight bits of mantissa show"


def fp32_weights(ranks: Ranks) -> None:
    """What an accelerator does: bf16 in the layers, fp32 in weights, moments and checkpoints."""
    model = initialise(Shape(32, 2), 300, 16, seed=0)
    wrapped, kinds = shard_model(model, replace(ranks, bf16=True)), []
    model.model.layers[1].mlp.register_forward_hook(lambda module, args, out: kinds.append(out.dtype))
    adamw = optimizer(model, 1e-2, 0.95)
    train_step(wrapped, adamw, TOKENS[ranks.rank :: 2], 1e-2, sequences=6, ranks=ranks)
    assert kinds == [torch.bfloat16]
    states = [value.dtype for state in adamw.state.values() for value in state.values()]
    assert {*states, *(weight.dtype for weight in model.parameters())} == {torch.float32}


def test_weights_and_moments_stay_fp32_under_bf16() -> None:
    together(2, fp32_weights)


def _damaged(ranks: Ranks, folder: Path) -> None:
    with pytest.raises(InputError, match="is damaged"):
        checkpoint.load(folder, ranks)
    assert ranks.least(3 + ranks.rank) == 3, "all ranks are here"
    assert ranks.common(0.1 + ranks.rank) == (0.1,)


def test_all_ranks_meet_the_damage_that_the_first_one_finds(tmp_path: Path) -> None:
    together(2, _damaged, tmp_path / "nowhere")


@pytest.mark.parametrize("reader", [0, 1])
def test_all_ranks_meet_the_damage_that_one_of_them_finds(reader: int, tmp_path: Path) -> None:
    together(2, train, tmp_path, 3)
    (folder,) = (tmp_path / SEGMENT.lineage).glob("partial-*")
    damaged = sorted(folder.iterdir(), key=lambda path: (-path.stat().st_size, path.name))[reader]
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(InputError, match=f"{damaged.name} differs"):
        verify(folder, reader, 2)
    verify(folder, 1 - reader, 2)  # the other one reads it not
    together(2, _damaged, folder)


def _listing_late(ranks: Ranks, runs: Path) -> None:
    """The second rank does not see yet what the first one sees, as on a file system that keeps listings."""
    if not ranks.first:
        loop.origin = lambda *_: None  # type: ignore[attr-defined]
    train(ranks, runs)


def test_all_ranks_resume_from_the_checkpoint_that_the_first_one_sees(two: Path, tmp_path: Path) -> None:
    together(2, train, tmp_path, 15)
    together(2, _listing_late, tmp_path)
    for path in (two / SEGMENT.lineage / "checkpoint").iterdir():
        assert (tmp_path / SEGMENT.lineage / "checkpoint" / path.name).read_bytes() == path.read_bytes(), path.name


def _summing_otherwise(ranks: Ranks) -> None:
    """Sums of the second rank differ in their last digits."""
    usual, seen = Ranks.total, list[tuple[float, ...]]()
    if not ranks.first:
        Ranks.total = lambda self, values: [1.0001 * each for each in usual(self, values)]  # type: ignore[method-assign]
    model = initialise(Shape(32, 2), 300, 16, seed=0)
    losses, adamw = shard_model(model, ranks), optimizer(model, 1e-2, 0.95)
    rows = TOKENS[ranks.rank :: ranks.world]

    def accept(*judged: float) -> bool:
        seen.append(judged)
        return True

    train_step(losses, adamw, rows, 1e-2, sequences=len(TOKENS), ranks=ranks, accept=accept)
    assert ranks.broadcast(seen) == seen


def test_all_ranks_judge_a_step_by_the_numbers_of_the_first_one() -> None:
    together(2, _summing_otherwise)


@pytest.mark.parametrize("bf16", [True, False])
def test_ranks_on_gpus_wait_minutes_for_sums_and_days_for_orders_and_need_no_bf16(
    bf16: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """GPUs that are not here, as torch says that they are."""
    groups: list[Any] = []
    faked = {"is_available": True, "set_device": None, "is_bf16_supported": bf16, "get_device_name": "Tesla T4"}
    for name, value in faked.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value, **__: value)

    def begin(*kind: str, **more: Any) -> int:
        groups.append((kind, more))
        return len(groups)

    for name in ("init_process_group", "new_group"):
        monkeypatch.setattr(torch.distributed, name, begin)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)
    for name, number in {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8"}.items():
        monkeypatch.setenv(name, number)
    with joined() as ranks:
        assert ranks == Ranks(5, 8, torch.device("cuda", 1), bf16)
        assert (ranks.orders, ranks.saves) == (2, 3)
    assert [more["timeout"].total_seconds() for _, more in groups] == [600, 7 * 86_400, 7 * 86_400]
    assert groups[0][0] == ("cpu:gloo,cuda:nccl",)
    assert capsys.readouterr().err == ("" if bf16 else "Tesla T4 has no bf16: training in fp32\n")


def _domains(ranks: Ranks, out: Path) -> None:
    model = initialise(Shape(32, 2), 300, 16, seed=0)
    wrapped = shard_model(model, ranks)
    codes = torch.tensor([0, 1, 1, 2, 0, 1])
    mine = torch.arange(ranks.rank, len(TOKENS), ranks.world)
    step = train_step(
        wrapped,
        optimizer(model, 1e-2, 0.95),
        TOKENS[mine],
        1e-2,
        sequences=len(TOKENS),
        micro_batch=1,
        ranks=ranks,
        domains=(codes[mine], 4),
    )
    if ranks.first:
        (out / f"{ranks.world}.json").write_text(json.dumps([step.loss, step.domains]))


def test_losses_by_domain_are_those_of_its_sequences_on_any_number_of_ranks(tmp_path: Path) -> None:
    for world in (1, 2):
        together(world, _domains, tmp_path)
    (loss, one), (_, two) = (json.loads((tmp_path / f"{world}.json").read_text()) for world in (1, 2))
    model = initialise(Shape(32, 2), 300, 16, seed=0)
    for number, rows in enumerate(([0, 4], [1, 2, 5], [3])):
        assert one[number][1] == two[number][1] == 16 * len(rows)
        logits = model(input_ids=TOKENS[rows, :-1]).logits.flatten(0, 1)
        summed = torch.nn.functional.cross_entropy(logits, TOKENS[rows, 1:].flatten(), reduction="sum")
        assert one[number][0] == pytest.approx(summed.item(), rel=1e-5)
        assert two[number][0] == pytest.approx(summed.item(), rel=1e-5)
    assert one[3] == [0, 0], "a domain without a sequence in this step"
    assert sum(part for part, _ in one) / sum(tokens for _, tokens in one) == pytest.approx(loss, rel=1e-6)
