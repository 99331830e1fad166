"""`mixlaw status` and `mixlaw show`: what a study holds, one run or proposal of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixlaw import import_runs, open_study, preview_import
from mixlaw.analysis.surface.saved import FORMAT
from mixlaw.errors import InputError, did_you_mean
from test_cli import document, document_here, mixlaw, refused_here

TABLE = """run,params,seed,tokens:train:web,tokens:train:code,metric:loss,progress
007,1000000,3,6000000,2000000,2.5,0.5
007,1000000,3,12000000,4000000,2.25,1
b,2000000,0,32000000,0,2.0,1
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    (tmp_path / "runs.csv").write_text(TABLE)
    import_runs(tmp_path / "study", tmp_path / "runs.csv", unit="bits/byte")
    return tmp_path / "study"


def test_status_says_what_is_there_and_what_comes_next(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(study.parent)
    assert mixlaw("status", "study", "-q").stdout == "study study: 3 runs measured; next: mixlaw fit study\n"
    found = document("status", "study")
    assert (found["runs"], found["proposals"]) == (["007", "b"], [])
    assert found["next"] == "3 runs measured; next: mixlaw fit study"
    assert str(open_study(study)).splitlines()[-1] == "study study: 3 runs measured; next: fit()"
    (study / "suggestions").mkdir()
    (study / "suggestions" / "one.jsonl").write_text('{"run": "007"}\n{"run": "new"}\n')
    assert "3 runs measured, 1 suggested run not yet; next" in str(open_study(study))
    for damaged in ('{"run": "007"}\n{"run": "n', '{"rum": "007"}', "[]", "7"):
        (study / "suggestions" / "one.jsonl").write_text(damaged)
        assert "one.jsonl is damaged" in " ".join(str(open_study(study)).split())
    assert "one.jsonl is damaged" in refused_here(study, "status", "study")
    (study / "suggestions" / "one.jsonl").unlink()
    (study / "surfaces").mkdir()
    (study / "surfaces" / "surfaces.json").write_text("[]")
    assert "surfaces.json is damaged" in " ".join(str(open_study(study)).split())
    (study / "surfaces" / "surfaces.json").write_text(f'{{"format": {FORMAT - 1}, "runs": ["007", "b"]}}')
    older = "3 runs measured, surfaces fitted by another version of mixlaw; next: mixlaw fit study"
    assert document("status", "study")["next"] == older


def test_what_has_no_heads_has_columns_in_a_data_frame(study: Path) -> None:
    parts = dict(open_study(study).status().to_polars("parts").iter_rows())
    assert parts["phases"] == "train"
    assert parts["target"] == "none"
    shown = preview_import(study, study.parent / "runs.csv").to_polars()
    assert dict(shown.iter_rows())["phases in order"] == "train"


def test_a_run_is_shown_with_its_recipe_and_its_last_values(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = mixlaw("show", study, "007").stdout.splitlines()
    assert lines[-1] == "run 007: 1M params, 16M tokens, seed 3, finished"
    assert ["web", "75.0", "%"] in [line.split() for line in lines]
    assert lines[2].split() == ["loss", "2.25", "bits/byte"]
    assert document_here(capsys, "show", study, "b")["values"]["loss"][0] == 2.0


def test_what_is_not_there_is_said(study: Path) -> None:
    assert "did you mean '007'?" in refused_here(study, "show", study, "07")
    assert did_you_mean("mix-3", ["mix-03", "mix-10", "mix-13"]) == "did you mean 'mix-03' or 'mix-13'?"
    with pytest.raises(InputError, match="there is no proposal yet; name a run"):
        open_study(study).show()
