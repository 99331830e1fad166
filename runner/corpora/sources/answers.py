"""A teacher's answer to a problem, parsed: its solution, its tests, and the emptied solution that tests must refuse."""

from __future__ import annotations

import ast
import re
import textwrap
import warnings
from dataclasses import dataclass

_BLOCK = re.compile(r"```[ \t]*(?:python|py)?[ \t]*\n(.*?)```", re.DOTALL | re.IGNORECASE)
_TEST = "test"
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class NoAnswer(ValueError):
    """An answer that holds no solution with tests; the message names what is missing, in a word or two."""


@dataclass(frozen=True)
class Answer:
    """A solution and its tests, both Python; the tests raise an error where the solution is wrong."""

    solution: str
    tests: str

    def document(self, statement: str) -> str:
        """Statement as a comment, solution and tests: a program that ends without an error."""
        comment = "\n".join(textwrap.fill(line, 88) for line in statement.strip().splitlines())
        return f"{textwrap.indent(comment, '# ', lambda _: True)}\n\n{self.solution}\n\n{self.tests}\n"

    @property
    def emptied(self) -> str:
        """The solution with every function returning None: tests that pass with it prove nothing."""
        tree = _parsed(self.solution)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                node.body = [ast.Return(ast.Constant(None))]
        return ast.unparse(ast.fix_missing_locations(tree))

    @property
    def normal(self) -> str:
        """The solution without comments and layout, by which two are the same."""
        return ast.unparse(_parsed(self.solution))


def parse_answer(text: str) -> Answer:
    """The solution and the tests in the fenced blocks of an answer.

    At the top level, assertions and functions whose names begin with `test` are tests; imports, other definitions and
    assignments are the solution; calls and prints are left out.

    Raises:
        NoAnswer: there is no code, it is not Python, or it lacks a solution or tests.
    """
    code = "\n\n".join(match.strip("\n") for match in _BLOCK.findall(text))
    if not code.strip():
        raise NoAnswer("no code")
    try:
        tree = _parsed(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise NoAnswer("no Python") from error
    lines = code.split("\n")
    solution, tests, calls = [], [], []
    begin = 0
    for node in tree.body:
        source = "\n".join(lines[begin : node.end_lineno]).strip("\n")
        begin = node.end_lineno or begin
        if isinstance(node, ast.Assert) or _is_test(node):
            tests.append(source)
            calls += [f"{node.name}()"] if isinstance(node, Definition) else []
        elif isinstance(node, Definition | ast.Import | ast.ImportFrom | ast.Assign | ast.AnnAssign):
            solution.append((source, isinstance(node, Definition)))
    if not any(defines for _, defines in solution):
        raise NoAnswer("no solution")
    if not tests:
        raise NoAnswer("no tests")
    return Answer(_joined([source for source, _ in solution]), "\n".join([*tests, *calls]))


def _is_test(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name.startswith(_TEST) and not node.args.args


def _joined(sources: list[str]) -> str:
    """Definitions two blank lines apart, and imports together, as they are written."""
    text = ""
    for source in sources:
        first = source.lstrip("\n").startswith(("import ", "from "))
        text += source if not text else ("\n" if first else "\n\n\n") + source
    return text


def _parsed(code: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in other people's strings
        return ast.parse(code)
