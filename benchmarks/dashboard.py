"""Milliseconds in the browser from a slider that stops to the page redrawn, and to the proposal searched for anew.

    python benchmarks/dashboard.py

The case: 7 domains, 3 phases, 8 tasks, 200 draws. What is drawn at once (predictions, gains, schedule, landscape) may
take 300 ms, the new proposal 2 s. Chromium is driven by playwright; run it on a quiet machine. With `--pictures` it
writes the screenshots of docs/dashboard.md.
"""

from __future__ import annotations

import json
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from propose_speed import CASE, KINDS, LARGE, PER_PARAM, SMALL, TARGET

from mixlaw import import_runs
from mixlaw.analysis.fit import fit
from mixlaw.files import write_text
from mixlaw.recipe import Domain
from mixlaw.testing.worlds import random_recipes, random_world

#: Milliseconds that may pass until all is redrawn, and until the proposal is there.
BARS = {"redrawn": 300.0, "proposed": 2000.0}
MOVES = 12
NAMES = ("web", "github", "html", "commits", "tests", "maths", "answers")
PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"
ARGUMENTS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--no-first-run"]

#: Notes when a slider stops, when words and plots of the next answer are on the page, and when the search is over; a
#: plot that an answer leaves as it was is not drawn.
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
    requestAnimationFrame(() => note('table'));
  }).observe(document.getElementById('table'), {childList: true});
  new MutationObserver(() => {
    if (document.getElementById('state').textContent.includes('was found')) note('proposed');
  }).observe(document.getElementById('state'), {childList: true, subtree: true, characterData: true});
}
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
def served(path: Path) -> Iterator[str]:
    """The address of a dashboard that runs as a command."""
    command = [sys.executable, "-m", "mixlaw", "dashboard", str(path), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().split()[4].rstrip(";")
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
    box = handle.bounding_box()
    view.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    view.mouse.down()
    view.mouse.move(box["x"] + box["width"] / 2 - 12 - number, box["y"] + box["height"] / 2, steps=4)
    view.mouse.up()


def measured(view: Any) -> list[dict[str, float]]:
    """Milliseconds of every move."""
    view.evaluate(WATCH)
    found = []
    for number in range(MOVES):
        move(view, number)
        view.wait_for_function("'proposed' in seen && 'table' in seen", timeout=60_000, polling=100)
        view.wait_for_timeout(100)
        seen = view.evaluate("seen")
        redrawn = max(seen.get(name, 0) for name in ("gains", "schedule", "landscape", "table"))
        found.append({"redrawn": redrawn, "proposed": seen["proposed"]})
        print(f"move {number + 1}: " + ", ".join(f"{name} {ms:.0f} ms" for name, ms in found[-1].items()), flush=True)
        view.wait_for_timeout(300)
    return found


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
    found: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        with served(study(Path(folder))) as address:
            if "--pictures" in sys.argv:
                pictures(browser, address)
            else:
                view = browser.new_page(viewport={"width": 1280, "height": 1000})
                opened(view, address)
                found = measured(view)
            browser.close()
    for name, bar in BARS.items() if found else ():
        times = [one[name] for one in found]
        print(json.dumps({"what": name, "median_ms": round(statistics.median(times)), "slowest_ms": round(max(times)),
                          "may_take_ms": bar}))  # fmt: skip


if __name__ == "__main__":
    main()
