"""Files that are either whole or absent: write to a temporary name beside the target, then rename."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


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
