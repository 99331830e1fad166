"""What a study of 10,000 runs x 100 tasks x 64 domains costs, command by command, and how each cost grows.

    python benchmarks/load.py [table] [growth] [fit] [tree] [frozen] [asks] [gpus] [prepare] [RUNSxTASKSxDOMAINS]

Every command is a process of its own: seconds by the wall, of processor (what counts on a shared machine), and peak
memory. `growth` repeats with fewer runs, tasks and domains and prints the exponent of the cost in each; `fit` fits 10
tasks, proposes, reports and opens the dashboard in Chromium; `tree` plans 4,913 recipes; `frozen` has 1,000 frozen
proposals; `asks` lets 20 processes ask for 1,000 trials in one PostgreSQL at once; `gpus` places segments on 10,000
GPUs; `prepare` streams made-up documents, a tenth of a megabyte a run. docs/load.md has the figures.
"""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl

PHASES = {"init": 0.7, "continue": 0.2, "cooldown": 0.1}
SIZES = (1e7, 4e7, 1.6e8)
HOUR = 3_600_000  # milliseconds
TESTS = Path(__file__).resolve().parents[1] / "tests"
SETTINGS = """\
[domains]
text = { kind = "text", source = "text.jsonl" }
code = { kind = "code", source = "code.jsonl" }
[tokenizer]
vocabulary = 300
[sizes]
"1M" = 20_000_000
[[phases]]
name = "init"
share = 0.7
[[phases]]
name = "continue"
share = 0.2
[[phases]]
name = "cooldown"
share = 0.1
[mixtures]
"""
TARGET = '\n[target]\nparams = "1B"\ntokens = "100B"\n'
#: A source of made-up documents: Zipf's words, lognormal lengths, 1.3 kB on average; nothing of it is on disk.
STREAM = """\
import itertools
import random

draw = random.Random(0)
WORDS = ["".join(draw.choices("etaoinshrdlucmfwypvbgkqjxz", k=draw.randrange(2, 9))) for _ in range(30_000)]
UP_TO = [*itertools.accumulate(1 / (10 + rank) for rank in range(len(WORDS)))]


def documents(megabytes: int = 1, seed: int = 0):
    draw, left = random.Random(seed), megabytes * 1_000_000
    while left > 0:
        text = " ".join(draw.choices(WORDS, cum_weights=UP_TO, k=10 + int(draw.lognormvariate(5, 1))))
        left -= len(text)
        yield text
"""


@dataclass(frozen=True)
class Case:
    """Size of a study."""

    runs: int = 10_000
    tasks: int = 100
    domains: int = 64


@dataclass(frozen=True)
class Cost:
    """Of one process: seconds by the wall and of processor, peak memory in GiB."""

    wall: float
    cpu: float
    peak: float


def table(case: Case) -> pl.DataFrame:
    """Runs of three sizes, 20 tokens for each parameter, whose losses follow the mixture; 1 % noise, seeded."""
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.full(case.domains, 0.3), (case.runs, len(PHASES)))
    params, part = rng.choice(SIZES, case.runs), np.array(list(PHASES.values()))
    worth = rng.dirichlet(np.ones(case.domains), case.tasks)
    amount = np.einsum("rpk,p,tk->rt", np.sqrt(shares), part, worth)
    loss = 0.7 + 30 * params[:, None] ** -0.3 + 0.5 * amount**-0.5
    tokens = np.round(20 * params[:, None, None] * part[:, None] * shares)
    columns = {f"tokens:{p}:d{k}": tokens[:, i, k] for i, p in enumerate(PHASES) for k in range(case.domains)}
    noisy = loss * np.exp(0.01 * rng.normal(size=loss.shape))
    columns |= {f"metric:task{t}": noisy[:, t] for t in range(case.tasks)}
    return pl.DataFrame({"run": [f"run{i}" for i in range(case.runs)], "params": params} | columns)


def cost(*command: str) -> Cost:
    """Run a command to its end.

    Raises:
        RuntimeError: it failed; the message is its output.
    """
    with tempfile.TemporaryFile() as said:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        if status:
            said.seek(0)
            raise RuntimeError(f"{' '.join(command)}: {said.read().decode()[-2000:]}")
    return Cost(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 2**20)


def mixlaw(*words: str | Path) -> Cost:
    """Cost of one command of mixlaw."""
    return cost(sys.executable, "-m", "mixlaw", *map(str, words))


