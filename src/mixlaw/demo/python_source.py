"""Code and docstrings: the standard library and a fixed list of libraries, docstrings cut out of the code."""

from __future__ import annotations

import ast
import io
import os
import re
import textwrap
import tokenize
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from mixlaw.demo.libraries import LIBRARIES
from mixlaw.runner.corpora.sources.document import Document
from mixlaw.runner.packages import folder, standard_library, version

#: Libraries read besides the standard library: pure Python, written by hand, a few megabytes together.
READ = (
    "click",
    "filelock",
    "fsspec",
    "Jinja2",
    "markdown-it-py",
    "networkx",
    "packaging",
    "pydantic",
    "rich",
    "tomlkit",
)

PACKAGES = ("python", *READ)

#: Folders that hold no code worth learning: tests, tables, vendored or machine-written modules.
SKIPPED = {
    *("site-packages", "__pycache__", "test", "tests", "testing", "idle_test", "_vendor", "ensurepip"),
    *("encodings", "pydoc_data", "lib2to3"),
}
GENERATED = re.compile(r"(auto-?generated|generated (by|from|automatically)|do not edit)", re.IGNORECASE)
LETTERS = 0.4  # share of letters below which a module is a table of numbers or names

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """One source file, parted: code without docstrings, docstrings with the signatures that they describe."""

    origin: str
    source: str
    code: str
    docstrings: str


def code() -> Iterator[Document]:
    """Modules without their docstrings; formatting and comments survive."""
    yield from (Document(module.code, module.origin, module.source) for module in _modules() if module.code)


def docstrings() -> Iterator[Document]:
    """The docstrings of a module below the signatures that they describe, one document a module."""
    yield from (Document(module.docstrings, module.origin, module.source) for module in _modules() if module.docstrings)


@lru_cache(maxsize=1)  # two domains come from one pass; about 30 MB
def _modules() -> tuple[Module, ...]:
    return tuple(module for origin, path in _paths() for module in _module(path, origin))


def _paths() -> Iterator[tuple[str, Path]]:
    roots = [("python", standard_library())]
    roots += [(name, root) for name in READ if (root := folder(LIBRARIES[name])) is not None]
    for name, root in roots:
        for path in _python_files(root):
            yield f"{name} {version(name)} {path.relative_to(root).as_posix()}", path


def _python_files(root: Path) -> Iterator[Path]:
    for folder_name, folders, names in os.walk(root):
        folders[:] = sorted(set(folders) - SKIPPED)  # in place: os.walk goes no further down
        for name in sorted(names):
            if name.endswith(".py") and not name.startswith("test_"):
                yield Path(folder_name, name)


def _module(path: Path, origin: str) -> Iterator[Module]:
    try:
        with tokenize.open(path) as file:
            source = file.read()
        if not source.strip() or _is_table(source) or GENERATED.search(source[:1000]):
            return
        code, docstrings = split(source)
    except (SyntaxError, UnicodeDecodeError):  # templates and deliberately broken files
        return
    yield Module(origin, source, code.strip("\n"), docstrings)


def _is_table(source: str) -> bool:
    return sum(map(str.isalpha, source)) < LETTERS * len("".join(source.split()))


def split(source: str) -> tuple[str, str]:
    """A module's code without docstrings, and its docstrings below their signatures.

    A body that was only a docstring becomes `pass`.

    Raises:
        SyntaxError: the source is not Python.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in other people's strings
        tree = ast.parse(source)
    lines = list(io.StringIO(source))  # the parser's line ends, not those of str.splitlines
    owners = [node for node in _statements(tree) if isinstance(node, Documented) and _has_docstring(node)]
    owners.sort(key=lambda node: node.body[0].lineno)
    docstrings = "\n".join(_described(node, lines) for node in owners)
    for node in reversed(owners):
        _cut(node, lines)
    return "".join(lines), docstrings


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """The node and every statement below it; five times faster than `ast.walk`, which visits expressions too."""
    yield node
    for block in ("body", "orelse", "finalbody", "handlers", "cases"):
        for child in getattr(node, block, ()):
            yield from _statements(child)


def _has_docstring(node: Documented) -> bool:
    first = node.body[0] if node.body else None
    return isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)


def _described(node: Documented, lines: list[str]) -> str:
    """Signature and docstring as they stand, moved to the margin."""
    first = node.body[0]
    begin = first.lineno if isinstance(node, ast.Module) else node.lineno
    return textwrap.dedent("".join(lines[begin - 1 : first.end_lineno])).rstrip() + "\n"


def _cut(node: Documented, lines: list[str]) -> None:
    """Take the docstring of `node` out of `lines`, in place; later lines must have been dealt with before."""
    first = node.body[0]
    begin, end = first.lineno - 1, first.end_lineno or first.lineno
    before = lines[begin].encode()[: first.col_offset].decode()
    after = lines[end - 1].encode()[first.end_col_offset :].decode()
    needed = len(node.body) == 1 and not isinstance(node, ast.Module)
    if before.strip() or after.strip() or needed:
        lines[begin:end] = [f"{before}pass{after}"]
        return
    while end < len(lines) and not lines[end].strip():  # the blank lines that set the docstring off
        end += 1
    del lines[begin:end]
