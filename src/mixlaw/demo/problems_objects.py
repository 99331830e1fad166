"""Synthetic problems on records, machines, graphs, queues and classes."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from mixlaw.demo.problems import GOODS, PEOPLE, TOWNS, Problem, block, check, integers, listing, name_of


def records(rng: Random) -> Problem:
    """Filter records, group them, and summarise a number in each group."""
    group, groups = rng.choice((("town", TOWNS), ("owner", PEOPLE), ("item", GOODS)))
    number, other = rng.sample(("price", "weight", "age", "score", "amount", "length"), 2)
    limit, above = rng.randint(5, 60), rng.random() < 0.5
    kinds: list[tuple[str, str, Callable[[list[int]], object]]] = [
        ("sum", "sum(found)", lambda v: sum(sorted(v))),
        ("largest value", "max(found)", lambda v: sorted(v)[-1]),
        ("smallest value", "min(found)", lambda v: sorted(v)[0]),
        ("number of records, counting each", "len(found)", lambda v: sum(1 for _ in v)),
        ("sorted list", "sorted(found)", sorted),
        ("average, rounded down", "sum(found) // len(found)", lambda v: int(sum(v) / len(v))),
    ]
    words, expression, finish = rng.choice(kinds)
    name = f"{number}_by_{group}"
    symbol, told_limit = (">=", f"at least {limit}") if above else ("<", f"below {limit}")
    source = f"""def {name}(records):
    groups = {{}}
    for record in records:
        if record[{other!r}] {symbol} {limit}:
            groups.setdefault(record[{group!r}], []).append(record[{number!r}])
    return {{key: {expression} for key, found in groups.items()}}
"""
    bag = rng.sample(groups, 3)
    rows = [(rng.choice(bag), rng.randint(0, 99), rng.randint(0, 70)) for _ in range(rng.randint(3, 5))]
    left = [row for row in rows if (row[2] >= limit) is above]
    keys = dict.fromkeys(row[0] for row in left)
    expected = {key: finish([row[1] for row in left if row[0] == key]) for key in keys}
    given = [dict(zip((group, number, other), row, strict=True)) for row in rows]
    told = f"From records whose {other} is {told_limit}, return for every {group} the {words} of {number}."
    return Problem("records", told, source, (check(name, [given], expected), check(name, [[]], {})))


def robot(rng: Random) -> Problem:
    """A robot on a board that obeys letters."""
    letters = rng.sample("ABCDEFGHLMNPRSUVX", 4)
    steps = [rng.randint(1, 3) for _ in letters]
    width, height, edge = rng.randint(4, 9), rng.randint(4, 9), rng.choice(("wrap", "stop"))
    asked = rng.choice(("position", "visited", "longest"))
    vectors = [(0, -steps[0]), (0, steps[1]), (-steps[2], 0), (steps[3], 0)]
    moves = dict(zip(letters, vectors, strict=True))
    name = name_of(rng, "drive steer walk guide", "robot rover turtle drone beetle")
    bounded = {
        "wrap": (f"(x + dx) % {width}", f"(y + dy) % {height}"),
        "stop": (f"min(max(x + dx, 0), {width - 1})", f"min(max(y + dy, 0), {height - 1})"),
    }[edge]
    track = {
        "position": ([], [], "(x, y)"),
        "visited": (["seen = {(0, 0)}"], ["seen.add((x, y))"], "len(seen)"),
        "longest": (["far = 0"], ["far = max(far, x + y)"], "far"),
    }[asked]
    lines = [
        f"moves = {moves!r}",
        "x = y = 0",
        *track[0],
        "for command in commands:",
        "    dx, dy = moves.get(command, (0, 0))",
    ]
    lines += [f"    x, y = {bounded[0]}, {bounded[1]}", *(f"    {line}" for line in track[1]), f"return {track[2]}"]

    def run(commands: str) -> object:
        """The answer, computed apart from the solution's text."""
        path = [(0, 0)]
        for command in commands:
            (x, y), (dx, dy) = path[-1], moves.get(command, (0, 0))
            for axis_steps, (ux, uy) in ((abs(dx), (_sign(dx), 0)), (abs(dy), (0, _sign(dy)))):
                for _ in range(axis_steps):
                    x, y = _moved(x + ux, width, edge), _moved(y + uy, height, edge)
            path.append((x, y))
        return {"position": path[-1], "visited": len(set(path)), "longest": max(map(sum, path))}[asked]

    checks = []
    for _ in range(3):
        commands = "".join(rng.choice(letters) for _ in range(rng.randint(4, 12)))
        checks.append(check(name, [commands], run(commands)))
    ways = [
        f"{letter} moves {step} {side}"
        for letter, step, side in zip(letters, steps, ("up", "down", "left", "right"), strict=True)
    ]
    rule = {
        "wrap": "leaving the board on one side it enters on the other",
        "stop": "at the edge of the board it stops",
    }[edge]
    goal = {
        "position": "its last position (x, y)",
        "visited": "on how many different fields a move of it ended, the start included",
        "longest": "the largest x + y at which a move ended",
    }[asked]
    told = (
        f"A robot starts at (0, 0), the upper left field of a board {width} wide and {height} high: {listing(ways)}, "
        f"and {rule}. Return {goal}."
    )
    return Problem("robot", told, f"def {name}(commands):\n{block(lines)}\n", tuple(checks))


