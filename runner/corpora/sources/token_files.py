"""Files of tokens and what their formats say of documents: Megatron's .bin with .idx, .npy, flat .bin, Mosaic's MDS."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mixlaw.errors import InputError
from mixlaw.runner.batches.manifest import TokenSource
from mixlaw.runner.corpora.sources.address import Address, at_home, below, stats
from mixlaw.runner.corpora.sources.fetched import on_disk

#: Codes of types in an .idx of Megatron.
MEGATRON = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
LLM_C, LLM_C_BYTES = {20240520: "<u2", 20240801: "<u4"}, 1024  # first number of a header of llm.c, and its size
Spans = NDArray[np.int64]  # rows of (first byte, tokens)


@dataclass(frozen=True)
class File:
    """A file of tokens, with the spans of its documents; where there are none, it is cut at ends of text alone."""

    source: TokenSource
    spans: Spans | None = None
    begin: int = 0  # first byte of the tokens


@lru_cache(maxsize=16)
def _known(source: str, paths: tuple[Path, ...], dtype: str, column: str, stamp: str) -> list[File]:
    """The files of these paths; `stamp` changes with them."""
    files: list[File] = []
    for path in paths:
        if (path / "index.json").is_file():
            files += _mds(path, column, dtype)
        else:
            name = path.with_suffix(".bin") if path.suffix == ".idx" else path
            files.append(_file(name, dtype, source))
    return files


def files_of(address: Address) -> list[File]:
    """The files of a source with what their formats say of documents.

    Raises:
        InputError: there is none, or one is damaged, compressed or of a type that holds no tokens.
    """
    dtype = address.text("dtype")
    if dtype and (dtype not in np.sctypeDict or np.dtype(dtype).kind not in "iu"):
        raise InputError(f"the source {address.source!r} has dtype {dtype!r}: it is uint16, uint32, int32 or int64")
    paths = tuple(_paths(on_disk(address)))
    return _known(address.source, paths, dtype, address.text("column"), str(stats(below(paths))))


def _paths(address: Address) -> list[Path]:
    """Folders of MDS, and .bin and .npy files; a prefix of Megatron's names its two files."""
    if (pair := (address.root / at_home(f"{address.place}.idx"))).is_file():
        return [pair]
    found = address.paths()
    folders = [path for path in found if (path / "index.json").is_file()]
    nested = {index.parent for path in found if path.is_dir() for index in path.rglob("index.json")}
    rest = [path for path in found if path not in folders]
    flat = [file for file in below(rest) if file.suffix in (".bin", ".npy") and file.parent not in nested]
    if not folders and not nested and not flat:
        raise InputError(
            f"the source {address.source!r} holds no tokens: name .bin or .npy files, a prefix of .bin and .idx, or a "
            "folder with the index.json of MDS"
        )
    return sorted({*folders, *nested, *flat})


def _file(path: Path, dtype: str, source: str) -> File:
    """A .bin, with an .idx or not, or an .npy."""
    if not path.is_file():
        raise InputError(f"there is no file {path} beside its .idx: name a pair of .bin and .idx")
    index, size = path.with_suffix(".idx"), path.stat().st_size
    if path.suffix == ".bin" and index.is_file():
        kind, spans = _megatron(index, size)
        return File(TokenSource(path=str(path), dtype=kind, bytes=size), spans)
    with path.open("rb") as file:
        start = file.read(8)
    begin = 0
    if start.startswith(b"\x93NUMPY"):
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError) as error:  # of Python objects, or cut
            raise InputError(f"{path} is no array of whole numbers: {error}; write it again") from error
        if array.dtype.kind not in "iu":
            raise InputError(f"{path} holds {array.dtype}: tokens are whole numbers")
        dtype, begin = array.dtype.str, int(array.offset)
    elif (number := int.from_bytes(start[:4], "little")) in LLM_C and not dtype:
        dtype, begin = LLM_C[number], LLM_C_BYTES
    elif not dtype:
        raise InputError(f"the file {path} does not say how wide its tokens are: add &dtype=uint16 to {source!r}")
    width = np.dtype(dtype)
    if (size - begin) % width.itemsize:
        raise InputError(f"{path} has {size:,} bytes, no whole number of {width}: give its type with dtype=")
    return File(TokenSource(path=str(path), dtype=width.str, bytes=size), None, begin)


