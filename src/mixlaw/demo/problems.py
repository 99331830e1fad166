"""What a synthetic problem is, how it is written down, and the words that its families share."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True)
class Problem:
    """A programming problem with its solution.

    Attributes:
        family: which generator made it.
        statement: the task in words, one paragraph.
        solution: Python source of one function or class, without docstring.
        checks: `assert` statements; expected values come from another implementation than the solution.
    """

    family: str
    statement: str
    solution: str
    checks: tuple[str, ...]

    @property
    def program(self) -> str:
        """Solution and checks as one program that ends without an error when the solution is right."""
        return self.solution + "\n" + "\n".join(self.checks) + "\n"


Family = Callable[[Random], Problem]


def code(text: str) -> str:
    """Source from an indented triple-quoted block."""
    return textwrap.dedent(text).strip("\n") + "\n"


def block(lines: Iterable[str], depth: int = 1) -> str:
    """Lines indented by `depth` steps of four spaces."""
    return textwrap.indent("\n".join(lines), "    " * depth)


def check(function: str, arguments: Sequence[object], expected: object) -> str:
    """An `assert` that the function gives the expected value."""
    return f"assert {function}({', '.join(map(repr, arguments))}) == {expected!r}"


def integers(rng: Random, low: int, high: int, least: int, most: int) -> list[int]:
    """A list of `least` to `most` integers between `low` and `high`."""
    return [rng.randint(low, high) for _ in range(rng.randint(least, most))]


def listing(words: Sequence[object]) -> str:
    """Words as English lists them: a, b and c."""
    texts = [str(word) for word in words]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def name_of(rng: Random, verbs: str, nouns: str) -> str:
    """A function name of a verb and a noun, each out of a list of words."""
    return f"{rng.choice(verbs.split())}_{rng.choice(nouns.split())}"


LETTERS = "abcdefghijklmnopqrstuvwxyz"
PEOPLE = (
    "Ada",
    "Boris",
    "Chen",
    "Dina",
    "Emil",
    "Farah",
    "Goran",
    "Hana",
    "Ivo",
    "Jun",
    "Kira",
    "Luis",
    "Mona",
    "Nils",
)
GOODS = ("apple", "bolt", "candle", "drum", "engine", "fork", "glove", "hammer", "iron", "jar", "kettle", "lamp", "map")
TOWNS = ("Arden", "Brill", "Cove", "Dale", "Elm", "Ford", "Glen", "Hart", "Isle", "Kirk", "Lund", "Mere", "Nore", "Oak")
SERIES = (
    "prices",
    "scores",
    "readings",
    "weights",
    "ages",
    "distances",
    "levels",
    "counts",
    "speeds",
    "costs",
    "delays",
)
WORDS = (
    *(
        "river",
        "stone",
        "silver",
        "market",
        "window",
        "garden",
        "letter",
        "winter",
        "yellow",
        "circle",
        "travel",
        "music",
    ),
    *("planet", "coffee", "bridge", "forest", "engine", "pocket", "summer", "signal", "ladder", "basket", "mirror"),
    *("anchor", "button", "castle", "desert", "feather", "harbor", "island", "jungle", "kitten", "lantern", "meadow"),
)


def phrase(rng: Random, least: int = 1, most: int = 5) -> str:
    """A few words from the list, some of them capitalised."""
    words = (rng.choice(WORDS) for _ in range(rng.randint(least, most)))
    return " ".join(word.capitalize() if rng.random() < 0.3 else word for word in words)


def write(problem: Problem, rng: Random) -> str:
    """The problem as a text, in one of several layouts."""
    layouts = (_comments, _docstring, _markdown, _test_function)
    return rng.choice(layouts)(problem)


def _wrapped(text: str, indent: str = "", width: int = 88) -> str:
    return textwrap.fill(text, width, initial_indent=indent, subsequent_indent=indent)


def _comments(problem: Problem) -> str:
    checks = "\n".join(problem.checks)
    return f"{_wrapped(problem.statement, '# ')}\n\n{problem.solution}\n\n{checks}\n"


def _docstring(problem: Problem) -> str:
    last = problem.solution.rfind("\ndef ") + 1  # helpers stand before the function that is asked for
    head, _, body = problem.solution[last:].partition(":\n")
    head = problem.solution[:last] + head
    told = _wrapped(f'"""{problem.statement}', "    ").rstrip()
    ending = "" if "\n" not in told else "\n    "
    checks = "\n".join(problem.checks)
    return f'{head}:\n{told}{ending}"""\n{body}\n\n{checks}\n'


def _markdown(problem: Problem) -> str:
    checks = "\n".join(problem.checks)
    return (
        f"## Problem\n\n{_wrapped(problem.statement)}\n\n## Solution\n\n```python\n{problem.solution}```\n\n"
        f"## Tests\n\n```python\n{checks}\n```\n"
    )


def _test_function(problem: Problem) -> str:
    name = problem.solution.split("(")[0].split(":")[0].split()[-1].lower()
    tests = f"def test_{name}():\n{block(problem.checks)}\n"
    return f'"""{_wrapped(problem.statement)}\n"""\n\n\n{problem.solution}\n\n{tests}'
