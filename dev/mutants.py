"""Mutants of a module, and whether its tests notice: sampled ones, or with `--hand` those of dev/mutants.toml.

A mutant is one changed operator, constant, condition, call or `raise`. Each is tried in a fork of one process that has
torch and the other libraries loaded, which imports the changed source in place of the file: no file is written, and a
mutant costs what its tests cost. Processes that tests start see the unchanged file, so tests here work in one process.
"""

from __future__ import annotations

import argparse
import ast
import copy
import gc
import json
import os
import random
import resource
import signal
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType

ROOT = Path(__file__).parent.parent
SELECT = "not test_stacked and not test_at_one_size"  # fits of several seconds each are left out
LIBRARIES = ("hypothesis", "polars", "pydantic", "pytest", "scipy.optimize", "scipy.stats", "sklearn", "torch")
MODULES = {  # files, tests
    "recipe": (["src/mixlaw/recipe.py"], ["recipe", "schedule"]),
    "records": (["src/mixlaw/records.py"], ["records"]),
    "mixing": (["runner/batches/order.py"], ["mixing"]),
    "tree": (["runner/plan/tree.py"], ["tree"]),
    "laws": (
        [f"analysis/laws/{law}.py" for law in ("exposure", "exposure_priors", "data_constrained", "terms", "phases")],
        ["laws", "laws_identified", "jacobians"],
    ),
    "additive": (["analysis/laws/shukor.py", "analysis/laws/saturating.py"], ["laws", "laws_identified", "jacobians"]),
    "discrepancy": (["analysis/surface/discrepancy.py", "analysis/surface/saved.py"], ["discrepancy", "contents"]),
    "store": (["runner/train/store.py"], ["store", "checkpoint"]),
    "fetched": (["runner/corpora/sources/fetched.py"], ["token_sources"]),
    "engine": (["analysis/fitting/engine.py", "analysis/fitting/pooling.py"], ["engine", "pooling"]),
    "stacking": (["analysis/audit/stacking.py"], ["stacking"]),
    "gains": (["optimizer/goal/gains.py", "optimizer/goal/values.py"], ["gains", "verdict"]),
    "limits": (["optimizer/target/limits.py", "optimizer/target/polytope.py"], ["centre", "constraints", "under_way"]),
    "schedule": (
        ["optimizer/target/schedule.py", "analysis/laws/schedule.py", "optimizer/target/rates.py"],
        ["schedule_target", "schedule_law", "schedule"],
    ),
    "readers": (
        [f"src/mixlaw/adapters/{name}.py" for name in ("rows", "tables", "units", "history", "lm_eval", "wandb")],
        [
            *("hunt", "adapters_history", "adapters_lm_eval", "adapters_wandb"),
            *("cases_results", "import_names", "other_evaluations", "trackers"),
        ],
    ),
}
COMPARED = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
COMPUTED = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Div, ast.Mod: ast.Mult,
    ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.MatMult: ast.Mult,
}  # fmt: skip
CALLED = {
    "min": "max", "max": "min", "any": "all", "all": "any", "sorted": "list", "amin": "amax", "amax": "amin",
    "ceil": "floor",
}  # fmt: skip


def variants(node: ast.AST) -> Iterator[ast.AST]:
    """Changed copies of a node; none where there is nothing to change."""
    changed = copy.deepcopy(node)
    match changed:
        case ast.Compare(ops=[op, *_]) if type(op) in COMPARED:
            changed.ops[0] = COMPARED[type(op)]()
        case ast.BinOp(op=op) | ast.AugAssign(op=op) if type(op) in COMPUTED:
            changed.op = COMPUTED[type(op)]()
        case ast.BoolOp(op=op):
            changed.op = ast.Or() if isinstance(op, ast.And) else ast.And()
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            changed = changed.operand
        case ast.Constant(value=bool(value)):
            changed.value = not value
        case ast.Constant(value=int(value)):
            changed.value = value + 1
        case ast.Constant(value=float(value)):
            changed.value = value * 2 if value else 1.0
        case ast.If(test=test) | ast.IfExp(test=test):
            changed.test = ast.UnaryOp(ast.Not(), test)
        case ast.Raise():
            changed = ast.Pass()
        case ast.Call(func=ast.Name(id=name) as called) if name in CALLED:
            called.id = CALLED[name]
        case ast.Call(func=ast.Attribute(attr=name) as method) if name in CALLED:
            method.attr = CALLED[name]
        case _:
            return
    yield ast.copy_location(changed, node)


@dataclass(frozen=True)
class Job:
    """A mutant: its module, what it changes, the file and its changed source, the tests that should notice."""

    module: str
    what: str
    path: str
    source: str
    tests: tuple[str, ...]

    @property
    def files(self) -> list[str]:
        """The tests as pytest takes them; `recipe::test_a` is one of tests/test_recipe.py."""
        named = [name.partition("::") for name in self.tests]
        return [f"{ROOT}/tests/test_{file}.py{colons}{test}" for file, colons, test in named]


