"""Flat integer shards: documents one after another in files that are memory-mapped, with an index and checksums."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from mixlaw.errors import InputError
from mixlaw.files import sha256_of
from mixlaw.progress import Progress
from mixlaw.runner.batches.in_place import PlacedTokens
from mixlaw.runner.batches.manifest import DomainManifest, Manifest, ShardFile, index_path, read_manifest

Tokens = NDArray[np.unsignedinteger]
BLOCK = 2**20  # tokens verified at once


class TokenStream:
    """The tokens of several shard files as one sequence: `len(stream)`, `stream[start:stop]`.

    A slice within one file is a view of the memory map; one across files, or of tokens read in place, is a copy.
    """

    def __init__(self, files: Sequence[Tokens | PlacedTokens]) -> None:
        # A view of a map is quicker to slice than the map.
        self._files = [file if isinstance(file, PlacedTokens) else file.view(np.ndarray) for file in files]
        self._ends = list(accumulate(file.size for file in files))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, span: slice) -> Tokens:
        start, stop, step = span.indices(len(self))
        if step != 1:
            raise ValueError(f"a token stream is sliced in steps of 1, got {step}")
        first = bisect_right(self._ends, start)
        if first < len(self._files) and stop <= self._ends[first]:
            begin = self._ends[first] - self._files[first].size
            return self._files[first][start - begin : max(start, stop) - begin]
        pieces = []
        for file, end in zip(self._files[first:], self._ends[first:], strict=True):
            begin = end - file.size
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


class HeldOutDocuments(Sequence[HeldOut]):
    """The held-out documents of a domain, made when they are asked for: there may be millions.

    Args:
        files: tokens and index of each file, as `DomainShards.index` gives it.

    Attributes:
        sizes: tokens of each document, shape (documents,).
    """

    def __init__(self, files: Sequence[tuple[Tokens, NDArray[np.int64]]]) -> None:
        self._files = files
        self._ends = list(accumulate(len(index) for _, index in files))
        # A document ends before its separator, where the next one begins.
        sizes = [np.diff(index[:, 0], append=tokens.size) - 1 for tokens, index in files]
        self.sizes: NDArray[np.int64] = np.concatenate([*sizes, np.empty(0, np.int64)])

    def __len__(self) -> int:
        return self.sizes.size

    @overload
    def __getitem__(self, number: int) -> HeldOut: ...
    @overload
    def __getitem__(self, number: slice) -> list[HeldOut]: ...
    def __getitem__(self, number: int | slice) -> HeldOut | list[HeldOut]:
        if isinstance(number, slice):
            return [self[each] for each in range(*number.indices(len(self)))]
        number = range(len(self))[number]
        file = bisect_right(self._ends, number)
        tokens, index = self._files[file]
        start, size, group = (int(value) for value in index[number - self._ends[file] + len(index)])
        return HeldOut(tokens[start : start + int(self.sizes[number])], size, group)


@dataclass(frozen=True)
class DomainShards:
    """The stored tokens of one domain; `end` is the token after every document."""

    name: str
    folder: Path
    manifest: DomainManifest
    dtype: np.dtype[np.unsignedinteger]
    end: int = 0

    @property
    def unique_tokens(self) -> int:
        """Training tokens stored, separators included."""
        return self.manifest.unique_tokens

    @cached_property
    def tokens(self) -> TokenStream:
        """All training tokens, documents in the order of their content hash: any prefix is a random subset."""
        return TokenStream([self.stored(file) for file in self.manifest.train])

    @cached_property
    def held_out(self) -> HeldOutDocuments:
        """Held-out documents in the order of their content hash."""
        return HeldOutDocuments([(self._copied(file), self.index(file)) for file in self.manifest.held_out])

    def stored(self, file: ShardFile) -> Tokens | PlacedTokens:
        """The tokens of a shard file, read when they are sliced."""
        if not file.in_place:
            return self._copied(file)
        places = np.load(self.folder / file.name, mmap_mode="r", allow_pickle=False)
        return PlacedTokens(self.manifest.in_place, places, self.index(file)[:, 0], file.tokens, self.dtype, self.end)

    def _copied(self, file: ShardFile) -> Tokens:
        return np.memmap(self.folder / file.name, dtype=self.dtype, mode="r")

    def index(self, file: ShardFile) -> NDArray[np.int64]:
        """Index of a shard file, shape (documents, 3): first token, bytes of text, group."""
        table: NDArray[np.int64] = np.load(index_path(self.folder / file.name), allow_pickle=False)
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
    domains = {
        name: DomainShards(name, data / name, domain, dtype, manifest.end) for name, domain in manifest.domains.items()
    }
    for domain in domains.values():
        for file in (*domain.manifest.train, *domain.manifest.held_out):
            path = domain.folder / file.name
            _check_size(path, path.stat().st_size if file.in_place and path.exists() else file.tokens * dtype.itemsize)
        for source in domain.manifest.in_place:
            _check_size(Path(source.path), source.bytes)
    return Shards(data, manifest, domains)


def _check_size(path: Path, size: int) -> None:
    actual = path.stat().st_size if path.exists() else None
    if actual != size:
        state = "is missing" if actual is None else f"has {actual} bytes instead of {size}"
        raise InputError(f"{path} {state}: run `mixlaw prepare` on the study again")


def verify(data: Path, progress: Progress | None = None) -> None:
    """Read every file of a data folder whole and compare it with its checksum.

    Args:
        data: the folder.
        progress: called with the share of the bytes read, 0 to 1, and a message.

    Raises:
        InputError: a file is missing or differs.
    """
    checksums = _checksums(open_shards(data))
    sizes = {path: path.stat().st_size if path.exists() else 0 for path in checksums}
    read = 0
    placed = {
        domain.folder / file.name: (domain, file)
        for domain in open_shards(data).domains.values()
        for file in domain.manifest.train
        if file.in_place
    }
    for path, checksum in checksums.items():
        if progress is not None:
            progress(read / sum(sizes.values()), f"verifying {path.relative_to(data)}")
        if path in placed:
            _verify_in_place(*placed[path], data)
        elif not path.exists() or sha256_of(path) != checksum:
            raise InputError(f"{path} is damaged, its checksum differs: delete {data} and run `mixlaw prepare` again")
        read += sizes[path]


def _verify_in_place(domain: DomainShards, file: ShardFile, data: Path) -> None:
    """Read the tokens of a shard file from the source's files, and compare them with its checksum.

    Raises:
        InputError: they differ.
    """
    tokens, digest = domain.stored(file), hashlib.sha256()
    for start in range(0, file.tokens, BLOCK):
        digest.update(tokens[start : start + BLOCK].tobytes())
    if digest.hexdigest() != file.sha256:
        raise InputError(
            f"the files of domain {domain.name!r} have changed since they were read: delete {data} and run "
            "`mixlaw prepare` again"
        )


def _checksums(shards: Shards) -> dict[Path, str]:
    """Every file whose checksum the manifest holds."""
    checksums = {shards.tokenizer / "tokenizer.json": shards.manifest.tokenizer}
    for domain in shards.domains.values():
        for file in (*domain.manifest.train, *domain.manifest.held_out):
            path = domain.folder / file.name
            checksums |= {path: file.sha256, index_path(path): file.index_sha256}
    items = {task: built.sha256 for task, built in shards.manifest.items.items() if built.count}
    return checksums | {shards.data / "items" / f"{task}.json": checksum for task, checksum in items.items()}
