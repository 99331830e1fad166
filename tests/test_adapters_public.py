"""The public tables through the mappings that come with the documentation, against the csv module."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mixlaw import import_runs
from mixlaw.adapters.gather import gather
from mixlaw.adapters.importing import Understood, understand
from mixlaw.records import Record
from mixlaw.study import open_study

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("MIXLAW_DATA", ROOT.parent / "shared" / "data"))
MAPPINGS = ROOT / "docs" / "mappings"

TABLES = {
    "regmix": "regmix",
    "marin": "marin/two_phase_starcoder_143.csv",
    "olmix": "olmix/full_recomputation_ratios.csv",
    "datablations": "datablations/c4_data_constrained_runs.csv",
    "olmo_ladder": "olmo_ladder/tidy_final_rows.csv",
    "open_lm": "open_lm/tidy_openlm_runs.csv",
    "muennighoff_code": "../published/muennighoff_code_fill_scores.csv",
}
# Rows, domains, tasks, phases: as the authors state them, tasks counted in the header.
SIZES = {
    "regmix": (512 + 256 + 256 + 64, 17, 13, 1),
    "marin": (143, 2, 4, 2),
    "olmix": (512, 64, 110, 1),
    "datablations": (296, 1, 1, 1),
    "olmo_ladder": (30, 1, 71, 1),
    "open_lm": (104, 3, 54, 1),
    "muennighoff_code": (22, 3, 20, 1),
}
# One right answer of two, three or four; what is not here is no choice.
CHANCE = dict.fromkeys(("BoolQ", "COPA", "PiQA", "RTE", "StoryCloze", "WinoGrande"), 1 / 2)
CHANCE |= {"ANLI": 1 / 3, "CB": 1 / 3} | dict.fromkeys(("ARC", "HellaSwag", "SciQ"), 1 / 4)


def path_of(name: str) -> Path:
    path = DATA / TABLES[name]
    if not path.exists():
        pytest.skip(f"{path} is not here; set MIXLAW_DATA to the folder of the public tables")
    return path


def read(name: str) -> Understood:
    sheet, _ = gather(path_of(name), MAPPINGS / f"{name}.toml")
    return understand(sheet, {})


def rows_of(file: str) -> list[dict[str, str]]:
    with (DATA / file).open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def regmix(by_run: dict[str, Record]) -> None:
    for name, row, tokens in (("train_mixture_1m", 99, 1e9), ("test_mixture_1B", 63, 25e9)):
        mixture = rows_of(f"regmix/{name}.csv")[row]
        losses = rows_of(f"regmix/{name.replace('mixture', 'pile_loss')}.csv")[row]
        record = by_run[f"{name}-{mixture.pop('index')}"]
        total = sum(map(float, mixture.values()))
        for column, share in mixture.items():
            domain = column.removeprefix("train_the_pile_")
            assert math.isclose(record.drawn("init", domain), tokens * float(share) / total, rel_tol=1e-12), domain
        assert record.values["github"].value == float(losses["metric/the_pile_github_val_loss"])


def marin(by_run: dict[str, Record]) -> None:
    for row in rows_of(TABLES["marin"])[::20]:
        first, second = row["phase_0_starcoder"], row["phase_1_starcoder"]
        record = by_run[f"{float(first)}-{float(second)}"]
        assert record.drawn("phase_0", "starcoder") == pytest.approx(5e8 * float(first), rel=1e-12)
        assert record.drawn("phase_1", "nemotron") == pytest.approx(5e8 * (1 - float(second)), rel=1e-9)
        assert record.values["code"].value == float(row["eval/paloma/dolma_100_programing_languages/bpb"])
        assert record.recipe.unique["starcoder"] == round(1e9 * 217e9 / 5_729_908_864_777)


def olmix(by_run: dict[str, Record]) -> None:
    metrics = {row["run"]: row for row in rows_of("olmix/full_recomputation_metrics.csv")}
    for row in rows_of(TABLES["olmix"])[::100]:
        record = by_run[row["run"]]
        assert record.drawn("init", "stack-edu/Python") == pytest.approx(3e9 * float(row["stack-edu:Python"]), rel=1e-9)
        assert record.values["winogrande:rc::olmes"].value == float(metrics[row["run"]]["winogrande:rc::olmes"])


def datablations(by_run: dict[str, Record]) -> None:
    for row in rows_of(TABLES["datablations"])[::40]:
        record = by_run[row["name"]]
        assert (record.recipe.params, record.recipe.tokens) == (float(row["params"]), float(row["tokens"]))
        assert record.recipe.tokens / record.recipe.unique["c4"] == pytest.approx(float(row["epochs"]), rel=0.02)
        assert record.values["c4"].value == float(row["val_loss_c4"])


def olmo_ladder(by_run: dict[str, Record]) -> None:
    for row in rows_of(TABLES["olmo_ladder"]):
        record = by_run[row["run"]]
        assert (record.recipe.params, record.recipe.tokens) == (float(row["n"]), float(row["throughput/total_tokens"]))
        assert record.recipe.phases[0].lr_end == pytest.approx(0.1, abs=1e-3)
        assert record.values["acc/boolq_val_rc"].value == float(row["eval/downstream/boolq_val_rc_5shot_acc"])
        assert record.values["bpb/piqa_val_rc"].value == float(row["eval/downstream_bpb/piqa_val_rc_5shot_bpb"])


def open_lm(by_run: dict[str, Record]) -> None:
    for row in rows_of(TABLES["open_lm"]):
        record = by_run[row["name"]]
        assert (record.recipe.params, record.recipe.domains) == (float(row["params_no_embed"]), (row["train_data"],))
        assert record.values["loss/paloma_ptb"].value == float(row["loss_paloma_ptb"])
        assert record.values["acc/mmlu"].value == float(row["acc_mmlu"])


def muennighoff_code(by_run: dict[str, Record]) -> None:
    for row in rows_of(TABLES["muennighoff_code"]):
        if row["task"] == "Average (without bAbI)":
            continue
        record = by_run[f"{row['model_params']}-{row['text_corpus']}-{row['python_pct_of_tokens']}"]
        assert record.recipe.params == float(row["model_params"].removesuffix("B")) * 1e9
        assert record.recipe.mixture.share("python") == pytest.approx(float(row["python_pct_of_tokens"]) / 100)
        chance = next((c for name, c in CHANCE.items() if row["task"].startswith(name)), 0.0)
        value = chance + (1 - chance) * float(row["score_pct"]) / 100
        assert record.values[row["task"]].value == pytest.approx(value, abs=1e-12)
        spread = row["std_over_seeds_pct"]
        of_mean = float(spread or 0) / math.sqrt(float(row["n_seeds"])) / 100 * (1 - chance)
        assert record.noise.get(row["task"]) == (pytest.approx(of_mean) if spread else None)


CHECKS: dict[str, Callable[[dict[str, Record]], None]] = {
    check.__name__: check for check in (regmix, marin, olmix, datablations, olmo_ladder, open_lm, muennighoff_code)
}


@pytest.mark.parametrize("name", TABLES)
def test_a_public_table_has_the_sizes_its_authors_state_and_the_values_of_its_file(name: str) -> None:
    found = read(name)
    assert (len(found.records), len(found.domains), len(found.tasks), len(found.phases)) == SIZES[name]
    assert (found.runs, found.empty, found.ignored) == (len(found.records), 0, ())
    assert not any("units" in warning for warning in found.warnings)
    CHECKS[name]({record.run: record for record in found.records})


def test_a_mapping_says_where_its_table_comes_from() -> None:
    for name in TABLES:
        head = (MAPPINGS / f"{name}.toml").read_text(encoding="utf-8").split("\n\n")[0]
        assert "github.com/" in head, name
        assert f"--mapping {name}.toml" in head, name


def test_the_ladder_links_accuracies_to_bits_per_byte_of_the_same_task(tmp_path: Path) -> None:
    import_runs(tmp_path / "study", path_of("olmo_ladder"), mapping=MAPPINGS / "olmo_ladder.toml")
    settings = open_study(tmp_path / "study").settings
    scores = [task for task in settings.tasks if task.startswith("acc/")]
    assert settings.links() == {task: f"bpb/{task.removeprefix('acc/')}" for task in scores}
    assert len(scores) == 20


def test_the_chance_of_a_score_goes_into_the_study(tmp_path: Path) -> None:
    import_runs(tmp_path / "study", path_of("muennighoff_code"), mapping=MAPPINGS / "muennighoff_code.toml")
    known = open_study(tmp_path / "study").settings.chance()
    tasks = {row["task"] for row in rows_of(TABLES["muennighoff_code"])}
    expected = {t: c for t in tasks for name, c in CHANCE.items() if t.startswith(name)}
    assert known == pytest.approx(expected)


def test_one_file_of_several_and_a_study_that_reads_back(tmp_path: Path) -> None:
    found = import_runs(
        tmp_path / "study", path_of("regmix") / "test_mixture_1B.csv", mapping=MAPPINGS / "regmix.toml"
    ).imported
    study = open_study(tmp_path / "study")
    assert (found.runs, study.table().height, found.params) == (64, 64, (10**9, 10**9))
    assert study.settings.domains["github"].kind.is_code
    assert "sum to 0.998 to 1.002" in found.notes[0]
