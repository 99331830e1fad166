"""Families of synthetic problems: a statement in words, a solution, and tests whose values come from other code.

Four families compose random steps on lists, texts, matrices or bits; each step is given in words, as an expression of
the solution, and as a second implementation that computes the expected values. Four are templates with random parts.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from random import Random
from typing import Any

LETTERS = "abcdefghijklmnopqrstuvwxyz"
NAMES = ("Ada", "Boris", "Chen", "Dina", "Emil", "Farah", "Goran", "Hana", "Ivo", "Jun", "Kira", "Luis", "Mona", "Nils")
TOWNS = ("Arden", "Brill", "Cove", "Dale", "Elm", "Ford", "Glen", "Hart", "Isle", "Kirk", "Lund", "Mere", "Nore", "Oak")
WORDS = (
    *("river", "stone", "silver", "market", "window", "garden", "letter", "winter", "yellow", "circle", "travel"),
    *("planet", "coffee", "bridge", "forest", "engine", "pocket", "summer", "signal", "ladder", "basket", "mirror"),
    *("anchor", "button", "castle", "desert", "feather", "harbor", "island", "jungle", "kitten", "lantern", "music"),
)

Step = tuple[str, str, Callable[[Any], Any]]  # in words, as an expression of the solution, as a second implementation


@dataclass(frozen=True)
class SyntheticProblem:
    """A programming problem with its solution.

    Attributes:
        family: name of the generator.
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


Family = Callable[[Random], SyntheticProblem]


def block(lines: Iterable[str], depth: int = 1) -> str:
    """Lines indented by `depth` steps of four spaces."""
    return textwrap.indent("\n".join(lines), "    " * depth)


def _check(function: str, arguments: Sequence[object], expected: object) -> str:
    return f"assert {function}({', '.join(map(repr, arguments))}) == {expected!r}"


def _listing(words: Iterable[object]) -> str:
    *first, last = map(str, words)
    return f"{', '.join(first)} and {last}" if first else last


def _name(rng: Random, verbs: str, nouns: str) -> str:
    return f"{rng.choice(verbs.split())}_{rng.choice(nouns.split())}"


def _composed(
    rng: Random, steps: Sequence[Step], endings: Sequence[Step], sample: Callable[[], Any], *,
    family: str, function: str, argument: str, given: str,
) -> SyntheticProblem:  # fmt: skip
    """Steps one after another on the argument, then an ending, on two to four samples."""
    words, expression, finish = rng.choice(endings)
    checks = []
    for _ in range(rng.randint(2, 4)):
        value = result = sample()
        for _, _, apply in steps:
            result = apply(result)
        checks.append(_check(function, [value], finish(result)))
    body = [f"{argument} = {source}" for _, source, _ in steps] + [f"return {expression}"]
    statement = f"{given}; {', then '.join(step[0] for step in steps)}. Return {words}."
    return SyntheticProblem(family, statement, f"def {function}({argument}):\n{block(body)}\n", tuple(checks))


