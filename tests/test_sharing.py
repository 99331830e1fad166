"""A study goes to a dataset of a hub on loopback, by the real client, and comes back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import mixlaw
from hub_server import serve
from mixlaw.cli import app
from mixlaw.errors import InputError
from mixlaw.study import sharing

pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed: pip install huggingface_hub")
TABLE = """\
run,params,tokens:train:web,tokens:train:code,metric:loss
a,1000000,12000000,4000000,2.25
b,2000000,32000000,0,2.0
"""


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> mixlaw.Study:
    (tmp_path / "runs.csv").write_text(TABLE)
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    return mixlaw.import_runs(tmp_path / "study", tmp_path / "runs.csv", unit="bits/byte")


def test_a_study_is_pushed_and_pulled(
    study: mixlaw.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (study.path / "report.html").write_text("<p>the page</p>")
    (study.path / "surfaces").mkdir()
    (study.path / "surfaces" / "regressors.pickle").write_bytes(b"a program")
    with serve("team/study", files := dict[str, bytes]()) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        app(["push", str(study.path), "team/study", "--json"], standalone_mode=False)
        assert json.loads(capsys.readouterr().out)["files"] == len(files) == 6
        app(["pull", str(tmp_path / "copy"), "team/study"], standalone_mode=False)
        assert "pulled" in capsys.readouterr().out
        with pytest.raises(InputError, match="is not empty; pull into a new folder"):
            sharing.pull(study.path, "team/study")
    copy = mixlaw.open_study(tmp_path / "copy")
    assert copy.table().equals(study.table())
    assert copy.units == {"loss": "bits/byte"}
    assert (copy.path / "report.html").read_text() == "<p>the page</p>"
    assert not (copy.path / "surfaces").exists(), "a pickle may hold a program"
    assert b"A mixlaw study of web, code." in files["README.md"]


def test_no_program_and_no_file_from_elsewhere_comes_with_a_study_or_goes_with_one(
    study: mixlaw.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "private").write_text("a key")
    (study.path / "report.html").symlink_to(tmp_path / "private")
    with serve("team/study", files := dict[str, bytes]()) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        study.push("team/study")
        assert "report.html" not in files
        files |= dict.fromkeys(
            ("recipes/law.py", "recipes/a/b.json", "surfaces/x.pickle", "proposals/x.json.py"), b"{}"
        )
        pulled = sharing.pull(tmp_path / "copy", "team/study")
        names = {path.relative_to(pulled.study).as_posix() for path in pulled.study.rglob("*") if path.is_file()}
        assert names == {name for name in files if name == "study.toml" or name.endswith("record.json")}
        files["runs/../../../out/record.json"] = b"{}"
        with pytest.raises(InputError, match=r"the hub's client refused: .*cannot contain a '..' path segment"):
            sharing.pull(tmp_path / "deep" / "other", "team/study")
    assert not list(tmp_path.rglob("out"))


def test_what_the_hub_refuses_is_one_sentence_and_leaves_nothing(
    study: mixlaw.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve("team/study", {"a.txt": b"no study"}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        with pytest.raises(InputError, match=r"holds no study\.toml"):
            sharing.pull(tmp_path / "copy", "team/study")
        with pytest.raises(InputError, match="the hub refused"):
            sharing.pull(tmp_path / "copy", "team/other")
        with pytest.raises(InputError, match="a dataset is OWNER/NAME"):
            study.push("a/b/c")
    assert not (tmp_path / "copy").exists()
    assert not list(tmp_path.glob(".pull-*"))
