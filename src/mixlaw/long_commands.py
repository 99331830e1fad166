"""The commands that take hours and GPUs: run and evaluate."""

from __future__ import annotations

import os
from typing import Annotated, Literal

import typer

from mixlaw.options import StudyPath, Workers
from mixlaw.output import open_study_at, print_result
from mixlaw.progress import progress_bar


def run(
    study: StudyPath,
    workers: Workers = None,
    gpus: Annotated[
        str | None,
        typer.Option(
            help="GPUs to use, all if not given; with --dry-run also machines x GPUs, as 4x8; of a Slurm node."
        ),
    ] = None,
    executor: Annotated[
        Literal["local", "ray", "slurm"], typer.Option(help="This machine, a Ray cluster, or jobs in Slurm's queue.")
    ] = "local",
    address: Annotated[
        str | None, typer.Option(help="Of the Ray cluster: auto (if not given), HOST:6379 or ray://HOST:10001.")
    ] = None,
    store: Annotated[
        str | None, typer.Option(help="Where a Ray cluster keeps checkpoints: s3://... or any fsspec URL.")
    ] = None,
    launch: Annotated[
        str | None, typer.Option(help='Command that starts a worker over several machines: "srun ... torchrun ...".')
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what would be trained where and when.")
    ] = False,
    gpu: Annotated[str | None, typer.Option(help="With --dry-run or slurm: name of the GPUs, e.g. H100.")] = None,
    mfu: Annotated[float, typer.Option(help="With --dry-run: model FLOPs utilisation.")] = 0.4,
    price: Annotated[float | None, typer.Option(help="With --dry-run: price of a GPU or core for an hour.")] = None,
    segment: Annotated[str | None, typer.Option(hidden=True, help="Train this one alone, in a job of Slurm.")] = None,
) -> object:
    """Train and evaluate what is pending; safe to kill and repeat."""
    from mixlaw.runner.execute.machines import backend_of
    from mixlaw.runner.plan.price import Assumptions

    opened = open_study_at(study)
    backend = backend_of(executor, workers, None if dry_run else gpus, launch, address, store, gpu, segment)
    if dry_run:
        return opened.dry_run(backend=backend, assumptions=Assumptions(gpus, gpu, mfu, price))
    with progress_bar("training") as report:
        outcome = opened.run(backend=backend, progress=report)
    print_result(outcome)
    if outcome.failed or (outcome.unmeasured and segment is None):  # jobs behind a segment need its checkpoint alone
        raise typer.Exit(1)
    return None


def evaluate(
    study: StudyPath,
    checkpoint: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="Hugging Face folder, or a run's name.")],
    task: Annotated[
        list[str] | None, typer.Option(metavar="TASK", help="Measure this task alone; may be repeated.")
    ] = None,
    into: Annotated[
        str | None, typer.Option(metavar="RECIPE", help="Record it: in this run, or as one of a proposal or file.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="With --into: replace values it has already.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...; a GPU if there is one.")] = None,
) -> object:
    """Measure any checkpoint on the study's tasks."""
    with progress_bar("evaluation") as report:
        measured = open_study_at(study).evaluate(
            checkpoint, tasks=task or (), into=into, replace_values=replace, device=device, progress=report
        )
    if os.environ.get("RANK", "0") == "0":  # under torchrun the first rank has the values
        print_result(measured)
    if measured.unmeasured:
        raise typer.Exit(1)
    return None
