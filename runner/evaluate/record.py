"""The record of a run: what its recipe trained on, and what its tasks measure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mixlaw.errors import InputError
from mixlaw.files import write_json
from mixlaw.recipe import Recipe
from mixlaw.records import MEASURED_ON, UNMEASURED, Measurement, Record, read_record, write_record
from mixlaw.runner.batches.loader import Batches, Tokens
from mixlaw.runner.evaluate.measure import Measured
from mixlaw.runner.evaluate.run import evaluate, held_out_rule, read_measure
from mixlaw.runner.plan.setup import Setup
from mixlaw.runner.train.loop import Trained
from mixlaw.runner.train.parallel import ALONE, Ranks


def record(
    recipe: Recipe,
    trained: Trained,
    setup: Setup,
    streams: Mapping[str, Tokens],
    runs: Path,
    progress: Callable[[float, str], None] = lambda share, what: None,
    ranks: Ranks = ALONE,
) -> dict[str, str]:
    """Evaluate a trained recipe and write `runs/<lineage>/record.json`.

    Nothing in it depends on when, where or in how many pieces the recipe was trained. All ranks call this: they share
    the batches, and the first one writes. A task that cannot be measured is left out, and its reason written to
    `unmeasured.json` beside the record: the next call measures such tasks alone, and those whose held-out text or items
    are others than the record was measured on.

    Args:
        recipe: the whole recipe.
        trained: its last segment.
        setup: how it was trained, and the tasks.
        streams: tokens per domain.
        runs: folder of the study's runs.
        progress: called with the share of the tasks done and the name of the task under way.
        ranks: this process among those that trained it.

    Returns:
        The reasons why tasks could not be measured.
    """
    batches = Batches(recipe, streams, setup.sequence, setup.sequences(recipe.params))
    home, failed = runs / recipe.lineage, dict[str, str]()
    values, details = _measured_before(home, setup.measured_on)
    fresh = evaluate(
        trained.model,
        setup.folder,
        [task for task in setup.tasks if task not in values],
        sequence=setup.sequence,
        held_out_tokens=setup.held_out_tokens or held_out_rule(recipe.params),
        measures={task: read_measure(measure) for task, measure in setup.measures.items()},
        folder=home / "evaluation",
        failed=failed,
        progress=progress,
        ranks=ranks,
    )
    if not ranks.first:
        return {}
    details |= {task: dict(m.details) for task, m in fresh.items() if isinstance(m, Measured) and m.details}
    values |= {task: Measurement(m.value, m.stderr, m.count) for task, m in fresh.items()}
    if failed:
        write_json(home / UNMEASURED, failed)
    if not values:
        return failed
    drawn = {phase: {d: float(n) for d, n in counts.items()} for phase, counts in batches.achieved().items()}
    ordered = {task: values[task] for task in setup.tasks if task in values}
    about = {"epochs": batches.epochs(), **_training(recipe, trained, setup), **({"tasks": details} if details else {})}
    about[MEASURED_ON] = {task: setup.measured_on[task] for task in ordered if task in setup.measured_on}
    write_record(runs, Record(run=recipe.lineage, recipe=recipe, values=ordered, tokens=drawn, details=about))
    if not failed:
        (home / UNMEASURED).unlink(missing_ok=True)
    return failed


def _training(recipe: Recipe, trained: Trained, setup: Setup) -> dict[str, Any]:
    """How a recipe was trained, for the details of its record."""
    rules = setup.rates(recipe)
    return {
        "learning_rate": rules.learning_rate,
        "warmup_tokens": rules.warmup_tokens,
        "batch_tokens": setup.step_tokens(recipe.params),
        "flops": setup.recipe_flops(recipe),
        **({"skipped_steps": list(trained.skipped)} if trained.skipped else {}),
        **({"precision": "bf16"} if trained.bf16 else {}),
    }


def _measured_before(home: Path, measured_on: Mapping[str, str]) -> tuple[dict[str, Measurement], dict[str, Any]]:
    """Values and details of the tasks that an earlier call measured, on what they are measured on now."""
    try:
        earlier = read_record(home / "record.json")
    except (OSError, InputError):
        return {}, {}
    before = earlier.details.get(MEASURED_ON, {})
    values = {task: value for task, value in earlier.values.items() if before.get(task) == measured_on.get(task)}
    return values, {task: of for task, of in earlier.details.get("tasks", {}).items() if task in values}