def _megatron(index: Path, size: int) -> tuple[str, Spans]:
    """Type and documents of a .bin of `size` bytes by its .idx (Megatron-LM, core/datasets/indexed_dataset.py)."""
    data = index.read_bytes()
    code, version = data[17:18], int.from_bytes(data[9:17], "little")
    kind = MEGATRON.get(code[0]) if data[:9] == b"MMIDIDX\0\0" and version == 1 and code else None
    if kind is None:
        raise InputError(f"{index} is no index of Megatron of version 1 with whole numbers as tokens; write it again")
    sequences, documents = (int.from_bytes(data[at : at + 8], "little") for at in (18, 26))
    if len(data) < 34 + 12 * sequences + 8 * documents:
        raise InputError(f"{index} is cut off: it has {len(data):,} bytes for {sequences:,} sequences; copy it again")
    lengths = np.frombuffer(data, "<i4", sequences, 34).astype(np.int64)
    begins = np.frombuffer(data, "<i8", sequences, 34 + 4 * sequences)
    firsts = np.frombuffer(data, "<i8", documents, 34 + 12 * sequences)
    ends, width = np.append(0, np.cumsum(lengths)), np.dtype(kind).itemsize
    if firsts.size < 1 or (begins != ends[:-1] * width).any() or ends[-1] * width > size:
        raise InputError(f"{index} does not fit its .bin of {size:,} bytes; write both again")
    starts = ends[firsts]
    return kind, np.stack([starts[:-1] * width, np.diff(starts)], axis=1)


def _mds(folder: Path, column: str, dtype: str) -> Iterator[File]:
    """Shards of a folder of MDS (Mosaic's streaming, docs/source/fundamentals/dataset_format.md)."""
    try:
        shards = json.loads((folder / "index.json").read_text(encoding="utf-8"))["shards"]
        for shard in shards:
            names, encodings, sizes = (shard[f"column_{what}"] for what in ("names", "encodings", "sizes"))
            path = folder / shard["raw_data"]["basename"]
            if column not in names:
                raise InputError(f"{path} has no column {column!r}, but {', '.join(names)}: add &column=NAME")
            if not path.is_file():
                why = "is compressed" if shard.get("zip_data") else "is missing"
                raise InputError(f"{path} {why}: write the shards without compression, or copy them again")
            yield _mds_shard(path, names.index(column), encodings, sizes, dtype)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder / 'index.json'} is no index of MDS ({error!r}); copy it again") from error


def _mds_shard(path: Path, column: int, encodings: Sequence[str], sizes: Sequence[int | None], dtype: str) -> File:
    name, _, rest = encodings[column].partition(":")
    kind, _, shape = rest.partition(":")
    if name == "bytes":
        kind, shape = dtype or "int64", "raw"  # as LLM Foundry writes them
    if name not in ("bytes", "ndarray") or kind not in np.sctypeDict or np.dtype(kind).kind not in "iu":
        raise InputError(
            f"{path} has a column of {encodings[column]!r}: tokens are bytes, or ndarray with a type of whole numbers"
        )
    data, width = np.memmap(path, np.uint8, "r"), np.dtype(kind).itemsize
    count = int(data[:4].view("<u4")[0])
    bounds = data[4 : 8 + 4 * count].view("<u4").astype(np.int64)
    open_columns = [number for number, size in enumerate(sizes) if size is None]
    spans = np.empty((count, 2), np.int64)
    for row, begin in enumerate(bounds[:-1].tolist()):
        given = data[begin : begin + 4 * len(open_columns)].view("<u4").tolist()
        of = dict(zip(open_columns, given, strict=True))
        lengths = [of[number] if size is None else size for number, size in enumerate(sizes)]
        start, length = begin + 4 * len(open_columns) + sum(lengths[:column]), lengths[column]
        if not shape:  # number of axes and width of their lengths in one byte, then the lengths
            axes = int(data[start])
            head = 1 + (axes >> 2) * 2 ** (axes & 3)
            start, length = start + head, length - head
        spans[row] = start, length // width
    return File(TokenSource(path=str(path), dtype=np.dtype(kind).str, bytes=path.stat().st_size), spans)
