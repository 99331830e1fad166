"""Draw every plot of a finished study in a real browser, light and dark, and write the gallery page of the docs.

python benchmarks/gallery.py            # of out/demo, which `make demo` trains
python benchmarks/gallery.py out/smoke --out /tmp/gallery
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

import mixlaw
from mixlaw.report.page import page, plot
from mixlaw.study import Study

DOCS = Path(__file__).parents[1] / "docs"
MODES = ("light", "dark")
PHONE, LANDING = 390, ("paired",)  # pictures that the landing page shows on a phone
WIDTH, SCALE = 800, 2  # CSS pixels of a picture, and device pixels in each
COLOURS = 200  # of a picture's palette: plots have few, and files stay small
OFFLINE = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--no-first-run"]


@dataclass(frozen=True)
class Entry:
    """A plot of the gallery: its heading, the Python line that draws it, and how to read it."""

    name: str
    title: str
    line: str
    how: str


ENTRIES = (
    Entry(
        "response", "Response to the code share", 'study.plots.response("prose")',
        "Each line moves the code share of one phase of the proposal (rings) and keeps the rest; bands are 90 % "
        "intervals of the difference from the proposal, and dots are measured runs, shifted to the reference recipe "
        "by their residual.",
    ),
    Entry(
        "two-phases", "Landscape of two phases", 'study.plots.two_phases("code", ("continue", "cooldown"))',
        "Bright is better, and what is worse than the median is dark; orange dots are the optimum of each posterior "
        "sample, larger where more samples agree, so a wide scatter means that the optimum is uncertain.",
    ),
    Entry(
        "ternary", "Mixture of three domains", 'study.plots.ternary("code", ("prose", "facts", "code"), "cooldown")',
        "Every point is a mixture of three domains in one phase, pure at the corners, bright where the task is "
        "predicted to do well; white dots are measured runs, filled if the phase has no other domain.",
    ),
    Entry(
        "extrapolation", "Extrapolation over size", 'study.plots.extrapolation("prose")',
        "Lines scale the proposal and its best baseline to other sizes at their own tokens per parameter, with 90 % "
        "intervals for one new run, side by side at the target; the dotted line is the proposal at the runs' own "
        "tokens per parameter, for comparison with the grey dots, all measured runs; diamonds are runs trained after "
        "the forecast.",
    ),
    Entry(
        "over-sizes", "Optimum against size", "study.plots.over_sizes()",
        "The best share of each kind of domain by model size, a panel per phase: where lines are flat, what is best "
        "for a proxy is best for the target.",
    ),
    Entry(
        "worth", "Worth of each domain to each task", "study.plots.worth()",
        "Change in each task, percent of loss, per extra percentage point of a domain (1 % of the tokens to be "
        "trained) in a phase, blue for better; numbers in brackets have 90 % intervals that contain 0.",
    ),
    Entry(
        "parity", "Parity", 'study.plots.parity("code")',
        "Each dot is a run held out of the fit: predicted against measured, with its 90 % interval; nine of ten "
        "intervals should reach the diagonal.",
    ),
    Entry(
        "calibration", "Calibration", "study.plots.calibration()",
        "Observed against nominal coverage of held-out runs: calibrated intervals follow the diagonal, above it they "
        "are too wide, below it too narrow; the grey band is what chance alone allows for so few runs.",
    ),
    Entry(
        "residuals", "Residuals", 'study.plots.residuals("code")',
        "The same runs, measured over predicted: a slope or a bend is an effect that the law misses, and separate "
        "colours mean a wrong slope over size.",
    ),
    Entry(
        "schedule", "Schedule of a recipe", "study.plots.schedule()",
        "Phases from left to right, tokens in proportion, text in blues and code in oranges, with the learning rate "
        "above.",
    ),
    Entry(
        "paired", "Predicted and measured gains", "study.plots.paired()",
        "Gains of a proposal over the baseline, both trained with two seeds: bars are what was predicted (90 %, the "
        "noise of these runs included), diamonds what was measured, hollow where it lies outside.",
    ),
    Entry(
        "comparison", "Predicted gains, and what was measured", "study.plots.comparison()",
        "Gains over the best baseline's prediction by task with 90 % intervals of one new run, frozen before it was "
        "trained; diamonds are runs measured since.",
    ),
    Entry(
        "spread", "Spread of the optimum", "study.plots.spread()",
        "Bars are the best share of each domain in 90 % of posterior samples, dots the proposal, rings the optimum "
        "without limits.",
    ),
    Entry(
        "flat-directions", "Flat directions", "study.plots.flat_directions()",
        "Any share inside a bar is statistically equivalent to the proposal, with the other domains in proportion: "
        "room for other reasons to decide.",
    ),
    Entry(
        "front", "Pareto front", "study.plots.front()",
        "The Pareto front between groups of tasks, with 90 % intervals; colour shows the third group.",
    ),
    Entry(
        "value-of-runs", "Value of more runs", "study.plots.value_of_runs(1e13)",
        "Expected gain of the next suggested runs against their cumulative cost; the dotted line is the gain with "
        "perfect knowledge.",
    ),
    Entry(
        "segment-tree", "Segment tree", "study.plots.segment_tree()",
        "Training from left to right: recipes with the same beginning share a line, thicker the more of them; faint "
        "lines are not trained yet.",
    ),
    Entry(
        "losses", "Loss curves", "study.plots.losses()",
        "Training loss as logged, a line per segment; it is the loss on the mixture trained on, so a step at the "
        "start of a phase mostly shows the change of mixture.",
    ),
)  # fmt: skip

HEAD = """\
# Gallery

