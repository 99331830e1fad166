"""The notebooks as they are kept: output, pictures beside plots, nothing of this machine, and figures as published."""

from __future__ import annotations

import ast
import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PLOTLY = "application/vnd.plotly.v1+json"
DATA = Path(os.environ.get("MIXLAW_DATA", ROOT.parent / "shared" / "data"))
SCORES = DATA.parent / "published" / "muennighoff_code_fill_scores.csv"


def cells(path: Path) -> list[dict[str, Any]]:
    """Code cells of a notebook."""
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


def source(path: Path) -> str:
    return "\n".join("".join(cell["source"]) for cell in cells(path))


def test_there_are_six_stories() -> None:
    assert [path.name[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05", "06"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_keeps_its_output_with_a_picture_of_every_plot(path: Path) -> None:
    outputs = [output for cell in cells(path) for output in cell["outputs"]]
    assert [cell["execution_count"] for cell in cells(path)] == list(range(1, len(cells(path)) + 1))
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert not [output["text"] for output in outputs if output.get("name") == "stderr"]
    plots = [output["data"] for output in outputs if PLOTLY in output.get("data", {})]
    assert plots
    for data in plots:
        assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    assert path.stat().st_size < 2_000_000
    assert not re.search(r"/(tmp|home|root|work|Users)/", path.read_text())


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_needs_nothing_of_the_checkout(path: Path) -> None:
    tree = ast.parse(source(path))
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    here = {p.stem for folder in ("tests", "benchmarks") for p in (ROOT / folder).glob("*.py")}
    assert not {name.partition(".")[0] for name in names} & ({"tests", "benchmarks"} | here - {"__main__"})


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_begins_short_imports_from_the_top_alone_and_ends_with_a_conclusion(path: Path) -> None:
    everything = json.loads(path.read_text())["cells"]
    first, last = cells(path)[0]["source"], everything[-1]
    assert len([line for line in first if line.strip()]) <= 10
    froms = {str(node.module) for node in ast.walk(ast.parse(source(path))) if isinstance(node, ast.ImportFrom)}
    assert not {name for name in froms if name.startswith("mixlaw.")}
    assert last["cell_type"] == "markdown"
    assert "".join(last["source"]).startswith("**Conclusion.**")
    folded = [cell for cell in cells(path) if cell["metadata"].get("jupyter", {}).get("source_hidden")]
    assert all(len(cell["source"]) > 8 for cell in folded)
    assert path.stat().st_size < 700_000


def test_a_folder_without_the_wheel_is_refused_before_anything_runs(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "notebooks" / "execute.py"), "--site", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"not from {tmp_path}; `make wheel` first" in done.stderr


def test_typed_scores_of_19_tasks_are_the_published_ones() -> None:
    if not SCORES.exists():
        pytest.skip(f"{SCORES} is not here; set MIXLAW_DATA to the folder beside `published`")
    found: dict[str, Any] = {}
    for node in ast.parse(source(NOTEBOOKS[5])).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            found[ast.unparse(node.targets[0])] = node.value.value
    typed = {}
    for size, name, corpora in (("4.2B", "LARGE", ["C4"] * 10), ("2.8B", "SMALL", ["C4"] * 6 + ["OSCAR"] * 6)):
        for line in found[name].strip().splitlines():
            for i, (corpus, cell) in enumerate(zip(corpora, line[15:].split()[1:], strict=True)):
                score, _, deviation = cell.partition("±")
                share = 10 * (i - 6 * (corpus == "OSCAR"))
                typed[size, corpus, share, line[:15].strip()] = (float(score), float(deviation) if deviation else None)
    table = pl.read_csv(SCORES).filter(pl.col("task") != "Average (without bAbI)")
    keys = ("model_params", "text_corpus", "python_pct_of_tokens", "task", "score_pct", "std_over_seeds_pct")
    published = {row[:4]: row[4:] for row in table.select(keys).rows()}
    assert typed == published
    assert len(typed) == 22 * 20


def test_typed_scores_of_ten_recipes_are_the_published_ones() -> None:
    path = DATA.parent / "published" / "aryabumi_table2_recipes.csv"
    if not path.exists():
        pytest.skip(f"{path} is not here; set MIXLAW_DATA to the folder beside `published`")
    (rows,) = [
        ast.literal_eval(node.value)
        for node in ast.parse(source(NOTEBOOKS[1])).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "TABLE_2"
    ]
    scores = ("nl_reasoning_acc_pct", "world_knowledge_em_pct", "code_pass1_pct")
    table = pl.read_csv(path).select("variant", "stage_text_tokens_B", "stage_code_tokens_B", *scores)
    assert [(variant, *list(phases.values())[-1], *found) for variant, phases, *found in rows] == table.rows()
