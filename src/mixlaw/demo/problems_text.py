"""Synthetic problems on text: pipelines, codes that must obey rules, ciphers, small formats, tables, word counts."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from random import Random

from mixlaw.demo.problems import LETTERS, PEOPLE, WORDS, Problem, block, check, listing, name_of, phrase

Change = tuple[str, str, Callable[[str], str]]  # in words, as an expression of `text`, as a function


def _changes(rng: Random) -> list[Change]:
    old, new = rng.sample(LETTERS, 2)
    gone, n, sign = "".join(sorted(rng.sample("aeioulnrst", 3))), rng.randint(1, 4), rng.choice("-_/+*.")
    return [
        ("put it in lower case", "text.lower()", lambda s: "".join(c.lower() for c in s)),
        ("put it in upper case", "text.upper()", lambda s: "".join(c.upper() for c in s)),
        ("reverse it", "text[::-1]", lambda s: "".join(reversed(s))),
        ("swap upper and lower case", "text.swapcase()", _swapped),
        ("reverse the order of its words", "' '.join(text.split()[::-1])", lambda s: " ".join(reversed(s.split()))),
        ("sort its words", "' '.join(sorted(text.split()))", lambda s: " ".join(sorted(s.split(" ")))),
        ("reverse every word in place", "' '.join(word[::-1] for word in text.split())", _each_reversed),
        (f"replace {old!r} by {new!r}", f"text.replace({old!r}, {new!r})", lambda s: new.join(s.split(old))),
        (
            f"leave out the letters {listing(gone)}",
            f"''.join(c for c in text if c not in {gone!r})",
            lambda s: s.translate({ord(c): None for c in gone}),
        ),
        (
            f"keep only every {n + 1}th character, from the first on",
            f"text[::{n + 1}]",
            lambda s: "".join(c for i, c in enumerate(s) if i % (n + 1) == 0),
        ),
        (
            f"keep the first {n + 2} letters of every word",
            f"' '.join(word[:{n + 2}] for word in text.split())",
            lambda s: " ".join(w[0 : n + 2] for w in s.split(" ") if w),
        ),
        (f"join its words with {sign!r}", f"{sign!r}.join(text.split())", lambda s: s.strip().replace(" ", sign)),
        (f"put {sign!r} before and after it", f"{sign!r} + text + {sign!r}", lambda s: f"{sign}{s}{sign}"),
        (
            f"double every {old!r}",
            f"text.replace({old!r}, {old * 2!r})",
            lambda s: "".join(c * (1 + (c == old)) for c in s),
        ),
    ]


def _swapped(text: str) -> str:
    return "".join(c.lower() if c.isupper() else c.upper() for c in text)


def _each_reversed(text: str) -> str:
    return " ".join("".join(reversed(word)) for word in text.split())


def text_pipeline(rng: Random) -> Problem:
    """Two to four changes of a text."""
    changes = rng.sample(_changes(rng), rng.randint(2, 4))
    changes.sort(key=lambda change: "word" not in change[0])  # words first: later steps may do away with spaces
    name = name_of(rng, "format encode clean mask style", "title name label line note")
    chained = rng.random() < 0.3
    lines = [f"text = {expression}" for _, expression, _ in changes]
    body = block([*lines, "return text"]) if not chained else block([*lines[:-1], f"return {changes[-1][1]}"])
    checks = []
    for _ in range(rng.randint(2, 3)):
        text = phrase(rng, 2, 4)
        left = text
        for _, _, apply in changes:
            left = apply(left)
        checks.append(check(name, [text], left))
    told = f"Take a text; {', then '.join(words for words, _, _ in changes)}. Return the result."
    return Problem("text_pipeline", told, f"def {name}(text):\n{body}\n", tuple(checks))


def rules(rng: Random) -> Problem:
    """Whether a code obeys three or four rules."""
    low, prefix, banned = rng.randint(4, 7), rng.choice("ABCDEFGHJK"), rng.choice("OIQZSL")
    high, digits, mod = low + rng.randint(1, 5), rng.randint(1, 3), rng.randint(2, 5)
    known: list[tuple[str, str, Callable[[str], bool]]] = [
        (f"has {low} to {high} characters", f"{low} <= len(code) <= {high}", lambda s: len(s) in range(low, high + 1)),
        (f"begins with {prefix!r}", f"code.startswith({prefix!r})", lambda s: s[:1] == prefix),
        (f"does not contain {banned!r}", f"{banned!r} not in code", lambda s: s.count(banned) == 0),
        (
            f"has at least {digits} digits",
            f"sum(c.isdigit() for c in code) >= {digits}",
            lambda s: len([c for c in s if c in "0123456789"]) >= digits,
        ),
        (
            "has no two equal neighbours",
            "all(a != b for a, b in zip(code, code[1:]))",
            lambda s: len(list(groupby(s))) == len(s),
        ),
        ("ends with a digit", "code[-1:].isdigit()", lambda s: s != "" and s[-1] in "0123456789"),
        (
            f"has a digit sum divisible by {mod}",
            f"sum(int(c) for c in code if c.isdigit()) % {mod} == 0",
            lambda s: sum("0123456789".find(c) for c in s if c in "0123456789") % mod == 0,
        ),
        (
            "repeats no letter",
            "len(set(filter(str.isalpha, code))) == sum(map(str.isalpha, code))",
            lambda s: all(s.count(c) == 1 for c in s if c in LETTERS.upper()),
        ),
    ]
    chosen = rng.sample(known, rng.randint(3, 4))
    name = f"is_valid_{rng.choice(('code', 'ticket', 'plate', 'serial', 'voucher', 'badge'))}"
    early = rng.random() < 0.5
    if early:
        lines = [line for _, test, _ in chosen for line in (f"if not ({test}):", "    return False")]
        body = block([*lines, "return True"])
    else:
        body = block(["return (", *(f"    {'and ' if i else ''}{test}" for i, (_, test, _) in enumerate(chosen)), ")"])
    checks = []
    for _ in range(4):
        text = prefix * (rng.random() < 0.7) + "".join(
            rng.choice("ABCDEFGHJKOIQZSL0123456789") for _ in range(rng.randint(low - 1, high))
        )
        checks.append(check(name, [text], all(test(text) for _, _, test in chosen)))
    noun, wanted = name.removeprefix("is_valid_"), listing([words for words, _, _ in chosen])
    told = f"A {noun} is valid if it {wanted}. Decide whether a text is valid."
    return Problem("rules", told, f"def {name}(code):\n{body}\n", tuple(checks))


def cipher(rng: Random) -> Problem:
    """Shift letters by an amount that depends on their position."""
    shift, step, back = rng.randint(1, 25), rng.choice((0, 0, 1, 2, 3, 5)), rng.random() < 0.4
    alphabet = "".join(rng.sample(LETTERS, 26)) if rng.random() < 0.5 else LETTERS
    name = f"{'decode' if back else 'encode'}_{rng.choice(('message', 'secret', 'signal', 'letter', 'word'))}"
    amount = f"{shift} + {step} * index" if step else str(shift)
    source = f"""def {name}(text):
    alphabet = {alphabet!r}
    result = []
    for index, letter in enumerate(text):
        if letter in alphabet:
            place = alphabet.index(letter) {"-" if back else "+"} {f"({amount})" if step else amount}
            letter = alphabet[place % 26]
        result.append(letter)
    return ''.join(result)
