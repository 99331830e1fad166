"""The record of a run: what its recipe trained on, and what its tasks measure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mixlaw.recipe import Recipe
from mixlaw.records import Measurement, Record, write_record
from mixlaw.runner.batches.loader import Batches, Tokens
from mixlaw.runner.evaluate.measure import Measured
from mixlaw.runner.evaluate.run import evaluate, read_measure
from mixlaw.runner.plan.setup import Setup
from mixlaw.runner.train.loop import Trained


def record(recipe: Recipe, trained: Trained, setup: Setup, streams: Mapping[str, Tokens], runs: Path) -> None:
    """Evaluate a trained recipe and write `runs/<lineage>/record.json`.

    Nothing in it depends on when, where or in how many pieces the recipe was trained. Only the first rank calls this.

    Args:
        recipe: the whole recipe.
        trained: its last segment.
        setup: how it was trained, and the tasks.
        streams: tokens per domain.
        runs: folder of the study's runs.

    Raises:
        InputError: a task cannot be measured here.
    """
    batches = Batches(recipe, streams, setup.sequence, setup.sequences(recipe.params))
    values = evaluate(
        trained.model,
        setup.folder,
        setup.tasks,
        sequence=setup.sequence,
        measures={task: read_measure(measure) for task, measure in setup.measures.items()},
        folder=runs / recipe.lineage / "evaluation",
    )
    details = {task: dict(m.details) for task, m in values.items() if isinstance(m, Measured) and m.details}
    rules = setup.rates(recipe)
    write_record(
        runs,
        Record(
            run=recipe.lineage,
            recipe=recipe,
            values={task: Measurement(m.value, m.stderr, m.count) for task, m in values.items()},
            tokens={
                phase: {d: float(n) for d, n in by_domain.items()} for phase, by_domain in batches.achieved().items()
            },
            details={
                "epochs": batches.epochs(),
                "learning_rate": rules.learning_rate,
                "warmup_tokens": rules.warmup_tokens,
                "batch_tokens": setup.step_tokens(recipe.params),
                "flops": setup.flops(recipe.params, recipe.tokens),
                **({"skipped_steps": list(trained.skipped)} if trained.skipped else {}),
                **({"precision": "bf16"} if trained.bf16 else {}),
                **({"tasks": details} if details else {}),
            },
        ),
    )
