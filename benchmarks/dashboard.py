"""Milliseconds in the browser until the page is there, until it is redrawn after a move, and until the new proposal.

    python benchmarks/dashboard.py [--against TREE]

The case: 7 domains, 3 phases, 8 tasks, 200 draws. The page may take 5 s to be there, words, gains and schedule 300 ms
in the median to be redrawn and 500 ms at most, the new proposal 2 s in the median; the last line says what of that
holds. A search shows a first proposal, and then the one of `mixlaw propose`: `final`. It begins once all is drawn, so
that its CPU time can be separated; on the page it overlaps with the landscape. CPU times are those of server and
browser together, and are what can be compared on a machine that does other things. `--against` takes moves in turns on
the code of another checkout, and gives ratios.
Chromium is driven by playwright. With `--pictures` it writes the screenshots of docs/dashboard.md instead.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
from propose_speed import CASE, KINDS, LARGE, PER_PARAM, SMALL, TARGET

from mixlaw import import_runs
from mixlaw.analysis.fit import fit
from mixlaw.files import write_text
from mixlaw.recipe import Domain
from mixlaw.testing.worlds import random_recipes, random_world

#: Milliseconds that may pass in the median and at most, by what is waited for; what has no bar is told all the same.
NONE: tuple[float | None, float | None] = (None, None)
BARS = {"redrawn": (300.0, 500.0), "landscape": NONE, "proposed": (2000.0, None), "final": NONE}
BARS |= {"redrawn_cpu": NONE, "proposed_cpu": NONE, "final_cpu": NONE}
MOVES, READY = 12, 5000.0
HERE, THERE = "here", "against"
NAMES = ("web", "github", "html", "commits", "tests", "maths", "answers")
PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"
ARGUMENTS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--no-first-run"]

#: Notes when a slider stops, when words and plots of the next answer are on the page, when the answer after it is, and
#: when the search is over; a plot that an answer leaves as it was is not drawn.
WATCH = """
() => {
  window.seen = {};
  let answers = 0;
  const note = what => { if (window.stopped && !(what in seen)) seen[what] = performance.now() - window.stopped; };
  const stop = () => { window.stopped = performance.now(); window.seen = {}; answers = 0; };
  document.addEventListener('pointerup', stop, true);
  document.addEventListener('keydown', e => { if (e.key.startsWith('Arrow')) stop(); }, true);
  for (const name of ['gains', 'schedule', 'landscape'])
    document.getElementById('figure-' + name).on('plotly_afterplot', () => {
      if (answers === 1) requestAnimationFrame(() => note(name));
    });
  new MutationObserver(() => {
    answers += 1;
    const what = answers === 1 ? 'table' : 'proposed';
    requestAnimationFrame(() => note(what));
  }).observe(document.getElementById('table'), {childList: true});
  new MutationObserver(() => {
    if (document.getElementById('state').textContent.includes('was found')) note('final');
  }).observe(document.getElementById('state'), {childList: true, subtree: true, characterData: true});
}
"""


#: Sliders, words, and every plot.
DRAWN = """
() => document.querySelector('#panel [role=slider]') && document.querySelector('#table td')
  && ['gains', 'schedule', 'landscape'].every(name => document.querySelector('#figure-' + name + ' .main-svg'))
