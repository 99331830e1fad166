"""Shards: what is written is read back, across files, in the smallest type, and damage is found."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mixlaw.runner.corpora.document import Document, digest, parts
from mixlaw.runner.corpora.shards import Entry, TokenStream, dtype_of, write_shards
from mixlaw.runner.corpora.spool import PIECE, gather, is_held_out


def entries(count: int, highest: int = 900) -> list[Entry]:
    rng = np.random.default_rng(0)
    return [(rng.integers(1, highest, rng.integers(1, 50)), int(rng.integers(1, 99)), n) for n in range(count)]


def test_the_type_is_the_smallest_that_holds_every_token() -> None:
    assert dtype_of(65_536) == np.uint16
    assert dtype_of(65_537) == np.uint32


@pytest.mark.parametrize("highest", [900, 70_000])
def test_files_roll_at_the_limit_and_hold_every_document_with_its_separator(tmp_path: Path, highest: int) -> None:
    given = entries(40, highest)
    dtype = dtype_of(highest)
    files = write_shards(iter(given), tmp_path, "train", dtype, limit=200)
    expected = np.concatenate([np.append(tokens, 0) for tokens, _, _ in given])
    stored = [np.fromfile(tmp_path / file.name, dtype) for file in files]
    assert len(files) > 3
    assert all(file.tokens >= 200 for file in files[:-1])
    assert [file.tokens for file in files] == [part.size for part in stored]
    assert np.array_equal(np.concatenate(stored), expected)
    tables = [np.load(tmp_path / file.name.replace(".bin", ".index.npy")) for file in files]
    assert [tuple(row) for table in tables for row in table[:, 1:]] == [(size, group) for _, size, group in given]
    assert all(part[start - 1] == 0 for part, table in zip(stored, tables, strict=True) for start in table[1:, 0])


def test_a_stream_slices_like_the_array_that_its_files_make_together() -> None:
    whole = np.arange(100, dtype=np.uint16)
    stream = TokenStream(np.split(whole, [7, 8, 50]))
    assert len(stream) == 100
    for start in (0, 6, 7, 8, 49, 50, 99, 100):
        for stop in (0, 5, 7, 8, 51, 100, 200):
            assert np.array_equal(stream[start:stop], whole[start:stop]), (start, stop)
    assert stream[3:60].dtype == np.uint16


def test_a_slice_within_a_file_copies_nothing(tmp_path: Path) -> None:
    np.arange(50, dtype=np.uint16).tofile(tmp_path / "a.bin")
    stream = TokenStream([np.memmap(tmp_path / "a.bin", np.uint16, "r")])
    assert isinstance(stream[10:20].base, np.memmap)


def test_pieces_join_to_the_text_and_end_at_paragraphs_where_there_are_any() -> None:
    text = "\n\n".join(f"Paragraph {n} " + "word " * (n % 60) for n in range(400))
    pieces = list(parts(text, 1000))
    assert "".join(pieces) == text
    assert all(len(piece) <= 1000 for piece in pieces)
    assert sum(piece.endswith("\n\n") for piece in pieces[:-1]) == len(pieces) - 1
    assert list(parts("x" * 25, 10)) == ["x" * 10, "x" * 10, "x" * 5]


def test_texts_that_differ_in_case_or_white_space_only_are_duplicates() -> None:
    assert digest("One  Two\n") == digest("one two")
    assert digest("one two") != digest("onetwo")


def documents(count: int, start: int = 0) -> Iterator[Document]:
    return (Document(f"text number {n}", f"file {n}") for n in range(start, start + count))


def gathered(given: Iterator[Document], folder: Path, share: float = 0.1) -> tuple[set[str], set[str], int]:
    found = gather(given, folder, share, 0, set())
    train, held = ({piece.text for piece in spool} for spool in (found.train, found.held_out))
    return train, held, found.duplicates


def test_a_grown_corpus_moves_no_document_between_training_and_held_out_text(tmp_path: Path) -> None:
    train, held, _ = gathered(documents(2000), tmp_path / "a")
    more_train, more_held, _ = gathered(documents(3000, start=-500), tmp_path / "b")
    assert train <= more_train
    assert held <= more_held
    assert 150 < len(held) < 250  # 200 expected, standard deviation 13


def test_a_larger_share_held_out_only_adds_to_what_was_held_out() -> None:
    keys = [str(n).encode() for n in range(5000)]
    small = {key for key in keys if is_held_out(key, 0.05, 1)}
    large = {key for key in keys if is_held_out(key, 0.2, 1)}
    other = {key for key in keys if is_held_out(key, 0.05, 2)}
    assert small < large
    assert small != other


def test_pieces_of_one_document_and_documents_of_one_group_stay_on_one_side(tmp_path: Path) -> None:
    long = [Document("\n\n".join(f"{n} {m} " + "word " * 100 for m in range(60)), f"f{n}") for n in range(60)]
    pairs = [
        Document(f"{kind} {n}", f"{kind} {n}", group=f"module {n}") for n in range(300) for kind in ("code", "doc")
    ]
    found = gather(iter([*long, *pairs]), tmp_path, 0.2, 0, set())
    sides = [{piece.group for piece in spool} for spool in (found.train, found.held_out)]
    assert not sides[0] & sides[1]
    assert max(len(piece.text) for piece in found.train) <= PIECE
    assert len(found.train) + len(found.held_out) > 60 * 3 + 600


def test_duplicates_are_dropped_once_within_a_domain_and_across_domains(tmp_path: Path) -> None:
    seen: set[bytes] = set()
    twice = [*documents(50), *documents(50)]
    first = gather(iter(twice), tmp_path / "a", 0.1, 0, seen)
    second = gather(documents(80), tmp_path / "b", 0.1, 0, seen)
    assert first.duplicates == 50
    assert second.duplicates == 50
    assert len(second.train) + len(second.held_out) == 30


def test_the_order_of_documents_depends_on_their_content_alone(tmp_path: Path) -> None:
    there = gather(documents(500), tmp_path / "a", 0.1, 0, set())
    back = gather(iter(list(documents(500))[::-1]), tmp_path / "b", 0.1, 0, set())
    order = [piece.text for piece in there.train]
    assert order == [piece.text for piece in back.train]
    assert order != sorted(order)
