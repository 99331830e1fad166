"""Synthetic problems on numbers: recurrences, tariffs, mixed units, digits, ways to add up, calendars, bits."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise, product
from random import Random

from mixlaw.demo.problems import Problem, block, check, listing, name_of


def recurrence(rng: Random) -> Problem:
    """The n-th term of a linear recurrence, perhaps taken modulo a number."""
    a, b, c = rng.randint(1, 4), rng.randint(-3, 4), rng.randint(-5, 9)
    first, second, mod = rng.randint(0, 9), rng.randint(0, 9), rng.choice((None, rng.randint(7, 120)))
    name = rng.choice(("term", "sequence", "nth_value", "population", "generation", "balance_after"))
    step = f"{a} * x + {b} * y + {c}".replace("+ -", "- ")
    step = f"({step}) % {mod}" if mod else step
    if rng.random() < 0.5:
        lines = [f"y, x = {first}, {second}", "for _ in range(n):", f"    y, x = x, {step}", "return y"]
    else:
        inner = step.replace("x", f"{name}(n - 1)").replace("y", f"{name}(n - 2)")
        lines = ["if n < 2:", f"    return ({first}, {second})[n]", f"return {inner}"]
    terms = [first, second]
    for _ in range(12):
        value = a * terms[-1] + b * terms[-2] + c
        terms.append(value - mod * (value // mod) if mod else value)
    checks = [check(name, [n], terms[n]) for n in sorted(rng.sample(range(12), 4))]
    told = (
        f"A sequence begins with {first} and {second}; every later term is {a} times the one before plus {b} times the "
        f"one before that plus {c}{f', modulo {mod}' if mod else ''}. Return term n, counted from 0."
    )
    return Problem("recurrence", told, f"def {name}(n):\n{block(lines)}\n", tuple(checks))


def tariff(rng: Random) -> Problem:
    """A charge by brackets, each with its own price per unit."""
    edges = sorted(rng.sample(range(5, 120, 5), rng.randint(1, 3)))
    rates = [rng.randint(1, 30) for _ in range(len(edges) + 1)]
    fixed, cap = rng.choice((0, rng.randint(5, 90))), rng.choice((None, rng.randint(400, 2500)))
    unit, noun = rng.choice(
        (("litre", "water"), ("minute", "call"), ("kilometre", "ride"), ("kilowatt-hour", "power"), ("page", "print"))
    )
    name = f"{noun}_charge"
    lines = [f"total, left = {fixed}, amount"]
    for edge, before, rate in zip(reversed(edges), [*reversed(edges[:-1]), 0], reversed(rates), strict=False):
        lines += [f"if left > {edge}:", f"    total += (left - {edge}) * {rate}", f"    left = {edge}"]
        del before
    lines += [f"total += left * {rates[0]}", f"return min(total, {cap})" if cap else "return total"]

    def charge(amount: int) -> int:
        price = [rates[sum(unit_number > edge for edge in edges)] for unit_number in range(1, amount + 1)]
        return min(fixed + sum(price), cap or 10**12)

    checks = [check(name, [amount], charge(amount)) for amount in sorted(rng.sample(range(0, 180), 4))]
    parts = [f"{rate} cents up to {edge}" for edge, rate in zip(edges, rates, strict=False)]
    told = (
        f"A {unit} of {noun} costs {', '.join(parts)}, and {rates[-1]} cents beyond"
        f"{f', on top of {fixed} cents' if fixed else ''}{f', but never more than {cap} cents in all' if cap else ''}. "
        f"Return the charge in cents for a whole amount."
    )
    return Problem("tariff", told, f"def {name}(amount):\n{block(lines)}\n", tuple(checks))


def units(rng: Random) -> Problem:
    """Write an amount in units that contain one another, or read it back."""
    names = rng.sample(
        ("crate", "box", "tray", "bag", "pallet", "pack", "reel", "case", "drum", "sheet"), rng.randint(2, 4)
    )
    sizes = [rng.randint(2, 30) for _ in names[1:]]
    back = rng.random() < 0.4
    name = f"{'from' if back else 'to'}_{names[0]}s"
    contained = [
        f"a {outer} holds {size} {inner}s" for outer, inner, size in zip(names, names[1:], sizes, strict=False)
    ]
    worth = [1]
    for size in reversed(sizes):
        worth.insert(0, worth[0] * size)
    if back:
        lines = [f"{', '.join(names)} = amounts", f"total = {names[0]}"]
        lines += [f"total = total * {size} + {inner}" for size, inner in zip(sizes, names[1:], strict=True)]
        asked = f"Given how many of {listing(names)} there are, return the number of {names[-1]}s"
        body = block([*lines, "return total"])
    else:
        lines = [
            f"amount, {inner} = divmod(amount, {size})"
            for size, inner in zip(reversed(sizes), reversed(names[1:]), strict=True)
        ]
        asked = f"Write a number of {names[-1]}s as a tuple of {listing(names)}, as few pieces as possible"
        body = block([*lines, f"return ({', '.join(['amount', *names[1:]])})"])
    checks = []
    for _ in range(3):
        total = rng.randint(0, 3 * worth[0])
        left, amounts = total, []
        for value in worth:
            amounts.append(left // value)
            left -= amounts[-1] * value
        checks.append(check(name, [tuple(amounts)], total) if back else check(name, [total], tuple(amounts)))
    told = f"{listing(contained).capitalize()}. {asked}."
    return Problem("units", told, f"def {name}({'amounts' if back else 'amount'}):\n{body}\n", tuple(checks))


def digits(rng: Random) -> Problem:
    """Numbers whose digits in some base have a property: count them, sum them, or find the next."""
    base, k, r = rng.choice((5, 6, 7, 8, 9, 10, 10, 10)), rng.randint(2, 7), rng.randint(0, 1)
    rare = rng.randint(0, base - 1)
    kinds: list[tuple[str, str, Callable[[list[int]], bool]]] = [
        (f"digits add up to {r} modulo {k}", f"sum(digits) % {k} == {r}", lambda d: (sum(d) - r) % k == 0),
        (f"digits contain {rare}", f"{rare} in digits", lambda d: d.count(rare) > 0),
        ("digits are all different", "len(set(digits)) == len(digits)", lambda d: all(d.count(x) == 1 for x in d)),
        (
            "digits never fall from left to right",
            "digits == sorted(digits, reverse=True)",
            lambda d: all(x >= y for x, y in pairwise(d)),
        ),
        (
            "digits read the same backwards",
            "digits == digits[::-1]",
            lambda d: all(d[i] == d[-1 - i] for i in range(len(d))),
        ),
        (
            f"digits are {k} or fewer apart, largest to smallest",
            f"max(digits) - min(digits) <= {k}",
            lambda d: sorted(d)[-1] <= sorted(d)[0] + k,
        ),
    ]
    words, test, holds = rng.choice(kinds)
    asked = rng.choice(("count", "total", "next"))
    name = {"count": "count_numbers", "total": "total_of_numbers", "next": "next_number"}[asked]
    split = ["digits = []", "while number:", f"    digits.append(number % {base})", f"    number //= {base}"]
    helper = f"def matches(number):\n{block([*split, f'return {test}'])}\n\n\n"
    bodies = {
        "count": "    return sum(matches(number) for number in range(1, limit + 1))\n",
        "total": "    return sum(number for number in range(1, limit + 1) if matches(number))\n",
        "next": "    number = limit + 1\n    while not matches(number):\n        number += 1\n    return number\n",
    }

    def low_first(number: int) -> list[int]:
        return [number % base, *low_first(number // base)] if number else []

    hits = [number for number in range(1, 1500) if holds(low_first(number))]
    checks = []
    for limit in sorted(rng.sample(range(5, 90), 3)):
        upto = [number for number in hits if number <= limit]
        later = next(number for number in hits if number > limit)
        checks.append(check(name, [limit], {"count": len(upto), "total": sum(upto), "next": later}[asked]))
    goal = {
        "count": "how many numbers from 1 to limit have this property",
        "total": "the sum of the numbers from 1 to limit with this property",
        "next": "the smallest number above limit with this property",
    }[asked]
    told = f"Look at numbers whose {words}, written in base {base}. Return {goal}."
    return Problem("digits", told, f"{helper}def {name}(limit):\n{bodies[asked]}", tuple(checks))


def ways(rng: Random) -> Problem:
    """Ways to make a sum from parts, or the fewest parts."""
    parts = sorted(rng.sample(range(1, 15), rng.randint(2, 4)))
    kind, noun = (
        rng.choice(("ordered", "unordered", "fewest")),
        rng.choice(("coins", "stamps", "steps", "tiles", "weights")),
    )
    name = f"{'fewest' if kind == 'fewest' else 'ways_with'}_{noun}"
    bodies = {
        "ordered": [
            "ways = [1] + [0] * total",
            "for goal in range(1, total + 1):",
            f"    for part in {parts}:",
            "        if part <= goal:",
            "            ways[goal] += ways[goal - part]",
            "return ways[total]",
        ],
        "unordered": [
            "ways = [1] + [0] * total",
            f"for part in {parts}:",
            "    for goal in range(part, total + 1):",
            "        ways[goal] += ways[goal - part]",
            "return ways[total]",
        ],
        "fewest": [
            "best = {0: 0}",
            "for goal in range(1, total + 1):",
            f"    options = [best[goal - part] for part in {parts} if goal - part in best]",
            "    if options:",
            "        best[goal] = min(options) + 1",
            "return best.get(total, -1)",
        ],
    }

    def answer(total: int) -> int:
        counts = product(*(range(total // part + 1) for part in parts))
        sums = [chosen for chosen in counts if sum(n * part for n, part in zip(chosen, parts, strict=True)) == total]
        if kind == "fewest":
            return min(map(sum, sums), default=-1)
        return len(sums) if kind == "unordered" else sum(map(_orders, sums))

    checks = [check(name, [total], answer(total)) for total in sorted(rng.sample(range(1, 22), 4))]
    goals = {
        "ordered": "in how many orders parts can be laid one after another to reach the total",
        "unordered": "in how many ways the total can be made when order does not matter",
        "fewest": "the fewest parts that make the total, or -1 if none do",
    }
    told = f"There are {noun} of {listing(parts)}, as many of each as needed. Return {goals[kind]}."
    return Problem("ways", told, f"def {name}(total):\n{block(bodies[kind])}\n", tuple(checks))


def _orders(counts: tuple[int, ...]) -> int:
    """Multinomial coefficient."""
    result, placed = 1, 0
    for count in counts:
        for number in range(1, count + 1):
            placed += 1
            result = result * placed // number
    return result


def calendar(rng: Random) -> Problem:
    """Days of an invented calendar: from the day of the year to month and day, or back, or the weekday."""
    months = [rng.randint(18, 45) for _ in range(rng.randint(4, 9))]
    week, kind = rng.randint(4, 10), rng.choice(("date", "number", "weekday"))
    place = rng.choice(("Vora", "Kelt", "Ombra", "Tarn", "Luma", "Zephyr", "Quill", "Brine"))
    name = {"date": "date_of_day", "number": "day_of_year", "weekday": "weekday_of"}[kind]
    bodies = {
        "date": (
            ["day"],
            [
                "for month, length in enumerate(months, 1):",
                "    if day <= length:",
                "        return month, day",
                "    day -= length",
            ],
        ),
        "number": (["month", "day"], ["return sum(months[:month - 1]) + day"]),
        "weekday": (["month", "day"], ["passed = sum(months[:month - 1]) + day - 1", f"return passed % {week} + 1"]),
    }
    arguments, lines = bodies[kind]
    dates = [(month, day) for month, length in enumerate(months, 1) for day in range(1, length + 1)]
    checks = []
    for number in sorted(rng.sample(range(len(dates)), 3)):
        cases: dict[str, tuple[list[int], object]] = {
            "date": ([number + 1], dates[number]),
            "number": ([*dates[number]], number + 1),
            "weekday": ([*dates[number]], [i % week for i in range(len(dates))][number] + 1),
        }
        checks.append(check(name, *cases[kind]))
    goals = {
        "date": "Turn the number of a day in the year, from 1, into (month, day)",
        "number": "Turn a date into the number of the day in the year, from 1",
        "weekday": f"A week has {week} days, the year begins on its day 1. Return the day of the week of a date",
    }
    told = f"On {place} the months have {listing(months)} days. {goals[kind]}."
    return Problem(
        "calendar",
        told,
        f"def {name}({', '.join(arguments)}):\n{block([f'months = {months}', *lines])}\n",
        tuple(checks),
    )


def bits(rng: Random) -> Problem:
    """Two or three operations on the bits of a word of fixed width."""
    width = rng.choice((4, 6, 8, 10, 12, 16))
    n, mask, place = rng.randint(1, width - 1), rng.randrange(1, 2**width), rng.randrange(width)
    top = 2**width - 1
    steps: list[tuple[str, str, Callable[[str], str]]] = [  # the function works on text of zeros and ones
        (f"rotate it left by {n}", f"((x << {n}) | (x >> {width - n})) & {top}", lambda s: s[n:] + s[:n]),
        (f"rotate it right by {n}", f"((x >> {n}) | (x << {width - n})) & {top}", lambda s: s[-n:] + s[:-n]),
        ("flip every bit", f"x ^ {top}", lambda s: s.translate({48: "1", 49: "0"})),
        (f"set bit {place}", f"x | (1 << {place})", lambda s: _with(s, place, "1")),
        (f"clear bit {place}", f"x & ~(1 << {place})", lambda s: _with(s, place, "0")),
        (
            f"combine it with {mask} by exclusive or",
            f"x ^ {mask}",
            lambda s: "".join("01"[a != b] for a, b in zip(s, f"{mask:0{width}b}", strict=True)),
        ),
        (
            f"keep only the bits of {mask}",
            f"x & {mask}",
            lambda s: "".join("01"[a == b == "1"] for a, b in zip(s, f"{mask:0{width}b}", strict=True)),
        ),
        (f"shift it left by {n}, dropping what leaves the word", f"(x << {n}) & {top}", lambda s: (s + "0" * n)[n:]),
    ]
    chosen = rng.sample(steps, rng.randint(2, 3))
    ending, expression, finish = rng.choice(
        (
            ("the word", "x", lambda s: int(s, 2)),
            ("the number of ones in it", "bin(x).count('1')", lambda s: s.count("1")),
        )
    )
    name = name_of(rng, "scramble mix twist pack", "bits flags word register mask")
    checks = []
    for value in sorted(rng.sample(range(2**width), 3)):
        text = f"{value:0{width}b}"
        for _, _, apply in chosen:
            text = apply(text)
        checks.append(check(name, [value], finish(text)))
    lines = [*(f"x = {source}" for _, source, _ in chosen), f"return {expression}"]
    told = f"Take a word of {width} bits; {', then '.join(words for words, _, _ in chosen)}. Return {ending}."
    return Problem("bits", told, f"def {name}(x):\n{block(lines)}\n", tuple(checks))


def _with(text: str, place: int, bit: str) -> str:
    at = len(text) - 1 - place
    return text[:at] + bit + text[at + 1 :]


FAMILIES = (recurrence, tariff, units, digits, ways, calendar, bits)
