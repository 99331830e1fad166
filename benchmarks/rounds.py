"""Rounds of a study in one process, simulated: what grows with them besides the study itself.

    python benchmarks/rounds.py [ROUNDS]

Each round suggests runs, measures them in a simulated world, imports them, fits and proposes, as a notebook or a
service that stays open does. Prints memory, open files, threads, and files: the study grows by a record a run and by
a proposal and a suggestion a round; nothing else may.
"""

from __future__ import annotations

import gc
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import polars as pl

from mixlaw import import_runs
from mixlaw.analysis.laws import Exposure
from mixlaw.recipe import Domain, Kind
from mixlaw.study import Study, open_study
from mixlaw.testing.worlds import World, random_recipes, random_world

DOMAINS = (
    Domain("web", Kind.TEXT, 4_000_000),
    Domain("books", Kind.TEXT, 400_000),
    Domain("python", Kind.CODE, 3_000_000),
)
SIZES, PER_PARAM, FIRST, MORE = [24_000, 94_000], 20, 9, 2  # runs of each size at first, and a round
TARGET = "\n[target]\nparams = 330_000\ntokens = 6_600_000\n"
ROUNDS, SHOWN = 40, 5


def begun(folder: Path, world: World) -> Study:
    """A study of a first design, fitted."""
    table = world.measure(random_recipes(SIZES, PER_PARAM, DOMAINS, count=FIRST))
    toml = "".join(f'[domains.{d.name}]\nkind = "{d.kind.value}"\nunique_tokens = {d.unique_tokens}\n' for d in DOMAINS)
    (folder / "domains.toml").write_text(toml, encoding="utf-8")
    study = import_runs(folder / "study", table, unit="bits/byte", domains=folder / "domains.toml")
    with (study.path / "study.toml").open("a", encoding="utf-8") as settings:
        settings.write(TARGET)
    study.fit(law=Exposure, save=True)
    return open_study(study.path)


def play(study: Study, world: World, number: int) -> None:
    """One round."""
    budget = 6 * SIZES[0] * SIZES[0] * PER_PARAM * MORE * 4.0
    recipes = [job.recipe for job in study.suggest(budget, count=MORE, queue=True).jobs]
    recipes = recipes or random_recipes(SIZES, PER_PARAM, DOMAINS, count=1, seed=100 + number)  # it says: no more
    table = world.measure(recipes, seed=100 + number).with_columns(run=pl.format("round{}-{}", pl.lit(number), "run"))
    import_runs(study.path, table, unit="bits/byte")
    study.fit(law=Exposure, save=True)
    study.propose()


def seen(study: Study) -> dict[str, float]:
    """What the process and the study hold now: MB, files open, threads, files by kind."""
    gc.collect()
    files = [path for path in study.path.rglob("*") if path.is_file()]
    resident = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    kinds = ("runs", "proposals", "suggestions")
    counts = {kind: sum(f.relative_to(study.path).parts[0] == kind for f in files) for kind in kinds}
    return {
        "MB": resident / 1e6,
        "open files": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        **counts,
        "other files": len(files) - sum(counts.values()),
        "temporary": sum(1 for _ in Path(tempfile.gettempdir()).iterdir()),
    }


def main(rounds: int) -> None:
    """Play the rounds and print what grew."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as scratch:
        tempfile.tempdir = scratch  # so that what is left there can be counted
        world = random_world(DOMAINS, seed=1, tasks=2)
        study = begun(Path(folder), world)
        rows: list[dict[str, float]] = []
        for number in range(1, rounds + 1):
            start = time.process_time()
            play(study, world, number)
            rows.append({"round": number, "seconds": time.process_time() - start, **seen(study)})
            if number in (1, rounds) or number % SHOWN == 0:
                if number == 1:
                    print(" ".join(f"{name:>11}" for name in rows[-1]))
                print(" ".join(f"{value:11.{1 if value % 1 else 0}f}" for value in rows[-1].values()), flush=True)
    late = rows[len(rows) // 4 :]
    for name in ("MB", "open files", "threads", "other files", "temporary", "seconds"):
        slope = np.polyfit([row["round"] for row in late], [row[name] for row in late], 1)[0] if len(late) > 1 else 0.0
        print(f"{name}: {late[0][name]:.1f} to {late[-1][name]:.1f}, {slope:+.3f} a round")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
