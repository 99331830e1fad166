"""How the recipes of a study are trained: its settings, its data, and the model that they resume from."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from mixlaw.errors import InputError
from mixlaw.folder.tasks import measures_of, units_of
from mixlaw.runner.batches.shards import open_shards
from mixlaw.runner.evaluate.run import tasks_of
from mixlaw.runner.models.architecture import Architecture
from mixlaw.runner.models.foreign import read_start
from mixlaw.runner.models.ladder import shape
from mixlaw.runner.plan.setup import Overrides, Setup
from mixlaw.settings import Settings
from mixlaw.settings.training import TrainingSettings


def setup_of(path: Path, settings: Settings) -> Setup:
    """The setup that travels to the workers, of the study in folder `path`.

    Raises:
        InputError: there is no data yet, or training.start is no model that goes with it.
    """
    check_sources(path, settings)
    data, training = path / "data", settings.training
    shards, known = open_shards(data), tasks_of(data)
    measures = measures_of(path, settings, known)
    vocabulary, start = shards.manifest.vocabulary, None
    if training.start is not None:
        start = read_start(
            training.start,
            path,
            optimizer=training.optimizer == "loaded",
            tokenizer=data / "tokenizer",
            vocabulary=vocabulary,
            sequence=training.sequence,
        )
    return Setup(
        data=str(data.resolve()),
        data_hash=shards.hash,
        tokenizer_hash=shards.manifest.tokenizer,
        shards={name: domain.hash for name, domain in shards.manifest.domains.items()},
        measured_on=shards.manifest.measured_on,
        vocabulary=vocabulary,
        end=shards.manifest.end,
        sequence=training.sequence,
        tasks=tuple(task for task in units_of(data, settings) if task in known or task in measures),
        measures=measures,
        batch=training.batch,
        learning_rate=training.learning_rate,
        warmup_tokens=training.warmup_tokens,
        beta2=training.beta2,
        weight_decay=training.weight_decay,
        clip=training.clip,
        beta1=training.beta1,
        eps=training.eps,
        z_loss=training.z_loss,
        muon=training.muon,
        document_masks=training.document_masks,
        contexts={phase.name: of for phase in settings.phases if (of := phase.context) is not None},
        architecture=_architecture(training),
        sizes=tuple(
            Overrides(start.params if start else shape(size).params, **overrides.model_dump())
            for size, overrides in training.sizes.items()
        ),
        checkpoint_seconds=training.checkpoint_seconds,
        compile=training.compile,
        micro_batch=training.micro_batch,
        recompute=training.recompute,
        sinks=training.sinks,
        start=start,
        held_out_tokens=training.held_out_tokens,
        keep_optimizer=training.keep_optimizer,
        evaluate_at=training.evaluate_at,
    )


def check_sources(path: Path, settings: Settings) -> None:
    """Refuse to train where no domain has text, as after an import, and say what to do instead.

    Raises:
        InputError: the study has domains, none with a source, and no data.
    """
    sources = [domain.source for domain in settings.domains.values()]
    if sources and not any(sources) and not (path / "data" / "manifest.json").exists():
        raise InputError(
            f"no domain of {path / 'study.toml'} has a source, so nothing can be trained here. For a trainer of your "
            "own, `mixlaw export STUDY` writes a proposal, `mixlaw suggest STUDY --budget FLOPS --queue` lists the "
            "next runs, and `mixlaw import STUDY TABLE` takes their results. To train here, write a source for each "
            "domain, then `mixlaw prepare STUDY`"
        )


def _architecture(training: TrainingSettings) -> Architecture:
    """Departures from a plain Llama, which a pretrained model cannot have."""
    chosen = {one.name: getattr(training, one.name) for one in fields(Architecture)}
    architecture = Architecture(**chosen)
    if training.start is not None and (changed := architecture.changed()):
        raise InputError(
            f"training.{next(iter(changed))} is for fresh models, and training.start has an architecture of its own; "
            "take one of the two out"
        )
    return architecture
