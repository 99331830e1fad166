"""Studies of mixlaw 0.1: settings and runs are read, fits and proposals refused in one sentence with what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import mixlaw
from mixlaw.errors import InputError

#: Written by 0.1 when it imported a table of one run.
SETTINGS = """version = 1
name = "s"

[domains]
web = {kind = "text", unique_tokens = 90000000}
code = {kind = "code", unique_tokens = 90000000}

[tasks]
loss = "bits/byte"

[[phases]]
name = "init"
share = 0.8
lr_end = 1.0

[[phases]]
name = "cooldown"
share = 0.2
lr_end = 0.0
"""
RECORD = """{
 "format": 1, "run": "e", "progress": 1.0, "values": {"loss": [2.05, null, null]}, "noise": {},
 "tokens": {"init": {"web": 16000000.0, "code": 16000000.0}, "cooldown": {"web": 4000000.0, "code": 4000000.0}},
 "recipe": {"params": 2000000, "seed": 0, "unique": {}, "data": "", "schedule": "wsd", "phases": [
  {"name": "init", "tokens": 32000000, "mixture": {"code": 0.5, "web": 0.5}, "lr_end": null},
  {"name": "cooldown", "tokens": 8000000, "mixture": {"code": 0.5, "web": 0.5}, "lr_end": null}]},
 "details": {}
}
"""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    for name, text in {
        "study.toml": SETTINGS,
        "runs/8631ce480f7a9a98/record.json": RECORD,
        "surfaces/surfaces.json": '{"format": 4, "tasks": ["loss"]}',
        "proposals/ec641812c739.json": json.dumps({"format": 2, "target": {"params": 4_000_000}}),
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_settings_and_runs_of_0_1_are_read(old: Path) -> None:
    study = mixlaw.open_study(old)
    row = study.table().row(0, named=True)
    assert (row["run"], row["params"], row["tokens:init:web"], row["metric:loss"]) == ("e", 2_000_000, 16e6, 2.05)
    assert [domain.unique_tokens for domain in study.domains] == [90_000_000] * 2


def test_fits_and_proposals_of_0_1_are_refused_with_what_to_do(old: Path) -> None:
    study = mixlaw.open_study(old)
    with pytest.raises(InputError, match=r"surfaces in .* have format 4, this is \d+; fit again$"):
        study.surfaces()
    wanted = r"of format 2 cannot be read, this version reads \d+; propose again\); restore it or move it away$"
    with pytest.raises(InputError, match=wanted):
        study.proposals()
    (old / "proposals" / "ec641812c739.json").unlink()
    assert study.proposals() == []