"""
    checks = []
    for _ in range(3):
        text = phrase(rng, 1, 3).lower()
        ring = (alphabet[::-1] if back else alphabet) * 2  # a shift back is a shift forth in the mirrored alphabet
        moved = [ring[ring.index(c) + (shift + step * i) % 26] if c in ring else c for i, c in enumerate(text)]
        checks.append(check(name, [text], "".join(moved)))
    order = "the alphabet" if alphabet == LETTERS else f"the ring of letters {alphabet}"
    extra = f", and {step} more for every place from the left" if step else ""
    way = "back" if back else "forward"
    told = f"Move each letter {way} in {order} by {shift}{extra}, going round at the end. Leave other characters alone."
    return Problem("cipher", told, source, tuple(checks))


def fields(rng: Random) -> Problem:
    """Read a line of named fields with odd separators and turn some of them into numbers."""
    between, equals = rng.choice(((";", "="), (",", ":"), ("|", "="), ("&", "="), (" / ", ":"), ("; ", "->")))
    names = rng.sample(("width", "height", "depth", "speed", "weight", "count", "price", "level"), rng.randint(2, 3))
    label, missing = rng.choice(("name", "owner", "place", "kind")), rng.randint(-1, 9)
    function = f"parse_{rng.choice(('record', 'entry', 'line', 'header', 'options'))}"
    source = f"""def {function}(line):
    result = {{}}
    for field in line.split({between!r}):
        key, _, value = field.partition({equals!r})
        key = key.strip()
        if key in {tuple(names)!r}:
            result[key] = int(value)
        elif key:
            result[key] = value.strip()
    for key in {tuple(names)!r}:
        result.setdefault(key, {missing})
    return result