def page(path: Path) -> Cost:
    """Cost of a dashboard from its start until Chromium shows a proposal, the last one if any; of the server alone."""
    from dashboard import ARGUMENTS, DRAWN
    from playwright.sync_api import sync_playwright

    began = time.perf_counter()
    command = [sys.executable, "-m", "mixlaw", "dashboard", str(path), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        with server.stdout, sync_playwright() as playwright:
            chromium = shutil.which("chromium") or shutil.which("google-chrome")
            browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
            view = browser.new_page(viewport={"width": 1280, "height": 1000})
            view.goto(server.stdout.readline().split()[4].rstrip(";"), timeout=HOUR)
            view.wait_for_function(DRAWN, timeout=HOUR, polling=200)
            view.wait_for_function("document.querySelector('#state').textContent.includes('was found')", timeout=HOUR)
            wall = time.perf_counter() - began
            browser.close()
    finally:
        server.send_signal(signal.SIGINT)
        _, _, used = os.wait4(server.pid, 0)
    return Cost(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 2**20)


def show(name: str, one: Cost) -> None:
    """Print a row."""
    print(f"{name:44}{one.wall:9.1f}{one.cpu:9.1f}{one.peak:8.2f}", flush=True)


def study(folder: Path, case: Case) -> tuple[Path, dict[str, Cost]]:
    """Import a table into a new study, and look at it."""
    folder.mkdir()
    table(case).write_csv(folder / "runs.csv")
    kinds = [
        f'd{k} = {{ kind = "{"code" if k % 3 == 0 else "text"}", unique_tokens = "100B" }}\n'
        for k in range(case.domains)
    ]
    (folder / "domains.toml").write_text("[domains]\n" + "".join(kinds))
    path = folder / "study"
    words = ("import", path, folder / "runs.csv", "--unit", "bits/byte", "--domains", folder / "domains.toml")
    found = {"import": mixlaw(*words), "import again": mixlaw(*words)}
    with (path / "study.toml").open("a") as file:
        file.write(TARGET)
    found["status"] = mixlaw("status", path)
    found["show a run"] = mixlaw("show", path, "run7")
    read = "import sys; from mixlaw import open_study; open_study(sys.argv[1]).table()"
    found["table in Python"] = cost(sys.executable, "-c", read, str(path))
    return path, found


def of_table(folder: Path, case: Case) -> None:
    """Costs of a table of many runs, tasks and domains."""
    _, found = study(folder / "table", case)
    for name, one in found.items():
        show(f"{name}, {case.runs:,} x {case.tasks} x {case.domains}", one)


def of_growth(folder: Path, case: Case) -> None:
    """Costs at a quarter and at half of each number; the exponent is that of the processor's seconds from there."""
    base = replace(case, runs=case.runs // 4)
    for number in ("runs", "tasks", "domains"):
        whole = getattr(base, number) * (4 if number == "runs" else 1)
        small, large = (replace(base, **{number: whole // part}) for part in (4, 1))
        rows = [study(folder / f"{number}{i}", one)[1] for i, one in enumerate((small, large))]
        for name in rows[0]:
            power = math.log(rows[1][name].cpu / rows[0][name].cpu) / math.log(4)
            print(f"{name:20}{number:>10} x 4: {rows[0][name].cpu:7.1f} -> {rows[1][name].cpu:7.1f} s of processor, "
                  f"exponent {power:.2f}", flush=True)  # fmt: skip


def of_fit(folder: Path, case: Case) -> None:
    """Costs from the fit to the report, with a tenth of the tasks."""
    few = replace(case, tasks=case.tasks // 10)
    path, _ = study(folder / "fit", few)
    name = f"{few.runs:,} x {few.tasks} x {few.domains}"
    for word in ("fit", "fit", "propose", "report"):
        again = " again" if word == "fit" and (path / "surfaces").exists() else ""
        show(f"{word}{again}, {name}", mixlaw(word, path))
    show(f"dashboard, {name}", page(path))


def of_tree(folder: Path, case: Case) -> None:
    """Plan half as many recipes as there are runs, all orders of 17 mixtures in three phases; then a dry run."""
    path, random = folder / "tree", np.random.default_rng(0)
    path.mkdir()
    for domain in ("text", "code"):
        letters = random.integers(97, 123, (60, 4000)).astype(np.uint8)
        lines = (f'{{"text": "{row.tobytes().decode()}"}}\n' for row in letters)
        (path / f"{domain}.jsonl").write_text("".join(lines))
    orders = [*product(range(17), repeat=3)][: case.runs // 2]
    recipes = (
        f'[[recipes]]\nsize = "1M"\nphases = {{ init = "m{a}", continue = "m{b}", cooldown = "m{c}" }}\n'
        for a, b, c in orders
    )
    mixtures = (f"m{i} = {{ text = {i / 16}, code = {1 - i / 16} }}\n" for i in range(17))
    (path / "study.toml").write_text(SETTINGS + "".join(mixtures) + "".join(recipes))
    mixlaw("prepare", path)
    show(f"plan, {len(orders):,} recipes", mixlaw("plan", path))
    show(f"run --dry-run, {len(orders):,} recipes", mixlaw("run", path, "--dry-run", "--gpu", "H100"))


def of_frozen(folder: Path, case: Case) -> None:
    """Freeze a tenth as many proposals as there are runs, then look."""
    path, _ = study(folder / "frozen", Case(40, 4, 4))
    mixlaw("fit", path)
    mixlaw("propose", path)
    freeze = (
        "import sys; from dataclasses import replace; from mixlaw import open_study\n"
        "study = open_study(sys.argv[1]); one = study.proposals()[0]\n"
        "for i in range(int(sys.argv[2])): replace(one, radius=i / 1e4).freeze(study.proposals_folder)"
    )
    count = case.runs // 10
    show(f"freeze {count:,} proposals", cost(sys.executable, "-c", freeze, str(path), str(count)))
    for words in ("status", "report", "verify"):
        show(f"{words}, {count:,} frozen", mixlaw(words, path))


def of_asks(folder: Path, case: Case) -> None:
    """20 processes ask one PostgreSQL for trials and tell it, a tenth as many as there are runs."""
    sys.path.insert(0, str(TESTS))
    from postgres import programs, server

    found = programs()
    if found is None:
        print("asks: PostgreSQL is not installed")
        return
    with server(found) as url:
        import optuna

        optuna.create_study(study_name="mixtures", storage=url)
        each = case.runs // 10 // 20
        one = cost(sys.executable, "-W", "ignore", str(TESTS / "sampler_worker.py"), url, "20", str(each))
        show(f"{20 * each:,} trials by 20 processes", one)


def of_gpus(_: Path, case: Case) -> None:
    """Place half as many segments as there are runs, trunks with four branches each, on 1,250 machines of 8 GPUs."""
    script = """
import sys
import numpy as np
from mixlaw.runner.plan.devices import Machine
from mixlaw.runner.plan.placement import Requirement, schedule
random, wanted = np.random.default_rng(0), {}
for i in range(int(sys.argv[1]) // 5):
    wanted[f"t{i}"] = Requirement(None, 8, 100 * random.uniform(0.5, 2), 8)
    for j in range(4):
        wanted[f"t{i}.{j}"] = Requirement(f"t{i}", int(random.choice([1, 2, 4, 8])), 50 * random.uniform(0.5, 2), 8)
schedule(wanted, [Machine(f"node{k}", 8, "cuda") for k in range(int(sys.argv[2]))])
"""
    for machines in (125, 1250):
        placed = cost(sys.executable, "-c", script, str(case.runs // 2), str(machines))
        show(f"{case.runs // 2:,} segments on {machines:,} machines", placed)


def of_prepare(folder: Path, case: Case) -> None:
    """Stream a quarter, half and all of the documents through `prepare`, in two domains."""
    for part in (4, 2, 1):
        each, path = case.runs // 20 // part, folder / f"stream{part}"
        path.mkdir()
        (path / "words.py").write_text(STREAM)
        domains = (
            f'd{i} = {{ kind = "text", source = "python:words.py?megabytes={each}&seed={i}" }}\n' for i in range(2)
        )
        (path / "study.toml").write_text("[domains]\n" + "".join(domains) + "[tokenizer]\nvocabulary = 32768\n")
        show(f"prepare, {2 * each:,} MB", mixlaw("prepare", path))


def main(arguments: list[str]) -> None:
    """Measure the named parts, or all."""
    parts = {
        "table": of_table,
        "growth": of_growth,
        "fit": of_fit,
        "tree": of_tree,
        "frozen": of_frozen,
        "asks": of_asks,
        "gpus": of_gpus,
        "prepare": of_prepare,
    }
    case = Case(*map(int, arguments.pop().split("x"))) if arguments and arguments[-1][0].isdigit() else Case()
    print(f"{'':44}{'wall s':>9}{'cpu s':>9}{'GiB':>8}")
    with tempfile.TemporaryDirectory() as name:
        for part in arguments or parts:
            parts[part](Path(name), case)


if __name__ == "__main__":
    main(sys.argv[1:])
