"""Shards of tokens as sources: read where they are, they are to the bit what the same text gives."""

from __future__ import annotations

import json
import re
import shutil
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import fsspec  # type: ignore[import-untyped]
import numpy as np
import pytest
from typer.testing import CliRunner

from mixlaw.cli import app
from mixlaw.errors import InputError
from mixlaw.runner.batches.manifest import Manifest
from mixlaw.runner.batches.shards import open_shards, verify
from mixlaw.runner.batches.tokenizer import encode, load
from mixlaw.runner.corpora.contamination import check
from mixlaw.runner.corpora.prepare import prepare
from mixlaw.runner.corpora.sources.registry import read
from mixlaw.runner.corpora.tokenizer import save, train
from s3_server import serving

Documents = Sequence[np.ndarray]
WORDS = re.findall(r"\S+", "the quick brown fox jumps over a lazy dog and naïve café prices rise by 3 % at noon")


def sentence(number: int, words: int) -> str:
    draw = np.random.default_rng(number)
    return " ".join(draw.choice(WORDS, words)) + f" {number}."


TEXTS = [sentence(number, 20 + number % 30) for number in range(120)]
OTHER = [f"def f{n}(x):\n    return {n} * x + {n % 7}\n" * 3 for n in range(40)]


def megatron(folder: Path, documents: Documents) -> None:
    """Every other document in two sequences, as if a writer had cut it; each with its end of text."""
    whole = [np.append(document, 0).astype("<i4") for document in documents]
    sequences = [part for n, d in enumerate(whole) for part in ([d[:5], d[5:]] if n % 2 else [d])]
    firsts = np.cumsum([0, *(2 if n % 2 else 1 for n in range(len(whole)))])
    lengths = np.array([len(part) for part in sequences], "<i4")
    begins = 4 * (np.cumsum(lengths, dtype="<i8") - lengths)
    (folder / "web.bin").write_bytes(b"".join(part.tobytes() for part in sequences))
    head = b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, 4, len(sequences), len(firsts))
    (folder / "web.idx").write_bytes(head + lengths.tobytes() + begins.tobytes() + firsts.astype("<i8").tobytes())


def flat(documents: Documents, dtype: str) -> np.ndarray:
    return np.concatenate([np.append(document, 0) for document in documents]).astype(dtype)


def npy(folder: Path, documents: Documents) -> None:
    np.save(folder / "a.npy", flat(documents[:70], "<u4"))
    np.save(folder / "b.npy", flat(documents[70:], "<u4"))


def raw(folder: Path, documents: Documents) -> None:
    flat(documents, "<u2").tofile(folder / "train.bin")


def llm_c(folder: Path, documents: Documents) -> None:
    """With the header of llm.c, and the end of text before each document instead of after it."""
    values = np.concatenate([np.append(0, document) for document in documents]).astype("<u2")
    head = np.zeros(256, "<i4")
    head[:3] = 20240520, 1, len(values)
    (folder / "train_000.bin").write_bytes(head.tobytes() + values.tobytes())


def mds(folder: Path, documents: Documents) -> None:
    """A text column before the tokens, so that these begin at odd bytes; arrays of no fixed length."""
    samples = []
    for number, document in enumerate(documents):
        name = f"n{number}".encode()
        values = bytes([1 << 2 | 1]) + struct.pack("<H", len(document)) + document.astype("<u2").tobytes()
        samples.append(struct.pack("<II", len(name), len(values)) + name + values)
    columns = {
        "column_names": ["id", "tokens"],
        "column_encodings": ["str", "ndarray:uint16"],
        "column_sizes": [None, None],
    }
    shards = []
    for number, part in enumerate((samples[:50], samples[50:])):
        config = json.dumps(columns).encode()
        offsets = np.cumsum([4 + 4 * (len(part) + 1) + len(config), *map(len, part)]).astype("<u4")
        content = struct.pack("<I", len(part)) + offsets.tobytes() + config + b"".join(part)
        (folder / f"shard.{number:05d}.mds").write_bytes(content)
        raw_data = {"basename": f"shard.{number:05d}.mds", "bytes": len(content), "hashes": {}}
        shards.append({**columns, "format": "mds", "samples": len(part), "raw_data": raw_data, "zip_data": None})
    (folder / "index.json").write_text(json.dumps({"version": 2, "shards": shards}))


def mds_bytes(folder: Path, documents: Documents) -> None:
    """As LLM Foundry has them: one column of bytes, which are int64."""
    samples = [struct.pack("<I", 8 * len(d)) + d.astype("<i8").tobytes() for d in documents]
    columns = {"column_names": ["tokens"], "column_encodings": ["bytes"], "column_sizes": [None]}
    config = json.dumps(columns).encode()
    offsets = np.cumsum([4 + 4 * (len(samples) + 1) + len(config), *map(len, samples)]).astype("<u4")
    (folder / "shard.00000.mds").write_bytes(
        struct.pack("<I", len(samples)) + offsets.tobytes() + config + b"".join(samples)
    )
    shard = {**columns, "format": "mds", "samples": len(samples), "raw_data": {"basename": "shard.00000.mds"}}
    (folder / "index.json").write_text(json.dumps({"version": 2, "shards": [shard]}))


