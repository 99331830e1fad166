"""Files read as they are or decompressed on the fly, by suffix: `.gz`, `.zst`; memory holds a block."""

from __future__ import annotations

import gzip
import importlib
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mixlaw.errors import InputError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BLOCK = 2**14  # compressed bytes at a time; text shrinks to a tenth at best
SUFFIXES = (".gz", ".zst")


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, decompressed.

    Raises:
        InputError: the file is damaged or cut off, or zstandard is not installed.
    """
    try:
        with _raw(path) as stream:
            yield stream
    except (EOFError, gzip.BadGzipFile, zlib.error, _Damaged) as error:
        raise InputError(f"{path} is damaged or was cut off ({error}): fetch or compress it again") from error


class _Damaged(Exception):
    """A zstandard file that does not decompress to its end."""


def _raw(path: Path) -> IO[bytes]:
    if path.suffix.lower() == ".gz":
        return io.BufferedReader(gzip.open(path, "rb"))
    return io.BufferedReader(_Zstandard(path), 2**17) if path.suffix.lower() == ".zst" else path.open("rb")


class _Zstandard(io.RawIOBase):
    """All frames of a zstandard file in turn; unlike the package's own reader, it detects a truncated file."""

    def __init__(self, path: Path) -> None:
        try:
            self._package: Any = importlib.import_module("zstandard")
        except ModuleNotFoundError as error:
            raise InputError(
                f"{path} is compressed with zstandard: run pip install zstandard, or recompress it as .gz"
            ) from error
        self._file = path.open("rb")
        self._blocks = self._decompressed()
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """Yes."""
        return True

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill the buffer from the block at hand, or from the next."""
        while not self._rest:
            if (block := next(self._blocks, None)) is None:
                return 0
            self._rest = memoryview(block)
        target = memoryview(buffer).cast("B")
        size = min(len(target), len(self._rest))
        target[:size], self._rest = self._rest[:size], self._rest[size:]
        return size

    def _decompressed(self) -> Iterator[bytes]:
        decompressor = self._package.ZstdDecompressor(max_window_size=2**31)  # also files made with --long
        frame = None
        while block := self._file.read(BLOCK):
            while block:
                frame = frame or decompressor.decompressobj()
                try:
                    yield frame.decompress(block)
                except self._package.ZstdError as error:
                    raise _Damaged(error) from error
                block = frame.unused_data if frame.eof else b""
                frame = None if frame.eof else frame
        if frame is not None:
            raise _Damaged("it ends within a frame")
