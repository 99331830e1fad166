"""Jupyter notebooks as interleaved Markdown and code, formats 3 and 4; outputs are left out.

The two formats are plain JSON of a dozen keys, so they are read without nbformat and the eight packages that it needs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mixlaw.errors import InputError
from mixlaw.runner.corpora.sources.address import Address, Scheme, below, stats
from mixlaw.runner.corpora.sources.document import Document
from mixlaw.runner.corpora.sources.encodings import decoded
from mixlaw.runner.corpora.sources.part import Part, batches, name_of


def written(notebook: Mapping[str, Any]) -> str:
    """A notebook as one text: Markdown unchanged, code in fences; empty if it has neither.

    Raises:
        ValueError: it is not a notebook of format 3 or 4.
    """
    version = notebook.get("nbformat")
    if version not in (3, 4):
        raise ValueError(f"its nbformat is {version!r}")
    cells = notebook["cells"] if version == 4 else [c for sheet in notebook["worksheets"] for c in sheet["cells"]]
    language = _language(notebook.get("metadata") or {})
    return "\n\n".join(filter(None, (_cell(cell, language) for cell in cells)))


def _language(metadata: Mapping[str, Any]) -> str:
    name = (metadata.get("language_info") or {}).get("name") or (metadata.get("kernelspec") or {}).get("language")
    return str(name or "python").lower()


def _cell(cell: Mapping[str, Any], language: str) -> str:
    kind = cell.get("cell_type")
    text = _joined(cell.get("source", cell.get("input", "")))  # format 3 has `input` where the cell is code
    if not text.strip() or kind not in ("markdown", "code", "heading"):
        return ""
    if kind == "heading":  # format 3 alone
        return f"{'#' * int(cell.get('level', 1))} {text}"
    return text if kind == "markdown" else _fenced(text, str(cell.get("language", language)))


def _joined(source: str | Sequence[str]) -> str:
    return (source if isinstance(source, str) else "".join(source)).strip("\n")


def _fenced(code: str, language: str) -> str:
    """Code in a fence longer than any inside."""
    longest = max((len(ticks) for ticks in re.findall(r"`{3,}", code)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{code}\n{fence}"


def _read(files: Sequence[Path], root: Path) -> Iterator[Document]:
    for file in files:
        try:
            text = written(json.loads(decoded(file.read_bytes(), str(file))))
        except InputError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(
                f"{file} is no Jupyter notebook of format 3 or 4 ({error}): leave it out, or convert it by "
                "`jupyter nbconvert --to notebook`"
            ) from error
        if text:
            yield Document(f"{text}\n", name_of(file, root))


def _files(address: Address) -> list[Path]:
    files = [
        file
        for file in below(address.paths())
        if file.suffix.lower() == ".ipynb" and ".ipynb_checkpoints" not in file.parts
    ]
    if not files:
        raise InputError(f"{address.source!r} holds no .ipynb file: name notebooks or a folder that holds some")
    return files


def _parts(address: Address) -> list[Part]:
    return [
        Part(name_of(files[0], address.root), partial(_read, files, address.root), size)
        for files, size in batches(_files(address))
    ]


def _identity(address: Address) -> object:
    return {"files": stats(_files(address))}


NOTEBOOKS = Scheme(_parts, _identity)