WRITERS: dict[str, tuple[Callable[[Path, Documents], None], str]] = {
    "megatron": (megatron, "tokens:shards/web?tokenizer=tokenizer"),
    "npy": (npy, "tokens:shards/*.npy?tokenizer=tokenizer/tokenizer.json"),
    "raw": (raw, "tokens:shards/train.bin?tokenizer=tokenizer&dtype=uint16"),
    "llm.c": (llm_c, "tokens:shards?tokenizer=tokenizer"),
    "mds": (mds, "tokens:shards?tokenizer=tokenizer"),
    "mds of bytes": (mds_bytes, "tokens:shards?tokenizer=tokenizer"),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study folder with a tokenizer, the text, and another domain that repeats some of it."""
    folder = tmp_path_factory.mktemp("study")
    save(train([*TEXTS, *OTHER], 400), folder / "tokenizer")
    for name, texts in (("web", TEXTS), ("code", [*OTHER, *TEXTS[:9]])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return folder


def built(root: Path, data: Path, web: str, **more: object) -> Manifest:
    domains = {"web": web, "code": "code.jsonl"}
    return prepare(data, domains, root=root, tokenizer=root / "tokenizer", held_out=0.1, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def from_text(root: Path) -> Manifest:
    return built(root, root / "data", "web.jsonl")


@pytest.fixture
def written(root: Path, tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Path, str]:
    """A study folder with the tokens of the text in a format, and the source that names them."""
    write, source = WRITERS[request.param]
    for name in ("tokenizer", "code.jsonl"):
        (tmp_path / name).symlink_to(root / name)
    (tmp_path / "shards").mkdir()
    write(tmp_path / "shards", list(encode(load(root / "tokenizer"), TEXTS)))
    return tmp_path, source


@pytest.mark.parametrize("written", WRITERS, indirect=True)
def test_tokens_read_in_place_are_to_the_bit_those_of_the_text(
    written: tuple[Path, str], root: Path, from_text: Manifest
) -> None:
    folder, source = written
    manifest = built(folder, folder / "data", source)
    domain, text = (open_shards(path / "data")["web"] for path in (folder, root))
    assert manifest.domains["web"].in_place
    assert not list((folder / "data" / "web").glob("train*.bin")), "no token of training was copied"
    assert np.array_equal(domain.tokens[:], text.tokens[:])
    for start, stop in ((0, 7), (3, 90), (88, 1600), (len(text.tokens) - 5, len(text.tokens)), (40, 40)):
        assert np.array_equal(domain.tokens[start:stop], text.tokens[start:stop])
    assert [(d.tokens.tolist(), d.bytes, d.group) for d in domain.held_out] == [
        (d.tokens.tolist(), d.bytes, d.group) for d in text.held_out
    ]
    of_text = from_text.domains["web"]
    assert manifest.domains["web"].hash == of_text.hash, "so lineages are the same, too"
    assert manifest.hash == from_text.hash
    assert (manifest.domains["code"].duplicates, of_text.documents) == (9, manifest.domains["web"].documents)
    verify(folder / "data")
    assert len(check(folder / "data", {"t": TEXTS}).tasks[0].by_domain["web"]) == of_text.documents


@pytest.mark.parametrize("written", ["mds"], indirect=True)
def test_another_tokenizer_of_the_study_gets_the_decoded_text(written: tuple[Path, str]) -> None:
    folder, source = written
    assert [document.text for document in read(source, folder)] == TEXTS
    manifest = prepare(folder / "data", {"web": source}, root=folder, vocabulary=300, held_out=0.1)
    assert not manifest.domains["web"].in_place
    assert manifest.domains["web"].bytes + manifest.domains["web"].held_out_bytes == sum(
        len(text.encode()) for text in TEXTS
    )


@pytest.mark.parametrize("written", ["megatron"], indirect=True)
def test_the_command_reads_tokens_that_study_toml_names(written: tuple[Path, str]) -> None:
    folder, source = written
    toml = f'[domains]\nweb = {{ source = "{source}" }}\n[tokenizer]\nfile = "tokenizer"\n[training]\nheld_out = 0.1\n'
    (folder / "study.toml").write_text(toml)
    done = CliRunner().invoke(app, ["prepare", str(folder)], catch_exceptions=False)
    assert done.exit_code == 0
    assert "web: training tokens are read from 1 file of the source, where it is" in " ".join(done.output.split())


@pytest.mark.parametrize("written", ["raw"], indirect=True)
def test_files_that_change_are_found_and_a_new_build_keeps_what_did_not(written: tuple[Path, str]) -> None:
    folder, source = written
    before = built(folder, folder / "data", source)
    file = folder / "shards" / "train.bin"
    (folder / "code.jsonl").unlink()
    (folder / "code.jsonl").write_text(json.dumps({"text": OTHER[0]}) + "\n" + json.dumps({"text": TEXTS[0]}) + "\n")
    with pytest.raises(InputError, match="held-out document"):
        built(folder, folder / "data", source)
    (folder / "code.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in OTHER))
    places = folder / "data" / "web" / "train-00000.places.npy"
    stamp = places.stat().st_mtime_ns
    assert built(folder, folder / "data", source).domains["web"] == before.domains["web"]
    assert places.stat().st_mtime_ns == stamp, "the domain was not read again"
    tokens = np.fromfile(file, "<u2")
    tokens[3] ^= 1
    tokens.tofile(file)
    with pytest.raises(InputError, match="'web' have changed since they were read"):
        verify(folder / "data")
    file.write_bytes(b"")
    with pytest.raises(InputError, match=r"train.bin has 0 bytes instead of \d+"):
        open_shards(folder / "data")


def test_large_files_are_read_in_parts_that_cut_no_document(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mixlaw.runner.corpora.sources import tokens as source

    monkeypatch.setattr(source, "PART", 333)
    monkeypatch.setattr(source, "TOGETHER", 100)
    documents = list(encode(load(root / "tokenizer"), TEXTS))
    for write in (megatron, raw):
        write(tmp_path, documents)
        place = "web" if write is megatron else "train.bin"
        name = f"tokens:{tmp_path / place}?tokenizer={root / 'tokenizer'}&dtype=uint16"
        assert [document.text for document in read(name, tmp_path)] == TEXTS


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("tokens:train.bin?dtype=uint16", r"does not say whose tokens these are: add \?tokenizer=FILE"),
        ("tokens:train.bin?tokenizer=tokenizer", "does not say how wide its tokens are: add &dtype=uint16"),
        ("tokens:train.bin?tokenizer=tokenizer&dtype=float32", "has dtype 'float32': it is uint16"),
        ("tokens:train.bin?tokenizer=nothing&dtype=uint16", "there is no tokenizer at"),
        (
            "tokens:wide.bin?tokenizer=tokenizer&dtype=uint16",
            "holds the token 999 after byte 2, and .* has 400: name the tokenizer",
        ),
        ("tokens:train.bin?tokenizer=other&dtype=uint16", "the tokens of .* are not those of .*other: "),
        ("tokens:empty?tokenizer=tokenizer", "holds no tokens: name .bin or .npy files"),
        ("tokens:floats.npy?tokenizer=tokenizer", "holds float64: tokens are whole numbers"),
        ("tokens:odd.bin?tokenizer=tokenizer&dtype=uint16", "has 3 bytes, no whole number of uint16"),
        ("tokens:endless.bin?tokenizer=tokenizer&dtype=uint16", "holds no token 0, with which the tokenizer ends"),
        ("tokens:broken?tokenizer=tokenizer", "broken.idx is no index of Megatron of version 1"),
        ("tokens:cut?tokenizer=tokenizer", "cut.idx is cut off"),
        ("tokens:zipped?tokenizer=tokenizer", "is compressed: write the shards without compression"),
        ("tokens:listed?tokenizer=tokenizer", "is no index of MDS"),
    ],
)
def test_a_wrong_source_of_tokens_is_one_sentence(source: str, said: str, root: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer").symlink_to(root / "tokenizer")
    save(train([text[::-1] for text in [*TEXTS, *OTHER]], 450), tmp_path / "other")
    raw(tmp_path, list(encode(load(root / "tokenizer"), TEXTS)))
    np.save(tmp_path / "floats.npy", np.ones(3))
    np.array([0, 7, 8, 9, 999, 0], "<u2").tofile(tmp_path / "wide.bin")
    (tmp_path / "odd.bin").write_bytes(b"abc")
    np.ones(50, "<u2").tofile(tmp_path / "endless.bin")
    for name in ("empty", "zipped", "listed"):
        (tmp_path / name).mkdir()
    for name, index in (("broken", b"x" * 50), ("cut", b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, 8, 9, 9))):
        (tmp_path / f"{name}.bin").write_bytes(b"\0\0")
        (tmp_path / f"{name}.idx").write_bytes(index)
    column = {"column_names": ["tokens"], "column_encodings": ["bytes"], "column_sizes": [None]}
    shard = {**column, "raw_data": {"basename": "a.mds"}, "zip_data": {"basename": "a.mds.zstd"}}
    (tmp_path / "zipped" / "index.json").write_text(json.dumps({"shards": [shard]}))
    (tmp_path / "listed" / "index.json").write_text("[]")
    with pytest.raises(InputError, match=said):
        list(read(source, tmp_path))


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """URL of a bucket in a server that speaks S3."""
    with serving() as url:
        yield url


@pytest.mark.parametrize("written", WRITERS, indirect=True)
def test_tokens_in_a_store_are_fetched_once_and_are_those_of_local_files(
    written: tuple[Path, str], bucket: str, from_text: Manifest
) -> None:
    folder, source = written
    url = f"{bucket}/{folder.name}/shards"
    system, path = fsspec.core.url_to_fs(url)
    system.put(f"{folder}/shards/", f"{path}/", recursive=True)
    shutil.rmtree(folder / "shards")
    source = source.replace("tokens:shards", f"tokens:{url}")
    manifest = built(folder, folder / "data", source)
    assert manifest.hash == from_text.hash
    copies = {file: file.stat().st_mtime_ns for file in (folder / "tokens").rglob("*")}
    assert Path(manifest.domains["web"].in_place[0].path) in copies
    assert built(folder, folder / "data", source) == manifest
    assert {file: file.stat().st_mtime_ns for file in (folder / "tokens").rglob("*")} == copies


@pytest.mark.parametrize("written", ["npy"], indirect=True)
def test_copies_follow_the_store(written: tuple[Path, str], bucket: str) -> None:
    folder, _ = written
    url = f"{bucket}/{folder.name}/shards"
    system, path = fsspec.core.url_to_fs(url)
    source = f"tokens:{url}/*.npy?tokenizer=tokenizer"
    with pytest.raises(InputError, match="no file matches"):
        read(source, folder).__next__()
    system.put(f"{folder}/shards/", f"{path}/", recursive=True)
    assert [document.text for document in read(source, folder)] == TEXTS
    system.rm(f"{path}/b.npy")
    np.save(folder / "shards" / "a.npy", flat(list(encode(load(folder / "tokenizer"), OTHER)), "<u4"))
    system.put(str(folder / "shards" / "a.npy"), f"{path}/a.npy")
    assert [document.text for document in read(source, folder)] == OTHER
    with pytest.raises(InputError, match=r"cannot be listed \(.*web\.bin\)"):
        read(f"tokens:{bucket}/nowhere/web?tokenizer=tokenizer", folder).__next__()


@pytest.mark.parametrize("written", ["npy"], indirect=True)
def test_copies_that_were_made_before_a_fault_are_not_made_again(written: tuple[Path, str], bucket: str) -> None:
    folder, _ = written
    system, path = fsspec.core.url_to_fs(f"{bucket}/{folder.name}/shards")
    system.put(f"{folder}/shards/", f"{path}/", recursive=True)
    source = f"tokens:{bucket}/{folder.name}/shards/*.npy?tokenizer=tokenizer"
    assert [document.text for document in read(source, folder)] == TEXTS
    copies = {file.name: file for file in (folder / "tokens").rglob("*.npy")}
    shutil.rmtree(folder / "tokens")
    copies["b.npy"].mkdir(parents=True)  # which no file can replace
    with pytest.raises(InputError, match=r"cannot be fetched .*run it again"):
        read(source, folder).__next__()
    copies["b.npy"].rmdir()
    before = copies["a.npy"].stat().st_mtime_ns
    assert [document.text for document in read(source, folder)] == TEXTS
    assert copies["a.npy"].stat().st_mtime_ns == before


@pytest.mark.parametrize("written", ["npy"], indirect=True)
def test_no_name_leads_out_of_the_study(written: tuple[Path, str], bucket: str) -> None:
    folder, _ = written
    system, path = fsspec.core.url_to_fs(f"{bucket}/{folder.name}/shards")
    system.put(f"{folder}/shards/", f"{path}/", recursive=True)
    source = f"tokens:{bucket}/{folder.name}/shards/**/*.npy?tokenizer=tokenizer"
    assert [document.text for document in read(source, folder)] == TEXTS
    (listing,) = (folder / "tokens").rglob(".fetched.json")  # which may come with a study of somebody else
    (folder / "mine").touch()
    for text in (json.dumps({"../../mine": [], str(folder / "mine"): []}), '["mine"]', "{"):
        listing.write_text(text)
        assert [document.text for document in read(source, folder)] == TEXTS
        assert (folder / "mine").exists()
    system.pipe_file(f"{path}/../../evil.npy", b"evil")
    before = sorted(folder.rglob("*"))
    with pytest.raises(InputError, match=r"holds '../../evil.npy', whose copy would lie elsewhere"):
        read(source, folder).__next__()
    assert sorted(folder.rglob("*")) == before