"""


def study(folder: Path) -> Path:
    """The case as a study on disk, fitted."""
    count, tasks = CASE["domains"], CASE["tasks"]
    sources = tuple(Domain(NAMES[i], KINDS[i % len(KINDS)], 2_000_000 * (1 + i % 3)) for i in range(count))
    world = random_world(sources, tasks=tasks, seed=0)
    table = world.measure(random_recipes([SMALL, LARGE], PER_PARAM, sources, count=30))
    table.write_csv(folder / "runs.csv")
    told = (f'[domains.{d.name}]\nkind = "{d.kind.value}"\nunique_tokens = {d.unique_tokens}\n' for d in sources)
    write_text(folder / "domains.toml", "".join(told))
    path = folder / "study"
    import_runs(path, folder / "runs.csv", unit="bits/byte", domains=folder / "domains.toml")
    toml = (path / "study.toml").read_text(encoding="utf-8")
    write_text(path / "study.toml", f"{toml}\n[target]\nparams = {TARGET.params}\ntokens = {TARGET.tokens}\n")
    unique = {d.name: float(d.unique_tokens) for d in sources}
    surfaces = fit(table, units=world.units, unique=unique, resamples=CASE["draws"], audited=False)
    surfaces.save(path / "surfaces")
    return path


@contextmanager
def served(path: Path, tree: Path) -> Iterator[str]:
    """The address of a dashboard that runs as a command, on the code of a checkout that also makes its study."""
    env = {**os.environ, "PYTHONPATH": f"{tree / 'src'}{os.pathsep}{tree / 'benchmarks'}"}
    make = f"import dashboard, pathlib; dashboard.study(pathlib.Path({str(path)!r}))"
    subprocess.run([sys.executable, "-c", make], env=env, check=True, stdout=subprocess.DEVNULL)
    command = [sys.executable, "-m", "mixlaw", "dashboard", str(path / "study"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[4].rstrip(";")
        finally:
            process.send_signal(signal.SIGINT)


def move(view: Any, number: int) -> None:
    """Move one of the sliders: by mouse or by key, in turns."""
    dials = ("params", "tokens", "weight:task0", "cooldown", "limit:recipe:web", "eps")
    name = dials[number % len(dials)]
    handle = view.locator(f'.field[data-name="{name}"] [role=slider]').last
    if number % 2:
        handle.focus()
        view.keyboard.press("ArrowLeft")
        return
    handle.scroll_into_view_if_needed()
    box = handle.bounding_box()
    view.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    view.mouse.down()
    view.mouse.move(box["x"] + box["width"] / 2 - 12 - number, box["y"] + box["height"] / 2, steps=4)
    view.mouse.up()


class Timed:
    """A page of a dashboard whose moves are timed, with the server behind it.

    Attributes:
        ready: milliseconds from opening the page until all of it was drawn, the landscape included.
        times: of every move: milliseconds, and CPU milliseconds, by what is waited for.
    """

    def __init__(self, browser: Any, address: str) -> None:
        self.view = browser.new_page(viewport={"width": 1280, "height": 1000})
        self.times: list[dict[str, float]] = []
        self.view.goto(address)
        self.view.wait_for_function(DRAWN, timeout=120_000, polling=50)
        self.ready = float(self.view.evaluate("performance.now()"))
        settled(self.view)
        self.view.evaluate(WATCH)

    def move(self, number: int) -> None:
        """Make a move, hold its search until all is drawn, and note times."""
        held: list[Any] = []
        searches = "**/_dash-update-component*"

        def hold(route: Any) -> None:
            asked = json.loads(route.request.post_data or "{}").get("changedPropIds")
            held.append(route) if asked == ["search.data"] else route.continue_()

        self.view.bring_to_front()  # others are not drawn
        self.view.route(searches, hold)
        begun = cpu()
        move(self.view, number)
        self.view.wait_for_function("'table' in seen", timeout=120_000, polling=50)
        self.view.wait_for_function("'landscape' in seen || performance.now() - stopped > 3000", polling=50)
        while not held:
            self.view.wait_for_timeout(20)
        drawn, seen, released = cpu(), self.view.evaluate("seen"), self.view.evaluate("performance.now() - stopped")
        held[0].continue_()
        self.view.unroute(searches)
        done = {}
        for what in ("proposed", "final"):
            self.view.wait_for_function(f"'{what}' in seen", timeout=120_000, polling=20)
            done[f"{what}_cpu"] = cpu() - begun
        redrawn = max(seen.get(name, 0) for name in ("gains", "schedule", "table"))
        now = self.view.evaluate("seen")
        self.times.append({
            "redrawn": redrawn, "landscape": seen.get("landscape", redrawn),
            **{what: redrawn + now[what] - released for what in ("proposed", "final")},
            "redrawn_cpu": drawn - begun, **done,
        })  # fmt: skip
        self.view.wait_for_timeout(300)


def cpu() -> float:
    """CPU milliseconds of servers and browser until now."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        try:
            total += 1000 * sum(process.cpu_times()[:2])
        except psutil.NoSuchProcess:
            continue
    return total


