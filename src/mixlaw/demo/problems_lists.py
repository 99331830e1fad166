"""Synthetic problems on lists of numbers: pipelines, windows, matrices, intervals, searches, top lists."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from random import Random

from mixlaw.demo.problems import SERIES, WORDS, Problem, block, check, integers, listing, name_of

Step = tuple[str, list[str], Callable[[list[int]], list[int]]]  # in words, as statements on `values`, as a function


def _kept(words: str, condition: str, keep: Callable[[int], bool], loop: bool) -> Step:
    lines = [f"values = [x for x in values if {condition}]"]
    if loop:
        lines = ["kept = []", "for x in values:", f"    if {condition}:", "        kept.append(x)", "values = kept"]
    return words, lines, lambda values: list(filter(keep, values))


def _mapped(words: str, expression: str, change: Callable[[int], int], loop: bool) -> Step:
    lines = [f"values = [{expression} for x in values]"]
    if loop:
        lines = ["changed = []", "for x in values:", f"    changed.append({expression})", "values = changed"]
    return words, lines, lambda values: list(map(change, values))


def _step(rng: Random) -> Step:
    k, t, c, n = rng.randint(2, 9), rng.randint(-20, 40), rng.randint(2, 15), rng.randint(1, 4)
    loop = rng.random() < 0.4
    steps: list[Step] = [
        _kept(f"keep the multiples of {k}", f"x % {k} == 0", lambda x: x % k == 0, loop),
        _kept(f"drop the multiples of {k}", f"x % {k} != 0", lambda x: x % k > 0, loop),
        _kept(f"keep what is greater than {t}", f"x > {t}", lambda x: x > t, loop),
        _kept(f"keep what is at most {t}", f"x <= {t}", lambda x: not x > t, loop),
        _kept(f"keep what is from {t} to {t + c}", f"{t} <= x <= {t + c}", lambda x: x in range(t, t + c + 1), loop),
        _mapped(f"add {c} to each", f"x + {c}", lambda x: c + x, loop),
        _mapped(f"multiply each by {c}", f"x * {c}", lambda x: c * x, loop),
        _mapped("square each", "x * x", lambda x: x**2, loop),
        _mapped("take absolute values", "abs(x)", lambda x: max(x, -x), loop),
        _mapped(f"take remainders by {c}", f"x % {c}", lambda x: x - c * (x // c), loop),
        _mapped(f"replace what is below {t} by {t}", f"max(x, {t})", lambda x: t if x < t else x, loop),
        ("sort from small to large", ["values = sorted(values)"], sorted),
        ("reverse the order", ["values = values[::-1]"], lambda v: list(reversed(v))),
        (f"leave out the first {n}", [f"values = values[{n}:]"], lambda v: [x for i, x in enumerate(v) if i >= n]),
        (f"take the last {n}", [f"values = values[-{n}:]"], lambda v: v[max(0, len(v) - n) :]),
        (f"take every {n + 1}th, from the first on", [f"values = values[::{n + 1}]"], lambda v: _every(v, n + 1)),
        ("drop repeats, keeping first ones", ["values = list(dict.fromkeys(values))"], _unique),
        ("take running sums", _RUNNING, lambda v: [sum(v[: i + 1]) for i in range(len(v))]),
        ("take differences of neighbours", ["values = [b - a for a, b in zip(values, values[1:])]"], _differences),
    ]
    return rng.choice(steps)


_RUNNING = ["total, sums = 0, []", "for x in values:", "    total += x", "    sums.append(total)", "values = sums"]


def _every(values: list[int], n: int) -> list[int]:
    return [x for i, x in enumerate(values) if i % n == 0]


def _unique(values: list[int]) -> list[int]:
    return [x for i, x in enumerate(values) if x not in values[:i]]


def _differences(values: list[int]) -> list[int]:
    return [values[i] - values[i - 1] for i in range(1, len(values))]


def pipeline(rng: Random) -> Problem:
    """Two to four steps on a list, then perhaps a number."""
    steps = [_step(rng) for _ in range(rng.randint(2, 4))]
    endings: list[tuple[str, str, Callable[[list[int]], object]]] = [
        ("return the list", "values", list),
        ("return the sum", "sum(values)", lambda v: sum(v[::-1])),
        ("return how many are left", "len(values)", lambda v: sum(1 for _ in v)),
        (
            "return the largest, or None if nothing is left",
            "max(values, default=None)",
            lambda v: sorted(v)[-1] if v else None,
        ),
    ]
    words, expression, finish = rng.choice(endings)
    name = f"{rng.choice(('process', 'reduce', 'refine', 'prepare', 'digest'))}_{rng.choice(SERIES)}"
    lines = [line for _, source, _ in steps for line in source]
    checks = []
    for _ in range(rng.randint(2, 4)):
        values = integers(rng, -30, 60, 3, 9)
        left = values
        for _, _, apply in steps:
            left = apply(left)
        checks.append(check(name, [values], finish(left)))
    told = f"Given a list of integers, {', then '.join(step[0] for step in steps)}; {words}."
    return Problem("pipeline", told, f"def {name}(values):\n{block(lines)}\n    return {expression}\n", tuple(checks))


def window(rng: Random) -> Problem:
    """Windows of fixed width whose sum, spread or largest value passes a threshold."""
    width, limit, noun = rng.randint(2, 5), rng.randint(5, 80), rng.choice(SERIES)
    kinds: list[tuple[str, str, Callable[[list[int]], int]]] = [
        ("sum", "sum(part)", lambda w: sum(reversed(w))),
        ("largest value", "max(part)", lambda w: sorted(w)[-1]),
        ("smallest value", "min(part)", lambda w: sorted(w)[0]),
        ("spread (largest minus smallest)", "max(part) - min(part)", lambda w: sorted(w)[-1] - sorted(w)[0]),
    ]
    words, expression, measure = rng.choice(kinds)
    sign, symbol = rng.choice((("more than", ">"), ("less than", "<")))
    first = rng.random() < 0.5
    name = f"{'first' if first else 'count'}_window_of_{noun}"
    lines = [f"for start in range(len({noun}) - {width} + 1):", f"    part = {noun}[start:start + {width}]"]
    lines += [f"    if {expression} {symbol} {limit}:"]
    lines = (
        [*lines, "        return start", "return -1"]
        if first
        else ["count = 0", *lines, "        count += 1", "return count"]
    )
    checks = []
    for _ in range(3):
        values = integers(rng, 0, 40, width, width + 7)
        sizes = [measure(values[i : i + width]) for i in range(len(values)) if i + width <= len(values)]
        hits = [i for i, size in enumerate(sizes) if (limit < size if symbol == ">" else size < limit)]
        checks.append(check(name, [values], (hits[0] if hits else -1) if first else len(hits)))
    asked = "the index at which the first such window begins, or -1" if first else "how many such windows there are"
    told = f"Look at all runs of {width} neighbouring {noun} whose {words} is {sign} {limit}. Return {asked}."
    return Problem("window", told, f"def {name}({noun}):\n{block(lines)}\n", tuple(checks))


Grid = list[list[int]]
GRID_ENDINGS: list[tuple[str, str, Callable[[Grid], object]]] = [
    ("return the matrix", "rows", list),
    ("return the sums of the rows", "[sum(row) for row in rows]", lambda g: list(map(sum, g))),
    (
        "return the largest entry of each column",
        "[max(column) for column in zip(*rows)]",
        lambda g: _largest(_turned(g)),
    ),
    ("return the sum of the first column", "sum(row[0] for row in rows)", lambda g: sum(_turned(g)[0])),
]


def _turned(grid: Grid) -> Grid:
    return [[row[j] for row in grid] for j in range(len(grid[0]))]


def _by_sum(grid: Grid) -> Grid:
    return [grid[i] for _, i in sorted((sum(row), i) for i, row in enumerate(grid))]


def _largest(grid: Grid) -> list[int]:
    return [sorted(row)[-1] for row in grid]


def _entries(grid: Grid, change: Callable[[int, int, int], int]) -> Grid:
    return [[change(i, j, grid[i][j]) for j in range(len(grid[i]))] for i in range(len(grid))]


def _grid_changes(rng: Random) -> list[tuple[str, str, Callable[[Grid], Grid]]]:
    c, m = rng.randint(2, 9), rng.randint(3, 11)
    diagonal = f"[[x + {c} * (i == j) for j, x in enumerate(row)] for i, row in enumerate(rows)]"
    scaled, reduced = f"[[{c} * x for x in row] for row in rows]", f"[[x % {m} for x in row] for row in rows]"
    return [
        ("transpose it", "[list(column) for column in zip(*rows)]", _turned),
        ("mirror it left to right", "[row[::-1] for row in rows]", lambda g: _turned(list(reversed(_turned(g))))),
        ("mirror it top to bottom", "rows[::-1]", lambda g: list(reversed(g))),
        (f"multiply every entry by {c}", scaled, lambda g: _entries(g, lambda i, j, x: x * c)),
        (f"take every entry modulo {m}", reduced, lambda g: _entries(g, lambda i, j, x: x - m * (x // m))),
        ("sort every row", "[sorted(row) for row in rows]", lambda g: [sorted(row, reverse=True)[::-1] for row in g]),
        ("sort the rows by their sums", "sorted(rows, key=sum)", _by_sum),
        (f"add {c} to the diagonal", diagonal, lambda g: _entries(g, lambda i, j, x: x + c if i == j else x)),
    ]


def matrix(rng: Random) -> Problem:
    """Two or three changes of a matrix, then perhaps a summary."""
    chosen = rng.sample(_grid_changes(rng), rng.randint(2, 3))
    words, expression, finish = rng.choice(GRID_ENDINGS)
    name = name_of(rng, "rework turn reshape change", "grid board table matrix image")
    lines = [f"rows = {source}" for _, source, _ in chosen]
    checks = []
    for _ in range(2):
        width = rng.randint(2, 4)
        left = grid = [[rng.randint(0, 20) for _ in range(width)] for _ in range(rng.randint(2, 3))]
        for _, _, apply in chosen:
            left = apply(left)
        checks.append(check(name, [grid], finish(left)))
    told = f"A matrix is given as a list of rows. {', then '.join(w for w, _, _ in chosen).capitalize()}; {words}."
    return Problem("matrix", told, f"def {name}(rows):\n{block(lines)}\n    return {expression}\n", tuple(checks))


def intervals(rng: Random) -> Problem:
    """Merge intervals that lie within a gap of each other; return them, their number, or the ground covered."""
    gap, low, high = rng.randint(0, 4), 0, rng.choice((30, 50, 80))
    noun = rng.choice(("shifts", "bookings", "meetings", "segments", "roadworks", "ranges"))
    endings: list[tuple[str, str, Callable[[list[tuple[int, int]]], object]]] = [
        ("the merged list", "merged", list),
        ("how many remain", "len(merged)", len),
        (
            "the total length of what remains",
            "sum(end - start for start, end in merged)",
            lambda m: sum(e - s for s, e in m),
        ),
        (
            "the longest that remains",
            "max(merged, key=lambda pair: pair[1] - pair[0])",
            lambda m: sorted(m, key=lambda p: (p[0] - p[1], p[0]))[0],
        ),
    ]
    words, expression, finish = rng.choice(endings)
    source = f"""def merge_{noun}({noun}):
    merged = []
    for start, end in sorted({noun}):
        if merged and start <= merged[-1][1]{f" + {gap}" if gap else ""}:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return {expression}
