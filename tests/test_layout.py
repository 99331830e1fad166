"""The shape of the repository: links, import direction, sizes, what `import mixlaw` costs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "mixlaw"
FOLDERS = ("runner", "analysis", "optimizer")
BASE = {
    "mixlaw.domain",
    "mixlaw.frozen",
    "mixlaw.recipe",
    "mixlaw.records",
    "mixlaw.cells",
    "mixlaw.errors",
    "mixlaw.files",
    "mixlaw.machine",
    "mixlaw.numbers",
    "mixlaw.page",
    "mixlaw.parquet",
    "mixlaw.phases",
    "mixlaw.printable",
    "mixlaw.progress",
    "mixlaw.tables",
    "mixlaw.terminal",
}
ALLOWED = {
    "runner": BASE | {"mixlaw.runner"},
    "analysis": BASE | {"mixlaw.analysis"},
    "optimizer": BASE | {"mixlaw.analysis", "mixlaw.optimizer"},
}
HEAVY = (
    *("torch", "transformers", "tokenizers", "plotly", "polars", "pydantic", "numpy", "scipy", "sklearn", "optuna"),
    *("rich", "typer"),
)
FILE_LINES, FUNCTION_LINES = 400, 60

HOMES = (*(ROOT / name for name in FOLDERS), PACKAGE)  # a recursive glob does not follow the links
MODULES = sorted(path for folder in (*HOMES, ROOT / "benchmarks") for path in folder.rglob("*.py"))
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> set[str]:
    """Modules of mixlaw that a file imports anywhere, also inside functions; names imported from mixlaw itself too."""
    found = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            names = {f"mixlaw.{alias.name}" for alias in node.names} if node.module == "mixlaw" else set()
            found |= names or {str(node.module)}
    return {name for name in found if name.split(".")[0] == "mixlaw"}


def definitions(body: list[ast.stmt], public: bool = True) -> Iterator[tuple[Definition, bool]]:
    """Functions, methods and classes, and whether all names on the way to them are public."""
    for node in body:
        if isinstance(node, Definition):
            known = public and not node.name.startswith("_")
            yield node, known
            inner = known and isinstance(node, ast.ClassDef)  # what a function defines inside is its own affair
            yield from definitions(node.body, inner)


@pytest.mark.parametrize("folder", FOLDERS)
def test_links_for_editors_lead_to_the_folders_at_the_top(folder: str) -> None:
    link = PACKAGE / folder  # no installation needs it: test_install.py
    assert link.is_symlink()
    assert link.resolve() == ROOT / folder
    assert not link.readlink().is_absolute()


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_bare_import_of_a_folder_is_refused(folder: str) -> None:
    done = subprocess.run([sys.executable, "-c", f"import {folder}"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"import mixlaw.{folder}, not {folder}" in done.stderr


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_run_one_way(folder: str) -> None:
    wrong = {
        (name_of(path), name)
        for path in (ROOT / folder).rglob("*.py")
        for name in imports(path)
        if not any(name == allowed or name.startswith(f"{allowed}.") for allowed in ALLOWED[folder])
    }
    assert not wrong


#: Folders and files of a home in the order of the data: each imports only those before it.
ORDER = {
    "src/mixlaw": (
        *("testing", "plots", "settings", "templates", "adapters", "folder", "report", "export", "dashboard", "study"),
        *("demo", "cli"),
    ),
    "runner": ("models", "plan", "batches", "train", "evaluate", "execute", "corpora"),
    "analysis": ("data", "laws", "fitting", "residual", "audit", "surface", "fit"),
    "optimizer": ("target", "goal", "search", "answers", "next_runs", "optuna"),
}


@pytest.mark.parametrize(("home", "part"), [(home, part) for home, parts in ORDER.items() for part in parts])
def test_a_folder_imports_only_those_before_it(home: str, part: str) -> None:
    parts, package = ORDER[home], "mixlaw" if home == "src/mixlaw" else f"mixlaw.{home}"
    later = {f"{package}.{name}" for name in parts[parts.index(part) + 1 :]}
    files = [*(ROOT / home / part).rglob("*.py"), *(ROOT / home).glob(f"{part}.py")]
    wrong = {
        (name_of(path), name)
        for path in files
        for name in imports(path)
        if any(name == one or name.startswith(f"{one}.") for one in later)
    }
    assert files
    assert not wrong


@pytest.mark.parametrize("home", ORDER)
def test_every_folder_has_its_place_in_the_order(home: str) -> None:
    folders = {path.parent.name for path in (ROOT / home).glob("*/__init__.py") if not path.parent.is_symlink()}
    assert folders <= set(ORDER[home])


@pytest.mark.parametrize("folder", ["runner/corpora/sources", "runner/evaluate/sandbox"])
def test_a_folder_inside_a_folder_imports_nothing_of_the_one_around_it(folder: str) -> None:
    inner = f"mixlaw.{folder.replace('/', '.')}"
    around = inner.rpartition(".")[0]
    wrong = {
        (name_of(path), name)
        for path in (ROOT / folder).glob("*.py")
        for name in imports(path)
        if f"{name}.".startswith(f"{around}.") and not f"{name}.".startswith(f"{inner}.")
    }
    assert not wrong


def module_of(path: Path) -> str:
    """Import name of a file of the product."""
    inside = path.relative_to(ROOT / "src" if PACKAGE in path.parents else ROOT).with_suffix("")
    parts = inside.parts if inside.parts[0] == "mixlaw" else ("mixlaw", *inside.parts)
    return ".".join(parts).removesuffix(".__init__")


def test_no_imports_run_in_a_circle() -> None:
    modules = {module_of(path): path for home in HOMES for path in home.rglob("*.py")}
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        froms = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.ImportFrom)]
        names = {f"{node.module}.{alias.name}" for node in froms for alias in node.names} & modules.keys()
        whole = {str(n.module) for n in froms if any(f"{n.module}.{a.name}" not in modules for a in n.names)}
        plain = {a.name for node in ast.walk(tree_of(path)) if isinstance(node, ast.Import) for a in node.names}
        graph[module] = (names | whole | plain) & modules.keys() - {module}
    while free := {module for module, needs in graph.items() if not needs}:  # Kahn 1962: what is left has a circle
        graph = {module: needs - free for module, needs in graph.items() if module not in free}
    assert not graph


def test_the_contract_imports_nothing_of_the_folders() -> None:
    known = {name: imports(PACKAGE / f"{name.removeprefix('mixlaw.')}.py") for name in BASE}
    assert {name: found - BASE for name, found in known.items()} == {name: set() for name in BASE}


def test_every_module_and_everything_public_in_it_says_what_it_is() -> None:
    silent = [name_of(path) for path in MODULES if not ast.get_docstring(tree_of(path))]
    silent += [
        f"{name_of(path)}:{node.lineno} {node.name}"
        for path in MODULES
        if path.parent != ROOT / "benchmarks"  # scripts: the module's docstring tells what they measure
        for node, public in definitions(tree_of(path).body)
        if public and not ast.get_docstring(node)
    ]
    assert not silent


def test_files_and_functions_stay_short() -> None:
    files = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    functions = {
        f"{name_of(path)}:{node.lineno} {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in MODULES
        for node, _ in definitions(tree_of(path).body)
        if not isinstance(node, ast.ClassDef)
    }
    assert not {name: lines for name, lines in files.items() if lines > FILE_LINES}
    assert not {name: lines for name, lines in functions.items() if lines > FUNCTION_LINES}


def test_importing_mixlaw_imports_nothing_heavy() -> None:
    code = f"import sys, mixlaw; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_contract_and_the_studys_settings_do_without_torch() -> None:
    code = "import sys, mixlaw.recipe, mixlaw.records, mixlaw.settings; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_wheel_lists_every_package_there_is() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    folders = {path.parent for home in HOMES for path in home.rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []
    names = [folder.relative_to(ROOT / "src" if PACKAGE in (folder, *folder.parents) else ROOT) for folder in folders]
    assert set(listed) == {
        ".".join(name.parts if name.parts[0] == "mixlaw" else ("mixlaw", *name.parts)) for name in names
    }


def test_errors_name_the_extras_that_there_are() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    texts = (path.read_text(encoding="utf-8") for path in MODULES)
    assert {name for text in texts for name in re.findall(r"pip install [\"']mixlaw\[(\w+)\]", text)} == set(extras)


def test_constraints_name_a_version_of_everything_that_is_asked_for() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project, groups = settings["project"], settings["dependency-groups"]
    lists = (project["dependencies"], *project["optional-dependencies"].values(), groups["dev"], groups["docs"])
    asked = {canonicalize_name(one.name): one for lines in lists for one in map(Requirement, lines)}
    del asked[canonicalize_name("setuptools")]  # the one that builds, which every environment has
    pins = map(Requirement, (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()[1:])
    versions = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pins}
    torch = canonicalize_name("torch")
    assert versions[torch] == str(asked.pop(torch).specifier)
    assert not {name for name, one in asked.items() if versions[name] not in one.specifier}
