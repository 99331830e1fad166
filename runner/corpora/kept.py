"""What stays of a build, so that the next one reads and tokenises only the domains that have changed.

Of every domain its digests stay (32 bytes an entry), in the folder that its spill files were in: duplicates are found
without reading it again. Its shards are used again while it has the same source, tokenizer and duplicates.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from mixlaw.files import write_text
from mixlaw.runner.batches.manifest import ShardFile, index_path
from mixlaw.runner.corpora.duplicates import is_set, read_bits
from mixlaw.runner.corpora.reading import ReadDomain
from mixlaw.runner.corpora.spill_files import SIDES, SpillFile

KEPT = "kept.json"  # in the folder of a domain's spill files, of which then the digests alone are there
BLOCK = 2**20  # entries looked at together


class KeptDomain(BaseModel):
    """A domain of an earlier build: hash of the tokenizer, of the entries dropped, and its shard files by side."""

    model_config = ConfigDict(frozen=True)

    tokenizer: str
    dropped: str
    shards: Mapping[str, tuple[ShardFile, ...]]


def keep(folder: Path, kept: KeptDomain) -> None:
    """Leave the digests of a domain's spill files, and the description of its shards."""
    write_text(folder / KEPT, kept.model_dump_json())
    for ending in ("pieces", "texts"):
        for path in folder.glob(f"*.{ending}"):
            path.unlink()


def find_kept(folder: Path, tokenizer: str | None, shards: Path, width: int) -> KeptDomain | None:
    """What stays of a domain, None where it is of another tokenizer or its shards are not whole.

    Args:
        folder: of its spill files.
        tokenizer: hash of the tokenizer of this build; None where it is still to be trained.
        shards: folder of its shards.
        width: bytes of a token.
    """
    try:
        kept = KeptDomain.model_validate_json((folder / KEPT).read_bytes())
        files = [file for side in SIDES for file in kept.shards[side]]
        sizes = [(file, (shards / file.name).stat().st_size // width) for file in files]
        whole = all(file.in_place or size == file.tokens for file, size in sizes)
        whole = whole and all(index_path(shards / file.name).exists() for file in files)
    except (OSError, ValidationError, KeyError):
        return None
    return kept if whole and kept.tokenizer == tokenizer else None


def kept_domain(folder: Path, base: int) -> ReadDomain:
    """The spill files of a domain of which the digests alone are there, to compare and not to read."""
    files = tuple(SpillFile(path.with_suffix("")) for path in sorted(folder.glob("*.keys")))
    entries = [np.load(file.keys, mmap_mode="r").shape[1] for file in files]
    return ReadDomain(files, tuple(accumulate(entries[:-1], initial=base)), {}, sum(entries))


def dropped(bits: Path, domain: ReadDomain) -> str:
    """Hash of which entries of a domain are dropped, wherever they are among those of all domains."""
    digest, all_bits = hashlib.sha256(), read_bits(bits)
    for begin in range(0, domain.entries, BLOCK):
        entries = np.arange(begin, min(begin + BLOCK, domain.entries)) + domain.bases[0]
        digest.update(np.packbits(is_set(all_bits, entries)).tobytes())
    return digest.hexdigest()


def forget(folder: Path) -> None:
    """Remove what stayed of a domain, so that it is read again."""
    if (folder / KEPT).exists():
        shutil.rmtree(folder)