def _sign(value: int) -> int:
    return (value > 0) - (value < 0)


def _moved(place: int, size: int, edge: str) -> int:
    if edge == "wrap":
        return (place + size) % size
    return sorted((0, place, size - 1))[1]


def account(rng: Random) -> Problem:
    """A class with a limit, a fee and a count of refusals."""
    kind, unit = rng.choice(
        (("Account", "money"), ("Tank", "litres"), ("Battery", "charge"), ("Store", "items"), ("Wallet", "coins"))
    )
    add, take = rng.choice((("deposit", "withdraw"), ("fill", "drain"), ("put", "take"), ("load", "unload")))
    top, fee, start = rng.choice((None, rng.randint(60, 200))), rng.choice((0, rng.randint(1, 4))), rng.randint(0, 50)
    floor = rng.choice((0, 0, -rng.randint(5, 40)))
    full = (
        [f"        if self.level + amount > {top}:", "            self.refused += 1", "            return False"]
        if top
        else []
    )
    source = (
        "\n".join(
            [
                f"class {kind}:",
                f"    def __init__(self, level={start}):",
                "        self.level = level",
                "        self.refused = 0",
                "",
                f"    def {add}(self, amount):",
                *full,
                "        self.level += amount",
                "        return True",
                "",
                f"    def {take}(self, amount):",
                f"        if self.level - amount{f' - {fee}' if fee else ''} < {floor}:",
                "            self.refused += 1",
                "            return False",
                f"        self.level -= amount{f' + {fee}' if fee else ''}",
                "        return True",
            ]
        )
        + "\n"
    )
    level, refused = start, 0
    checks = [f"thing = {kind}()"]
    for _ in range(rng.randint(3, 6)):
        adding, amount = rng.random() < 0.5, rng.randint(1, 70)
        after = level + amount if adding else level - amount - fee
        fine = after <= (top or 10**9) if adding else after >= floor
        level, refused = (after, refused) if fine else (level, refused + 1)
        checks.append(f"assert thing.{add if adding else take}({amount}) is {fine}")
    checks.append(f"assert (thing.level, thing.refused) == {(level, refused)!r}")
    told = (
        f"Write a class {kind} that holds {unit}, {start} at first unless told otherwise. Its method {add} adds an "
        f"amount{f' unless that would exceed {top}' if top else ''}; {take} takes an amount"
        f"{f' and a fee of {fee}' if fee else ''} unless less than {floor} would be left. Both return whether it was "
        "done; what was not done counts in the attribute refused."
    )
    return Problem("account", told, source, tuple(checks))


def graph(rng: Random) -> Problem:
    """Shortest hops or reachable places in a fixed network, one-way or two-way, some places closed."""
    towns = rng.sample(TOWNS, rng.randint(4, 7))
    roads = sorted({tuple(rng.sample(towns, 2)) for _ in range(rng.randint(len(towns) - 1, len(towns) + 3))})
    one_way, asked = rng.random() < 0.5, rng.choice(("hops", "within"))
    most = rng.randint(1, 3)
    name = {"hops": "fewest_roads", "within": "towns_within_reach"}[asked]
    both = "" if one_way else "\n        links.setdefault(b, []).append(a)"
    tail = {
        "hops": "return steps.get(goal, -1)",
        "within": f"return sorted(town for town, count in steps.items() if count <= {most})",
    }[asked]
    source = f"""def {name}({"start, goal" if asked == "hops" else "start"}):
    roads = {roads!r}
    links = {{}}
    for a, b in roads:
        links.setdefault(a, []).append(b){both}
    steps, queue = {{start: 0}}, [start]
    while queue:
        here = queue.pop(0)
        for there in links.get(here, []):
            if there not in steps:
                steps[there] = steps[here] + 1
                queue.append(there)
    {tail}
"""
    far = _distances(towns, [*roads, *(() if one_way else ((b, a) for a, b in roads))])
    checks = []
    for _ in range(3):
        start, goal = rng.sample(towns, 2)
        near = sorted(town for town in towns if far[start, town] <= most)
        found = int(far[start, goal]) if far[start, goal] < 99 else -1
        checks.append(check(name, [start, goal], found) if asked == "hops" else check(name, [start], near))
    way = "one-way roads" if one_way else "roads"
    goal_told = (
        "Return the fewest roads from start to goal, or -1"
        if asked == "hops"
        else f"Return the sorted towns at most {most} roads away, start included"
    )
    told = f"There are {way} {listing([f'{a}-{b}' for a, b in roads])}. {goal_told}."
    return Problem("graph", told, source, tuple(checks))


