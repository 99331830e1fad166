"""How the recipes of a study are trained: its settings, its data, and the model that they go on from."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mixlaw.runner.plan.setup import Setup
    from mixlaw.study import Study


def setup_of(study: Study) -> Setup:
    """The setup that travels to the workers.

    Raises:
        InputError: there is no data yet, or training.start is no model that goes with it.
    """
    from mixlaw.runner.batches.shards import open_shards
    from mixlaw.runner.evaluate.run import tasks_of
    from mixlaw.runner.models.foreign import read_start
    from mixlaw.runner.plan.setup import Setup
    from mixlaw.study.tasks import measures_of

    shards, training, known = open_shards(study.data), study.settings.training, tasks_of(study.data)
    measures = measures_of(study, known)
    vocabulary, start = shards.manifest.vocabulary, None
    if training.start is not None:
        start = read_start(
            training.start,
            study.path,
            optimizer=training.optimizer == "loaded",
            tokenizer=study.data / "tokenizer",
            vocabulary=vocabulary,
            sequence=training.sequence,
        )
    return Setup(
        data=str(study.data.resolve()),
        data_hash=shards.hash,
        vocabulary=vocabulary,
        end=shards.manifest.end,
        sequence=training.sequence,
        tasks=tuple(task for task in study.units if task in known or task in measures),
        measures=measures,
        batch=training.batch,
        learning_rate=training.learning_rate,
        warmup_tokens=training.warmup_tokens,
        beta2=training.beta2,
        checkpoint_seconds=training.checkpoint_seconds,
        compile=training.compile,
        micro_batch=training.micro_batch,
        recompute=training.recompute,
        sinks=training.sinks,
        start=start,
    )