def places(tree: ast.Module) -> Iterator[tuple[ast.AST, str, int | None]]:
    """Fields that hold a node which may change: parent, field, position in it. Texts and annotations stay."""
    todo: list[ast.AST] = [tree]
    while todo:
        parent = todo.pop()
        if isinstance(parent, ast.FunctionDef) and parent.name in ("__repr__", "__str__"):
            continue
        if isinstance(parent, ast.If) and ast.unparse(parent.test) == "TYPE_CHECKING":
            continue
        for name, value in ast.iter_fields(parent):
            if name in ("annotation", "returns", "decorator_list", "type_params"):
                continue
            for position, node in enumerate(value) if isinstance(value, list) else [(None, value)]:
                if isinstance(node, ast.AST) and not isinstance(node, ast.JoinedStr):
                    yield parent, name, position
                    if not isinstance(node, ast.Raise):  # what an error says is not tried
                        todo.append(node)


def mutants(path: str) -> list[tuple[str, str]]:
    """What is changed where, and the changed source, of every mutant of a file."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    found = []
    for parent, name, position in places(tree):
        holder = getattr(parent, name)
        node = holder if position is None else holder[position]
        for changed in variants(node):
            for now in (changed, node):
                if position is None:
                    setattr(parent, name, now)
                else:
                    holder[position] = now
                if now is changed:
                    source = ast.unparse(ast.fix_missing_locations(tree))
            before, after = (" ".join(ast.unparse(value).split())[:70] for value in (node, changed))
            found.append((f"{path}:{getattr(node, 'lineno', 0)}: {before} -> {after}", source))
    return found


def by_hand(names: Sequence[str]) -> Iterator[Job]:
    """The mutants of dev/mutants.toml; an error where what one changes is not there, or twice."""
    for mutant in tomllib.loads((ROOT / "dev" / "mutants.toml").read_text(encoding="utf-8"))["mutant"]:
        path, before = mutant["file"], mutant["before"]
        source = (ROOT / path).read_text(encoding="utf-8")
        if source.count(before) != 1:
            raise SystemExit(f"{path} has {source.count(before)} places {before!r}, not 1; change dev/mutants.toml")
        if not names or mutant["name"] in names:
            changed = source.replace(before, mutant["after"])
            yield Job("by hand", f"{path}: {mutant['name']}", path, changed, tuple(mutant["tests"]))


def sampled(modules: Sequence[str], count: int, seed: int) -> Iterator[Job]:
    """So many mutants of every module."""
    for module in modules or MODULES:
        files, tests = MODULES[module]
        every = [(path, *mutant) for path in files for mutant in mutants(path)]
        for path, what, source in random.Random(f"{seed} {module}").sample(every, min(count, len(every))):
            yield Job(module, what, path, source, tuple(tests))


def outcome(job: Job, *, unchanged: bool = False, seconds: float = 3600) -> str:
    """What the tests say: the mutant `survives`, is `killed`, or is `endless` after so many seconds of processor."""
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds) + 5))
        if not unchanged:
            _replace(str((ROOT / job.path).resolve()), job.source)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        import pytest

        os._exit(int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-k", SELECT, *job.files])))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {0: "survives", -signal.SIGXCPU: "endless", -signal.SIGKILL: "endless"}.get(code, "killed")


def _replace(target: str, source: str) -> None:
    """Let this process import a source in place of a file."""
    load = SourceFileLoader.get_code

    def get_code(loader: SourceFileLoader, name: str) -> CodeType | None:
        ours = os.path.realpath(loader.path) == target
        return compile(source, target, "exec", dont_inherit=True) if ours else load(loader, name)

    SourceFileLoader.get_code = get_code  # type: ignore[method-assign, assignment]


def main() -> None:
    """Try mutants one after another; a line of JSON for each, so that a run that is stopped is not lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(MODULES)}, or of mutants by hand; without any, all")
    parser.add_argument("--count", type=int, default=20, help="mutants of each module")
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--hand", action="store_true", help="the mutants of dev/mutants.toml")
    parser.add_argument("--journal", type=Path, default=ROOT / "out" / "mutants.jsonl")
    options = parser.parse_args()
    options.journal.parent.mkdir(parents=True, exist_ok=True)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    for name in LIBRARIES:
        import_module(name)
    gc.freeze()  # what is loaded costs no collection of a child's
    jobs = by_hand(options.names) if options.hand else sampled(options.names, options.count, options.seed)
    taken: dict[tuple[str, ...], float] = {}
    for job in jobs:
        if job.tests not in taken:
            begun = _seconds()
            if outcome(job, unchanged=True) != "survives":
                raise SystemExit(f"tests fail without a mutant: {' '.join(job.files)}")
            taken[job.tests] = _seconds() - begun
        result = outcome(job, seconds=5 + 3 * taken[job.tests])
        with options.journal.open("a", encoding="utf-8") as journal:
            line = {"module": job.module, "mutant": job.what, "outcome": result, "tests": job.tests}
            journal.write(json.dumps(line) + "\n")
        print(f"{result:8}", job.module, job.what, flush=True)


def _seconds() -> float:
    """Seconds of processor of the children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
