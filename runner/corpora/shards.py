"""Flat integer shards: documents one after another in files that are memory-mapped, with an index and checksums."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mixlaw.errors import InputError
from mixlaw.runner.corpora.manifest import DomainManifest, Manifest, ShardFile, read_manifest
from mixlaw.runner.corpora.tokenizer import END_ID

SHARD_TOKENS = 2**27  # a file is closed at the first document end beyond: 256 MB of 16-bit tokens

Tokens = NDArray[np.unsignedinteger]
Entry = tuple[NDArray[np.int64], int, int]  # tokens of a document, bytes of its text, its group


def dtype_of(vocabulary: int) -> np.dtype[np.unsignedinteger]:
    """Smallest integer type that holds every token."""
    return np.dtype("<u2") if vocabulary <= 2**16 else np.dtype("<u4")


def write_shards(
    entries: Iterable[Entry], folder: Path, stem: str, dtype: np.dtype[np.unsignedinteger], limit: int = SHARD_TOKENS
) -> tuple[ShardFile, ...]:
    """Write documents, each followed by the end of text, to `<stem>-00000.bin` and on; memory holds one document."""
    folder.mkdir(parents=True, exist_ok=True)
    source = iter(entries)
    files: list[ShardFile] = []
    for entry in source:
        name = f"{stem}-{len(files):05d}.bin"
        files.append(_write_file(_until(entry, source, limit), folder / name, dtype))
    return tuple(files)


def _until(first: Entry, rest: Iterator[Entry], limit: int) -> Iterator[Entry]:
    yield first
    size = first[0].size + 1
    while size < limit and (entry := next(rest, None)) is not None:
        yield entry
        size += entry[0].size + 1


def _write_file(entries: Iterator[Entry], path: Path, dtype: np.dtype[np.unsignedinteger]) -> ShardFile:
    index, position, digest = [], 0, hashlib.sha256()
    with path.open("wb") as file:
        for tokens, size, group in entries:
            block = np.append(tokens, END_ID).astype(dtype).tobytes()
            file.write(block)
            digest.update(block)
            index.append((position, size, group))
            position += tokens.size + 1
    table = np.array(index, dtype="<i8").reshape(-1, 3)
    np.save(_index_path(path), table, allow_pickle=False)
    return ShardFile(
        name=path.name,
        documents=len(index),
        tokens=position,
        bytes=int(table[:, 1].sum()),
        sha256=digest.hexdigest(),
        index_sha256=_sha256(_index_path(path)),
    )


def _index_path(path: Path) -> Path:
    return path.with_suffix(".index.npy")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class TokenStream:
    """The tokens of several shard files as one sequence: `len(stream)`, `stream[start:stop]`.

    A slice within one file is a view of the memory map; one across files is a copy.
    """

    def __init__(self, files: Sequence[Tokens]) -> None:
        self._files = files
        self._ends = np.cumsum([file.size for file in files])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._files) else 0

    def __getitem__(self, wanted: slice) -> Tokens:
        start, stop, step = wanted.indices(len(self))
        if step != 1:
            raise ValueError(f"a token stream is sliced in steps of 1, got {step}")
        first = int(np.searchsorted(self._ends, start, side="right"))
        pieces = []
        for file, end in zip(self._files[first:], self._ends[first:], strict=True):
            begin = int(end) - file.size
            if begin >= stop:
                break
            pieces.append(file[max(start - begin, 0) : stop - begin])
        return pieces[0] if len(pieces) == 1 else np.concatenate([*pieces, np.empty(0, self._dtype)])

    @property
    def _dtype(self) -> np.dtype[np.unsignedinteger]:
        return self._files[0].dtype if self._files else np.dtype("<u2")


@dataclass(frozen=True)
class HeldOut:
    """One held-out document: its tokens, shape (n,), without separators; bytes of its text; and its group.

    Documents cut from the same original share the group: they are not independent observations.
    """

    tokens: Tokens
    bytes: int
    group: int


@dataclass(frozen=True)
class DomainShards:
    """The stored tokens of one domain."""

    name: str
    folder: Path
    manifest: DomainManifest
    dtype: np.dtype[np.unsignedinteger]

    @property
    def unique_tokens(self) -> int:
        """Tokens there are to train on, separators included."""
        return self.manifest.unique_tokens

    @cached_property
    def tokens(self) -> TokenStream:
        """All training tokens, documents in the order of their content hash: any prefix is a random subset."""
        return TokenStream([self._map(file) for file in self.manifest.train])

    @cached_property
    def held_out(self) -> tuple[HeldOut, ...]:
        """Held-out documents in the order of their content hash."""
        return tuple(document for file in self.manifest.held_out for document in self._documents(file))

    def _map(self, file: ShardFile) -> Tokens:
        return np.memmap(self.folder / file.name, dtype=self.dtype, mode="r")

    def _documents(self, file: ShardFile) -> Iterator[HeldOut]:
        tokens, index = self._map(file), self.index(file)
        ends = np.append(index[1:, 0], file.tokens) - 1  # without the separator
        for (start, size, group), end in zip(index.tolist(), ends.tolist(), strict=True):
            yield HeldOut(tokens[start:end], size, group)

    def index(self, file: ShardFile) -> NDArray[np.int64]:
        """Index of a shard file, shape (documents, 3): first token, bytes of text, group."""
        table: NDArray[np.int64] = np.load(_index_path(self.folder / file.name), allow_pickle=False)
        return table


@dataclass(frozen=True)
class Shards:
    """A study's data folder, opened: domains by name, and the manifest.

    `tokenizer` is the folder that `AutoTokenizer.from_pretrained` loads; `hash` identifies all of the data.
    """

    data: Path
    manifest: Manifest
    domains: Mapping[str, DomainShards]

    def __getitem__(self, name: str) -> DomainShards:
        if name not in self.domains:
            raise InputError(f"there is no domain {name!r} in {self.data}: it holds {', '.join(self.domains)}")
        return self.domains[name]

    @property
    def tokenizer(self) -> Path:
        """Folder of the tokenizer."""
        return self.data / "tokenizer"

    @property
    def hash(self) -> str:
        """Identity of tokenizer, shards and items."""
        return self.manifest.hash


def open_shards(data: Path) -> Shards:
    """Open a data folder that `prepare` wrote; files are checked for presence and size, `verify` reads them whole.

    Raises:
        InputError: there is no data, or a file is missing or of another size than the manifest says.
    """
    manifest = read_manifest(data)
    dtype = np.dtype(manifest.dtype)
    domains = {name: DomainShards(name, data / name, domain, dtype) for name, domain in manifest.domains.items()}
    for domain in domains.values():
        for file in (*domain.manifest.train, *domain.manifest.held_out):
            _check_size(domain.folder / file.name, file.tokens * dtype.itemsize)
    return Shards(data, manifest, domains)


def _check_size(path: Path, size: int) -> None:
    found = path.stat().st_size if path.exists() else None
    if found != size:
        state = "is missing" if found is None else f"has {found} bytes instead of {size}"
        raise InputError(f"{path} {state}: run `mixlaw data` on the study again")


def verify(data: Path) -> None:
    """Read every file of a data folder and compare it with its checksum.

    Raises:
        InputError: a file is missing or differs by as much as a bit.
    """
    shards = open_shards(data)
    wanted = {data / "tokenizer" / "tokenizer.json": shards.manifest.tokenizer}
    for domain in shards.domains.values():
        for file in (*domain.manifest.train, *domain.manifest.held_out):
            path = domain.folder / file.name
            wanted |= {path: file.sha256, _index_path(path): file.index_sha256}
    wanted |= {
        data / "items" / f"{task}.json": found.sha256 for task, found in shards.manifest.items.items() if found.count
    }
    for path, checksum in wanted.items():
        if not path.exists() or _sha256(path) != checksum:
            raise InputError(f"{path} is damaged, its checksum differs: delete {data} and run `mixlaw data` again")
