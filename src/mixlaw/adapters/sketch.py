"""A draft of a mapping: what the columns of a table seem to be, with FILL and comments where its author must say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from mixlaw.adapters.mapping import BLANK
from mixlaw.adapters.shapes import TOKEN_WORDS, Floats, Group, distinct, groups, numeric, words
from mixlaw.adapters.sheet import in_contract
from mixlaw.adapters.tables import Source, read_source
from mixlaw.cells import texts
from mixlaw.errors import InputError
from mixlaw.files import write_text
from mixlaw.printable import Page, Printable

_RUNS = ("run_name", "name", "run_id", "id", "run", "exp_name", "experiment", "model_name", "model", "exp")
_STEPS = ("step", "_step", "global_step", "Step", "iteration", "iter")
_LAST = ("max_steps", "total_steps", "num_steps", "train_steps", "n_steps")
_SCALES = {"k": 1e3, "m": 1e6, "mio": 1e6, "million": 1e6, "millions": 1e6, "b": 1e9, "bn": 1e9, "billion": 1e9}
_SCALES |= {"billions": 1e9, "t": 1e12, "trillion": 1e12, "trillions": 1e12}
_RATE = 0.05  # below it, a column lr is a rate, not one over that of the rule for the size
#: Words of columns that count tokens, or are settings, and so neither a run's total nor a task.
_NO_TOTAL = frozenset(["per", "unique", "vocab", "batch", "seq", "sequence", "context", "max", "epoch", "step"])
_SETTINGS = frozenset(
    [
        "seed",
        "lr",
        "rate",
        "step",
        "steps",
        "epoch",
        "epochs",
        "batch",
        "runtime",
        "time",
        "timestamp",
        "date",
        "flops",
        "gpu",
        "gpus",
        "id",
        "layers",
        "heads",
        "width",
        "depth",
        "dim",
        "hidden",
        "vocab",
        "seq",
        "grad",
        "norm",
        "warmup",
        "wd",
        "decay",
        "beta",
        "beta1",
        "beta2",
        "momentum",
        "dropout",
        "index",
        "rank",
        "version",
        "hours",
        "seconds",
        "cost",
    ]
)
_CODE = frozenset(
    [
        "code",
        "python",
        "java",
        "javascript",
        "typescript",
        "cpp",
        "rust",
        "github",
        "stack",
        "starcoder",
        "stackv2",
        "notebooks",
    ]
)
_SPREADS = {"stderr": "stderr", "se": "stderr", "std": "noise", "sd": "noise"}
#: The first words that a name has set its unit: word -> unit, and the range in which cells can be.
_UNITS = {
    "bits/byte": ("bpb", (0.0, 8.0)),
    "pass@1": ("pass@1 pass1", (0.0, 1.0)),
    "win-rate": ("winrate win", (0.0, 1.0)),
    "accuracy": ("acc accuracy em exact mc1 mc2 correct", (0.0, 1.0)),
    "nats/token": ("loss nll xent ce", (0.0, 20.0)),
}


@dataclass(frozen=True)
class Sketched(Printable):
    """A draft that was written: where, how much of it is to fill, and what to do next."""

    path: Path
    table: Path
    blanks: int

    def page(self) -> Page:
        """Path, blanks, and the next command."""
        todo = f"{self.blanks} to fill, at FILL; " if self.blanks else ""
        return Page(
            f"wrote {self.path}: {todo}read its comments before you import",
            "unsure" if self.blanks else "better",
            notes=[
                f"then mixlaw import STUDY {self.table} --mapping {self.path} --dry-run shows what it makes of them"
            ],
        )

    def as_json(self) -> dict[str, object]:
        """Plain data for `--json`."""
        return {"path": str(self.path), "blanks": self.blanks}


def sketch(table: Path, out: Path) -> Sketched:
    """Write a draft of a mapping for a table; a blank in it is refused on import.

    Raises:
        InputError: the table cannot be read, or there is a file at `out` already.
    """
    if out.exists():
        raise InputError(f"{out} is there already; give --sketch another name, or delete it")
    source = read_source(table)
    if source.frame.is_empty():
        raise InputError(f"{table} has no rows; a mapping is guessed from cells, so give at least one run")
    text = draft(source, table.name)
    write_text(out, text)
    return Sketched(out, table, sum(BLANK in line for line in text.splitlines()[_HEAD:]))


_HEAD = 3  # lines of the draft before what is guessed


def draft(source: Source, name: str) -> str:
    """The draft for a table, as TOML that a mapping can be read from."""
    head = [
        f"# A draft for {json.dumps(name)}, guessed from names and cells of its columns. Check every line;",
        f"# {BLANK} is a blank to fill. Columns without a meaning are left out, and the import lists them.",
        "",
    ]
    pivot, source = _long(source)
    columns = numeric(source.frame)
    lines = [*pivot, *_identity(source, columns)]
    contract = {column for column in columns if in_contract(column)}
    parts = groups({n: c for n, c in columns.items() if n not in contract and not _SETTINGS & {*words(n)}})
    if any(column.startswith("tokens:") for column in contract):
        parts = []
    parts = _without_amounts(parts)
    taken = {column for group in parts for column in group.domains} | contract - {
        column for column in contract if column.startswith("metric:")
    }
    size, size_of = _scaled(columns, taken, {"params", "param", "parameters"}, {"size"})
    models = (n for n in columns if ("model" in words(n) or n == "N") and np.nanmin(columns[n]) >= 1e5)  # 60M, 1.3B
    if not size_of and (size_of := next(models, "")):
        size = _quoted(size_of)
    if "params" not in contract:
        lines += [f"params = {size}  # without embeddings"]
    total, total_of = _scaled(columns, taken | {size_of}, TOKEN_WORDS, {"billion", "billions", "bn"})
    if not total_of and "D" in columns and np.nanmin(columns["D"]) >= 1e5:
        total_of, total = "D", _quoted("D")
    asked = not parts or any(not group.tokens for group in parts)
    if not any(column.startswith("tokens:") for column in contract) and asked:
        lines += [_tokens(source, columns, total)]
    if not any(column.startswith("tokens:") for column in contract):
        lines += ["", *_phases(parts, columns, taken | {size_of, total_of})]
    tasks = list(_tasks(columns, taken | {size_of, total_of}, [p for g in parts for p in words(g.phase)]))
    lines += ["[tasks]  # the unit sets which direction is better: check each", *tasks]
    if not tasks:
        lines += [f'# {BLANK}: no column looks like a measured task; write each as its column = "bits/byte"']
    domains = [domain for group in parts for domain in group.domains.values() if _CODE & {*words(domain)}]
    if domains:
        lines += ["", "[domains]  # the others are text; unique_tokens = ... where data is limited"]
        lines += [f'{_quoted(domain)} = {{ kind = "code" }}' for domain in dict.fromkeys(domains)]
    return "\n".join([*head, *lines]) + "\n"


def _quoted(name: str) -> str:
    """A TOML string."""
    return json.dumps(name, ensure_ascii=False).replace("\x7f", "\\u007f")


def _span(cells: Floats) -> str:
    return f"{np.nanmin(cells):.4g} to {np.nanmax(cells):.4g}"


def _long(source: Source) -> tuple[list[str], Source]:
    """Lines for a table with a row per run and task, and that table with a row per run."""
    by_word = {column.lower(): column for column in source.frame.columns}
    task = next((by_word[n] for n in ("task", "task_name", "benchmark", "eval", "metric") if n in by_word), None)
    value = next((by_word[n] for n in ("value", "score", "result", "metric_value") if n in by_word), None)
    run = _run_column(source.frame)
    if task is None or value is None or run is None or task == value:
        return [], source
    frame = source.frame.select(pl.Series(n, texts(source.frame[n]), pl.String) for n in source.frame.columns)
    if frame.select(run, task).is_duplicated().any() or not frame[run].is_duplicated().any():
        return [], source
    others = [n for n in frame.columns if n not in (task, value, run)]
    kinds = frame.group_by(run).agg(pl.col(others).n_unique())
    constant = [run, *(n for n in others if kinds[n].max() == 1)]
    wide = frame.pivot(task, index=constant, values=value)
    wide = wide.rename({n: f"{value}/{n}" for n in wide.columns if n not in constant})
    line = f"pivot = {{ by = [{', '.join(map(_quoted, constant))}], task = {_quoted(task)}, value = {_quoted(value)} }}"
    return [line], replace(source, frame=wide, places=tuple(map(str, range(wide.height))))


def _run_column(frame: pl.DataFrame) -> str | None:
    """The column that names runs: one that is called so, best one that differs in every row."""
    by_word = {"_".join(words(column)): column for column in reversed(frame.columns)}
    called = [by_word[name] for name in _RUNS if name in by_word and frame[by_word[name]].null_count() == 0]
    plain = [name for name in frame.columns if name not in numeric(frame.select(name)) and distinct(frame, name)]
    return next((name for name in called if distinct(frame, name)), None) or next(iter((*called, *plain)), None)


def _identity(source: Source, columns: Mapping[str, Floats]) -> Iterator[str]:
    """Lines for run, seed and progress."""
    frame, run = source.frame, _run_column(source.frame)
    if run is None:
        yield f'run = "{BLANK}"  # the column that names a run, or a name made of several: "{{sweep}}-{{id}}"'
    elif run != "run":
        yield f"run = {_quoted(run)}"
    if (seed := next((name for name in columns if name.lower() == "seed"), None)) not in (None, "seed"):
        yield f"seed = {_quoted(str(seed))}"
    if "lr" in columns and np.nanmax(columns["lr"]) < _RATE:
        yield 'ignore = ["lr"]  # a learning rate; to use it: lr = { column = "lr", over = the rate of your rule }'
    if run is None or distinct(frame, run) or "progress" in columns:
        return
    step = next((name for name in _STEPS if name in columns), None)
    last = next((name for name in _LAST if name in columns), BLANK)
    if step is None:
        yield f'progress = "{BLANK}"  # {run!r} repeats: the share of its run that is done in each row'
    else:
        why = "steps of a whole run: a number or a column" if last == BLANK else "check: steps of the whole run"
        yield f"progress = {{ column = {_quoted(step)}, over = {_quoted(last)} }}  # {why}"
    if source.history:
        yield '# what each run was trained on, where another table has it: join = [{ file = "runs.csv", on = "run" }]'


def _scaled(
    columns: Mapping[str, Floats], taken: set[str], called: set[str] | frozenset[str], also: set[str]
) -> tuple[str, str]:
    """The value that a count is read from, and its column; the scale is a blank where the name does not say it."""
    free = [name for name in columns if name not in taken and not _NO_TOTAL & {*words(name)}]
    named = [name for name in free if called & {*words(name)}] or [name for name in free if also & {*words(name)}]
    if not named:
        return f'"{BLANK}"', ""
    column = max(named, key=lambda name: (bool({"total", "train"} & {*words(name)}), -len(name)))
    scales = [_SCALES[word] for word in words(column) if word in _SCALES]
    least = float(np.nanmin(columns[column]))
    if least >= 1e5:
        return _quoted(column), column
    scale = f"{scales[0]:g}" if len(scales) == 1 else f'"{BLANK}"'
    scale = scale.replace("e+0", "e").replace("e+", "e")
    return f"{{ column = {_quoted(column)}, scale = {scale} }}", column


def _tokens(source: Source, columns: Mapping[str, Floats], total: str) -> str:
    step = next((name for name in _STEPS if name in columns), None)
    if source.history and step:
        return f'tokens = {{ column = {_quoted(step)}, scale = "{BLANK}" }}  # tokens per step: a number or a column'
    blank = "; and its unit, as in scale = 1e9" if BLANK in total else ""
    return f"tokens = {total}  # trained on in the whole run{blank}"


def _without_amounts(parts: Sequence[Group]) -> list[Group]:
    """Groups without those that hold the tokens of phases: their "domains" are what other groups are called."""
    named = [{*words(group.phase)} for group in parts if not group.tokens]
    phases = named if len(named) > 1 else []
    return [
        group
        for group in parts
        if not (group.tokens and phases and all(any({*words(d)} <= p for p in phases) for d in group.domains.values()))
    ]


def _names(parts: Sequence[Group]) -> list[str]:
    """Names of phases, without the words with which all of them begin."""
    said = [re.split(r"[._/]+", group.phase.replace(":", ".")) for group in parts]
    common = 0
    while len(parts) > 1 and len({tuple(one[: common + 1]) for one in said}) == 1 and min(map(len, said)) > common + 1:
        common += 1
    names = ["_".join(one[common:]) if common else group.phase for one, group in zip(said, parts, strict=True)]
    return [name.replace(":", ".") for name in names]


def _phases(parts: Sequence[Group], columns: Mapping[str, Floats], taken: set[str]) -> Iterator[str]:
    """Lines for phases, in the order of training as far as names say it."""
    if not parts:
        yield from ["[[phase]]", 'name = "pretrain"', "[phase.shares]  # columns that hold shares = their domains"]
        yield from [f'"{BLANK}" = "*"', ""]
        return
    if len(parts) > 1:
        yield "# phases in the order of training: check it"
    beside = [_amount(group.phase, columns, taken) if len(parts) > 1 and not group.tokens else "" for group in parts]
    open_ = [i for i, amount in enumerate(beside) if not amount and not parts[i].tokens]
    shared = not any(amount.startswith("tokens") for amount in beside) and not any(group.tokens for group in parts)
    for number, (group, called) in enumerate(zip(parts, _names(parts), strict=True)):
        name = called or (f"phase{number + 1}" if number else "pretrain")
        yield from ["[[phase]]", f"name = {_quoted(name)}"]
        if len(parts) > 1 and not group.tokens:
            rest = shared and open_[:1] == [number]
            if beside[number]:
                yield beside[number]
            elif not rest:
                yield f'share = "{BLANK}"  # of the tokens of the run: a number such as 0.1, or a column'
        if not group.tokens:
            yield f"percent = {str(group.percent).lower()}"
        if not group.whole:
            yield f'rest = "{{{BLANK}}}"  # the columns do not sum to one: the name of the domain that has the rest'
        yield f"[phase.{'domain_tokens' if group.tokens else 'shares'}]"
        yield from (f"{_quoted(column)} = {_quoted(domain)}" for column, domain in group.domains.items())
        yield ""


def _amount(phase: str, columns: Mapping[str, Floats], taken: set[str]) -> str:
    """The line for the share or the tokens of a phase, if a column is called like it."""
    for name, cells in columns.items():
        said = words(name)
        if name in taken or not phase or not all(any(w.startswith(p) for w in said) for p in words(phase)):
            continue
        if TOKEN_WORDS & {*said} and np.nanmin(cells) > 1e5:
            return f"tokens = {_quoted(name)}"
        if {"frac", "fraction", "share", "ratio", "pct", "percent"} & {*said} or "%" in name:
            if np.nanmax(cells) <= 1:
                return f"share = {_quoted(name)}"
            if np.nanmax(cells) <= 100:
                return f"share = {{ column = {_quoted(name)}, scale = 0.01 }}"
    return ""


def _tasks(columns: Mapping[str, Floats], taken: set[str], phases: Sequence[str]) -> Iterator[str]:
    """Lines for tasks; those of which the unit is not certain are comments."""
    free = [name for name in columns if name not in taken and not _SETTINGS & {*words(name)}]
    spreads = {name: _spread(name, free) for name in free}
    for name in free:
        if spreads[name] or {*TOKEN_WORDS, "frac", "fraction"} & {*words(name)} or name.lower() in ("", "progress"):
            continue
        cells = columns[name][np.isfinite(columns[name])]
        if not cells.size or {*words(name)} & {*phases}:
            continue
        unit, scale, why = _unit(name, cells)
        beside = "".join(
            f", {spread[1]} = {_quoted(n)}" for n, spread in spreads.items() if spread and spread[0] == name
        )
        scaled = f", scale = {scale:g}" if scale != 1 else ""
        entry = f'{{ unit = "{unit}"{scaled}{beside} }}' if scaled or beside else f'"{unit}"'
        yield f"{'# ' + BLANK + ': ' if why else ''}{_quoted(name)} = {entry}  # {why}cells {_span(cells)}"


def _spread(name: str, names: Sequence[str]) -> tuple[str, str] | None:
    """The column of which this one is the spread, and of which kind."""
    for ending, kind in _SPREADS.items():
        base = re.sub(rf"[\W_]+{ending}$", "", name, flags=re.IGNORECASE)
        if base != name and base in names:
            return base, kind
    return None


def _unit(name: str, cells: Floats) -> tuple[str, float, str]:
    """Unit, scale, and what is uncertain about them; empty where nothing is."""
    said = {*words(name)} | {re.sub(r"\d+$", "", word) for word in words(name)}
    low, high = float(cells.min()), float(cells.max())
    if {"ppl", "perplexity"} & said:
        return "nats/token", 1.0, "a perplexity has no unit here: put its logarithm into the table; "
    if "bits" in said and {"byte", "bytes"} & said:
        said.add("bpb")
    for unit, (called, (least, most)) in _UNITS.items():
        if not said & {*called.split()}:
            continue
        if most == 1 and 1 < high <= 100 and low >= 0:
            return unit, 0.01, ""
        percent = most == 1 and {"pct", "percent"} & said
        if not least <= low <= high <= most or percent:
            return unit, 1.0, "its cells are not what its name says, give unit and scale; "
        return unit, 1.0, ""
    scale = 0.01 if "%" in name and 1 < high <= 100 and low >= 0 else 1.0
    return ("accuracy" if low >= 0 and scale * high <= 1 else "nats/token"), scale, "a task? then which unit; "
