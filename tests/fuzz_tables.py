"""Fuzzing of what comes from other programs: tables, mappings, results of evaluations, histories."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tomlkit
from hypothesis import strategies as st

from fuzz_inputs import VALUES, WORDS, Fuzzed, as_json, changed, document, spoilt, toml
from mixlaw import import_runs
from mixlaw.errors import InputError

RUN = {
    "params": "60M",
    "tokens:init:web": 9e8,
    "tokens:init:code": "1e8",
    "seed": 0,
    "metric:hs": 0.9,
    "metric:acc": 0.5,
}
ROWS = [{"run": name, **RUN} for name in ("a", "b", "007")]
UNITS = ["bits/byte", "acc=accuracy"]
MAPPING = {
    "run": "{group}-{id}",
    "params": {"column": "size", "scale": 1e6},
    "tokens": "tokens",
    "progress": {"column": "step", "over": "max_steps"},
    "ignore": ["lr*"],
    "join": [{"file": "more.csv", "on": "id"}],
    "phase": [
        {"name": "init", "share": 0.8, "shares": {"p_*": "*"}, "percent": True},
        {"name": "cool", "share": 0.2, "shares": {"q_code": "code"}, "rest": "web", "lr_end": 0.0},
    ],
    "unique": {"code": "pool"},
    "tasks": {"eval/*_loss": {"name": "*", "unit": "nats/token", "noise": "sd_*"}, "acc": "accuracy"},
    "domains": {"code": {"kind": "code", "unique_tokens": "40B"}},
}
MAPPED = """\
group,id,size,tokens,step,max_steps,p_web,p_code,q_code,pool,eval/x_loss,sd_x,acc,lr
g,1,60,1B,500,1000,70,30,.5,1e9,2.5,.01,.5,3e-4
g,2,60,2B,1000,1000,60,40,.4,1e9,2.4,.01,.6,3e-4
h,3,150,2B,1000,1000,50,50,1,1e9,2.3,.01,.7,3e-4
"""
MORE = "id,extra\n1,x\n2,y\n3,z\n"
HISTORY_MAPPING = """\
join = [{ file = "runs.csv", on = "run" }]
params = "params"
progress = { column = "_step", over = "max_steps" }
tokens = { column = "_step", scale = "per_step" }
tasks = { "eval/loss" = "nats/token" }
[[phase]]
name = "init"
share = 0.8
shares = { web = "web", code = "code" }
[[phase]]
name = "cool"
share = 0.2
shares = { web = "web", code = "code" }
"""
SETUPS = "run,params,max_steps,per_step,web,code\nm1,60M,1000,1e6,0.7,0.3\nm2,150M,1000,1e6,0.5,0.5\n"
HISTORY = [
    {"run": run, "_step": step, "_timestamp": 1.7e9 + step, "_runtime": step, "eval/loss": 4 - step / 500, "lr": 1e-3}
    for run in ("m1", "m2")
    for step in (100, 500, 900, 1000)
]
STATE = {
    "global_step": 1000,
    "max_steps": 1000,
    "log_history": [{"step": step, "epoch": step / 500, "eval/loss": 3 - step / 1000} for step in (500, 1000)],
}
HARNESS = {
    "results": {"arc": {"alias": "arc", "acc,none": 0.5, "acc_stderr,none": 0.01}, "pile": {"bits_per_byte,none": 0.9}},
    "config": {"model": "hf", "model_args": "pretrained=org/a,dtype=float16", "limit": None},
    "versions": {"arc": 1},
    "n-shot": {"arc": 5},
    "n-samples": {"arc": {"original": 100, "effective": 100}},
    "date": 1700000000.5,
    "model_name": "org/a",
}
LIGHTEVAL = {
    "config_general": {"model_name": "org/a", "model_config": {"model_name": "org/a", "revision": "main"}},
    "results": {"leaderboard|arc|25": {"acc": 0.5, "acc_stderr": 0.01}, "all": {"acc": 0.5}},
}
OLMES = {
    "task_name": "arc",
    "task_config": {"primary_metric": "acc_raw", "num_shots": 5, "metadata": {"alias": "arc:rc"}},
    "model_config": {"model_path": "org/a", "revision": None},
    "metrics": {"acc_raw": 0.5, "bits_per_byte": 0.8},
    "num_instances": 100,
}
INSPECT = {
    "status": "success",
    "eval": {"task": "arc", "model": "org/a", "created": "2026-01-02T03:04:05+00:00", "model_args": {}, "config": {}},
    "results": {"completed_samples": 10, "scores": [{"name": "choice", "metrics": {"accuracy": {"value": 0.5}}}]},
}


def csv(rows: Any) -> bytes:
    """Rows as CSV, whatever their cells are; as JSON where they are no rows."""
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        return as_json(rows)
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names, *([row.get(name, "") for name in names] for row in rows)]
    text = "\n".join(",".join('"' + str(cell).replace('"', '""') + '"' for cell in line) for line in lines)
    return text.encode("utf-8", "surrogatepass")


def json_lines(rows: Any) -> bytes:
    """Rows as JSON lines."""
    return b"\n".join(as_json(row) for row in rows) if isinstance(rows, list) else as_json(rows)


def unchanged(folder: Path, look: Callable[[], object]) -> None:
    """Look twice, first as a dry run; a study that refuses an import is as it was."""
    study = folder / "study"

    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in sorted(study.rglob("*")) if path.is_file()}

    before = content()
    try:
        look()
    except InputError:
        assert content() == before, "a refused import changed the study"
        raise


def table_of(folder: Path, given: tuple[str, bytes]) -> None:
    """A table in the contract's columns, imported beside a run that is there."""
    name, content = given
    (folder / "first.csv").write_bytes(csv([{"run": "first", **RUN}]))
    (folder / name).write_bytes(content)
    import_runs(folder / "study", folder / "first.csv", unit=UNITS)
    unchanged(folder, lambda: import_runs(folder / "study", folder / name, unit=UNITS))