def numbers(rng: Random) -> SyntheticProblem:
    """Changes of a list of integers, then the list or a number."""
    k, t, c, n = rng.randint(2, 9), rng.randint(-20, 40), rng.randint(2, 15), rng.randint(2, 4)
    steps: list[Step] = [
        (f"keep the multiples of {k}", f"[x for x in values if x % {k} == 0]", lambda v: [x for x in v if not x % k]),
        (f"drop the multiples of {k}", f"[x for x in values if x % {k}]", lambda v: [x for x in v if x % k > 0]),
        (f"keep what is greater than {t}", f"[x for x in values if x > {t}]", lambda v: list(filter(t.__lt__, v))),
        (f"add {c} to each", f"[x + {c} for x in values]", lambda v: list(map(c.__add__, v))),
        (f"multiply each by {c}", f"[{c} * x for x in values]", lambda v: list(map(c.__mul__, v))),
        ("square each", "[x * x for x in values]", lambda v: [x**2 for x in v]),
        ("take absolute values", "[abs(x) for x in values]", lambda v: [max(x, -x) for x in v]),
        (f"take remainders by {c}", f"[x % {c} for x in values]", lambda v: [x - c * (x // c) for x in v]),
        (f"raise what is below {t} to {t}", f"[max(x, {t}) for x in values]", lambda v: [t if x < t else x for x in v]),
        ("sort from small to large", "sorted(values)", lambda v: sorted(v, reverse=True)[::-1]),
        ("reverse the order", "values[::-1]", lambda v: list(reversed(v))),
        (f"leave out the first {n}", f"values[{n}:]", lambda v: [x for i, x in enumerate(v) if i >= n]),
        (f"take the last {n}", f"values[-{n}:]", lambda v: v[max(0, len(v) - n) :]),
        (f"take every {n}th, from the first on", f"values[::{n}]", lambda v: [v[i] for i in range(0, len(v), n)]),
        ("drop repeats, keeping first ones", "list(dict.fromkeys(values))",
         lambda v: [x for i, x in enumerate(v) if x not in v[:i]]),
        ("take running sums", "[sum(values[:i + 1]) for i in range(len(values))]",
         lambda v: [sum(v) - sum(v[i:]) for i in range(1, len(v) + 1)]),
        ("take differences of neighbours", "[b - a for a, b in zip(values, values[1:])]",
         lambda v: [v[i] - v[i - 1] for i in range(1, len(v))]),
        (f"add up windows of {n} neighbours", f"[sum(values[i:i + {n}]) for i in range(len(values) - {n - 1})]",
         lambda v: [sum(v[i - n : i]) for i in range(n, len(v) + 1)]),
    ]  # fmt: skip
    endings: list[Step] = [
        ("the list", "values", list),
        ("the sum", "sum(values)", lambda v: sum(v[::-1])),
        ("how many are left", "len(values)", lambda v: sum(1 for _ in v)),
        ("the largest, or None", "max(values, default=None)", lambda v: sorted(v)[-1] if v else None),
    ]
    name = _name(
        rng, "process reduce refine prepare digest", "prices scores readings weights ages levels counts delays"
    )
    return _composed(
        rng, rng.sample(steps, rng.randint(3, 5)), endings,
        lambda: [rng.randint(-30, 60) for _ in range(rng.randint(4, 9))],
        function=name, family="numbers", argument="values", given="Take a list of integers",
    )  # fmt: skip


def text(rng: Random) -> SyntheticProblem:
    """Changes of a text, those of words before those of characters."""
    (old, new), n, sign = rng.sample(LETTERS, 2), rng.randint(2, 4), rng.choice("-_/+*.")
    gone = "".join(sorted(rng.sample("aeioulnrst", 3)))
    words: list[Step] = [
        ("reverse the order of its words", "' '.join(text.split()[::-1])", lambda s: " ".join(reversed(s.split(" ")))),
        ("sort its words", "' '.join(sorted(text.split()))", lambda s: " ".join(sorted(s.split(" ")))),
        ("reverse every word in place", "' '.join(word[::-1] for word in text.split())",
         lambda s: " ".join("".join(reversed(word)) for word in s.split(" "))),
        (f"keep the first {n} letters of every word", f"' '.join(word[:{n}] for word in text.split())",
         lambda s: " ".join("".join(c for i, c in enumerate(word) if i < n) for word in s.split(" "))),
        ("drop its first word", "' '.join(text.split()[1:])", lambda s: s.partition(" ")[2]),
        ("put the longest words first", "' '.join(sorted(text.split(), key=len, reverse=True))",
         lambda s: " ".join(sorted(s.split(" "), key=lambda word: -len(word)))),
    ]  # fmt: skip
    characters: list[Step] = [
        ("put it in upper case", "text.upper()", lambda s: "".join(c.upper() for c in s)),
        ("swap upper and lower case", "text.swapcase()",
         lambda s: "".join(c.lower() if c.isupper() else c.upper() for c in s)),
        ("reverse it", "text[::-1]", lambda s: "".join(reversed(s))),
        (f"replace {old!r} by {new!r}", f"text.replace({old!r}, {new!r})", lambda s: new.join(s.split(old))),
        (f"leave out the letters {_listing(gone)}", f"''.join(c for c in text if c not in {gone!r})",
         lambda s: s.translate({ord(c): None for c in gone})),
        (f"keep only every {n}th character, from the first on", f"text[::{n}]",
         lambda s: "".join(c for i, c in enumerate(s) if i % n == 0)),
        (f"put {sign!r} in place of spaces", f"text.replace(' ', {sign!r})", lambda s: sign.join(s.split(" "))),
        (f"put {sign!r} before and after it", f"{sign!r} + text + {sign!r}", lambda s: f"{sign}{s}{sign}"),
        (f"double every {old!r}", f"text.replace({old!r}, {old * 2!r})",
         lambda s: "".join(c * (1 + (c == old)) for c in s)),
        ("write runs of one letter once", "''.join(b for a, b in zip(' ' + text, text) if a != b)",
         lambda s: "".join(c for c, _ in groupby(s)).removeprefix(" ")),
    ]  # fmt: skip
    endings: list[Step] = [("the result", "text", str), ("the result with its length", "text, len(text)",
                                                         lambda s: (s, sum(1 for _ in s)))]  # fmt: skip
    steps = rng.sample(words, rng.randint(1, 2)) + rng.sample(characters, rng.randint(1, 3))
    name = _name(rng, "format encode clean mask style", "title name label line note")
    return _composed(
        rng, steps, endings, lambda: " ".join(w.title() if rng.random() < 0.3 else w for w in rng.sample(WORDS, 3)),
        function=name, family="text", argument="text", given="Take a text of words between single spaces",
    )  # fmt: skip


def matrix(rng: Random) -> SyntheticProblem:
    """Changes of a matrix, then the matrix or a summary."""
    c, m = rng.randint(2, 9), rng.randint(3, 11)
    steps: list[Step] = [
        ("transpose it", "[list(column) for column in zip(*rows)]", _transposed),
        ("mirror it left to right", "[row[::-1] for row in rows]", lambda g: _transposed(_transposed(g)[::-1])),
        ("mirror it top to bottom", "rows[::-1]", lambda g: list(reversed(g))),
        (f"multiply every entry by {c}", f"[[{c} * x for x in row] for row in rows]",
         lambda g: [list(map(c.__mul__, row)) for row in g]),
        (f"take every entry modulo {m}", f"[[x % {m} for x in row] for row in rows]",
         lambda g: [[x - m * (x // m) for x in row] for row in g]),
        ("sort every row", "[sorted(row) for row in rows]", lambda g: [sorted(row, reverse=True)[::-1] for row in g]),
        ("sort the rows by their sums", "sorted(rows, key=sum)",
         lambda g: [g[i] for _, i in sorted((sum(row), i) for i, row in enumerate(g))]),
        (f"add {c} to the diagonal", f"[[x + {c} * (i == j) for j, x in enumerate(row)] for i, row in enumerate(rows)]",
         lambda g: [[row[j] + c if i == j else row[j] for j in range(len(row))] for i, row in enumerate(g)]),
        ("subtract from each row its smallest entry", "[[x - min(row) for x in row] for row in rows]",
         lambda g: [[x - sorted(row)[0] for x in row] for row in g]),
        ("add each row to the row below", "[rows[0]] + [[a + b for a, b in zip(p, q)] for p, q in zip(rows, rows[1:])]",
         lambda g: [g[0], *([a + b for a, b in zip(p, q, strict=True)] for p, q in pairwise(g))]),
    ]  # fmt: skip
    endings: list[Step] = [
        ("the matrix", "rows", list),
        ("the sums of the rows", "list(map(sum, rows))", lambda g: [sum(row) for row in g]),
        ("the largest entry of each column", "list(map(max, zip(*rows)))",
         lambda g: [sorted(column)[-1] for column in _transposed(g)]),
    ]  # fmt: skip
    name = _name(rng, "rework turn reshape change", "grid board table matrix image")

    def sample() -> list[list[int]]:
        width = rng.randint(2, 4)
        return [[rng.randint(0, 20) for _ in range(width)] for _ in range(rng.randint(2, 3))]

    return _composed(
        rng, rng.sample(steps, rng.randint(2, 4)), endings, sample,
        function=name, family="matrix", argument="rows", given="Take a matrix, given as a list of rows",
    )  # fmt: skip


def _transposed(rows: list[list[int]]) -> list[list[int]]:
    return [[row[j] for row in rows] for j in range(len(rows[0]))]


def bits(rng: Random) -> SyntheticProblem:
    """Operations on a word of fixed width; the second implementation works on text of zeros and ones."""
    width = rng.choice((6, 8, 10, 12, 16))
    n, place, top = rng.randint(1, width - 1), rng.randrange(width), 2**width - 1
    mask = rng.randrange(1, 2**width)
    digits, at = f"{mask:0{width}b}", width - 1 - place

    def on_text(change: Callable[[str], str]) -> Callable[[int], int]:
        return lambda x: int(change(f"{x:0{width}b}"), 2)

    steps: list[Step] = [
        (f"rotate it left by {n}", f"((x << {n}) | (x >> {width - n})) & {top}", on_text(lambda s: s[n:] + s[:n])),
        (f"rotate it right by {n}", f"((x >> {n}) | (x << {width - n})) & {top}", on_text(lambda s: s[-n:] + s[:-n])),
        ("flip every bit", f"x ^ {top}", on_text(lambda s: s.translate({48: "1", 49: "0"}))),
        (f"set bit {place}", f"x | (1 << {place})", on_text(lambda s: s[:at] + "1" + s[at + 1 :])),
        (f"clear bit {place}", f"x & ~(1 << {place})", on_text(lambda s: s[:at] + "0" + s[at + 1 :])),
        (f"combine it with {mask} by exclusive or", f"x ^ {mask}",
         on_text(lambda s: "".join("01"[a != b] for a, b in zip(s, digits, strict=True)))),
        (f"keep only the bits of {mask}", f"x & {mask}",
         on_text(lambda s: "".join("01"[a == b == "1"] for a, b in zip(s, digits, strict=True)))),
        (f"shift it left by {n}, dropping what leaves the word", f"(x << {n}) & {top}",
         on_text(lambda s: (s + "0" * n)[n:])),
    ]  # fmt: skip
    endings: list[Step] = [
        ("the word", "x", int),
        ("the number of ones in it", "bin(x).count('1')", lambda x: sum(x >> i & 1 for i in range(width))),
    ]
    return _composed(
        rng, rng.sample(steps, rng.randint(3, 4)), endings, lambda: rng.randrange(2**width),
        function=_name(rng, "scramble mix twist pack", "bits flags word register mask"), family="bits", argument="x",
        given=f"Take an unsigned word of {width} bits",
    )  # fmt: skip


def rules(rng: Random) -> SyntheticProblem:
    """Whether a code obeys three or four rules."""
    low, prefix, banned = rng.randint(4, 7), rng.choice("ABCDEFGHJK"), rng.choice("OIQZSL")
    high, least, mod = low + rng.randint(1, 5), rng.randint(1, 3), rng.randint(2, 5)
    known: list[Step] = [
        (f"has {low} to {high} characters", f"{low} <= len(code) <= {high}", lambda s: len(s) in range(low, high + 1)),
        (f"begins with {prefix!r}", f"code.startswith({prefix!r})", lambda s: s[:1] == prefix),
        (f"does not contain {banned!r}", f"{banned!r} not in code", lambda s: s.count(banned) == 0),
        (f"has at least {least} digits", f"sum(c.isdigit() for c in code) >= {least}",
         lambda s: len([c for c in s if c in "0123456789"]) >= least),
        ("has no two equal neighbours", "all(a != b for a, b in zip(code, code[1:]))",
         lambda s: len(list(groupby(s))) == len(s)),
        ("ends with a digit", "code[-1:].isdigit()", lambda s: s != "" and s[-1] in "0123456789"),
        (f"has a digit sum divisible by {mod}", f"sum(int(c) for c in code if c.isdigit()) % {mod} == 0",
         lambda s: sum("0123456789".find(c) for c in s if c in "0123456789") % mod == 0),
        ("repeats no letter", "len(set(filter(str.isalpha, code))) == sum(map(str.isalpha, code))",
         lambda s: all(s.count(c) == 1 for c in s if c.lower() in LETTERS)),
    ]  # fmt: skip
    chosen = rng.sample(known, rng.randint(3, 4))
    noun = rng.choice(("code", "ticket", "plate", "serial", "voucher", "badge"))
    lines = [*(line for _, test, _ in chosen for line in (f"if not ({test}):", "    return False")), "return True"]
    if rng.random() < 0.5:
        lines = ["return all([", *(f"    {test}," for _, test, _ in chosen), "])"]
    checks = []
    for _ in range(4):
        code = prefix * (rng.random() < 0.7) + "".join(
            rng.choices("ABCDEFGHJKOIQZSL0123456789", k=rng.randint(low - 1, high))
        )
        checks.append(_check(f"is_valid_{noun}", [code], all(holds(code) for _, _, holds in chosen)))
    statement = f"A {noun} is valid if it {_listing(words for words, _, _ in chosen)}. Decide whether a text is valid."
    return SyntheticProblem("rules", statement, f"def is_valid_{noun}(code):\n{block(lines)}\n", tuple(checks))


def records(rng: Random) -> SyntheticProblem:
    """Filter records, group them, and summarise a number in each group."""
    group, keys = rng.choice((("town", TOWNS), ("owner", NAMES), ("item", WORDS)))
    number, other = rng.sample(("price", "weight", "age", "score", "amount", "length", "height", "delay"), 2)
    limit, above = rng.randint(5, 60), rng.random() < 0.5
    summaries: list[Step] = [
        ("sum", "sum(group)", lambda v: sum(sorted(v))),
        ("largest value", "max(group)", lambda v: sorted(v)[-1]),
        ("smallest value", "min(group)", lambda v: sorted(v)[0]),
        ("sorted list", "sorted(group)", lambda v: sorted(v, reverse=True)[::-1]),
        ("average, rounded down,", "sum(group) // len(group)", lambda v: int(sum(v) / len(v))),
        ("spread, largest minus smallest,", "max(group) - min(group)", lambda v: sorted(v)[-1] - sorted(v)[0]),
    ]
    words, expression, summary = rng.choice(summaries)
    name = f"{rng.choice(('summarise', 'report', 'collect'))}_{number}_by_{group}"
    condition = f"record[{other!r}] {'>=' if above else '<'} {limit}"
    lines = [
        "groups = {}",
        "for record in records:",
        f"    if {condition}:",
        f"        groups.setdefault(record[{group!r}], []).append(record[{number!r}])",
        f"return {{key: {expression} for key, group in groups.items()}}",
    ]
    bag = rng.sample(keys, 3)
    rows = [(rng.choice(bag), rng.randint(0, 99), rng.randint(0, 70)) for _ in range(rng.randint(2, 4))]
    rows += [(bag[0], rng.randint(0, 99), limit), (bag[1], rng.randint(0, 99), limit - 1)]  # on both sides of the limit
    selected = [row for row in rows if (row[2] >= limit) is above]
    expected = {
        key: summary([row[1] for row in selected if row[0] == key]) for key in dict.fromkeys(row[0] for row in selected)
    }
    given = [dict(zip((group, number, other), row, strict=True)) for row in rows]
    statement = (
        f"From records whose {other} is {'at least' if above else 'below'} {limit}, "
        f"return for every {group} the {words} of {number}."
    )
    checks = (_check(name, [given], expected), _check(name, [[]], {}))
    return SyntheticProblem("records", statement, f"def {name}(records):\n{block(lines)}\n", checks)


def account(rng: Random) -> SyntheticProblem:
    """A class with a limit, a fee and a count of refusals."""
    kind, unit = rng.choice((("Account", "money"), ("Tank", "litres"), ("Battery", "charge"), ("Store", "items")))
    add, take = rng.choice((("deposit", "withdraw"), ("fill", "drain"), ("put", "take"), ("load", "unload")))
    top, fee, start = rng.randint(60, 200), rng.randint(1, 9), rng.randint(0, 50)
    floor = rng.choice((0, -rng.randint(5, 40)))
    refusal = ["        self.refused += 1", "        return False"]
    methods = [
        f"def __init__(self, level={start}):", "    self.level = level", "    self.refused = 0", "",
        f"def {add}(self, amount):", f"    if self.level + amount > {top}:", *refusal,
        "    self.level += amount", "    return True", "",
        f"def {take}(self, amount):", f"    if self.level - amount - {fee} < {floor}:", *refusal,
        f"    self.level -= amount + {fee}", "    return True",
    ]  # fmt: skip
    level, refused, checks = start, 0, [f"thing = {kind}()"]
    for _ in range(rng.randint(3, 6)):
        adding, amount = rng.random() < 0.5, rng.randint(1, 70)
        after = level + amount if adding else level - amount - fee
        done = after <= top if adding else after >= floor
        level, refused = (after, refused) if done else (level, refused + 1)
        checks.append(f"assert thing.{add if adding else take}({amount}) is {done}")
    checks.append(f"assert (thing.level, thing.refused) == {(level, refused)!r}")
    statement = (
        f"Write a class {kind} that holds {unit}, {start} at first. Its method {add} adds an amount unless that would "
        f"exceed {top}; {take} takes an amount and a fee of {fee} unless less than {floor} would be left. Both return "
        "whether it was done; the attribute refused counts what was not."
    )
    return SyntheticProblem("account", statement, f"class {kind}:\n{block(methods)}\n", tuple(checks))


def recurrence(rng: Random) -> SyntheticProblem:
    """The n-th term of a linear recurrence, perhaps taken modulo a number."""
    a, b, c = rng.randint(1, 4), rng.randint(-3, 4), rng.randint(-5, 9)
    first, second, mod = rng.randint(0, 9), rng.randint(0, 9), rng.choice((None, rng.randint(7, 120)))
    name = _name(rng, "nth find compute next", "term value population generation balance")
    step = f"{a} * x + {b} * y + {c}".replace("+ -", "- ")
    step = f"({step}) % {mod}" if mod else step
    lines = [f"y, x = {first}, {second}", "for _ in range(n):", f"    y, x = x, {step}", "return y"]
    if rng.random() < 0.5:
        inner = step.replace("x", f"{name}(n - 1)").replace("y", f"{name}(n - 2)")
        lines = ["if n < 2:", f"    return ({first}, {second})[n]", f"return {inner}"]
    terms = [first, second]
    for _ in range(12):
        value = a * terms[-1] + b * terms[-2] + c
        terms.append(value - mod * (value // mod) if mod else value)
    checks = [_check(name, [n], terms[n]) for n in sorted(rng.sample(range(12), 4))]
    statement = (
        f"A sequence begins with {first} and {second}; every later term is {a} times the one before plus {b} times the "
        f"one before that plus {c}{f', modulo {mod}' if mod else ''}. Return term n, counted from 0."
    )
    return SyntheticProblem("recurrence", statement, f"def {name}(n):\n{block(lines)}\n", tuple(checks))


#: Every generator of problems.
FAMILIES: tuple[Family, ...] = (numbers, text, matrix, bits, rules, records, recurrence, account)
