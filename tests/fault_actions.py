"""What users do to a study, and what the study must be afterwards: the actions of `make faults`."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import small_study
import studies
from dashboards import press_freeze
from mixlaw import cli
from mixlaw.analysis.laws import Exposure
from mixlaw.optimizer.answers.proposal import load_proposals
from mixlaw.optimizer.answers.propose import propose
from mixlaw.optimizer.target.target import Target
from mixlaw.runner.batches.shards import open_shards
from mixlaw.runner.train.store import verify
from mixlaw.study import open_study
from ranks import together

#: A study of four segments, each some steps of the smallest model, with a checkpoint every few steps.
SETTINGS = (
    small_study.SETTINGS.replace("24_000", "4_000")
    .replace("checkpoint_seconds = 0.1", "checkpoint_seconds = 0.02")
    .rpartition("[[recipes]]")[0]
    .replace('continue = "half", ', "")
    .replace('[[phases]]\nname = "continue"\nshare = 0.25\n', "")
    .replace("share = 0.5", "share = 0.75")
)
TARGET = "[target]\nparams = 330_000\ntokens = 6_600_000\nguard = false\n"
TORCHRUN = f"{sys.executable} -m torch.distributed.run --standalone --nproc-per-node=2"
RAY_ADDRESS = "MIXLAW_FAULTS_RAY"  # the variable with the address of the nodes that the harness started
Act = Callable[[Path], None]


def command(*words: str) -> Act:
    """A command of mixlaw, in the folder that holds the study; words that begin with $ are variables."""

    def act(folder: Path) -> None:
        os.chdir(folder)
        sys.argv = ["mixlaw", *(os.environ[word[1:]] if word.startswith("$") else word for word in words)]
        cli.main()

    return act


def train(folder: Path) -> None:
    """All segments, one after the other, as a worker does."""
    small_study.train_here(open_study(folder / "study"))


def train_on_two(folder: Path) -> None:
    """The same on two ranks, forked."""

    def work(ranks: Any) -> None:
        small_study.train_here(open_study(folder / "study"), ranks)

    together(2, work)


def write_surfaces(folder: Path) -> None:
    """New surfaces over old ones of fewer runs."""
    open_study(folder / "study").fit(law=Exposure, save=True)


def freeze(folder: Path) -> None:
    """A proposal that was searched for before, frozen: the second one of the study."""
    (found,) = load_proposals(folder / "searched")
    replace(found, number=0, created="").freeze(folder / "study" / "proposals")


def freeze_in_dashboard(folder: Path) -> None:
    """The button "Freeze what I see", pressed for the first baseline."""
    answer = press_freeze(folder / "study")
    if "Frozen as" not in answer:
        print(answer)
        sys.exit(2)


# --- studies that actions begin with ----------------------------------------------------------------------------------


def with_sources(folder: Path) -> None:
    """Settings and sources, nothing else."""
    (folder / "study").mkdir()
    (folder / "study" / "study.toml").write_text(SETTINGS)
    small_study.write_documents(folder / "study")


def with_data(folder: Path) -> None:
    """Shards."""
    with_sources(folder)
    open_study(folder / "study").prepare()


def with_checkpoints(folder: Path) -> None:
    """Trained, but no record."""
    with_data(folder)
    train(folder)
    for record in folder.glob("study/runs/*/record.json"):
        record.unlink()


def with_a_model(folder: Path) -> None:
    """Trained, and beside the study a model, and the recipe that it was trained by elsewhere."""
    with_data(folder)
    train(folder)
    trained = min(folder.glob("study/runs/*/checkpoint"))
    shutil.copytree(trained, folder / "model")
    recipe = open_study(folder / "study").recipes()[0]
    (folder / "recipe.json").write_text(json.dumps(replace(recipe, seed=7).as_json()))


def with_table(folder: Path) -> None:
    """A table of runs, and no study yet."""
    studies.measured()[1].write_csv(folder / "runs.csv")


def with_old_surfaces(folder: Path) -> None:
    """Imported runs, a target, and surfaces of half of the runs."""
    studies.on_disk(folder, TARGET)
    old = studies.measured()[1].head(9)
    unique = {d.name: float(d.unique_tokens) for d in studies.DOMAINS}
    studies.quick_fit(old, studies.measured()[0].units, unique).save(folder / "study" / "surfaces")


def with_surfaces(folder: Path) -> None:
    """Imported runs and their surfaces."""
    studies.on_disk(folder, TARGET)


def with_proposal(folder: Path) -> None:
    """The same with a frozen proposal, and another one beside the study."""
    with_surfaces(folder)
    study = open_study(folder / "study")
    for where, tokens in ((study.proposals_folder, 6_600_000), (folder / "searched", 9_000_000)):
        target = Target(330_000, tokens)
        propose(study.surfaces(), target, studies.DOMAINS, draws=16, starts=1).freeze(where)


# --- what is left ---------------------------------------------------------------------------------------------------

#: Timings, progress and pages differ from run to run.
CHANGING = (".log", ".html", ".training.jsonl", "fitted_from.json")


def state(folder: Path) -> dict[str, str]:
    """Hashes of what counts in a study by path: data, records, final checkpoints, surfaces, proposals, exports."""
    found = {}
    for path in sorted((folder / "study").rglob("*")):
        parts = path.relative_to(folder / "study").parts
        if not path.is_file() or any(part.startswith((".", "partial-")) for part in parts) or parts[0] == "logs":
            continue
        if str(path).endswith(CHANGING):
            continue
        content = path.read_bytes()
        if parts[0] == "proposals":
            content = json.dumps({**json.loads(content), "created": "", "own": ""}).encode()
        found["/".join(parts)] = hashlib.sha256(content).hexdigest()
    return found


def different(found: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    """Names that two states do not share."""
    return sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))


def check_left(folder: Path, before: Mapping[str, str]) -> None:
    """Read everything there is, as mixlaw does: it is whole or not there, and nothing that was finished is gone."""
    if not (folder / "study" / "study.toml").exists():
        return
    study = open_study(folder / "study")
    study.records()
    study.proposals()
    if (study.path / "surfaces" / "surfaces.json").exists():
        study.surfaces()
    if study.has_data:
        open_shards(study.data)
        study.recipes()
    for path in study.runs.glob("*/[cp]*"):
        if path.is_dir():
            verify(path)
    for path in study.path.glob("suggestions/*.jsonl"):
        for line in path.read_text().splitlines():
            json.loads(line)
    if (page := study.path / "report.html").exists():
        assert page.read_text().rstrip().endswith("</html>"), "half a report"
    left = state(folder)
    for name, content in before.items():
        if name.startswith(("runs/", "proposals/")):
            assert left.get(name) == content, f"{name} is gone or was changed"


@dataclass
class Action:
    """What is done to a study.

    Attributes:
        act: takes the folder that holds the study.
        begin: makes the study that it begins with.
        kills: how often it is killed in `make faults`.
        is_command: whether it is a command, for which Ctrl-C, disk full and read-only are tried as well.
        starts_others: whether it starts processes that are not forked from it; half of the kills are of one of them.
    """

    act: Act
    begin: Act
    kills: int
    is_command: bool = True
    starts_others: bool = False


RUN = ("run", "study", "--workers")
ACTIONS = {
    "prepare": Action(command("prepare", "study"), with_sources, 50),
    "train": Action(train, with_data, 20, is_command=False),
    "train on two ranks": Action(train_on_two, with_data, 8, is_command=False),
    "run": Action(command(*RUN, "1"), with_data, 6, starts_others=True),
    "run, torchrun": Action(command(*RUN, "1", "--launch", TORCHRUN), with_data, 4, starts_others=True),
    "run, Ray": Action(
        command(*RUN, "3", "--executor", "ray", "--address", f"${RAY_ADDRESS}"), with_data, 6, starts_others=True
    ),
    "write records": Action(train, with_checkpoints, 20, is_command=False),
    "evaluate": Action(command("evaluate", "study", "model", "--into", "recipe.json", "--replace"), with_a_model, 10),
    "import": Action(command("import", "study", "runs.csv", "--unit", "bits/byte"), with_table, 60),
    "fit": Action(command("fit", "study"), with_old_surfaces, 3),
    "write surfaces": Action(write_surfaces, with_old_surfaces, 20),
    "propose": Action(command("propose", "study"), with_surfaces, 3),
    "freeze": Action(freeze, with_proposal, 15),
    "freeze in the dashboard": Action(freeze_in_dashboard, with_proposal, 5),
    "suggest": Action(command("suggest", "study", "--budget", "1e15", "--queue"), with_surfaces, 4),
    "export": Action(command("export", "study", "-o", "study/exports"), with_proposal, 40),
    "report": Action(command("report", "study"), with_proposal, 4),
}