def mapping_of(folder: Path, given: tuple[bytes, bytes]) -> None:
    """A mapping and its table, either of them damaged."""
    mapping, table = given
    for name, content in (("m.toml", mapping), ("t.csv", table), ("more.csv", MORE.encode())):
        (folder / name).write_bytes(content)
    unchanged(folder, lambda: import_runs(folder / "study", folder / "t.csv", mapping=folder / "m.toml"))


def history_of(folder: Path, given: tuple[str, bytes, bytes]) -> None:
    """A history of runs with its runs table."""
    name, content, setups = given
    text = HISTORY_MAPPING.replace('"_step"', '"step"') if name.endswith(".json") else HISTORY_MAPPING
    table = folder / "m1" / name if name.endswith(".json") else folder / name
    table.parent.mkdir(exist_ok=True)
    for path, data in ((table, content), (folder / "m.toml", text.encode()), (table.parent / "runs.csv", setups)):
        path.write_bytes(data)
    unchanged(folder, lambda: import_runs(folder / "study", table, mapping=folder / "m.toml"))


def results_of(folder: Path, given: tuple[str, bytes]) -> None:
    """Results of an evaluation, beside a table of one run."""
    name, content = given
    (folder / "runs.csv").write_bytes(csv([{"run": "a", **RUN}]))
    (folder / name).write_bytes(content)
    look = lambda: import_runs(folder / "study", folder / "runs.csv", unit=UNITS, results=[folder / name])  # noqa: E731
    unchanged(folder, look)


def cells(rows: list[dict[str, Any]]) -> st.SearchStrategy[Any]:
    """Rows of which cells, names or whole rows are changed."""
    odd = st.sampled_from(["NaN", "", "-", "1e5", "inf", "14B", "50%", "0,9", "1,000", "True", "\u0663", "-0", "1e400"])
    one = st.builds(
        lambda at, name, cell: [{**row, name: cell} if i == at else row for i, row in enumerate(rows)],
        st.integers(0, len(rows) - 1),
        st.sampled_from([*rows[0], "x"]),
        odd | WORDS | VALUES,
    )
    return one | changed(rows)


def named(name: str, contents: st.SearchStrategy[bytes]) -> st.SearchStrategy[tuple[str, bytes]]:
    """A file name with contents."""
    return contents.map(lambda content: (name, content))


def _tables() -> st.SearchStrategy[tuple[str, bytes]]:
    return (
        named("t.csv", cells(ROWS).map(csv) | spoilt(csv(ROWS)))
        | named("t.jsonl", cells(ROWS).map(json_lines) | spoilt(json_lines(ROWS)))
        | named("t.tsv", cells(ROWS).map(csv).map(lambda text: text.replace(b",", b"\t")))
    )


def _histories() -> st.SearchStrategy[tuple[str, bytes, bytes]]:
    lines = cells(HISTORY).map(csv) | st.permutations(HISTORY).map(csv) | spoilt(csv(HISTORY))
    setups = st.just(SETUPS.encode()) | st.just(SETUPS.encode()) | spoilt(SETUPS.encode())
    kinds = [
        named("h.csv", lines),
        named("h.jsonl", cells(HISTORY).map(json_lines)),
        named("trainer_state.json", document(STATE, as_json)),
    ]
    return st.one_of(kinds).flatmap(lambda file: st.tuples(st.just(file[0]), st.just(file[1]), setups))


def _results() -> st.SearchStrategy[tuple[str, bytes]]:
    kinds = [("r.json", HARNESS), ("l.json", LIGHTEVAL), ("metrics-all.jsonl", OLMES), ("i.json", INSPECT)]
    return st.one_of([named(name, document(tree, as_json)) for name, tree in kinds])


TABLES = {
    "tables": Fuzzed(_tables, table_of, 0.1),
    "mappings": Fuzzed(
        lambda: (
            st.tuples(document(MAPPING, toml), st.just(MAPPED.encode()))
            | st.tuples(st.just(tomlkit.dumps(MAPPING).encode()), spoilt(MAPPED.encode()))
        ),
        mapping_of,
        0.1,
    ),
    "results": Fuzzed(_results, results_of, 0.1),
    "histories": Fuzzed(_histories, history_of, 0.1),
}