def _distances(places: list[str], roads: list[tuple[str, ...]]) -> dict[tuple[str, str], int]:
    """Floyd and Warshall; 99 stands for no way."""
    far = {(a, b): 0 if a == b else 1 if (a, b) in roads else 99 for a in places for b in places}
    for via in places:
        far = {(a, b): min(length, far[a, via] + far[via, b]) for (a, b), length in far.items()}
    return far


def queue(rng: Random) -> Problem:
    """Jobs that take turns, or that are served by urgency: order of completion or waiting times."""
    slice_, pause, asked = rng.randint(2, 6), rng.randint(0, 2), rng.choice(("order", "ends"))
    noun = rng.choice(("jobs", "patients", "tasks", "trains", "prints"))
    name = f"{'order' if asked == 'order' else 'finish_times'}_of_{noun}"
    record = "done.append(name)" if asked == "order" else "done[name] = clock"
    source = f"""def {name}({noun}):
    waiting, clock, done = list({noun}.items()), 0, {"[]" if asked == "order" else "{}"}
    while waiting:
        name, left = waiting.pop(0)
        clock += min(left, {slice_})
        if left > {slice_}:
            waiting.append((name, left - {slice_}))
        else:
            {record}{f"{chr(10)}        clock += {pause}" if pause else ""}
    return done
"""
    checks = []
    for _ in range(2):
        work = dict(zip(rng.sample(PEOPLE, 3), integers(rng, 1, 15, 3, 3), strict=True))
        ends = _round_robin(work, slice_, pause)
        checks.append(check(name, [work], sorted(ends, key=lambda key: ends[key]) if asked == "order" else ends))
    goal = (
        "the names in the order in which they finish"
        if asked == "order"
        else "a dictionary from name to the time of finishing"
    )
    told = (
        f"The {noun} take turns in the order given, each for at most {slice_} minutes at a time, until its work is done"
        f"{f'; after every turn {pause} minutes are lost' if pause else ''}. From names and minutes of work, return "
        f"{goal}."
    )
    return Problem("queue", told, source, tuple(checks))


def _round_robin(work: dict[str, int], slice_: int, pause: int) -> dict[str, int]:
    """Round by round: in round r everybody with work left beyond r slices has a turn."""
    clock, ends, rounds = 0, {}, max(-(-minutes // slice_) for minutes in work.values())
    for number in range(rounds):
        for name, minutes in work.items():
            left = minutes - number * slice_
            if left > 0:
                clock += min(left, slice_)
                if left <= slice_:
                    ends[name] = clock
                clock += pause
    return ends


def stock(rng: Random) -> Problem:
    """Apply a list of movements to a stock, with a rule for what is short."""
    goods = rng.sample(GOODS, 3)
    opening = {good: rng.randint(0, 30) for good in goods}
    rule, pack = rng.choice(("skip", "empty")), rng.choice((1, rng.randint(2, 6)))
    name = name_of(rng, "update book apply", "stock orders deliveries movements")
    refused = {"skip": ["        continue"], "empty": ["        count = -stock.get(item, 0)"]}[rule]
    lines = [f"stock = {opening!r}", "for item, count in changes:"]
    lines += [f"    count *= {pack}"] if pack > 1 else []
    lines += [
        "    if stock.get(item, 0) + count < 0:",
        *refused,
        "    stock[item] = stock.get(item, 0) + count",
        "return stock",
    ]
    checks = []
    for _ in range(2):
        names = [*goods, rng.choice([good for good in GOODS if good not in goods])]
        changes = [(rng.choice(names), rng.choice((-1, 1)) * rng.randint(1, 20)) for _ in range(rng.randint(2, 5))]
        checks.append(check(name, [changes], _booked(opening, changes, rule, pack)))
    told_rule = {
        "skip": "a change that would leave less than nothing is skipped",
        "empty": "a change that would leave less than nothing leaves nothing",
    }[rule]
    told = (
        f"A store begins with {listing([f'{count} of {good}' for good, count in opening.items()])}. Apply changes "
        f"(item, count), {f'counted in packs of {pack}, ' if pack > 1 else ''}in order; {told_rule}. "
        "Return the stock as a dictionary."
    )
    return Problem("stock", told, f"def {name}(changes):\n{block(lines)}\n", tuple(checks))


def _booked(opening: dict[str, int], changes: list[tuple[str, int]], rule: str, pack: int) -> dict[str, int]:
    pieces = dict(opening)
    for item, count in changes:
        after = pieces.get(item, 0) + count * pack
        if after >= 0:
            pieces[item] = after
        elif rule == "empty":
            pieces[item] = 0
    return pieces


FAMILIES = (records, robot, account, graph, queue, stock)
