"""Files: text of a certain encoding; written whole or not at all, by renaming what is on the disk already."""

from __future__ import annotations

import codecs
import fcntl
import gzip
import hashlib
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mixlaw.errors import InputError

#: First bytes of files that are not UTF-8 text.
_MAGIC = {
    **{codecs.BOM_UTF32_LE: "UTF-32", codecs.BOM_UTF32_BE: "UTF-32"},
    **{codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"},
    **{b"\x1f\x8b": "compressed by gzip", b"\x28\xb5\x2f\xfd": "compressed by zstandard"},
    **{b"\xfd7zXZ\0": "compressed by xz", b"BZh": "compressed by bzip2", b"\x04\x22\x4d\x18": "compressed by lz4"},
    **{b"PK\x03\x04": "a zip archive", b"7z\xbc\xaf": "a 7z archive", b"PAR1": "Parquet", b"%PDF": "a PDF"},
    **{
        b"SQLite format 3": "a database of SQLite",
        b"ARROW1": "Arrow",
        b"\x89PNG": "a picture",
        b"\xff\xd8": "a picture",
    },
}
_ADVICE = {
    "UTF": "convert it (iconv -f {what} -t UTF-8)",
    "compressed by gzip": "let its name end in .gz",
    "compressed by zstandard": "let its name end in .zst",
    "a zip": "unpack it; of a workbook of Excel, save the sheet as CSV (UTF-8)",
    "compressed": "recompress it as .gz or .zst",
    "Parquet": "let its name end in .parquet",
}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path in the folder of `path`, renamed to it when the block ends without an error.

    The content is on the disk before the name, and the name when the block is over: should the power fail, the file is
    whole, or the older one, or not there.
    """
    new = not path.parent.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = None
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        os.close(handle)
        temporary = Path(name)
        yield temporary
        os.chmod(temporary, 0o644)  # mkstemp gives 0600; a study may be shared by several users
        to_disk(temporary)
        os.replace(temporary, path)
        names_to_disk(path.parent)
        if new:
            names_to_disk(path.parent.parent)
    except OSError as error:
        if error.errno is None or not str(error.filename or path.parent).startswith(str(path.parent)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error  # not the temporary name, nor none
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def to_disk(path: Path) -> None:
    """Wait until the content of a file is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def names_to_disk(folder: Path) -> None:
    """Wait until the names in a folder are on the disk; some file systems cannot be asked to."""
    with suppress(OSError):
        to_disk(folder)


def copy_whole(source: str | Path, target: str | Path) -> None:
    """Copy the content of a file, atomically."""
    with replacing(Path(target)) as temporary:
        shutil.copyfile(source, temporary)


def publish(draft: Path, folder: Path) -> None:
    """Rename a folder of files, when all that is in it is on the disk; there must be none of that name."""
    for path in draft.iterdir():
        to_disk(path)
    names_to_disk(draft)
    os.replace(draft, folder)
    names_to_disk(folder.parent)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which is made if need be; the system releases it when the process dies."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def with_ending(stem: Path, ending: str) -> Path:
    """The path with more behind its name; unlike `Path.with_suffix`, it keeps what follows a dot in the name."""
    return stem.with_name(stem.name + ending)


def read_text(path: Path) -> str:
    """Text of a file that someone else wrote: UTF-8 with or without a mark at its head; unpacks .gz.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: it cannot be read or unpacked, or it is of another encoding, which is named.
    """
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix.lower() == ".gz" else content
    except FileNotFoundError:
        raise
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {error}; check the file") from error
    return decoded(content, str(path))


def kind_of(head: bytes) -> str:
    """What begins with these bytes, where it is not UTF-8 text; else empty."""
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return kind
    zeros = [byte == 0 for byte in head[:4]]
    return "UTF-16" if zeros in ([False, True] * 2, [True, False] * 2) else ""


def not_text(what: str, where: str) -> InputError:
    """The error for what is not UTF-8, by the name that `kind_of` gives it."""
    advice = next((text for kind, text in _ADVICE.items() if what.startswith(kind)), "leave it out or convert it")
    return InputError(f"{where} is {what}, not UTF-8 text: {advice.format(what=what)}")


def decoded(content: bytes, name: str) -> str:
    """Bytes as text; see `read_text`. `name` is what errors call them.

    Raises:
        InputError: they are not UTF-8; says what they are, or names the byte and its line.
    """
    what = kind_of(content[:16])
    if what.startswith("UTF"):
        raise not_text(what, name)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if what:
            raise not_text(what, name) from None
        line = content[: error.start].count(b"\n") + 1
        raise InputError(
            f"{name} is not UTF-8: byte 0x{content[error.start]:02x} in line {line}; "
            "save it as UTF-8 (Latin-1 and Windows-1252 are not)"
        ) from None


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON document atomically, readable by people, keys in the order given."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def sealed(data: Mapping[str, Any]) -> dict[str, Any]:
    """Plain data with a checksum of itself, under "own"."""
    return {**data, "own": _digest(data)}


def is_whole(data: Mapping[str, Any]) -> bool:
    """Whether plain data are as they were sealed; true of what never was."""
    return "own" not in data or data["own"] == _digest({name: value for name, value in data.items() if name != "own"})


def _digest(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


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
