"""Which pickles are loaded: those that this user wrote on this machine, told by a signature."""

from __future__ import annotations

import hmac
import os
import secrets
from pathlib import Path


def signature(pickled: bytes) -> str:
    """A signature that only holders of the key can make, 64 hexadecimal digits."""
    return hmac.digest(_key(), pickled, "sha256").hex()


def is_own(pickled: bytes, signed: str) -> bool:
    """Whether this user signed a pickle."""
    return hmac.compare_digest(signature(pickled), signed)


def _key() -> bytes:
    """The key, in the user's data folder, made when it is first needed and readable by the user alone."""
    path = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "mixlaw" / "key"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"key.{os.getpid()}")
        draft.touch(mode=0o600)
        draft.write_bytes(secrets.token_bytes(32))
        try:
            os.link(draft, path)  # the first of several processes is the one that counts
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_bytes()
