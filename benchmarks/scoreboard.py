"""One default configuration over public tables, each figure beside the bar and the peers'.

    python benchmarks/scoreboard.py [TABLE ...]

Tables: olmix regmix marin datablations olmo_ladder open_lm code_share; data in $MIXLAW_DATA or ../shared/data. Each is
imported with its mapping in docs/mappings and fitted as `mixlaw fit` does; nothing else differs between tables. Rows of
docs/scoreboard.md and pictures are written anew for the tables that were run.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import polars as pl
import torch
from code_share_table import TABLE, code_share
from pictures import save
from scoreboard_plots import PLOTS
from scoreboard_tables import BOARDS, ROOT, Answer, Figure, Floats

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.surface.surface import Surfaces

PROCESSES = 2
#: Samples of new runs that the intervals of means are quantiles of.
SAMPLES = 64
CODE = "code_share"
TABLES = (*BOARDS, CODE)
PAGE = ROOT / "docs" / "scoreboard.md"
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"


def answer(name: str, number: int) -> Answer:
    """Fit the train rows of one split of a table by default and predict its test rows."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        study, table = BOARDS[name].load(Path(folder) / "study")
        split = BOARDS[name].splits(table)[number]
        # Domains that no row of the split has seen are none of its affair.
        rows = table.filter(pl.Series(split.train | split.test))
        table = table.drop(c for c in table.columns if c.startswith("tokens:") and not rows[c].sum())
        began = time.perf_counter()
        surfaces = study.fit(law=split.law, table=table.filter(pl.Series(split.train)))
        design = Design.from_table(table.filter(pl.Series(split.test)), study.unique)
        found, means = surfaces.predict(design), mean_intervals(surfaces, design, BOARDS[name].families)

    def wide(values: Floats) -> Floats:
        whole = np.full((table.height, values.shape[1]), np.nan)
        whole[split.test] = values
        return whole

    mean, lo90, hi90, law_only = map(wide, (found.mean, found.lo90, found.hi90, found.law_only))
    ends = {family: wide(ends.T).T for family, ends in means.items()}
    return Answer(found.tasks, mean, lo90, hi90, law_only, time.perf_counter() - began, ends)


def mean_intervals(surfaces: Surfaces, design: Design, families: Callable[[str], set[str]]) -> dict[str, Floats]:
    """Ends of the 90 % interval of a new run's mean over each family of tasks, (2, R)."""
    names = {family for task in surfaces.tasks for family in families(task)}
    if not names:
        return {}
    samples = surfaces.new_runs(design, SAMPLES).numpy()
    inside = {name: [name in families(task) for task in surfaces.tasks] for name in sorted(names)}
    return {name: np.quantile(samples[:, :, tasks].mean(2), [0.05, 0.95], axis=0) for name, tasks in inside.items()}


def code_share_figures() -> list[Figure]:
    """How language tasks respond to code, ends of intervals beside their middle; there are no bars."""
    values = {what: value for what, value, _ in code_share()}
    ends = {what: [values.get(f"{what}, {end}") for end in ("low", "high")] for what in values}
    said = {what: f"90 % interval {low:.3g} to {high:.3g}" for what, (low, high) in ends.items() if low is not None}
    plain = [what for what in values if not what.endswith((", low", ", high"))]
    return [Figure(what, values[what], said.get(what, "")) for what in plain]


def table_of(name: str) -> pl.DataFrame:
    """The imported table."""
    with tempfile.TemporaryDirectory() as folder:
        return BOARDS[name].load(Path(folder) / "study")[1]


def boards(names: list[str]) -> Iterator[tuple[str, list[Figure], go.Figure | None, float]]:
    """Tables as they are done, two fits at a time: name, figures, picture, seconds of fitting; a failure is said."""
    tables = {name: table_of(name) for name in names if name != CODE}
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        jobs: dict[Future[Any], tuple[str, str]] = {}
        for name, table in tables.items():
            for number, split in enumerate(BOARDS[name].splits(table)):
                jobs[pool.submit(answer, name, number)] = (name, split.name)
        if CODE in names:
            jobs[pool.submit(code_share_figures)] = (CODE, "")
        found: dict[str, dict[str, Any]] = {name: {} for name in names}
        for job in as_completed(jobs):
            name, part = jobs[job]
            if error := job.exception():
                print(f"{name} {part} failed: {error}", file=sys.stderr, flush=True)
                continue
            found[name][part] = job.result()
            if len(found[name]) < sum(one == name for one, _ in jobs.values()):
                continue
            if name == CODE:
                yield name, found[name][""], None, 0.0
                continue
            answers = {split.name: found[name][split.name] for split in BOARDS[name].splits(tables[name])}
            seconds = sum(one.seconds for one in answers.values())
            yield name, BOARDS[name].judge(tables[name], answers), PLOTS[name](tables[name], answers), seconds


def printed(name: str, figures: list[Figure], seconds: float) -> None:
    """One table's figures for the terminal."""
    for f in figures:
        print(f"{name:13} {f.what:68} {f.value:8.4g}  {f.bar:14} {f.verdict:18} {f.peers}")
    print(f"{'':13} ({seconds:.0f} s of fitting)\n" if seconds else "", flush=True)


def rows_of_page(name: str, figures: list[Figure]) -> list[str]:
    """One table's figures as rows of Markdown."""
    return [f"| {name} | {f.what} | {f.value:.4g} | {f.bar} | {f.verdict} | {f.peers} |" for f in figures]


def write_page(fresh: Mapping[str, list[str]], page: Path = PAGE) -> None:
    """Replace the rows of some tables between the markers of the page; the others' stay."""
    head, rest = page.read_text(encoding="utf-8").split(BEGIN)
    before, tail = rest.split(END)
    rows = {name: [row for row in before.splitlines() if row.startswith(f"| {name} |")] for name in TABLES}
    rows.update(fresh)
    lines = ["| table | figure | mixlaw | bar | | peers |", "| --- | --- | --- | --- | --- | --- |"]
    lines += [row for name in TABLES for row in rows[name]]
    page.write_text("\n".join([head + BEGIN, *lines, END + tail]), encoding="utf-8")


def main(names: list[str]) -> int:
    """Print the figures of the named tables, or of all; write their rows of the page and their pictures."""
    if unknown := [name for name in names if name not in TABLES]:
        print(f"no table {unknown[0]!r}; there are {', '.join(TABLES)}", file=sys.stderr)
        return 2
    paths = {name: BOARDS[name].path if name in BOARDS else TABLE for name in names or TABLES}
    for name in [name for name, path in paths.items() if not path.exists()]:
        print(f"{name}: there is no {paths.pop(name)}; set MIXLAW_DATA to the folder that holds the public tables")
    began = time.perf_counter()
    for name, figures, picture, seconds in boards(list(paths)):
        printed(name, figures, seconds)
        write_page({name: rows_of_page(name, figures)})
        if picture is not None:
            save({f"scoreboard-{name}": picture})
    print(f"{time.perf_counter() - began:.0f} s on {PROCESSES} processes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
