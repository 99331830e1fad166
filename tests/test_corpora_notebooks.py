"""Jupyter notebooks written by nbformat, both formats, and the text they become."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat as untyped_nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat import v3 as untyped_v3
from nbformat import v4 as untyped_v4

from mixlaw.errors import InputError
from mixlaw.runner.corpora.sources.notebooks import written
from mixlaw.runner.corpora.sources.registry import identity, partitions, read

nbformat: Any = untyped_nbformat  # its functions have no types
v3: Any = untyped_v3
v4: Any = untyped_v4

EXPECTED = "# Title\n\nWords.\n\n```python\nx = 1\nprint(x)\n```\n\nAfter.\n"


def save(notebook: object, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path, version=nbformat.NO_CONVERT)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    output = v4.new_output("stream", text="1\n")
    cells = [
        v4.new_markdown_cell("# Title\n\nWords."),
        v4.new_code_cell("x = 1\nprint(x)", outputs=[output], execution_count=1),
        v4.new_code_cell(""),
        v4.new_raw_cell("raw"),
        v4.new_markdown_cell("After."),
    ]
    save(v4.new_notebook(cells=cells), tmp_path / "new.ipynb")
    old = [
        v3.new_heading_cell("Title", level=1),
        v3.new_text_cell("markdown", source="Words."),
        v3.new_code_cell(input="x = 1\nprint(x)", outputs=[v3.new_output("stream", output_text="1\n")]),
        v3.new_text_cell("markdown", source="After."),
    ]
    save(v3.new_notebook(worksheets=[v3.new_worksheet(cells=old)]), tmp_path / "old" / "old.ipynb")
    save(v4.new_notebook(cells=cells), tmp_path / ".ipynb_checkpoints" / "new-checkpoint.ipynb")
    return tmp_path


def test_formats_3_and_4_give_the_same_text_without_outputs(root: Path) -> None:
    documents = list(read("notebooks:.", root))
    assert [document.origin for document in documents] == ["new.ipynb", "old/old.ipynb"]
    assert [document.text for document in documents] == [EXPECTED, EXPECTED]


def test_the_fence_tells_the_kernels_language_and_outlasts_fences_in_the_code() -> None:
    notebook = v4.new_notebook(cells=[v4.new_code_cell("s = '```'")], metadata={"language_info": {"name": "R"}})
    assert written(notebook) == "````r\ns = '```'\n````"


@given(st.lists(st.tuples(st.booleans(), st.text(st.characters(codec="utf-8", exclude_characters="`")))))
def test_every_cell_stands_in_the_text_in_order(cells: list[tuple[bool, str]]) -> None:
    made = [v4.new_code_cell(text) if is_code else v4.new_markdown_cell(text) for is_code, text in cells]
    text = written(nbformat.reads(nbformat.writes(v4.new_notebook(cells=made)), as_version=4))
    wanted = [(is_code, source.strip("\n")) for is_code, source in cells if source.strip()]
    assert text == "\n\n".join(f"```python\n{source}\n```" if is_code else source for is_code, source in wanted)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.ipynb", "{", "a.ipynb is no Jupyter notebook of format 3 or 4"),
        ("a.ipynb", "[]", "no Jupyter notebook"),
        ("a.ipynb", '{"nbformat": 2, "cells": []}', r"its nbformat is 2\): leave it out, or convert"),
        ("a.txt", "text", "holds no .ipynb file"),
    ],
)
def test_what_is_no_notebook_is_named(name: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        list(read("notebooks:.", tmp_path))


def test_parts_and_identity_are_those_of_the_notebooks(root: Path) -> None:
    assert [part.name for part in partitions("notebooks:.", root)] == ["new.ipynb"]
    before = identity("notebooks:.", root)
    (root / "notes.txt").write_text("no notebook")
    assert identity("notebooks:.", root) == before
    (root / "new.ipynb").unlink()
    assert identity("notebooks:.", root) != before
