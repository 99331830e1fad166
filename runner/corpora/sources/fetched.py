"""Files of tokens in a store, copied beside the study once: training reads them at random places, as no store can."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from mixlaw.errors import InputError
from mixlaw.files import replacing, write_json
from mixlaw.runner.corpora.sources.address import Address
from mixlaw.runner.corpora.sources.remote import URL, file_stamp, listed, opened

FOLDER, LISTING = "tokens", ".fetched.json"
AT_ONCE = 8  # files fetched at a time


def on_disk(address: Address) -> Address:
    """The address itself, or of a URL that of copies in `tokens` of the study folder, made or renewed first.

    Raises:
        InputError: there is no such file, its name leads elsewhere, or it cannot be fetched.
    """
    if URL not in address.place:
        return address
    system, path = opened(address.source, address.place)
    try:
        names = _wanted(address, system, path)
        folder = path if system.isdir(path) else str(PurePosixPath(path.partition("*")[0] + "x").parent)
    except InputError:
        raise
    except Exception as error:  # clients of stores have errors of their own
        why = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{address.source!r} cannot be listed ({why}): correct the URL or credentials") from error
    rest = str(PurePosixPath(path).relative_to(folder))
    home = address.root / FOLDER / hashlib.sha256(address.place.encode()).hexdigest()[:12]
    files = {str(PurePosixPath(name).relative_to(folder)): (name, file_stamp(about)) for name, about in names.items()}
    for name in files:
        if not _is_inside(name):
            raise InputError(f"{address.source!r} holds {name!r}, whose copy would lie elsewhere: rename it there")
    _fetch(address.source, system, files, home)
    return replace(address, place=str(home.resolve() if rest == "." else home.resolve() / rest))


def _wanted(address: Address, system: Any, path: str) -> dict[str, dict[str, Any]]:
    """Files that a place names, with the .idx beside a .bin; a prefix names both."""
    if not system.exists(path) and "*" not in path:
        return listed(address.source, f"{address.place}.bin") | listed(address.source, f"{address.place}.idx")
    found = listed(address.source, address.place)
    beside = {name.removesuffix(".bin") + ".idx" for name in found if name.endswith(".bin")} - found.keys()
    return found | {name: system.info(name) for name in sorted(beside) if system.exists(name)}


def _is_inside(name: str) -> bool:
    return not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts


def _listing(home: Path) -> dict[str, Any]:
    """What copies were made of, by name."""
    try:
        words = json.loads((home / LISTING).read_text(encoding="utf-8"))
        return {name: stamp for name, stamp in words.items() if _is_inside(name)}
    except (OSError, ValueError, AttributeError):
        return {}


def _fetch(source: str, system: Any, files: dict[str, tuple[str, list[str]]], home: Path) -> None:
    """Copy files whose stamp is new, and delete those that are in the store no longer."""
    known = _listing(home)
    copied = {name: stamp for name, stamp in known.items() if name in files}

    def copy(name: str) -> None:
        with replacing(home / name) as temporary:
            system.get_file(files[name][0], str(temporary))
        copied[name] = files[name][1]

    changed = [name for name in files if known.get(name) != files[name][1] or not (home / name).is_file()]
    try:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(copy, changed))
    except Exception as error:  # clients of stores have errors of their own
        raise InputError(f"files of {source!r} cannot be fetched ({error}): run it again") from error
    finally:
        for name in known.keys() - files.keys():
            (home / name).unlink(missing_ok=True)
        if copied != known:  # also after an error: what is here is not copied again
            write_json(home / LISTING, copied)
