"""Sources in object stores: the same documents and shards as from local files, in a real S3 and in fsspec's memory."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import fsspec  # type: ignore[import-untyped]
import polars as pl
import pytest

from mixlaw.errors import InputError
from mixlaw.runner.corpora.prepare import prepare
from mixlaw.runner.corpora.sources.registry import identity, partitions, read
from s3_server import serving

TEXTS = [f"document {n} holds some words, {n * n} of them or so" for n in range(90)]


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """URL of a bucket in a server that speaks S3."""
    with serving() as url:
        yield url


@pytest.fixture(params=["memory", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty folder."""
    base = request.getfixturevalue("s3") if request.param == "s3" else "memory:/"
    return f"{base}/{tmp_path.name}"


def put(url: str, folder: Path) -> None:
    """The texts in three formats, here and at the URL, beside what is no document."""
    folder.mkdir()
    rows = "".join(json.dumps({"body": text}) + "\n" for text in TEXTS[:30])
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(rows.encode(), mtime=0))
    pl.DataFrame({"body": TEXTS[30:60]}).write_parquet(folder / "b.parquet")
    (folder / "c.jsonl").write_text("".join(json.dumps({"body": text}) + "\n" for text in TEXTS[60:]))
    (folder / "README.md").write_text("What this is.")
    system, path = fsspec.core.url_to_fs(url)
    system.put(f"{folder}/", f"{path}/", recursive=True)


def test_a_store_gives_the_documents_and_shards_of_local_files(url: str, tmp_path: Path) -> None:
    put(url, tmp_path / "corpus")
    assert [document.text for document in read(f"{url}#body", tmp_path)] == TEXTS
    assert [document.text for document in read(f"{url}/*.jsonl#body", tmp_path)] == TEXTS[60:]
    assert [document.text for document in read(f"{url}/b.parquet#body", tmp_path)] == TEXTS[30:60]
    assert all(part.size for part in partitions(f"{url}#body", tmp_path)), "for the progress"
    local, remote = (
        prepare(tmp_path / name, {"web": source}, root=tmp_path, vocabulary=300, held_out=0.2, processes=0)
        for name, source in (("local", "corpus#body"), ("remote", f"{url}#body"))
    )
    assert remote.hash == local.hash


def test_the_identity_changes_with_a_file(url: str, tmp_path: Path) -> None:
    put(url, tmp_path / "corpus")
    before = identity(f"{url}#body", tmp_path)
    assert identity(f"{url}#body", tmp_path) == before
    with fsspec.open(f"{url}/c.jsonl", "w") as file:
        file.write('{"body": "another"}\n')
    assert identity(f"{url}#body", tmp_path) != before


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("memory://nowhere/*.jsonl", "no file matches the source 'memory://nowhere"),
        ("memory://nowhere/a.jsonl", "cannot be listed"),
        ("nosuch://bucket/a.jsonl", "cannot be opened: .*nosuch"),
        ("s3://[", r"'s3://\[' is no URL"),
        ("https://me:word@store/a.jsonl", "a source at store holds a user or password"),
    ],
)
def test_a_url_that_gives_nothing_is_refused_by_name(source: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        partitions(source, tmp_path)


def test_a_store_that_cannot_be_reached_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    s3fs = pytest.importorskip("s3fs")
    s3fs.S3FileSystem.clear_instance_cache()  # clients of a server that answers
    request.addfinalizer(s3fs.S3FileSystem.clear_instance_cache)
    refusing = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}
    for name, value in (refusing | {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nobody"}).items():
        monkeypatch.setenv(name, value)
    for look in (partitions, identity):
        with pytest.raises(InputError, match=r"'s3://bucket/a\.jsonl' cannot be listed .*127\.0\.0\.1:9") as error:
            look("s3://bucket/a.jsonl", tmp_path)
        assert "\n" not in str(error.value)
