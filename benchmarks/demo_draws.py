"""The demo with other seeds and other domains: does what it proposes win, and does it lose beyond its guard?

    python benchmarks/demo_draws.py [DRAW ...]

Each draw is `mixlaw demo` on a study.toml whose runs, proxies and target alike, have two seeds of their own; some leave
domains out. Studies are kept in out/demo_draws: a draw that is there is not trained again. Draw 0 is out/demo. About
20 minutes a draw on two quiet cores. Writes its part of docs/optimizer_benchmarks.md once all are there.
"""

from __future__ import annotations

import sys
from importlib.resources import files
from typing import Any

import numpy as np
import tomlkit
from replay import write_part
from scoreboard_tables import ROOT

from mixlaw.demo.loop import run_demo
from mixlaw.files import write_text
from mixlaw.optimizer.answers.pairs import Pair, PairedGain
from mixlaw.study import open_study

OUT = ROOT / "out" / "demo_draws"
#: Domains that a draw does without.
DRAWS: tuple[tuple[str, ...], ...] = ((), (), ("synthetic",), (), ("facts", "markup"))
HEADER = (
    "| seeds | without | predicted | measured | tasks better | worse | gains inside | beyond the guard | least gain |",
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
)


def settings(number: int) -> str:
    """The demo's study.toml for a draw."""
    toml: Any = tomlkit.parse((files("mixlaw") / "demo/demo.toml").read_text(encoding="utf-8"))
    for domain in DRAWS[number]:
        del toml["domains"][domain]
    for name, shares in list(toml["mixtures"].items()):
        left = {domain: share for domain, share in shares.items() if domain in toml["domains"]}
        toml["mixtures"][name] = {domain: share / sum(left.values()) for domain, share in left.items()}
    for recipe in toml["recipes"]:
        recipe["seeds"] = list(seeds(number)[: len(recipe.get("seeds", [0]))])
    for group, tasks in list(toml["groups"].items()):
        toml["groups"][group] = [task for task in tasks if task not in DRAWS[number]]
    return tomlkit.dumps(toml)


def seeds(number: int) -> tuple[int, int]:
    """Two seeds of a draw's runs."""
    return 10 * number, 10 * number + 1


def play(number: int) -> Pair:
    """Train a draw, or read it; what its last proposal gained over the mixture that it has to beat."""
    folder = OUT / str(number) if number else ROOT / "out" / "demo"
    if not (folder / "study.toml").exists():
        write_text(folder / "study.toml", settings(number))
    run_demo(folder, seeds=seeds(number))
    last = open_study(folder).proposals()[-1]
    return next(pair for pair in open_study(folder).verify().pairs if pair.proposal == last.id)


def row(number: int, pair: Pair) -> str:
    """A line of the table."""
    better, _, worse = pair.by_sign
    least = min(pair.gains, key=lambda gain: gain.measured)
    total = pair.total
    assert total is not None
    cells = [
        f"{seeds(number)[0]}, {seeds(number)[1]}",
        ", ".join(DRAWS[number]) or "-",
        total.predicted.text(),
        f"{total.measured:+.2f}",
        f"{len(better)} of {len(pair.gains)}",
        _named(worse),
        f"{sum(gain.inside for gain in pair.gains)} of {len(pair.gains)}",
        _named([gain for gain in pair.gains if gain.task in pair.beyond_guard]),
        f"{least.task} {least.measured:+.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def _named(gains: list[PairedGain]) -> str:
    return ", ".join(f"{gain.task} {gain.measured:+.2f}" for gain in gains) or "none"


def summary(pairs: list[Pair]) -> str:
    """Coverage over all draws and tasks, and pairs of a draw and a task that lost beyond the guard."""
    gains = [gain for pair in pairs for gain in pair.gains]
    inside = sum(gain.inside for gain in gains)
    guarded = [gain.measured + pair.most[gain.task] for pair in pairs for gain in pair.gains if gain.task in pair.most]
    apart = float(np.median([gain.measured - gain.predicted.mean for gain in gains]))
    within, beyond = sum(left >= 0 for left in guarded), sum(len(pair.beyond_guard) for pair in pairs)
    return (
        f"{inside} of {len(gains)} gains lie in their 90 % intervals ({inside / len(gains):.2f}); of {len(guarded)} "
        f"pairs of a draw and a guarded task {within} lose no more than it allows ({within / len(guarded):.2f}), "
        f"and {beyond} lose more even for the luck of seeds. Measured less predicted, the median: {apart:+.2f}."
    )


def main() -> None:
    """Play the draws that are named, or all; print, and write the page once all are played."""
    numbers = [int(number) for number in sys.argv[1:]] or [*range(len(DRAWS))]
    pairs = []
    for number in numbers:
        pairs.append(play(number))
        print(row(number, pairs[-1]), flush=True)
    lines = [*HEADER, *map(row, numbers, pairs), "", summary(pairs)]
    print("\n".join(lines))
    if numbers == [*range(len(DRAWS))]:
        write_part("demo draws", lines)


if __name__ == "__main__":
    main()