Every plot that a study can draw, of the demo's study (`make demo`, real runs on a CPU). Each is a
[plotly](https://plotly.com/python/) figure: hover over it in a notebook or in the [report](report.md) for run, recipe,
value and interval.

```python
import mixlaw

study = mixlaw.open_study("{study}")
print(study.plots)
```

`study.plots` completes with Tab; a method that takes a task draws the first one where none is named, and
`study.plots.dark` draws for a dark page. The pictures are drawn by `python benchmarks/gallery.py`.
"""


def figures(study: Study, entries: Sequence[Entry] = ENTRIES) -> dict[str, go.Figure]:
    """Run the Python line of every entry."""
    return {entry.name: eval(entry.line, {"study": study}) for entry in entries}


@contextmanager
def shown(
    browser: Any,
    found: Mapping[str, go.Figure],
    mode: str,
    width: int = WIDTH,
    scale: float = 1,
    complaints: list[str] | None = None,
) -> Iterator[Any]:
    """A page of a browser with every figure drawn, as the report draws them; errors of its script are complaints."""
    body = "".join(f'<div class="picture" id="{name}">{plot(figure, name)}</div>' for name, figure in found.items())
    style = "<style>.picture { padding: 12px 16px 4px; background: var(--paper); }</style>"
    view = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=mode, device_scale_factor=scale)
    heard = [] if complaints is None else complaints
    view.on("pageerror", lambda error: heard.append(str(error)))
    view.on("console", lambda message: heard.append(message.text) if message.type in ("error", "warning") else None)
    view.set_content(page("gallery", style + body), wait_until="load")
    view.evaluate("boxes.forEach(draw)")
    view.wait_for_function("boxes.every(box => box.querySelector('svg.main-svg'))", timeout=60_000)
    yield view
    view.close()


def save(found: Mapping[str, go.Figure], folder: Path, width: int = WIDTH) -> list[Path]:
    """Write gallery-<name>.png of every figure, gallery-<name>-dark.png, gallery-<name>-390.png on a phone."""
    from playwright.sync_api import sync_playwright

    paths = []
    with sync_playwright() as driver:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = driver.chromium.launch(executable_path=chromium, args=OFFLINE)
        for mode in MODES:
            with shown(browser, found, mode, width, SCALE) as view:
                for name in found:
                    of = f"{name}{'' if width == WIDTH else f'-{width}'}{'-dark' if mode == 'dark' else ''}"
                    paths.append(folder / f"gallery-{of}.png")
                    view.locator(f"#{name}").screenshot(path=paths[-1])
                    _small(paths[-1])
        browser.close()
    return paths


def _small(path: Path) -> None:
    """Give a picture a palette."""
    from PIL import Image

    with Image.open(path) as image:
        few = image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    few.save(path, optimize=True)


def text(study: Path, entries: Sequence[Entry] = ENTRIES) -> str:
    """The page: for every plot how to read it, its line, and its picture."""
    parts = [HEAD.format(study=study)]
    for entry in entries:
        picture = f"pictures/gallery-{entry.name}"
        parts.append(
            f"## {entry.title}\n\n{entry.how}\n\n```python\n{entry.line}\n```\n\n"
            f'<picture>\n<source media="(prefers-color-scheme: dark)" srcset="{picture}-dark.png">\n'
            f'<img src="{picture}.png" alt="{entry.title}" width="{WIDTH}">\n</picture>\n'
        )
    return "\n".join(parts)


def main() -> None:
    """Draw every plot of the study named, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, nargs="?", default=Path("out/demo"))
    parser.add_argument("--out", type=Path, default=DOCS)
    parser.add_argument("--only", default="", help="name of one plot")
    args = parser.parse_args()
    entries = [entry for entry in ENTRIES if args.only in ("", entry.name)]
    (args.out / "pictures").mkdir(parents=True, exist_ok=True)
    found = figures(mixlaw.open_study(args.study), entries)
    paths = save(found, args.out / "pictures")
    paths += save({name: found[name] for name in LANDING if name in found}, args.out / "pictures", PHONE)
    if not args.only:
        (args.out / "gallery.md").write_text(text(args.study), encoding="utf-8")
    print("\n".join(f"{path.stat().st_size / 1000:6.0f} kB  {path}" for path in paths))


if __name__ == "__main__":
    main()