"""
    checks = []
    for _ in range(3):
        starts = integers(rng, low, high, 2, 6)
        pairs = [(start, start + rng.randint(1, 12)) for start in starts]
        checks.append(check(f"merge_{noun}", [pairs], finish(_merged(pairs, gap))))
    near = f"overlap, touch or lie at most {gap} apart" if gap else "overlap or touch"
    told = f"Given {noun} as pairs (start, end), join those that {near}, in order of their start. Return {words}."
    return Problem("intervals", told, source, tuple(checks))


def _merged(pairs: list[tuple[int, int]], gap: int) -> list[tuple[int, int]]:
    """Join pairs two by two until nothing changes."""
    found = set(pairs)
    while True:
        near = ((a, b) for a in found for b in found if a != b and a[0] <= b[0] <= a[1] + gap)
        pair = next(near, None)
        if pair is None:
            return sorted(found)
        found = (found - set(pair)) | {(pair[0][0], max(pair[0][1], pair[1][1]))}


def ranking(rng: Random) -> Problem:
    """The most or least frequent words, with a rule for ties and for which words count."""
    top, shortest, often = rng.randint(1, 4), rng.randint(3, 7), rng.random() < 0.6
    ties = rng.choice(
        ("alphabetical order", "reverse alphabetical order", "shorter words first, then alphabetical order")
    )
    keys = {"alphabetical order": "word", "reverse alphabetical order": "tuple(-ord(c) for c in word)"}
    key = keys.get(ties, "(len(word), word)")
    name = f"{'most' if often else 'least'}_frequent_{rng.choice(('words', 'tags', 'names', 'terms', 'labels'))}"
    source = f"""def {name}(words):
    counts = {{}}
    for word in words:
        if len(word) >= {shortest}:
            counts[word] = counts.get(word, 0) + 1
    ranked = sorted(counts, key=lambda word: ({"-" if often else ""}counts[word], {key}))
    return ranked[:{top}]
