"""Which segment goes where: placement against its rules, what a size needs, and what a dry run says, by hand."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from mixlaw.cli import app
from mixlaw.errors import InputError
from mixlaw.machine import cores
from mixlaw.recipe import Mixture, Phase, Recipe
from mixlaw.runner.execute.local import LocalExecutor
from mixlaw.runner.execute.machines import Local, Ray, backend_of, this_machine
from mixlaw.runner.models.ladder import shape
from mixlaw.runner.plan.devices import GPUS, Machine, Place, Pool, devices_for, gpu_named, share_for, shares, widest_for
from mixlaw.runner.plan.placement import Requirement, schedule
from mixlaw.runner.plan.price import Assumptions, Plan
from mixlaw.runner.plan.setup import Overrides, Setup
from mixlaw.runner.plan.tree import plan
from mixlaw.study import open_study
from small_study import SEGMENTS, files, prepare

TEXT, CODE = Mixture({"text": 1.0}), Mixture({"code": 1.0})
SETUP = Setup(data="data", data_hash="abc", vocabulary=32_768, sequence=2048, tasks=())
LARGE = shape("2.8B").params


# --- machines -------------------------------------------------------------------------------------------------------


def test_devices_are_taken_where_least_are_left_and_are_those_of_one_machine() -> None:
    pool = Pool([Machine("a", 4), Machine("b", 4)], [Place("b", (0, 3))])
    assert pool.take(1) == Place("b", (1,))
    assert pool.take(2) == Place("a", (0, 1))
    assert pool.take(3) is None
    pool.give(Place("a", (0,)))
    assert pool.take(3) == Place("a", (0, 2, 3))
    assert Place("a", (0, 1)).overlaps(Place("a", (1, 2)))
    assert not Place("a", (0, 1)).overlaps(Place("b", (0, 1)))


def test_more_devices_than_a_machine_has_are_those_of_as_few_machines_as_can_be() -> None:
    pool = Pool([Machine(name, 4) for name in "abc"], [Place("a", (0, 3))])
    assert pool.take(4) == Place("b", (0, 1, 2, 3)), "one machine where one has them"
    assert pool.take(7) is None
    both = pool.take(5)
    assert both == Place("c", (0, 1, 2, 3), beside=(Place("a", (1,)),))
    assert (both.width, str(both)) == (5, "c:0,1,2,3 and a:1")
    assert both.overlaps(Place("a", (1, 2)))
    assert not both.overlaps(Place("a", (2,)))
    pool.give(both)
    assert pool.whole == 6


def test_a_job_that_spans_machines_waits_for_those_that_are_free_soonest_and_is_not_held_up() -> None:
    machines = [Machine(name, 2) for name in "abc"]
    jobs = {
        "busy": Requirement(None, 2, 60.0),
        "first": Requirement(None, 2, 50.0),
        "second": Requirement(None, 1, 40.0),
        "wide": Requirement(None, 4, 30.0),
        "late": Requirement(None, 1, 25.0),
        "short": Requirement(None, 1, 8.0),
    }
    slots = {slot.lineage: slot for slot in schedule(jobs, machines)}
    # Machine a is busy to 60 s and b to 50 s; on c one device is left, for what ends within the 50 s until b and c are
    # free together: 25 and 8 s, one after the other.
    assert {name: slots[name].begin for name in jobs} == {
        "busy": 0, "first": 0, "second": 0, "late": 0, "short": 25, "wide": 50
    }  # fmt: skip
    assert sorted(place.machine for place in slots["wide"].place.by_machine) == ["b", "c"]


def test_a_size_takes_as_few_devices_as_hold_it() -> None:
    # 16 bytes a parameter for weights, gradients and moments are 46 GB at 2.8B: one H100, or several of 24 GB.
    assert devices_for(SETUP, LARGE, [Machine("a", 8, "cuda", GPUS["H100"].memory)]) == 1
    assert devices_for(SETUP, LARGE, [Machine("a", 8, "cuda", GPUS["L4"].memory)]) in (4, 8)
    assert devices_for(SETUP, shape("0.1M").params, [Machine("a", 8, "cuda", GPUS["L4"].memory)]) == 1
    assert devices_for(SETUP, LARGE, [Machine("a", 2)]) == 1, "memory that nobody knows sets no limit"
    with pytest.raises(InputError, match=r"need [48] devices of 24 GB and there are 2; take more with"):
        devices_for(SETUP, LARGE, [Machine("a", 2, "cuda", GPUS["L4"].memory)])


def test_gpus_that_are_not_here_are_refused() -> None:
    assert this_machine(workers=3, gpus=0) == Machine("local", 3)
    with pytest.raises(InputError, match=r"500 GPUs are wanted, [0-9]+ are here"):
        this_machine(gpus=500)
    with pytest.raises(InputError, match="got '4x8'"):
        backend_of("local", gpus="4x8")
    assert backend_of("local", 2, "0", "srun -n 2 'a b'") == Local(2, 0, ("srun", "-n", "2", "a b"))
    assert backend_of("ray", 2, store="s3://b") == Ray("auto", "s3://b", 2)
    with pytest.raises(InputError, match="the local executor takes no --store"):
        backend_of("local", store="s3://b")
    with pytest.raises(InputError, match="the ray executor takes no --launch"):
        backend_of("ray", launch="srun")


@pytest.mark.parametrize(
    ("own", "workers"),
    [(None, "0,2"), ("4,5,6", "4,6"), ("GPU-5a1, GPU-77b,MIG-c0/1/0", "GPU-5a1,MIG-c0/1/0")],
    ids=["all", "indices", "names"],
)
def test_workers_get_gpus_out_of_those_that_were_left_to_us_and_cores_beside_them(
    own: str | None, workers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if own is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", own)
    executor = LocalExecutor(SETUP, tmp_path, Machine("local", 3, "cuda", 10**10))
    executor.lock = os.open(os.devnull, os.O_RDONLY)
    try:
        worker = executor.start_worker(0, Place("local", (0, 2)))
        environment = Path(f"/proc/{worker.process.process.pid}/environ").read_bytes().split(b"\0")  # type: ignore[attr-defined]
        worker.kill()
        worker.wait()
        part = executor.start_worker(1, Place("local", (1,), 8))
        fine = Path(f"/proc/{part.process.process.pid}/environ").read_bytes().split(b"\0")  # type: ignore[attr-defined]
        part.kill()
        part.wait()
    finally:
        os.close(executor.lock)
    assert f"CUDA_VISIBLE_DEVICES={workers}".encode() in environment
    assert f"OMP_NUM_THREADS={max(1, cores() // 3)}".encode() in environment
    assert b"OMP_NUM_THREADS=" + str(max(1, cores() // 24)).encode() in fine


def test_small_segments_fill_gaps_and_do_not_hold_up_the_wide_one() -> None:
    jobs = {
        "busy": Requirement(None, 3, 20.0),
        "wide": Requirement(None, 4, 15.0),
        "long": Requirement(None, 1, 12.0),
        "short": Requirement(None, 1, 6.0),
    }
    one = {slot.lineage: slot for slot in schedule(jobs, [Machine("a", 4)])}
    assert (one["wide"].begin, one["long"].begin, one["short"].begin) == (20.0, 0.0, 12.0), "18 of the 20 are used"
    jobs["long"] = Requirement(None, 1, 14.9)
    late = {slot.lineage: slot for slot in schedule({**jobs, "short": Requirement(None, 1, 6.0)}, [Machine("a", 4)])}
    assert late["short"].begin >= late["wide"].end, "it would end after 20 seconds"
    two = {slot.lineage: slot for slot in schedule(jobs, [Machine("a", 4), Machine("b", 1)])}
    assert two["wide"].begin == 20.0
    assert max(two[name].end for name in ("long", "short")) <= 20.0 + 1e-9


def test_idle_gpus_widen_a_trunk_and_serve_its_branches_one_by_one() -> None:
    jobs = {
        "trunk": Requirement(None, 1, 80.0, 8),
        **{str(n): Requirement("trunk", 1, 10.0, 8) for n in range(8)},
    }
    slots = {slot.lineage: slot for slot in schedule(jobs, [Machine("a", 8, "cuda")])}
    assert slots["trunk"].place == Place("a", tuple(range(8)))
    assert {slots[str(n)].begin for n in range(8)} == {10.0}
    assert max(slot.end for slot in slots.values()) == 20.0, "on one GPU at first it was 90"
    node = [Machine("a", 8, "cuda", GPUS["H100"].memory)]
    assert widest_for(SETUP, LARGE, node) >= 8
    assert widest_for(SETUP, shape("0.1M").params, node) == 1, "a step of few tokens is not shared"
    assert widest_for(SETUP, LARGE, [Machine("a", 8)]) == 1, "cores stay as they are: bits would change"
    fixed = replace(SETUP, sizes=(Overrides(LARGE, gpus=2),))
    assert widest_for(fixed, LARGE, node) == 2, "the study says how many"
    two = [Machine(name, 8, "cuda", GPUS["L4"].memory) for name in "ab"]
    spanning = replace(SETUP, sizes=(Overrides(LARGE, gpus=16),))
    assert (devices_for(spanning, LARGE, two), devices_for(SETUP, LARGE, two)) == (
        16,
        devices_for(SETUP, LARGE, two[:1]),
    )


def test_small_segments_share_gpus_where_these_are_short_and_have_their_own_where_not() -> None:
    many = {str(n): Requirement(None, 1, 1.0, share=8) for n in range(20)}
    slots = schedule(many, [Machine("a", 2, "cuda")])
    assert [sum(slot.begin == second for slot in slots) for second in (0.0, 1.0)] == [16, 4], "ten seconds one by one"
    assert str(slots[0].place) == "a:0 (1/8)"
    few = schedule({str(n): many[str(n)] for n in range(3)}, [Machine("a", 2, "cuda"), Machine("b", 1, "cuda")])
    assert {slot.place.share for slot in few} == {1}
    wide = {**many, "wide": Requirement(None, 2, 30.0)}
    first = {slot.lineage: slot for slot in schedule(wide, [Machine("a", 2, "cuda")])}
    assert first["wide"].begin == 0.0, "the longest first"
    longer = {**{n: replace(job, seconds=5.0) for n, job in many.items()}, "wide": Requirement(None, 2, 4.0)}
    last = {slot.lineage: slot for slot in schedule(longer, [Machine("a", 2, "cuda")])}
    assert last["wide"].begin == 10.0, "once both are whole again"


def test_how_many_share_a_gpu_follows_from_kernels_memory_and_cores() -> None:
    h100, tiny = GPUS["H100"], shape("0.1M").params
    node = Machine("a", 8, "cuda", h100.memory, h100.peak, 8)
    # A step of 2,621 tokens: 6 FLOPs for 100,672 weights and a head of 32,768 x 64, and attention, a fortieth of 2 ms.
    assert share_for(SETUP, tiny, [node]) == 8
    assert share_for(SETUP, shape("30M").params, [node]) == 1, "a millisecond a layer is nothing beside its step"
    assert share_for(SETUP, tiny, [replace(node, peak=h100.peak / 100)]) == 1, "a slow GPU is busy"
    assert share_for(SETUP, tiny, [replace(node, memory=8 * 10**9)]) == 4, "each takes a GB beside its tensors"
    assert share_for(SETUP, tiny, [replace(node, share=2)]) == 2, "cores that start kernels"
    assert share_for(SETUP, tiny, [replace(node, peak=None)]) == 1, "a GPU that nobody knows"
    assert share_for(replace(SETUP, sizes=(Overrides(tiny, gpus=1),)), tiny, [node]) == 1, "the study says how many"
    assert [shares(8, cores) for cores in (1, 8, 16, 32, 63, 64, 128)] == [1, 1, 2, 4, 4, 8, 8]
    found = foreseen([node], {shape("100M").params: 100.0, LARGE: 10.0}, None)
    assert all(segment["share"] == 1 for segment in found.as_json()["segments"] if segment["begin"] is not None)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("NVIDIA A100-SXM4-80GB", "A100-80G"),
        ("NVIDIA A100-PCIE-40GB", "A100-40G"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100-PCIe"),
        ("NVIDIA H100 NVL", "H100-NVL"),
        ("NVIDIA GH200 480GB", "GH200"),
        ("NVIDIA A10G", "A10G"),
        ("Tesla V100-SXM2-16GB", "V100"),
        ("Tesla T4", "T4"),
        ("NVIDIA GeForce RTX 4090", None),
    ],
)
def test_gpus_are_known_by_the_names_that_drivers_give_them(name: str, key: str | None) -> None:
    assert gpu_named(name) == (None if key is None else GPUS[key])


# --- placement ------------------------------------------------------------------------------------------------------

jobs_and_machines = st.tuples(
    st.lists(
        st.tuples(st.integers(-1, 9), st.sampled_from([1, 1, 2, 4, 7]), st.integers(1, 9), st.sampled_from([1, 2, 8])),
        min_size=1,
        max_size=10,
    ),
    st.lists(st.sampled_from([1, 2, 4, 8]), min_size=0, max_size=3),
)


@settings(max_examples=150, deadline=None)
@given(jobs_and_machines)
def test_every_job_runs_once_after_its_parent_on_devices_that_nobody_else_holds(
    drawn: tuple[list[tuple[int, int, int, int]], list[int]],
) -> None:
    raw, sizes = drawn
    machines = [Machine(f"m{i}", size) for i, size in enumerate([*sizes, 4])]
    total = sum(machine.devices for machine in machines)
    jobs = {
        str(i): Requirement(
            str(parent) if 0 <= parent < i else None,
            min(devices, total),
            float(seconds),
            share=share if devices == 1 else 1,
        )
        for i, (parent, devices, seconds, share) in enumerate(raw)
    }
    slots = schedule(jobs, machines)
    by_job = {slot.lineage: slot for slot in slots}
    assert len(slots) == len(jobs) == len(by_job)
    for slot in slots:
        job = jobs[slot.lineage]
        assert slot.end - slot.begin == pytest.approx(job.seconds)
        held = [(place.machine, device) for place in slot.place.by_machine for device in place.devices]
        assert len(set(held)) == slot.place.width == job.devices
        assert all(device < next(m.devices for m in machines if m.name == name) for name, device in held)
        assert not slot.place.beside or job.devices > max(machine.devices for machine in machines)
        assert job.parent is None or by_job[job.parent].end <= slot.begin
        now = [other for other in slots if other.begin <= slot.begin < other.end and slot.place.overlaps(other.place)]
        for name, device in held:
            mine = [other for other in now if other.place.overlaps(Place(name, (device,)))]
            assert sum(1 / other.place.share for other in mine) <= 1
        assert slot.place.share in (1, job.share)


def test_a_wide_job_is_not_held_up_by_small_ones_that_come_later() -> None:
    jobs = {
        "wide": Requirement(None, 2, 10.0),
        "first": Requirement(None, 1, 11.0),
        **{f"s{i}": Requirement(None, 1, 3.0) for i in range(9)},
    }
    begins = {slot.lineage: slot.begin for slot in schedule(jobs, [Machine("a", 2)])}
    assert (begins["first"], begins["wide"]) == (0.0, 11.0)
    assert sorted(begins[f"s{i}"] for i in range(9))[:4] == [0.0, 3.0, 6.0, 21.0], "those that end before it begins"


# --- dry run --------------------------------------------------------------------------------------------------------


def foreseen(machines: list[Machine], speed: Mapping[int, float], price: float | None) -> Plan:
    """A trunk of ten batches and two branches of two at each of two sizes; one branch is trained."""
    small = shape("100M").params
    recipes = [
        Recipe(params, (Phase("init", 1000, TEXT), Phase("cooldown", 200, mixture, 0.0)))
        for params in (small, LARGE)
        for mixture in (TEXT, CODE)
    ]
    tree = plan(recipes)
    trained = frozenset({recipes[0].lineage})
    return Plan(tree, SETUP, frozenset(), trained, speed, machines, price=price)


def test_hours_and_bill_are_those_of_the_schedule_by_hand() -> None:
    speed = {shape("100M").params: 100.0, LARGE: 10.0}
    found = foreseen([Machine("a", 4, "cuda", GPUS["L4"].memory)], speed, price=3.0)
    wide = devices_for(SETUP, LARGE, found.machines)
    assert wide == 4
    # All four devices: the large trunk for 1000 / 40 s, its branches for 5 s each; then, the trunk's being kept by
    # nobody, the small trunk on one device for 10 s, and its one branch that is not trained: 2 s on one
    # device, half a second on the four that are idle.
    assert found.seconds == pytest.approx(25 + 5 + 5 + 10 + 2 / 4)
    assert found.busy_hours * 3600 == pytest.approx(4 * 35 + 12)
    assert found.held_hours * 3600 == pytest.approx(4 * 45.5)
    told = found.as_json()
    assert told["bill"] == pytest.approx(3.0 * 4 * 45.5 / 3600)
    assert told["disk_bytes_pending"] == 12 * sum(
        count * (params + 32_768 * shape(params).width) for params, count in ((shape("100M").params, 2), (LARGE, 3))
    )
    assert told["flops_pending"] == pytest.approx(
        SETUP.flops(LARGE, 1400) + SETUP.flops(shape("100M").params, 1200), rel=1e-12
    )
    text = str(found)
    assert "6 of 6 segments to train or evaluate" in text
    assert text.count("to do, ") == 5
    assert f"{3.0 * 4 * 45.5 / 3600:,.2f} at 3 per device hour" in text
    assert "to do, 0 s to 25 s on a:0,1,2,3" in found.to_polars()["state"].to_list()


def test_two_machines_share_what_one_device_suffices_for() -> None:
    speed = {shape("100M").params: 100.0, LARGE: 10.0}
    one, two = (foreseen([Machine(f"m{i}", 1) for i in range(count)], speed, None) for count in (1, 2))
    assert one.seconds == pytest.approx(100 + 20 + 20 + 10 + 2)
    assert two.seconds == pytest.approx(100 + 20)
    assert {slot.place.machine for slot in two.slots} == {"m0", "m1"}
    assert "bill" not in str(two)


@pytest.mark.parametrize("terms", [{"gpus": "0"}, {"gpus": "2x"}, {"gpus": "two"}, {"gpu": "H99"}, {"mfu": 0.0}])
def test_terms_that_make_no_sense_are_refused(terms: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"--gpus is a number, .* got|unknown GPU|--mfu is a share"):
        Assumptions(**terms)  # type: ignore[arg-type]


def test_a_dry_run_of_a_study_writes_nothing_and_trains_nothing(tmp_path: Path) -> None:
    study = open_study(prepare(tmp_path / "study"))
    before = files(study)
    with pytest.raises(InputError, match=r"25,248 parameters was not timed on this machine; let `mixlaw plan"):
        study.dry_run()
    if this_machine().kind == "cpu":
        with pytest.raises(InputError, match="no GPU here to time"):
            study.dry_run(assumptions=Assumptions(gpus="4"))
    options = ["--dry-run", "--gpus", "2x2", "--gpu", "H100", "--mfu", "0.5", "--price", "2.5", "--json"]
    done = CliRunner().invoke(app, ["run", str(study.path), *options])
    assert done.exit_code == 0
    told = json.loads(done.stdout)
    assert len(told["segments"]) == SEGMENTS
    assert {segment["machine"] for segment in told["segments"]} == {"node-0", "node-1"}
    # Half of 989e12 FLOPs per second; 6 per weight that multiplies and 12 x depth x width x sequence for attention.
    flops = 6 * (2 * (4 * 32**2 + 3 * 32 * 88) + 300 * 32) + 12 * 2 * 32 * 32
    assert told["tokens_per_second"] == {"25248": pytest.approx(0.5 * 989e12 / flops)}
    assert told["flops_pending"] == sum(segment["tokens"] for segment in told["segments"]) * flops
    assert told["bill"] == pytest.approx(2.5 * 4 * told["seconds"] / 3600)
    assert files(study) == before
