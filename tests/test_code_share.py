from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import code_share_table as benchmark

from mixlaw import import_runs
from mixlaw.analysis.audit.readiness import Verdict
from mixlaw.analysis.fit import fit
from mixlaw.analysis.surface.surface import Surfaces
from mixlaw.study import open_study


@pytest.fixture(scope="module")
def surfaces(tmp_path_factory: pytest.TempPathFactory) -> Surfaces:
    """The published scores through their mapping, without the audit, which takes most of the time."""
    if not benchmark.TABLE.exists():
        pytest.skip(f"{benchmark.TABLE} is not here; set MIXLAW_DATA to the folder beside `published`")
    folder = tmp_path_factory.mktemp("code") / "study"
    import_runs(folder, benchmark.TABLE, mapping=benchmark.ROOT / "docs" / "mappings" / "muennighoff_code.toml")
    study = open_study(folder)
    chance = study.settings.chance()
    return fit(study.table(), units=study.units, unique={}, resamples=24, audited=False, chance=chance)


#: Published points at 4.2B: score without code, at 50 % and at 90 % Python (appendix M, table 10).
PUBLISHED = {
    "HellaSwag": (27.8, 26.3, 14.7),
    "PiQA": (50.6, 48.4, 39.0),
    "ARC-Easy": (49.2, 49.7, 37.7),
    "bAbI": (0.0, 23.2, 24.6),
    "WikiLingua EN": (3.3, 4.2, 3.6),
    "Average": (22.1, 23.8, 19.3),
}
POINTS = [
    (task, share, score)
    for task, scores in PUBLISHED.items()
    for share, score in zip((0.0, 0.5, 0.9), scores, strict=True)
    if (task, share) != ("HellaSwag", 0.0)
]
MISSED = "29.5: five seeds at 4.2B differ by 4.8, those at 2.8B by .3, and there 0 % is above 10 % (29.4 +- .4 at 4.2B)"


@pytest.mark.parametrize(
    ("task", "share", "score"),
    [*POINTS, pytest.param("HellaSwag", 0.0, 27.8, marks=pytest.mark.xfail(reason=MISSED, strict=True))],
)
def test_curves_pass_the_published_scores(surfaces: Surfaces, task: str, share: float, score: float) -> None:
    found = benchmark.response(surfaces, 4.2e9, "C4")
    at = int(np.abs(benchmark.SHARES - share).argmin())
    assert abs(found.mean[at, surfaces.tasks.index(task)] - score) <= 1.6


def test_tasks_that_code_moves_are_told_from_those_at_chance(surfaces: Surfaces) -> None:
    verdict = {task: ready.verdict for task, ready in surfaces.readiness.items()}
    clear = ("HellaSwag", "PiQA", "ARC-Easy", "ARC-Challenge", "StoryCloze 2016", "WinoGrande XL", "bAbI")
    assert {verdict[task] for task in clear} == {Verdict.READY}
    assert verdict["ANLI R2"] is Verdict.CHANCE
    assert Verdict.READY not in {verdict[task] for task in ("ANLI R1", "ANLI R3", "CB", "BoolQ")}
    signal = benchmark.with_signal(surfaces)
    assert set(clear) <= set(signal)
    assert "Average" not in signal


def test_the_average_is_best_with_some_code_and_never_with_most(surfaces: Surfaces) -> None:
    best = benchmark.response(surfaces, 4.2e9, "C4").best(surfaces.tasks.index("Average"))
    assert 0.05 <= best.middle <= 0.5
    assert best.low <= best.middle <= best.high < 0.65


def test_a_row_for_every_task_and_runs_in_order(surfaces: Surfaces) -> None:
    rows = benchmark.per_task(surfaces, benchmark.response(surfaces, 4.2e9, "C4"))
    assert [row["task"] for row in rows] == list(surfaces.tasks)
    assert len(rows) == 20
    averages = benchmark.measured(surfaces, 2.8e9, "OSCAR")
    assert averages == pytest.approx({"0": 19.4, "10": 18.5, "20": 19.0, "30": 18.8, "40": 18.3, "50": 17.8})
