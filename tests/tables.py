"""Tables of runs as hypothesis draws them, and changes of their form that must not change what they mean."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
from hypothesis import strategies as st

PHASES, DOMAINS, TASKS = ("init", "continue", "cooldown"), ("web", "code", "c4.en", 'the "x"'), ("hs", "arc", "k=5")

#: Names of runs, among them those that look like numbers.
names = st.one_of(
    st.from_regex(r"[a-z][a-z0-9_./ -]{0,6}[a-z0-9]", fullmatch=True),
    st.from_regex(r"[0-9]{1,4}(e[0-9])?", fullmatch=True),
)
amounts = st.one_of(st.just(0.0), st.floats(1e6, 1e12).map(round).map(float))
losses = st.floats(0.1, 9.0).map(lambda loss: round(loss, 4))


@st.composite
def tables(draw: st.DrawFn) -> pl.DataFrame:
    """A table in the contract's columns: two to five finished runs of up to three phases."""
    runs = draw(st.lists(names, min_size=2, max_size=5, unique=True))
    phases, domains, tasks = (
        draw(st.lists(st.sampled_from(of), min_size=1, unique=True)) for of in (PHASES, DOMAINS, TASKS)
    )
    phases, columns = sorted(phases, key=PHASES.index), dict[str, list[Any]](run=runs)
    columns["params"] = [draw(st.integers(10**8, 10**10)) for _ in runs]
    for phase in phases:
        for domain in domains:
            columns[f"tokens:{phase}:{domain}"] = [draw(amounts) for _ in runs]
    first = f"tokens:{phases[0]}:{domains[0]}"
    columns[first] = [tokens or 1e9 for tokens in columns[first]]
    for task in tasks:
        columns[f"metric:{task}"] = [draw(st.none() | losses) for _ in runs]
    return pl.DataFrame(columns, schema_overrides={f"metric:{task}": pl.Float64 for task in tasks})


#: What a cell of any table may hold that is not what it should be.
odd_cells = st.one_of(
    st.sampled_from(
        [
            "",
            "NaN",
            "n/a",
            "-",
            "inf",
            "1e400",
            "14B",
            "50%",
            "1,000",
            "true",
            '"',
            "'",
            "\0",
            "a;b",
            "1e-400",
            "٣",
            "=1+1",
        ]
    ),
    st.text(max_size=6),
    st.floats().map(str),
    st.integers().map(str),
)
#: Contents of files that should be tables, mappings or results, and are anything.
odd_files = st.one_of(
    st.binary(max_size=60),
    st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.lists(st.lists(odd_cells, max_size=4), max_size=4).map(
        lambda rows: as_csv(rows).encode("utf-8", "surrogatepass")
    ),
)


def as_csv(rows: list[list[Any]], quoted: bool = False) -> str:
    """Rows as CSV."""
    file = io.StringIO()
    csv.writer(file, quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL, lineterminator="\n").writerows(rows)
    return file.getvalue()


def _text(table: pl.DataFrame, quoted: bool = False) -> str:
    return as_csv(
        [table.columns, *([("" if cell is None else cell) for cell in row] for row in table.iter_rows())], quoted
    )


def _written(ending: str, content: Callable[[pl.DataFrame], str]) -> Callable[[pl.DataFrame, Path], Path]:
    def write(table: pl.DataFrame, folder: Path) -> Path:
        path = folder / f"runs[{ending}].{ending}"
        path.write_text(content(table), encoding="utf-8")
        return path

    return write


def _parquet(table: pl.DataFrame, folder: Path) -> Path:
    table.write_parquet(folder / "runs.parquet")
    return folder / "runs.parquet"


def _by_domain(table: pl.DataFrame, _: Path) -> pl.DataFrame:
    names: list[str] = sorted(table.columns, key=lambda name: name[::-1])
    return table.select(names)


#: Name -> what writes a table, or makes it another one that means the same.
FORMS: dict[str, Callable[[pl.DataFrame, Path], Any]] = {
    "csv": _written("csv", _text),
    "everything quoted": _written("csv", lambda table: _text(table, quoted=True)),
    "an empty last line": _written("csv", lambda table: _text(table) + "," * (table.width - 1) + "\n\n"),
    "Windows line ends and BOM": _written("csv", lambda table: "\ufeff" + _text(table).replace("\n", "\r\n")),
    "tabs": _written("tsv", lambda table: _text(table).replace(",", "\t")),
    "ndjson": _written("ndjson", lambda table: table.write_ndjson()),
    "parquet": _parquet,
    "rows turned round": lambda table, _: table.reverse(),
    "columns sorted": lambda table, _: table.select(sorted(table.columns)),
    "columns sorted by domain": _by_domain,
    "columns turned round": lambda table, _: table.select(reversed(table.columns)),
    "all text": lambda table, _: table.with_columns(pl.all().cast(pl.String)),
}
