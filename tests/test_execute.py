"""A real tiny study, trained by worker processes: undisturbed, killed at random moments, interrupted, damaged."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from mixlaw.errors import InputError
from mixlaw.runner.execute.executor import WorkerHandle
from mixlaw.runner.execute.local import LocalExecutor
from mixlaw.runner.execute.queue import TRIES
from mixlaw.runner.plan.devices import Machine, Place
from mixlaw.runner.plan.tree import plan
from mixlaw.study import Study
from processes import children, gone, silent, wait_until
from small_study import SEGMENTS, copy, files, prepare, results

DRIVER = "import sys; from mixlaw.study import open_study; print(open_study(sys.argv[1]).run(workers=int(sys.argv[2])))"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with its data, nothing trained."""
    return prepare(tmp_path_factory.mktemp("execute") / "study")


@pytest.fixture(scope="module")
def trained(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The study, trained without disturbance."""
    study = copy(prepared, tmp_path_factory.mktemp("trained") / "study")
    seen: list[tuple[float, str]] = []
    outcome = study.run(workers=2, progress=lambda share, what: seen.append((share, what)))
    assert (len(outcome.done), outcome.failed, outcome.blocked) == (SEGMENTS, {}, ())
    share, what = seen[-1]
    assert share == pytest.approx(1)
    assert what.startswith(f"{SEGMENTS}/{SEGMENTS} segments")
    return study


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


# --- what a run leaves ----------------------------------------------------------------------------------------------


def test_every_recipe_is_recorded_and_every_segment_leaves_one_checkpoint(trained: Study) -> None:
    tree = plan(trained.recipes())
    assert len(tree.recipes) == 4
    assert {path.name for path in trained.runs.iterdir() if path.is_dir()} == {s.lineage for s in tree.segments}
    for segment in tree.segments:
        inside = {path.name for path in (trained.runs / segment.lineage).iterdir()}
        assert inside == ({"checkpoint", "record.json"} if segment.is_run else {"checkpoint"})
    assert {record.run for record in trained.records()} == {recipe.lineage for recipe in tree.recipes}


def test_records_hold_what_was_drawn_and_what_was_measured(trained: Study) -> None:
    for record in trained.records():
        assert set(record.values) == {"text", "code"}
        # Byte entropy of either corpus is far below 8 bits, and the models have learned some of it.
        assert all(0 < m.value < 4 and m.stderr is not None and m.stderr > 0 for m in record.values.values())
        for phase in record.recipe.phases:
            assert sum(record.tokens[phase.name].values()) == phase.tokens
    table = trained.table()
    assert table.height == 4
    assert table["lr_end:cooldown"].to_list() == [0.0] * 4


def test_a_mixture_shows_in_what_it_is_about(trained: Study) -> None:
    ends = {
        record.recipe.phases[-1].mixture: {task: m.value for task, m in record.values.items()}
        for record in trained.records()
        if record.recipe.phases[0].mixture.share("code") == 0.5
    }
    (text,) = (values for mixture, values in ends.items() if "text" in mixture)
    (code,) = (values for mixture, values in ends.items() if "code" in mixture)
    assert text["text"] < code["text"]
    assert code["code"] < text["code"]


def test_the_disk_that_a_plan_promises_is_what_it_takes(trained: Study) -> None:
    planned = trained.plan(workers=2)
    assert planned.pending == []
    taken = sum(path.stat().st_size for path in trained.runs.glob("*/checkpoint/*.safetensors"))
    assert taken == pytest.approx(planned.disk_bytes, rel=0.05)


def test_no_speed_is_timed_where_nothing_is_left_to_train(trained: Study, tmp_path: Path) -> None:
    study = copy(trained.path, tmp_path / "study")
    (study.path / "calibration.json").unlink(missing_ok=True)
    planned = study.plan()
    assert planned.speed == {}
    assert planned.seconds == 0
    assert str(planned).endswith(f"Nothing to train: all {SEGMENTS} segments are done.")
    assert study.dry_run().seconds == 0
    assert "Nothing to train:" in str(study.dry_run())
    assert not (study.path / "calibration.json").exists()


def test_a_repeat_does_nothing(trained: Study) -> None:
    before = files(trained)
    assert trained.run(workers=2).done == ()
    assert files(trained) == before


def test_a_lost_record_is_measured_anew_to_the_same_bytes(trained: Study, tmp_path: Path) -> None:
    study = copy(trained.path, tmp_path / "study")
    before = results(study)
    lost = next(study.runs.glob("*/record.json"))
    lost.unlink()
    assert study.run(workers=1).done == (lost.parent.name,)
    assert results(study) == before


# --- killed, interrupted, started twice -----------------------------------------------------------------------------


def drive(study: Study, workers: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(study.path), str(workers)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def workers(driver: subprocess.Popen[str]) -> list[int]:
    return children(driver.pid)


def written(study: Study) -> set[Path]:
    return {*study.runs.glob("*/*"), *study.runs.glob("*/.*")}


def training(study: Study, driver: subprocess.Popen[str]) -> Callable[[], bool]:
    """Whether the driver has ended or its workers have written something since now."""
    before = written(study)
    return lambda: driver.poll() is not None or not written(study) <= before


def finished(study: Study) -> dict[str, int]:
    """Lineages that are done, and which file their checkpoint is."""
    return {path.parent.name: path.stat().st_ino for path in study.runs.glob("*/checkpoint")}


@pytest.mark.slow
def test_kills_at_any_moment_change_no_bit_of_what_is_measured(prepared: Path, trained: Study, tmp_path: Path) -> None:
    study, rng = copy(prepared, tmp_path / "study"), np.random.default_rng(3)

    def moment() -> None:
        time.sleep(rng.uniform(0, 0.4))

    # While one driver is at work another is refused.
    driver = drive(study, 2)
    wait_until(lambda: workers(driver))
    driver.send_signal(signal.SIGSTOP)
    with pytest.raises(InputError, match="another `mixlaw run` is at work"):
        study.run(workers=1)
    driver.send_signal(signal.SIGCONT)

    # A worker dies at work and the driver starts another. Then the driver dies, and its workers after a checkpoint.
    wait_until(training(study, driver))
    moment()
    os.kill(workers(driver)[0], signal.SIGKILL)
    wait_until(training(study, driver))
    moment()
    orphans = workers(driver)
    driver.kill()
    driver.communicate()

    # The next driver starts at once, waits for the orphans to end, and dies before its own worker has begun.
    driver = drive(study, 1)
    wait_until(lambda: workers(driver))
    assert silent(orphans)
    driver.kill()
    driver.communicate()

    # Ctrl-C: a checkpoint, nothing else is begun, and nobody is left.
    driver = drive(study, 1)
    wait_until(lambda: workers(driver))
    wait_until(training(study, driver))
    moment()
    before, stopped = finished(study), workers(driver)
    driver.send_signal(signal.SIGINT)
    _, error = driver.communicate(timeout=300)
    assert "KeyboardInterrupt" in error
    assert gone(stopped)
    done = finished(study)
    assert len(done) <= len(before) + 1, "the segment at hand may have been at its end"
    assert len(done) < SEGMENTS

    driver = drive(study, 1)
    output, error = driver.communicate(timeout=600)
    assert driver.returncode == 0, error
    assert "0 failed" in output
    assert done.items() <= finished(study).items()
    assert results(study) == results(trained)


@pytest.fixture
def usual_signals() -> Iterator[None]:
    """Handlers as in a shell: processes that pytest distributes tests to ignore Ctrl-C."""
    before, terminated = signal.signal(signal.SIGINT, signal.default_int_handler), signal.getsignal(signal.SIGTERM)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is terminated
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_while_a_worker_is_started_leaves_nobody(
    prepared: Path, tmp_path: Path, usual_signals: None, sent: signal.Signals
) -> None:
    study, before, started = copy(prepared, tmp_path / "study"), set(children(os.getpid())), set()

    class Interrupted(LocalExecutor):
        def start_worker(self, number: int, place: Place) -> WorkerHandle:
            hand = super().start_worker(number, place)
            started.update(set(children(os.getpid())) - before)
            os.kill(os.getpid(), sent)
            return hand

    tree = plan(study.recipes())
    with pytest.raises(KeyboardInterrupt):
        Interrupted(study.setup, study.runs, Machine("local", 2)).run(tree, list(tree.segments))
    assert len(started) == 1
    assert gone(started)


# --- what goes wrong ------------------------------------------------------------------------------------------------


def test_a_segment_that_fails_blocks_its_descendants_alone(prepared: Path, trained: Study, tmp_path: Path) -> None:
    study = copy(prepared, tmp_path / "study")
    (shard,) = study.data.glob("code/train-*.bin")
    shard.write_bytes(b"\xff" * shard.stat().st_size)  # token 65,535 of a vocabulary of 300
    outcome = study.run(workers=1)
    tree = plan(study.recipes())
    phases = {segment.lineage: segment for segment in tree.segments}
    # Code is in the half-and-half trunk and in both other `continue` phases; only their `init` can be trained.
    assert sorted(phases[lineage].phase for lineage in outcome.done) == ["init", "init"]
    assert sorted(phases[lineage].phase for lineage in outcome.failed) == ["continue", "continue", "init"]
    assert sorted(phases[lineage].phase for lineage in outcome.blocked) == ["continue", *["cooldown"] * 4]
    assert all("IndexError" in why for why in outcome.failed.values())
    for lineage in outcome.blocked:
        assert lineage in str(outcome) or f"{len(outcome.blocked)} segments" in str(outcome)
    good = results(trained)
    assert {name: content for name, content in results(study).items() if good[name] != content} == {}


def with_parent(trained: Study, folder: Path) -> tuple[Study, str, Path]:
    """A copy of the trained study without its last leaf; the leaf, and the checkpoint that it is trained from."""
    study = copy(trained.path, folder)
    leaf = plan(study.recipes()).segments[-1]
    assert leaf.parent is not None
    shutil.rmtree(study.runs / leaf.lineage)
    return study, leaf.lineage, study.runs / leaf.parent / "checkpoint"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("name", "damage"),
    [("model.safetensors", cut), ("optimizer.safetensors", cut), ("config.json", flip), ("state.json", flip)],
)
def test_a_checkpoint_that_is_seen_to_be_damaged_is_refused_and_nothing_changes(
    name: str, damage: Callable[[Path], None], trained: Study, tmp_path: Path
) -> None:
    study, _, parent = with_parent(trained, tmp_path / "study")
    damage(parent / name)
    before = files(study)
    with pytest.raises(InputError, match=f"checkpoint .*{parent.parent.name}.* is damaged.*delete that folder"):
        study.run(workers=2)
    assert files(study) == before


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors"])
def test_a_flipped_byte_is_met_by_the_segment_that_reads_it_alone(name: str, trained: Study, tmp_path: Path) -> None:
    study, leaf, parent = with_parent(trained, tmp_path / "study")
    other = next(s.lineage for s in plan(study.recipes()).segments if s.is_run and s.parent != parent.parent.name)
    shutil.rmtree(study.runs / other)
    flip(parent / name)
    outcome = study.run(workers=1)
    assert outcome.done == (other,)
    assert outcome.failed.keys() == {leaf}
    assert f"{parent} is damaged: {name} differs from its checksum; delete that folder" in outcome.failed[leaf]
    good = results(trained)
    assert {path: content for path, content in results(study).items() if good[path] != content}.keys() <= {
        f"runs/{parent.parent.name}/checkpoint/{name}"
    }
    assert not (study.runs / leaf / "checkpoint").exists()


def test_a_truncated_record_is_refused_and_nothing_changes(trained: Study, tmp_path: Path) -> None:
    study = copy(trained.path, tmp_path / "study")
    path = next(study.runs.glob("*/record.json"))
    path.write_bytes(path.read_bytes()[:100])
    before = files(study)
    with pytest.raises(InputError, match="is truncated or damaged"):
        study.run(workers=2)
    assert files(study) == before


@pytest.fixture
def _deadly() -> Iterator[None]:
    """Kill every worker of this process as soon as it is there."""
    over, driver = threading.Event(), os.getpid()

    def kill() -> None:
        while not over.wait(0.01):
            for pid in children(driver):
                with suppress(OSError):
                    if b"mixlaw.runner.execute.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                        os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    yield
    over.set()
    killer.join()


@pytest.mark.usefixtures("_deadly")
def test_a_worker_that_dies_every_time_is_given_up_after_three_tries(prepared: Path, tmp_path: Path) -> None:
    study = copy(prepared, tmp_path / "study")
    tree = plan(study.recipes()[:1])
    outcome = LocalExecutor(study.setup, study.runs, Machine("local", 2)).run(tree, list(tree.segments))
    assert outcome.done == ()
    assert list(outcome.failed) == [tree.segments[0].lineage]
    assert f"died {TRIES} times, last with code -9" in outcome.failed[tree.segments[0].lineage]
    assert outcome.blocked == tuple(segment.lineage for segment in tree.segments[1:])