"""
    checks = []
    for _ in range(2):
        given = {name: rng.randint(0, 99) for name in names if rng.random() < 0.7}
        facts: dict[str, int | str] = {label: rng.choice(PEOPLE if label != "kind" else WORDS), **given}
        line = between.join(f"{key}{equals}{value}" for key, value in facts.items())
        checks.append(check(function, [line], {**dict.fromkeys(names, missing), **facts}))
    told = (
        f"A line holds fields separated by {between!r}, each a key and a value around {equals!r}. Return a dictionary; "
        f"{listing(names)} are integers, {missing} where absent, and other values are text."
    )
    return Problem("fields", told, source, tuple(checks))


def table(rng: Random) -> Problem:
    """Lay out pairs of a name and a number in columns."""
    width, digits, fill, edge = (
        rng.randint(8, 14),
        rng.randint(4, 8),
        rng.choice(" .-_"),
        rng.choice(("|", ":", "", "||")),
    )
    right, total = rng.random() < 0.5, rng.random() < 0.4
    name = name_of(rng, "format print show render", "table bill report scores stock")
    pad = "rjust" if right else "ljust"
    lines = [
        "lines = []",
        "for name, amount in rows:",
        f"    left = name.{pad}({width}, {fill!r})",
        f"    lines.append(left + {edge!r} + str(amount).rjust({digits}))",
    ]
    if total:
        lines += [
            "total = sum(amount for _, amount in rows)",
            f"lines.append('total'.{pad}({width}, {fill!r}) + {edge!r} + str(total).rjust({digits}))",
        ]
    rows = [(rng.choice(PEOPLE), rng.randint(1, 999)) for _ in range(rng.randint(2, 3))]
    shown = [*rows, ("total", sum(amount for _, amount in rows))] if total else rows
    expected = [f"{text:{fill}{'>' if right else '<'}{width}}{edge}{amount:>{digits}}" for text, amount in shown]
    told = (
        f"Turn pairs of name and amount into lines: the name on {width} places, {'right' if right else 'left'}-aligned "
        f"and filled up with {fill!r}, then {edge!r}, then the amount right-aligned on {digits} places."
        f"{' A last line gives the total.' if total else ''} Return the list of lines."
    )
    return Problem(
        "table",
        told,
        f"def {name}(rows):\n{block([*lines, 'return lines'])}\n",
        (
            check(name, [rows], expected),
            check(
                name,
                [rows[:1]],
                expected[:1] if not total else [expected[0], _total(rows[0][1], width, digits, fill, edge, right)],
            ),
        ),
    )


def _total(amount: int, width: int, digits: int, fill: str, edge: str, right: bool) -> str:
    return f"{'total':{fill}{'>' if right else '<'}{width}}{edge}{amount:>{digits}}"


def run_lengths(rng: Random) -> Problem:
    """Run-length coding with a least run and a sign of its own."""
    least, sign, unpack = rng.randint(1, 4), rng.choice("*^x:~"), rng.random() < 0.4
    name = f"{'unpack' if unpack else 'pack'}_{rng.choice(('row', 'pixels', 'bits', 'track', 'strip'))}"
    if unpack:
        source = f"""def {name}(pieces):
    result = ''
    for piece in pieces:
        letter, _, count = piece.partition({sign!r})
        result += letter * int(count or 1)
    return result
"""
        told = f"Every piece is a letter, perhaps followed by {sign!r} and how often it stands. Write all letters out."
    else:
        source = f"""def {name}(text):
    pieces, start = [], 0
    for index in range(1, len(text) + 1):
        if index == len(text) or text[index] != text[start]:
            count = index - start
            if count >= {least + 1}:
                pieces.append(text[start] + {sign!r} + str(count))
            else:
                pieces.extend(text[start] * count)
            start = index
    return pieces
"""
        told = (
            f"Split a text into pieces: a run of {least + 1} or more equal letters becomes the letter, {sign!r} and "
            "the length, other letters stand alone."
        )
    checks = []
    for _ in range(3):
        text = "".join(rng.choice("abcd") * rng.choice((1, 1, 2, 3, 5)) for _ in range(rng.randint(2, 5)))
        runs = [(letter, len(list(run))) for letter, run in groupby(text)]
        pieces = [piece for letter, n in runs for piece in ([f"{letter}{sign}{n}"] if n > least else [letter] * n)]
        checks.append(check(name, [pieces], text) if unpack else check(name, [text], pieces))
    return Problem("run_lengths", told, source, tuple(checks))


FAMILIES = (text_pipeline, rules, cipher, fields, table, run_lengths)
