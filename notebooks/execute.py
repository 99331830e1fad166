"""Execute every notebook of this folder, in order; `make notebooks`. With --write, keep the output in the files."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent


def main(write: bool) -> None:
    """Run the notebooks from the repository root, one kernel each; an error in a cell ends with its traceback."""
    for path in sorted(HERE.glob("*.ipynb")):
        began = time.monotonic()
        notebook = nbformat.read(path, as_version=4)
        NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(HERE.parent)}}).execute()
        if write:
            nbformat.write(notebook, path)
        print(f"{path.name}: {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main("--write" in sys.argv[1:])