"""
    checks = []
    for _ in range(2):
        bag = rng.sample(WORDS, 4)
        words = [rng.choice(bag) for _ in range(rng.randint(5, 10))]
        counts = Counter(word for word in words if len(word) >= shortest)
        ranked = sorted(_in_order(counts, ties), key=lambda word: counts[word] * (-1 if often else 1))
        checks.append(check(name, [words], ranked[:top]))
    told = (
        f"Return up to {top} of the {'most' if often else 'least'} frequent words of at least {shortest} letters, "
        f"ties in {ties}."
    )
    return Problem("ranking", told, source, tuple(checks))


def _in_order(words: Iterable[str], ties: str) -> list[str]:
    if ties == "alphabetical order":
        return sorted(words)
    if ties == "reverse alphabetical order":
        return sorted(words, key=lambda word: [-ord(letter) for letter in word])
    return sorted(sorted(words), key=len)


def selection(rng: Random) -> Problem:
    """Positions or values that satisfy two conditions at once."""
    a, b, t = rng.randint(2, 7), rng.randint(2, 7), rng.randint(0, 40)
    tests: list[tuple[str, str, Callable[[int, int], bool]]] = [
        (f"divisible by {a}", f"value % {a} == 0", lambda i, v: v % a == 0),
        (f"larger than {t}", f"value > {t}", lambda i, v: t < v),
        (f"at an index divisible by {b}", f"index % {b} == 0", lambda i, v: i % b == 0),
        (f"no further than {a + b} from {t}", f"abs(value - {t}) <= {a + b}", lambda i, v: t - a - b <= v <= t + a + b),
        (f"larger than {a} times its index", f"value > {a} * index", lambda i, v: v - a * i > 0),
        (f"written with the digit {b}", f"'{b}' in str(value)", lambda i, v: b in [int(d) for d in str(abs(v))]),
    ]
    chosen, either, noun = rng.sample(tests, 2), rng.random() < 0.4, rng.choice(SERIES)
    asked, item = rng.choice((("indices", "index"), ("values", "value")))
    name = f"{rng.choice(('pick', 'select', 'find', 'choose'))}_{noun}"
    joined = f"{chosen[0][1]} {'or' if either else 'and'} {chosen[1][1]}"
    source = f"def {name}({noun}):\n    return [{item} for index, value in enumerate({noun}) if {joined}]\n"
    checks = []
    for _ in range(3):
        values = integers(rng, 0, 60, 4, 9)
        hits = [(i, v) for i, v in enumerate(values) if (any if either else all)(test(i, v) for _, _, test in chosen)]
        checks.append(check(name, [values], [pair[asked == "values"] for pair in hits]))
    told = f"Return the {asked} of those {noun} that are {(' or ' if either else ' and ').join(t[0] for t in chosen)}."
    return Problem("selection", told, source, tuple(checks))


def bins(rng: Random) -> Problem:
    """How many values fall between given edges."""
    edges, noun = sorted(rng.sample(range(1, 60), rng.randint(2, 5))), rng.choice(SERIES)
    labels = rng.sample(("low", "mid", "high", "far", "top", "rare", "base"), len(edges) + 1)
    name = f"group_{noun}"
    branches = [
        f"    {'if' if i == 0 else 'elif'} x < {edge}:\n        tally[{label!r}] += 1"
        for i, (edge, label) in enumerate(zip(edges, labels, strict=False))
    ]
    lines = [
        f"tally = {dict.fromkeys(labels, 0)!r}",
        f"for x in {noun}:",
        *branches,
        "    else:",
        f"        tally[{labels[-1]!r}] += 1",
        "return tally",
    ]
    checks = []
    for _ in range(2):
        values = integers(rng, 0, 65, 4, 10)
        ends = [-1, *edges, 10**9]
        counts = {
            label: sum(a <= x < b for x in values) for label, a, b in zip(labels, ends[:-1], ends[1:], strict=True)
        }
        checks.append(check(name, [values], counts))
    told = (
        f"Count {noun} by size: below {listing(edges)} they are called {listing(labels[:-1])} in turn, and from "
        f"{edges[-1]} on {labels[-1]}. Return a dictionary from name to count, zeros included."
    )
    return Problem("bins", told, f"def {name}({noun}):\n{block(lines)}\n", tuple(checks))


FAMILIES = (pipeline, window, matrix, intervals, ranking, selection, bins)
