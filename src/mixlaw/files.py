"""Files: read as text of an encoding that is certain; written whole or not at all, by renaming a temporary file."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mixlaw.errors import InputError

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path in the folder of `path`, renamed to it when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o644)  # mkstemp gives 0600; a study may be shared by several users
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def with_ending(stem: Path, ending: str) -> Path:
    """The path with more behind its name; unlike `Path.with_suffix`, it keeps what follows a dot in the name."""
    return stem.with_name(stem.name + ending)


def read_text(path: Path) -> str:
    """Text of a file that someone else wrote: UTF-8 with or without a mark at its head, UTF-16 with one; unpacks .gz.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: it cannot be read or unpacked, or it is of another encoding; names the byte and its line.
    """
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix.lower() == ".gz" else content
    except FileNotFoundError:
        raise
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {error}; check the file") from error
    return decoded(content, str(path))


def decoded(content: bytes, name: str) -> str:
    """Bytes as text; see `read_text`. `name` is what errors call them.

    Raises:
        InputError: they are neither UTF-8 nor UTF-16 with a byte-order mark.
    """
    utf_16 = content.startswith(_UTF_16)
    try:
        text = content.decode("utf-16" if utf_16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(
            f"{name} is not UTF-{16 if utf_16 else 8}: byte 0x{content[error.start]:02x} in line {line}; "
            "save it as UTF-8 (Latin-1 and Windows-1252 are not)"
        ) from None
    if not utf_16 and text[:1000].count("\0") > len(text[:1000]) / 4:
        raise InputError(f"{name} is not UTF-8 but looks like UTF-16 without a byte-order mark; save it as UTF-8")
    return text


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON document atomically, readable by people, keys in the order given."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def sha256_of(path: Path) -> str:
    """Checksum of a file's content, as 64 hexadecimal digits.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash64(content: bytes, salt: str) -> int:
    """A 64-bit integer, uniform over contents, another permutation for every salt."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8, key=salt.encode()).digest(), "big")
