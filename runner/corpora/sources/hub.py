"""Hugging Face datasets, read by `datasets`: streamed from the hub, or local, saved or as files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from mixlaw.errors import InputError
from mixlaw.runner.corpora.sources.address import Address, Scheme, Value, at_home, below, exists, stats
from mixlaw.runner.corpora.sources.document import Document
from mixlaw.runner.corpora.sources.part import Part
from mixlaw.runner.packages import versions

OPTIONS: dict[str, Value] = {"split": "train", "column": "text", "config": "", "data_dir": "", "revision": ""}
GLOB = set("*?[")  # characters of patterns, which `datasets` looks for in every path
COMMIT = re.compile(r"[0-9a-f]{40}")


def _parts(address: Address) -> list[Part]:
    """A part for each file of the dataset, as `datasets` shards it."""
    split, column = address.text("split"), address.text("column")
    folder = _local(address)
    saved = _saved(folder, address) if folder else None
    dataset = _load_saved(saved, address) if saved else _stream(address, folder)
    if (columns := dataset.column_names) is not None and column not in columns:
        raise InputError(f"{address.source!r} has no column {column!r}: write column= one of {', '.join(columns)}")
    shards = _files_of(saved) if saved else dataset.num_shards
    return [
        Part(f"{split}/{index}", partial(_read, dataset, shards, index, column, address.source))
        for index in range(shards)
    ]


def _read(dataset: Any, shards: int, index: int, column: str, source: str) -> Iterator[Document]:
    rows = dataset.shard(num_shards=shards, index=index, contiguous=True).select_columns([column])
    for number, row in enumerate(rows):
        text = row[column]
        if text is not None and not isinstance(text, str):
            raise InputError(f"{source!r}: the column {column!r} holds {text!r:.40} instead of text; name another")
        if text:
            yield Document(text, f"{source} {index}:{number}")


def _local(address: Address) -> Path | None:
    """The folder that the source names, None where it names a dataset on the hub."""
    if exists(address.place, address.root):
        return address.root / at_home(address.place)
    if address.place.startswith((".", "/", "~")) or address.place.count("/") > 1:
        raise InputError(
            f"{address.source!r} names no folder below {address.root} and no dataset of the hub: correct it"
        )
    return None


def _saved(folder: Path, address: Address) -> Path | None:
    """Folder of the split if `save_to_disk` wrote the dataset, else None."""
    if not (folder / "dataset_dict.json").exists():
        return folder if (folder / "state.json").exists() else None
    splits = json.loads((folder / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
    if address.text("split") not in splits:
        raise InputError(
            f"{address.source!r} has no split {address.text('split')!r}: write split= one of {', '.join(splits)}"
        )
    return folder / address.text("split")


def _state(saved: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((saved / "state.json").read_text(encoding="utf-8"))
    return state


def _files_of(saved: Path) -> int:
    return max(1, len(_state(saved)["_data_files"]))


def _load_saved(saved: Path, address: Address) -> Any:
    try:
        return _datasets().load_from_disk(str(saved))
    except Exception as error:  # whatever pyarrow and fsspec raise
        raise InputError(f"{address.source!r} cannot be read: {error}; save the dataset again") from error


def _stream(address: Address, folder: Path | None) -> Any:
    where = str(folder.resolve()) if folder else address.place
    if folder and GLOB & set(where):
        raise InputError(
            f"{address.source!r} lies in {where}, which the package datasets takes for a pattern: rename the folder, "
            "or name its files without hf:"
        )
    try:
        return _datasets().load_dataset(
            where,
            name=address.text("config") or None,
            data_dir=address.text("data_dir") or None,
            split=address.text("split"),
            revision=None if folder else _revision(address),
            streaming=True,
        )
    except InputError:
        raise
    except Exception as error:  # the hub, its client and every builder have errors of their own
        raise InputError(
            f"{address.source!r} cannot be opened: {error}; correct the id, config=, data_dir=, split= or revision="
        ) from error


def _revision(address: Address) -> str:
    """Commit of a dataset on the hub; a commit that is given is taken as it is, without asking."""
    given = address.text("revision")
    if COMMIT.fullmatch(given):
        return given
    _datasets()
    from huggingface_hub import HfApi

    try:
        return str(HfApi().dataset_info(address.place, revision=given or None).sha)
    except Exception as error:  # unreachable, offline, unknown, gated: each a class of its own
        raise InputError(
            f"{address.source!r} is no folder below {address.root}, and the hub does not give it: "
            f"{' '.join(str(error).split())}; correct the id, go online, or fetch the dataset and name its folder"
        ) from error


def _datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise InputError(
            "sources that begin with hf: need the package datasets: pip install 'mixlaw[train]'"
        ) from error
    return datasets


def _identity(address: Address) -> object:
    folder = _local(address)
    if folder is None:
        return {"revision": _revision(address)}
    saved = _saved(folder, address)
    known = {"fingerprint": _state(saved)["_fingerprint"]} if saved else {}
    return {
        **known,
        "files": stats(below([saved or folder])),
    }  # the fingerprint may stay the same when the files change


HUB = Scheme(_parts, _identity, OPTIONS, lambda _: versions(("datasets",)))
