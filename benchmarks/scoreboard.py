"""One default configuration over public tables, each figure beside the bar and the peers'.

    python benchmarks/scoreboard.py [TABLE ...]

Tables: olmix regmix marin datablations olmo_ladder open_lm code_share; data in $MIXLAW_DATA or ../shared/data. Each is
imported with its mapping in docs/mappings and fitted as `mixlaw fit` does; nothing else differs between tables. Without
names, docs/scoreboard.md is written anew; pictures are drawn for the tables that were run.
"""

from __future__ import annotations

import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import polars as pl
import torch
from pictures import save
from scoreboard_plots import PLOTS
from scoreboard_tables import BOARDS, DATA, ROOT, Answer, Answers, Figure, Floats

from mixlaw.analysis.design import Design

PROCESSES = 2
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
        found = surfaces.predict(Design.from_table(table.filter(pl.Series(split.test)), study.unique))

    def wide(values: Floats) -> Floats:
        whole = np.full((table.height, values.shape[1]), np.nan)
        whole[split.test] = values
        return whole

    mean, lo90, hi90, law_only = map(wide, (found.mean, found.lo90, found.hi90, found.law_only))
    return Answer(found.tasks, mean, lo90, hi90, law_only, time.perf_counter() - began)


def table_of(name: str) -> pl.DataFrame:
    """The imported table."""
    with tempfile.TemporaryDirectory() as folder:
        return BOARDS[name].load(Path(folder) / "study")[1]


def answers(names: list[str]) -> dict[str, tuple[pl.DataFrame, Answers]]:
    """Tables and the answers to all their splits, two fits at a time."""
    tables = {name: table_of(name) for name in names}
    splits = {name: [split.name for split in BOARDS[name].splits(tables[name])] for name in names}
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        jobs = {(n, s): pool.submit(answer, n, i) for n in names for i, s in enumerate(splits[n])}
        found = {key: job.result() for key, job in jobs.items()}
    return {name: (tables[name], {s: found[name, s] for s in splits[name]}) for name in names}


def printed(name: str, figures: list[Figure], seconds: float) -> None:
    """One table's figures for the terminal."""
    for f in figures:
        print(f"{name:13} {f.what:62} {f.value:8.4f}  {f.bar:14} {f.verdict:18} {f.peers}")
    print(f"{'':13} ({seconds:.0f} s of fitting)\n", flush=True)


def rows_of_page(name: str, figures: list[Figure]) -> list[str]:
    """One table's figures as rows of Markdown."""
    return [f"| {name} | {f.what} | {f.value:.4f} | {f.bar} | {f.verdict} | {f.peers} |" for f in figures]


def write_page(lines: list[str], page: Path = PAGE) -> None:
    """Replace what stands between the markers of the page."""
    text = page.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    tail = rest.split(END)[1]
    table = ["| table | figure | mixlaw | bar | | peers |", "| --- | --- | --- | --- | --- | --- |", *lines]
    page.write_text("\n".join([head + BEGIN, *table, END + tail]), encoding="utf-8")


def main(names: list[str]) -> int:
    """Print the figures of the named tables, or of all; write page and pictures."""
    if not DATA.exists():
        print(f"scoreboard: no public tables in {DATA}; set MIXLAW_DATA to the folder that holds them")
        return 0
    if unknown := [name for name in names if name not in BOARDS]:
        print(f"no table {unknown[0]!r}; there are {', '.join(BOARDS)}", file=sys.stderr)
        return 2
    began, lines, pictures = time.perf_counter(), [], {}
    for name, (table, found) in answers(names or list(BOARDS)).items():
        figures = BOARDS[name].judge(table, found)
        printed(name, figures, sum(one.seconds for one in found.values()))
        lines += rows_of_page(name, figures)
        pictures[f"scoreboard-{name}"] = PLOTS[name](table, found)
    if not names:
        write_page(lines)
    save(pictures)
    print(f"{time.perf_counter() - began:.0f} s on {PROCESSES} processes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
