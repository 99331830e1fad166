"""What saved surfaces say of themselves, read without torch: `mixlaw status` has to answer at once."""

from __future__ import annotations

import json
from pathlib import Path

from mixlaw.errors import InputError

FORMAT = 13
NAMES = "surfaces.json"


def format_and_runs(folder: Path) -> tuple[int, int]:
    """The format of the surfaces in a folder, and how many runs they were fitted to; without surfaces, `FORMAT` and 0.

    Raises:
        InputError: the file cannot be read.
    """
    path = folder / NAMES
    if not path.exists():
        return FORMAT, 0
    try:
        words = json.loads(path.read_text(encoding="utf-8"))
        return int(words["format"]), len(set(words["runs"]))
    except (ValueError, LookupError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error!r}); fit again") from error
