"""Code in the place of text: how 19 language tasks respond, which carry signal, and where their average is best.

    python benchmarks/code_share_table.py

Scores of models of 2.8B and 4.2B parameters whose tokens are 0 to 90 % Python (Muennighoff et al. 2023, appendix M),
from `published` beside $MIXLAW_DATA or in ../shared, imported with their mapping and fitted as `mixlaw fit` does.
Scores at 4.2B and at 0 % are means of five seeds; the others are of one seed, without a measured noise.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mixlaw import import_runs
from mixlaw.analysis.audit.readiness import Verdict
from mixlaw.analysis.surface.surface import Surfaces
from mixlaw.printable import Page
from mixlaw.study import open_study
from mixlaw.tables import Column, Table
from mixlaw.terminal import plain

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("MIXLAW_DATA", ROOT.parent / "shared" / "data"))
TABLE = DATA.parent / "published" / "muennighoff_code_fill_scores.csv"
Floats = NDArray[np.float64]
#: Code shares at which the response is read, those of the published runs and between them.
SHARES = np.linspace(0.0, 0.9, 37)
DRAWS = 64


#: The published average is a task of its own: seeds move all tasks together, which their own curves do not know.
AVERAGE = "Average"
SERIES = ((4.2e9, "C4"), (2.8e9, "C4"), (2.8e9, "OSCAR"))


@dataclass(frozen=True)
class Span:
    """A number with its 90 % interval."""

    middle: float
    low: float
    high: float

    @classmethod
    def of(cls, middle: float, draws: Floats) -> Span:
        """Around a middle, from posterior draws (D,)."""
        return cls(middle, float(np.quantile(draws, 0.05)), float(np.quantile(draws, 0.95)))

    def text(self, form: str) -> str:
        """All three in one format."""
        return f"{self.middle:{form}} ({self.low:{form}} to {self.high:{form}})"


@dataclass(frozen=True)
class Response:
    """Rescaled scores in points (0 = chance, 100 = perfect) against the code share, for one size and text corpus.

    Attributes:
        name: size and corpus.
        mean: of each task at the shares of `SHARES`, (S, T).
        draws: the same in posterior draws as wide as held-out runs ask for, (D, S, T).
    """

    name: str
    mean: Floats
    draws: Floats

    def best(self, task: int) -> Span:
        """Share at which a task is best."""
        return Span.of(float(SHARES[self.mean[:, task].argmax()]), SHARES[self.draws[..., task].argmax(1)])

    def change(self, share: float, task: int) -> Span:
        """Change of a task from no code to this share."""
        at = int(np.abs(SHARES - share).argmin())
        draws = self.draws[:, at, task] - self.draws[:, 0, task]
        return Span.of(float(self.mean[at, task] - self.mean[0, task]), draws)

    def harmless(self, task: int) -> float:
        """Largest share up to which the task is as good as without code."""
        worse = self.mean[:, task] < self.mean[0, task]
        return float(SHARES[worse.argmax() - 1] if worse.any() else SHARES[-1])


@cache
def fitted() -> Surfaces:
    """The published scores, imported with their mapping and fitted by default."""
    with tempfile.TemporaryDirectory() as folder:
        import_runs(Path(folder) / "study", TABLE, mapping=ROOT / "docs" / "mappings" / "muennighoff_code.toml")
        return open_study(Path(folder) / "study").fit()


def response(surfaces: Surfaces, params: float, corpus: str) -> Response:
    """What the surfaces say of models of one size whose tokens are Python and this corpus."""
    design = surfaces.observed.design
    base = design.select([design.runs.index(f"{params / 1e9:g}B-{corpus}-0")])
    python, text = (design.domains.index(name) for name in ("python", corpus))
    tokens = torch.zeros(len(SHARES), 1, len(design.domains), dtype=torch.float64)
    tokens[:, 0, python] = base.total * torch.tensor(SHARES)
    tokens[:, 0, text] = base.total * torch.tensor(1 - SHARES)
    grid = replace(base.select([0] * len(SHARES)), tokens=tokens)
    with torch.no_grad():
        mean, draws = surfaces.mean(grid), surfaces.draws(grid, DRAWS)
    draws = mean + surfaces.calibration * (draws - mean)
    chance = torch.tensor([surfaces.chance.get(task, 0.0) for task in surfaces.tasks], dtype=torch.float64)
    mean, draws = (100 * (values - chance) / (1 - chance) for values in (mean, draws))
    return Response(f"{params / 1e9:g}B, {corpus}", mean.numpy(), draws.numpy())


def per_task(surfaces: Surfaces, series: Response) -> list[dict[str, str]]:
    """A row per task: score without code, change with 25, 50 and 90 % of it, best share, noise, signal, verdict."""
    rows = []
    for t, task in enumerate(surfaces.tasks):
        ready = surfaces.readiness[task]
        size = max(ready.sizes, key=lambda s: s.params)
        noise = 100 * size.noise / (1 - surfaces.chance.get(task, 0.0))
        row = {"task": task, "no code": f"{series.mean[0, t]:.1f}"}
        row |= {f"{share:.0%} code": series.change(share, t).text("+.1f") for share in (0.25, 0.5, 0.9)}
        row |= {"best share": series.best(t).text(".0%"), "noise": f"{noise:.1f}", "signal": f"{size.ratio:.1f}"}
        rows.append(row | {"verdict": ready.words.split(":")[0]})
    return rows


def measured(surfaces: Surfaces, params: float, corpus: str) -> dict[str, float]:
    """Published average of every run of a series, in points, by its percentage of Python."""
    start, value = f"{params / 1e9:g}B-{corpus}-", surfaces.observed.value[surfaces.tasks.index(AVERAGE)]
    rows = [(run.removeprefix(start), float(v)) for run, v in zip(surfaces.observed.design.runs, value, strict=True)]
    return {share: 100 * v for share, v in sorted(rows, key=lambda row: len(row[0])) if share.isdigit()}


def with_signal(surfaces: Surfaces) -> list[str]:
    """Tasks that carry signal, the average left out."""
    good = (Verdict.READY, Verdict.FROM_SIZE)
    return [task for task, ready in surfaces.readiness.items() if ready.verdict in good and task != AVERAGE]


def code_share() -> list[tuple[str, float, float | None]]:
    """Figures of the scoreboard: what, value, bar (there is none)."""
    surfaces = fitted()
    average = surfaces.tasks.index(AVERAGE)
    figures: list[tuple[str, float, float | None]] = [("tasks of 19 with signal", len(with_signal(surfaces)), None)]
    for params, corpus in SERIES:
        series = response(surfaces, params, corpus)
        best = series.best(average)
        what = f"best share of Python for the average, {series.name}"
        figures += [(what, best.middle, None), (f"{what}, low", best.low, None), (f"{what}, high", best.high, None)]
    return figures


def main() -> None:
    """Print the table of tasks and the best shares for their average."""
    if not TABLE.exists():
        print(f"code_share_table: {TABLE} is not here; set MIXLAW_DATA to the folder beside `published`")
        return
    surfaces = fitted()
    average, responses = surfaces.tasks.index(AVERAGE), [response(surfaces, *series) for series in SERIES]
    print(
        f"{responses[0].name}: rescaled scores in points (0 = chance), "
        "their change with Python in the place of text, 90 %"
    )
    print("noise: of a measured score; signal: spread of true scores over it at this size; verdict: over both sizes")
    rows = per_task(surfaces, responses[0])
    columns = [Column(name, numeric=i > 0) for i, name in enumerate(rows[0])]
    print(plain(Page(tables=[Table("rows", columns, [list(row.values()) for row in rows])]), everything=True))
    good = with_signal(surfaces)
    print(f"\n{len(good)} of 19 tasks carry signal: {', '.join(good)}")
    for one in responses:
        best, half = one.best(average).text(".0%"), one.change(0.5, average).text("+.1f")
        print(
            f"{one.name}: average best at {best} Python, half Python {half}, no loss up to {one.harmless(average):.0%}"
        )


if __name__ == "__main__":
    main()
