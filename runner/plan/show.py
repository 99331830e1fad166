"""How a plan prints itself: the price first, then the segment tree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mixlaw.runner.plan.price import Plan
    from mixlaw.runner.plan.tree import Segment


def duration(seconds: float) -> str:
    """Seconds as people say them.

    Example:
        >>> duration(42.4), duration(754), duration(3 * 3600 + 125), duration(5e5)
        ('42 s', '12 min 34 s', '3 h 2 min', '5 d 19 h')
    """
    minutes, hours, days = (
        divmod(round(seconds), 60),
        divmod(round(seconds / 60), 60),
        divmod(round(seconds / 3600), 24),
    )
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{minutes[0]} min {minutes[1]} s"
    return f"{hours[0]} h {hours[1]} min" if seconds < 86_400 else f"{days[0]} d {days[1]} h"


def sentence(plan: Plan) -> str:
    """What is still to do."""
    pending, count = len(plan.pending), len(plan.tree.segments)
    if not pending:
        return f"Nothing to train: all {count} segments are done."
    return (
        f"{pending} of {count} segments are to be trained or measured: about {duration(plan.seconds)} of training on "
        f"{plan.workers} workers."
    )


def summary(plan: Plan) -> list[tuple[str, str]]:
    """The price of a plan, as rows of name and value."""
    sizes: dict[int, int] = {}
    for recipe in plan.tree.recipes:
        sizes[recipe.params] = sizes.get(recipe.params, 0) + 1
    saved = 1 - plan.flops_shared / plan.flops_separate
    pending = plan.pending
    speed = ", ".join(f"{p / 1e6:.2g}M {v:,.0f} tokens/s" for p, v in sorted(plan.speed.items()))
    return [
        ("recipes", ", ".join(f"{count} of {params:,} params" for params, count in sorted(sizes.items()))),
        ("segments", f"{len(plan.tree.segments)}, {len(plan.tree.segments) - len(pending)} done"),
        ("FLOPs", f"{plan.flops_shared:.3g} shared, {plan.flops_separate:.3g} separately: sharing saves {saved:.0%}"),
        ("tokens", f"{plan.tokens_shared:,} trained, {sum(r.tokens for r in plan.tree.recipes):,} separately"),
        *([("speed", speed)] if speed else []),
        ("time left", f"about {duration(plan.seconds)} of training on {plan.workers} workers"),
        ("disk", f"{plan.disk_bytes / 1e6:,.0f} MB of checkpoints"),
    ]


def text(plan: Plan) -> str:
    """The price, then the tree, a line per segment."""
    rows = summary(plan)
    width = max(len(name) for name, _ in rows)
    head = [f"{name:>{width}}  {value}" for name, value in rows]
    roots = plan.tree.children.get(None, [])
    body = [line for root in roots for line in _branch(plan, root, "", "")]
    return "\n".join([sentence(plan), *head, "", *body])


def _branch(plan: Plan, segment: Segment, lead: str, below: str) -> Iterator[str]:
    phase = next(p for p in segment.recipe.phases if p.name == segment.phase)
    model = f"{segment.recipe.params:,} params, seed {segment.recipe.seed}: " if segment.parent is None else ""
    done = "measured" if segment.lineage in plan.measured else "trained" if segment.lineage in plan.trained else "to do"
    run = f" = run {segment.lineage}" if segment.is_run else ""
    yield f"{lead}{model}{segment.phase} {segment.tokens:,} tokens ({phase.mixture}){run} [{done}]"
    children = plan.tree.children.get(segment.lineage, [])
    for child in children:
        last = child is children[-1]
        yield from _branch(plan, child, below + ("└─ " if last else "├─ "), below + ("   " if last else "│  "))


def as_json(plan: Plan) -> dict[str, Any]:
    """The plan as plain data."""
    return {
        "recipes": len(plan.tree.recipes),
        "flops_shared": plan.flops_shared,
        "flops_separate": plan.flops_separate,
        "tokens_shared": plan.tokens_shared,
        "seconds": plan.seconds,
        "workers": plan.workers,
        "disk_bytes": plan.disk_bytes,
        "tokens_per_second": {str(params): speed for params, speed in plan.speed.items()},
        "segments": [
            {
                "lineage": segment.lineage,
                "parent": segment.parent,
                "params": segment.recipe.params,
                "phase": segment.phase,
                "tokens": segment.tokens,
                "run": segment.is_run,
                "measured": segment.lineage in plan.measured,
                "trained": segment.lineage in plan.trained,
            }
            for segment in plan.tree.segments
        ],
    }
