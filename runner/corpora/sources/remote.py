"""Files in object stores and on servers, by URL or glob: whatever fsspec reaches (`s3://`, `gs://`, `https://`, ...).

A file is fetched into the folder TMPDIR while it is read, so every format of local files is read.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from mixlaw.errors import InputError
from mixlaw.runner.corpora.sources.document import Document
from mixlaw.runner.corpora.sources.files import COLUMN, is_about, read_file
from mixlaw.runner.corpora.sources.part import Part

URL = "://"


def remote_parts(source: str) -> list[Part]:
    """A part for every file of a source `URL` or `URL#column`, a glob or a folder included.

    Raises:
        InputError: there is no such file, the store cannot be reached, or a package for it is not installed.
    """
    url, column = _split(source)
    return [
        Part(path, partial(_read, source, path, column), int(about.get("size") or 0))
        for path, about in listed(source, url).items()
    ]


def remote_identity(source: str) -> object:
    """Path, size, and time or checksum of every file, as the store says without reading them."""
    return [[path, *file_stamp(about)] for path, about in listed(source, _split(source)[0]).items()]


def file_stamp(about: dict[str, Any]) -> list[str]:
    """Of a file, what changes when it does: size, and time or checksum."""
    keep = ("size", "ETag", "etag", "md5Hash", "crc32c", "mtime", "LastModified", "last_modified", "created")
    return [str(about[key]) for key in keep if about.get(key) is not None]


def _split(source: str) -> tuple[str, str]:
    url, _, column = source.partition("#")
    try:
        address = urlsplit(url)
    except ValueError:
        raise InputError(f"the source {source.rpartition('@')[2]!r} is no URL: correct it") from None
    if "@" in address.netloc:
        raise InputError(
            f"a source at {address.hostname} holds a user or password, which the manifest would repeat; let its client "
            "find them in its variables and files, or fetch the files"
        )
    return url, column or COLUMN


def listed(source: str, url: str) -> dict[str, dict[str, Any]]:
    """Files by path with what the store says of them, sorted; of a folder those that can be documents.

    Raises:
        InputError: there is none, or the store cannot be reached.
    """
    try:
        system, path = opened(source, url)
        system.invalidate_cache()
        paths: dict[str, dict[str, Any]]
        if any(mark in path for mark in "*?["):
            paths = system.glob(path, detail=True)
        elif system.isdir(path):
            paths = system.find(path, detail=True)
            paths = {name: about for name, about in paths.items() if _is_document(name, path)}
        else:
            paths = {path: system.info(path)}
    except InputError:
        raise
    except Exception as error:  # clients of stores have errors of their own
        why = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"the source {source!r} cannot be listed ({why}): correct the URL or credentials") from error
    files = {name: about for name, about in sorted(paths.items()) if about.get("type") != "directory"}
    if not files:
        raise InputError(f"no file matches the source {source!r}: name an existing URL or glob")
    return files


def _is_document(name: str, folder: str) -> bool:
    below = PurePosixPath(name).relative_to(folder.rstrip("/"))
    return not is_about(below) and not any(part.startswith(".") for part in below.parts)


def opened(source: str, url: str) -> tuple[Any, str]:
    """The store of a URL, and the path in it.

    Raises:
        InputError: fsspec does not know it, or a package for it is not installed.
    """
    try:
        from fsspec.core import url_to_fs  # type: ignore[import-untyped]

        system, path = url_to_fs(url)
    except (ImportError, ValueError) as error:  # fsspec says which package a store needs
        raise InputError(f"the source {source!r} cannot be opened: {error}") from error
    return system, str(path)


def _read(source: str, path: str, column: str) -> Iterator[Document]:
    system, _ = opened(source, _split(source)[0])
    name = PurePosixPath(path).name
    with tempfile.TemporaryDirectory(prefix="mixlaw-") as folder:
        file = Path(folder, name)
        try:
            system.get_file(path, str(file))
        except Exception as error:
            raise InputError(f"{path} of {source!r} cannot be fetched ({error}): run it again") from error
        for number, document in enumerate(read_file(file, column)):
            yield replace(document, origin=f"{path}:{number}")