def pictures(browser: Any, address: str) -> None:
    """Screenshots for the docs: wide and light with a pinned recipe, narrow and dark."""
    for width, height, mode in ((1280, 1500, "light"), (390, 1900, "dark")):
        view = browser.new_page(viewport={"width": width, "height": height}, color_scheme=mode)
        opened(view, address)
        view.click("#do-pin")
        view.locator('.field[data-name="eps"] [role=slider]').focus()
        for _ in range(60):
            view.keyboard.press("ArrowLeft")
        settled(view)
        view.mouse.move(0, 0)
        view.screenshot(path=PICTURES / f"dashboard-{width}.png")
        view.close()


def opened(view: Any, address: str) -> None:
    """Open the page and wait for its first proposal."""
    view.goto(address)
    settled(view)


def settled(view: Any) -> None:
    """Wait until nothing is searched for."""
    view.wait_for_function("document.querySelector('#state')?.textContent.includes('was found')", timeout=60_000)
    view.wait_for_timeout(600)


def main() -> None:
    """Time the moves, print them and their medians beside what they may take."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    trees = {HERE: Path(__file__).resolve().parents[1]}
    if "--against" in sys.argv:
        trees[THERE] = Path(sys.argv[sys.argv.index("--against") + 1]).resolve()
    with ExitStack() as stack, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        addresses = {}
        for name, tree in trees.items():
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            addresses[name] = stack.enter_context(served(folder, tree))
        if "--pictures" in sys.argv:
            pictures(browser, addresses[HERE])
        else:
            timed = {name: Timed(browser, address) for name, address in addresses.items()}
            for number in range(MOVES):
                for name, page in timed.items():
                    page.move(number)
                    told = ", ".join(f"{what} {ms:.0f}" for what, ms in page.times[-1].items())
                    print(f"move {number + 1} {name}, load {os.getloadavg()[0]:.1f}: {told} ms", flush=True)
            report(timed)
        browser.close()


def report(timed: dict[str, Timed]) -> None:
    """Print medians and extremes, ratios to the other checkout, and what of the bars holds."""
    kept = {f"ready in {timed[HERE].ready:.0f} ms of {READY:.0f}": timed[HERE].ready <= READY}
    print(json.dumps({"what": "ready", "may_take_ms": READY, "ms": {n: round(one.ready) for n, one in timed.items()}}))
    for what, bars in BARS.items():
        times = [one[what] for one in timed[HERE].times]
        values = {"median": statistics.median(times), "slowest": max(times)}
        row: dict[str, Any] = {"what": what, **{f"{name}_ms": round(value) for name, value in values.items()}}
        for (name, value), bar in zip(values.items(), bars, strict=True):
            if bar is not None:
                kept[f"{what}, {name}, {value:.0f} ms of {bar:.0f}"] = value <= bar
        if THERE in timed:
            pairs = zip(timed[HERE].times, timed[THERE].times, strict=True)
            row["ratio"] = round(statistics.median(a[what] / b[what] for a, b in pairs), 2)
        print(json.dumps(row))
    told = [f"{'kept' if holds else 'MISSED'}: {what}" for what, holds in kept.items()]
    print(f"load {os.getloadavg()[0]:.1f}; {'; '.join(told)}")


if __name__ == "__main__":
    main()
