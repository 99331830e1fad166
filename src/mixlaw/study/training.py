"""Data and training: prepare, contamination, plan, run, dry_run."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING

from mixlaw.errors import InputError, packages_of_extras
from mixlaw.folder import Folder
from mixlaw.machine import cores, device_name
from mixlaw.numbers import percent
from mixlaw.progress import Progress, progress_or_bar

if TYPE_CHECKING:
    from mixlaw.runner.batches.manifest import Manifest
    from mixlaw.runner.corpora.contamination import Contamination
    from mixlaw.runner.execute.machines import Backend
    from mixlaw.runner.execute.queue import RunOutcome, RunProgress
    from mixlaw.runner.plan.price import Assumptions, Plan
    from mixlaw.runner.plan.tree import Segment, Tree

WORKERS_SHOWN = 4  # in the progress of a run


@packages_of_extras()
def prepare(study: Folder, *, verify: bool = False, progress: Progress | None = None) -> Manifest:
    """Tokenise the domains into shards; existing shards are reused.

    Args:
        study: the study.
        verify: read every existing file and compare it with its checksum.
        progress: called with the share done and the current step.

    Raises:
        InputError: a domain has no source, is empty, or its source cannot be read; or a file is damaged.
    """
    from mixlaw.folder.setup import check_sources
    from mixlaw.runner.batches import shards
    from mixlaw.runner.corpora.cleaning import Cleaning
    from mixlaw.runner.corpora.prepare import prepare

    import_module("tokenizers")  # before anything is read
    settings = study.settings
    check_sources(study.path, settings)
    lacking = [name for name, domain in settings.domains.items() if domain.source is None]
    if lacking or not settings.domains:
        what = f"domain {lacking[0]!r} has no source" if lacking else "study.toml has no domains"
        raise InputError(f'{what}; write source = "..." for it under [domains] of {study.path / "study.toml"}')
    with progress_or_bar("data", progress) as report:
        manifest = prepare(
            study.data,
            {name: str(domain.source) for name, domain in settings.domains.items()},
            root=study.path,
            vocabulary=settings.tokenizer.vocabulary,
            tokenizer=None if settings.tokenizer.file is None else study.path / settings.tokenizer.file,
            sample_bytes=settings.tokenizer.sample_bytes,
            held_out=settings.training.held_out,
            longest=settings.training.longest_document,
            prose=settings.prose(),
            cleaning=Cleaning(settings.training.drop_contaminated, settings.training.drop_near_duplicates),
            progress=report,
        )
        if verify:
            shards.verify(study.data, report)
    return manifest


@packages_of_extras()
def contamination(study: Folder, *, progress: Progress | None = None) -> Contamination:
    """Look for the evaluation items of the data folder in its training text, by n-grams of up to 13 words.

    Raises:
        InputError: there is no data, or no items.
    """
    from mixlaw.runner.corpora.contamination import check

    with progress_or_bar("contamination", progress) as report:
        return check(study.data, processes=cores(), progress=report)


@packages_of_extras()
def plan(study: Folder, *, workers: int | None = None, measure: bool = False) -> Plan:
    """The segment tree of all recipes with FLOPs, time and disk; nothing is trained.

    Args:
        study: the study.
        workers: most processes.
        measure: time a few micro-batches of sizes not yet timed, on the device that would train them; what does not
            fit into its memory, or would take too long, is told from what it is assumed instead.
    """
    from mixlaw.runner.execute.machines import Local
    from mixlaw.runner.plan.price import Plan, assumed_speed
    from mixlaw.runner.train.speed import known_speeds, measure_speeds, not_timed

    tree, setup, measured, trained = _some_tree(study), study.setup, study.measured, Local().trained(study.runs)
    memory = study.path / "calibration.json"
    speed = known_speeds(_sizes(tree.segments), setup, memory)
    sizes = _sizes(tree.untrained(measured, trained))
    reasons: dict[int, str] = {}
    if measure:
        reasons = {size: why for size in sizes if size not in speed and (why := not_timed(size, setup))}
        speed |= measure_speeds([size for size in sizes if size not in reasons], setup, memory)
    lacking = {size: assumed_speed(setup, size, device_name()) for size in sizes if size not in speed}
    assumed = {size: f"{source}; {reasons.get(size, '--measure times it')}" for size, (_, source) in lacking.items()}
    speed |= {size: value for size, (value, _) in lacking.items()}
    machines, held_out = Local(workers).machines(), _held_out(study)
    return Plan(tree, setup, measured, trained, speed, machines, assumed, held_out=held_out)


@packages_of_extras()
def run(
    study: Folder,
    *,
    workers: int | None = None,
    backend: Backend | None = None,
    progress: Progress | None = None,
) -> RunOutcome:
    """Train and evaluate what is pending, in worker processes; safe to kill and repeat.

    Args:
        study: the study.
        workers: most processes, where they train on this machine.
        backend: `mixlaw.runner.execute.machines.Local` or `Ray` with their options; this machine if None.
        progress: called with the share of the FLOPs done, and what each worker trains.

    Raises:
        InputError: no data, a damaged checkpoint, or another process running this study.
    """
    from mixlaw.folder.tasks import preflight
    from mixlaw.runner.execute.machines import Local
    from mixlaw.runner.execute.queue import RunOutcome

    study.records()  # a damaged record is found before hours are spent
    import_module("transformers")
    backend, planned = backend or Local(workers), _tree(study)
    pending = planned.needed(study.measured, backend.trained(study.runs))
    if not pending:
        return RunOutcome((), {}, ())
    setup = backend.located(study.setup)
    preflight(setup)
    with progress_or_bar("training", progress) as report:

        def show(state: RunProgress) -> None:
            report(state.done / state.total, _workers(state))

        return backend.executor(setup, study.runs, show).run(planned, pending)


def _workers(state: RunProgress) -> str:
    """Segments done, and what the first workers train."""
    lines = [
        f"[{number}] {segment.recipe.params / 1e6:.2g}M {segment.phase} {percent(tokens / segment.tokens)}"
        + (f" {state.speeds[number]:,.0f} tokens/s" if number in state.speeds else "")
        for number, (segment, tokens) in sorted(state.training.items())[:WORKERS_SHOWN]
    ]
    more = [f"and {len(state.training) - WORKERS_SHOWN} more"] if len(state.training) > WORKERS_SHOWN else []
    return "  ".join([f"{state.segments_done}/{state.segments} segments", *lines, *more])


@packages_of_extras()
def dry_run(study: Folder, *, backend: Backend | None = None, assumptions: Assumptions | None = None) -> Plan:
    """What `run` would do: placement, hours, FLOPs, disk and bill; nothing is written and nothing trained.

    Raises:
        InputError: the speed of a size is not known, or a size fits on no machine.
    """
    from mixlaw.runner.execute.machines import Local, this_machine
    from mixlaw.runner.plan.devices import GPUS, gpu_named
    from mixlaw.runner.plan.price import Assumptions, Plan
    from mixlaw.runner.train.speed import known_speeds

    backend, terms = backend or Local(), assumptions or Assumptions()
    tree, setup, measured, trained = _some_tree(study), study.setup, study.measured, backend.trained(study.runs)
    sizes = _sizes(tree.untrained(measured, trained))
    speed = known_speeds(sizes, setup, study.path / "calibration.json")
    if terms.gpus is not None and terms.gpu is None and this_machine().kind == "cpu":
        raise InputError(f"there is no GPU here to time; name the model of GPU with --gpu: {', '.join(GPUS)}")
    assumed = {}
    if terms.gpu is not None:  # what was timed on this machine holds for that GPU if it is here
        timed = speed if gpu_named(device_name()) == GPUS[terms.gpu] else {}
        assumed = {size: f"{percent(terms.mfu)} of the peak of {terms.gpu}" for size in sizes if size not in timed}
        speed = {**{size: terms.speed(setup, size) for size in assumed}, **timed}
    if unknown := [size for size in sizes if size not in speed]:
        raise InputError(
            f"the speed of {unknown[0]:,} parameters was not timed on this machine; let `mixlaw plan {study.path} "
            f"--measure` time it, or name a GPU with --gpu: {', '.join(GPUS)}"
        )
    machines = terms.machines() or backend.machines()
    return Plan(tree, setup, measured, trained, speed, machines, assumed, terms.price, _held_out(study))


def _tree(study: Folder) -> Tree:
    """The segment tree of all recipes, for which there are tokens enough."""
    from mixlaw.folder.setup import check_sources
    from mixlaw.runner.batches.loader import lengths, windows
    from mixlaw.runner.batches.manifest import read_manifest
    from mixlaw.runner.plan.tree import plan

    check_sources(study.path, study.settings)
    tree, sequence = plan(study.recipes()), study.settings.training.sequence
    stored = {name: domain.unique_tokens for name, domain in read_manifest(study.data).domains.items()}
    for recipe in tree.recipes:
        for phase, length in zip(recipe.phases, lengths(recipe, sequence), strict=True):
            for domain in phase.mixture:
                windows(recipe, domain, stored, length)
    return tree


def _held_out(study: Folder) -> dict[str, int]:
    """Tokens of held-out text by domain."""
    from mixlaw.runner.batches.manifest import read_manifest

    return {name: domain.held_out_tokens for name, domain in read_manifest(study.data).domains.items()}


def _some_tree(study: Folder) -> Tree:
    tree = _tree(study)
    if not tree.recipes:
        where = study.path / "study.toml"
        raise InputError(f"there are no recipes; write [[recipes]] into {where} or files into recipes/")
    return tree


def _sizes(segments: Iterable[Segment]) -> list[int]:
    return sorted({segment.recipe.params for segment in segments})
