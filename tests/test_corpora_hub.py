"""Datasets by `datasets` itself: saved by it, local files that it builds, and streamed from a hub on loopback."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hub_server import COMMIT, serve
from mixlaw.errors import InputError
from mixlaw.runner.corpora.sources.registry import identity, packages, partitions, read

TEXTS = [f"text {number}" for number in range(10)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`saved` in three shards, `dict` with two splits, `lines` as two files for a local builder."""
    datasets: Any = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    root = tmp_path_factory.mktemp("datasets")
    saved = datasets.Dataset.from_dict({"text": [*TEXTS, None], "id": list(range(11))})
    saved.save_to_disk(str(root / "saved"), num_shards=3)
    datasets.DatasetDict({"train": saved, "test": saved.select([3, 1])}).save_to_disk(str(root / "dict"))
    saved.select([5, 2, 7]).save_to_disk(str(root / "chosen"))
    for number in (0, 5):
        lines = "".join(json.dumps({"body": text}) + "\n" for text in TEXTS[number : number + 5])
        (root / "lines").mkdir(exist_ok=True)
        (root / "lines" / f"train-{number}.jsonl").write_text(lines)
    return root


@pytest.mark.parametrize(
    ("source", "expected", "parts"),
    [
        ("hf:saved", TEXTS, 3),
        ("hf:dict", TEXTS, 1),
        ("hf:dict?split=test", [TEXTS[3], TEXTS[1]], 1),
        ("hf:chosen", [TEXTS[5], TEXTS[2], TEXTS[7]], 1),
        ("hf:lines?column=body", TEXTS, 2),
    ],
)
def test_local_datasets_are_read_in_order_a_part_a_shard(
    source: str, expected: list[str], parts: int, root: Path
) -> None:
    found = pickle.loads(pickle.dumps(partitions(source, root)))
    assert len({part.name for part in found}) == parts
    assert [document.text for part in found for document in part.read()] == expected
    assert [document.text for document in read(source, root)] == expected


def test_the_identity_of_a_local_dataset_changes_when_it_is_saved_again(root: Path, tmp_path: Path) -> None:
    datasets: Any = pytest.importorskip("datasets")
    seen = []
    for texts in (["one"], ["two"]):
        datasets.Dataset.from_dict({"text": texts}).save_to_disk(str(tmp_path / "saved"))
        seen.append(identity("hf:saved", tmp_path))
        assert identity("hf:saved", tmp_path) == seen[-1]
    assert seen[0] != seen[1]
    before = identity("hf:lines?column=body", root)
    os.utime(root / "lines" / "train-0.jsonl", (1, 1))
    assert identity("hf:lines?column=body", root) != before
    assert set(packages("hf:saved", tmp_path)) == {"datasets"}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("hf:saved?column=body", "has no column 'body': write column= one of text, id"),
        ("hf:saved?column=id", "the column 'id' holds 0 instead of text; name another"),
        ("hf:dict?split=dev", "has no split 'dev': write split= one of train, test"),
        ("hf:lines?split=dev", "cannot be opened: Bad split: dev. Available splits: .*; correct the id"),
        ("hf:lines?config=en", "cannot be opened: BuilderConfig 'en' not found"),
        ("hf:./nowhere", "names no folder below .* and no dataset of the hub"),
        ("hf:saved?subset=en", "unknown option 'subset': hf:saved knows split, column, config, data_dir, revision"),
    ],
)
def test_a_wrong_dataset_says_what_is_wrong(source: str, message: str, root: Path) -> None:
    with pytest.raises(InputError, match=message):
        list(read(source, root))


#: Reads datasets as a study would, in a process of its own: the hub's client takes its address when it is imported.
CLIENT = """
import json, pickle, sys
from pathlib import Path
from mixlaw.errors import InputError
from mixlaw.runner.corpora.sources.registry import identity, partitions
found = []
for source in sys.argv[1:]:
    try:
        parts = pickle.loads(pickle.dumps(partitions(source, Path("."))))
        found.append([identity(source, Path("."))["state"], [[d.text for d in part.read()] for part in parts]])
    except InputError as error:
        found.append(str(error))
print(json.dumps(found))
"""


def client(folder: Path, *sources: str, **environment: str) -> list[Any]:
    """What a process finds in each source: identity and the texts of each part, or the error."""
    variables = {**os.environ, "HF_HOME": str(folder), "HF_HUB_DISABLE_TELEMETRY": "1", **environment}
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, *sources], cwd=folder, env=variables, capture_output=True, text=True, check=True
    )
    found: list[Any] = json.loads(done.stdout)
    return found


def test_a_dataset_of_the_hub_is_streamed_at_a_commit_file_by_file(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    card = "configs:\n- config_name: default\n  data_files: data/*.jsonl\n- config_name: en\n  data_files: en/*.jsonl\n"
    files = {
        "README.md": f"---\n{card}---\n".encode(),
        "data/a.jsonl": b'{"text": "one"}\n{"text": "two"}\n',
        "data/b.jsonl": b'{"text": "three"}\n',
        "en/c.jsonl": b'{"body": "four"}\n',
    }
    sources = ["hf:org/set", f"hf:org/set?config=en&column=body&revision={COMMIT}", "hf:org/set?split=dev", "hf:org/no"]
    with serve("org/set", files) as hub:
        plain, other, split, missing = client(tmp_path, *sources, HF_ENDPOINT=hub.url)
        assert hub.fetched.count("data/b.jsonl") == 1, "only the part that holds a file fetches it"
    assert plain == [{"revision": COMMIT}, [["one", "two"], ["three"]]]
    assert other == [{"revision": COMMIT}, [["four"]]]
    assert "Bad split: dev. Available splits: ['train']" in split
    assert "'hf:org/no' is no folder below ., and the hub does not give it: 404" in missing


def test_offline_the_error_says_so_and_what_to_do(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    (told,) = client(tmp_path, "hf:org/set", HF_HUB_OFFLINE="1")
    assert "offline mode is enabled" in told
    assert told.endswith("correct the id, go online, or fetch the dataset and name its folder")
