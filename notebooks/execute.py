"""Execute every notebook of this folder, in order; `make notebooks`.

    python notebooks/execute.py [--site FOLDER] [--write] [NAME ...]

Kernels run here, beside the notebooks, as Jupyter runs them; they see neither `tests` nor `benchmarks`. With --site,
they import mixlaw from the wheel installed in FOLDER. With --write, the files keep their output, and beside every
plotly figure a picture of it, for pages that do not draw plotly. NAME is the beginning of a file name: 05.
"""

from __future__ import annotations

import argparse
import base64
import os
import re
import subprocess
import sys
import tempfile
import time
from io import BytesIO
from pathlib import Path

import nbformat
import plotly.graph_objects as go
from nbclient import NotebookClient
from PIL import Image

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PLOTLY = "application/vnd.plotly.v1+json"
TIMEOUT = 600  # seconds that one cell may take


def environment(site: Path | None) -> None:
    """What kernels find: the wheel if one is given, and public tables where the benchmarks look for them."""
    os.environ.setdefault("MIXLAW_DATA", str(ROOT.parent / "shared" / "data"))
    os.environ["PYTHONWARNINGS"] = "ignore"
    if site is None:
        return
    os.environ["PYTHONPATH"] = str(site)
    found = subprocess.run(
        [sys.executable, "-c", "import mixlaw; print(mixlaw.__file__)"], cwd=HERE, capture_output=True, text=True
    ).stdout
    if not Path(found.strip()).is_relative_to(site):
        raise SystemExit(
            f"execute: mixlaw comes from {found.strip() or 'nowhere'}, not from {site}; `make wheel` first"
        )


def execute(path: Path) -> nbformat.NotebookNode:
    """Run one notebook in a kernel of its own; an error in a cell ends with its traceback."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=TIMEOUT, record_timing=False, resources={"metadata": {"path": str(HERE)}})
    client.execute()
    return notebook


def pictured(notebook: nbformat.NotebookNode) -> None:
    """Put a picture beside every plotly figure of the output."""
    sys.path.append(str(ROOT / "benchmarks"))
    from pictures import WIDTH, save

    outputs = [o for cell in notebook.cells for o in cell.get("outputs", ()) if PLOTLY in o.get("data", {})]
    figures = {f"{i:02d}": go.Figure({k: o.data[PLOTLY][k] for k in ("data", "layout")}) for i, o in enumerate(outputs)}
    with tempfile.TemporaryDirectory() as folder:
        for output, picture in zip(outputs, save(figures, Path(folder)), strict=True):
            output.data["image/png"] = base64.b64encode(small(picture.read_bytes())).decode()
            output.metadata["image/png"] = {"width": WIDTH}


def small(picture: bytes) -> bytes:
    """A PNG in 256 colours: a third of the bytes, and no other picture to the eye."""
    out = BytesIO()
    Image.open(BytesIO(picture)).convert("RGB").quantize(256).save(out, "PNG", optimize=True)
    return min(out.getvalue(), picture, key=len)


def tidied(notebook: nbformat.NotebookNode) -> None:
    """Leave out of the output what bars of progress left behind, and where it was made: folders for temporary files."""
    for cell in notebook.cells:
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if any(output.get("data", {"": True}).values())]
    text = nbformat.writes(notebook)
    notebook.update(nbformat.reads(re.sub(rf"{re.escape(tempfile.gettempdir())}/\w+/", "", text), as_version=4))


def main() -> None:
    """Parse, run, write, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--site", type=Path, help="folder in which the wheel is installed")
    parser.add_argument("--write", action="store_true", help="keep the output in the files")
    parser.add_argument("names", nargs="*", metavar="NAME")
    given = parser.parse_args()
    environment(given.site and given.site.resolve())
    began = time.monotonic()
    for path in sorted(HERE.glob("*.ipynb")):
        if given.names and not path.name.startswith(tuple(given.names)):
            continue
        start = time.monotonic()
        notebook = execute(path)
        if given.write:
            tidied(notebook)
            pictured(notebook)
            nbformat.write(notebook, path)
        print(f"{path.name}: {time.monotonic() - start:.0f} s", flush=True)
    print(f"all: {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
