"""Shards: files read back as written, pieces, the split, the order of documents, and duplicates."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from mixlaw.files import hash64
from mixlaw.runner.batches.shards import TokenStream
from mixlaw.runner.batches.tokenizer import dtype_of
from mixlaw.runner.corpora.duplicates import DomainCounts, find_duplicates
from mixlaw.runner.corpora.process_pool import ProcessPool
from mixlaw.runner.corpora.reading import Piece, ReadDomain, is_held_out, read_domain, readings
from mixlaw.runner.corpora.shard_files import Assemble, cut
from mixlaw.runner.corpora.sources.document import Document, digest, parts
from mixlaw.runner.corpora.sources.part import Part
from mixlaw.runner.corpora.spill_files import SIDES
from mixlaw.runner.corpora.tokenise import TokenFile, buckets

Entry = tuple[np.ndarray, int, int]  # tokens of a document, bytes of its text, its group


def entries(count: int, highest: int = 900) -> list[Entry]:
    rng = np.random.default_rng(0)
    return [(rng.integers(1, highest, rng.integers(1, 50)), int(rng.integers(1, 99)), n) for n in range(count)]


def test_the_type_is_the_smallest_that_holds_every_token() -> None:
    assert dtype_of(65_536) == np.uint16
    assert dtype_of(65_537) == np.uint32


def token_files(given: list[Entry], folder: Path, dtype: np.dtype[np.unsignedinteger], each: int) -> list[TokenFile]:
    """Token files of `each` documents, as tokenising writes them."""
    files = []
    for number, chosen in enumerate(given[at : at + each] for at in range(0, len(given), each)):
        files.append(TokenFile(folder / f"bucket-{number}"))
        np.concatenate([np.append(tokens, 7) for tokens, _, _ in chosen]).astype(dtype).tofile(files[-1].tokens)
        np.save(files[-1].index, np.array([(len(tokens) + 1, size, group) for tokens, size, group in chosen]))
    return files


@pytest.mark.parametrize(("highest", "each"), [(900, 40), (900, 3), (70_000, 11)])
def test_files_roll_at_the_limit_and_hold_every_document_with_its_separator(
    tmp_path: Path, highest: int, each: int
) -> None:
    given = entries(40, highest)
    dtype = dtype_of(highest)
    cuts = cut(token_files(given, tmp_path, dtype, each), limit=200)
    jobs = [
        Assemble(part, tmp_path / f"train-{number}.bin", dtype.str, tmp_path / f"{number}.json")
        for number, part in enumerate(cuts)
    ]
    for job in jobs:
        job(lambda _: None)
    files = [job.described() for job in jobs]
    expected = np.concatenate([np.append(tokens, 7) for tokens, _, _ in given])
    stored = [np.fromfile(tmp_path / file.name, dtype) for file in files]
    assert len(files) > 3
    assert all(200 <= file.tokens < 250 for file in files[:-1])  # a document has at most 50 tokens
    assert [file.tokens for file in files] == [part.size for part in stored]
    assert np.array_equal(np.concatenate(stored), expected)
    tables = [np.load(tmp_path / file.name.replace(".bin", ".index.npy")) for file in files]
    assert [tuple(row) for table in tables for row in table[:, 1:]] == [(size, group) for _, size, group in given]
    assert all(part[start - 1] == 7 for part, table in zip(stored, tables, strict=True) for start in table[1:, 0])


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
    mapped = np.memmap(tmp_path / "a.bin", np.uint16, "r")
    assert np.shares_memory(TokenStream([mapped])[10:20], mapped)


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


@dataclass
class Gathered:
    """Pieces of a domain in the order in which they are tokenised, and the counts."""

    train: list[Piece]
    held_out: list[Piece]
    counts: DomainCounts


def gather(sources: list[list[Document]], folder: Path, share: float, limit: int = 2**20) -> list[Gathered]:
    """Read domains into spill files of `limit` bytes, drop duplicates, and read all pieces back in order."""
    folder.mkdir(parents=True, exist_ok=True)
    domains: dict[str, ReadDomain] = {}
    for number, given in enumerate(sources):
        (job,) = readings([Part("all", partial(iter, given))], folder / str(number), share, 0, limit, 8000)
        job(lambda _: None)
        domains[str(number)] = read_domain([job], sum(domain.entries for domain in domains.values()))
    counts = find_duplicates(domains, folder / "bits", ProcessPool(0), limit)
    result = []
    for name, domain in domains.items():
        train, held_out = (
            [piece for bucket in buckets(domain, side, folder / "bits", limit) for piece in bucket] for side in SIDES
        )
        result.append(Gathered(train, held_out, counts[name]))
    return result


def gathered(given: Iterator[Document], folder: Path, share: float = 0.1) -> tuple[set[str], set[str]]:
    (domain,) = gather([list(given)], folder, share)
    train, held = ({piece.text for piece in pieces} for pieces in (domain.train, domain.held_out))
    return train, held


def test_a_grown_corpus_moves_no_document_between_training_and_held_out_text(tmp_path: Path) -> None:
    train, held = gathered(documents(2000), tmp_path / "a")
    more_train, more_held = gathered(documents(3000, start=-500), tmp_path / "b")
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
    (domain,) = gather([[*long, *pairs]], tmp_path, 0.2)
    sides = [{piece.group for piece in pieces} for pieces in (domain.train, domain.held_out)]
    assert not sides[0] & sides[1]
    assert max(len(piece.text) for piece in domain.train) <= 8000
    assert len(domain.train) + len(domain.held_out) > 60 * 3 + 600


def test_duplicates_are_dropped_once_within_a_domain_and_across_domains(tmp_path: Path) -> None:
    first, second = gather([[*documents(50), *documents(50)], list(documents(80))], tmp_path, 0.1)
    assert (first.counts.duplicates, first.counts.files) == (50, 50)
    assert (second.counts.duplicates, second.counts.files) == (50, 30)
    assert len(second.train) + len(second.held_out) == 30


def test_the_order_of_documents_depends_on_their_content_alone(tmp_path: Path) -> None:
    some = list(documents(500))
    (there,), (back,) = gather([some], tmp_path / "a", 0.1), gather([some[::-1]], tmp_path / "b", 0.1)
    order = [piece.text for piece in there.train]
    assert order == [piece.text for piece in back.train]
    assert order != sorted(order)


def in_memory(sources: list[list[Document]], share: float) -> list[Gathered]:
    """The same as `gather` with a set of all digests, and lists."""
    seen: set[bytes] = set()

    def is_new(text: str) -> bool:
        key = digest(text)
        new = key not in seen and bool(text.strip())
        seen.update([key] if new else [])
        return new

    result = []
    for given in sources:
        sides: tuple[list[Piece], list[Piece]] = [], []
        files, duplicates, blank = set(), 0, 0
        for document in given:
            if not is_new(document.text):
                duplicates += 1
                blank += not document.text.strip()
                continue
            files.add(document.origin)
            content = (document.group or document.text).encode()
            pieces = list(parts(document.text, 8000))
            kept = [piece for piece in pieces if len(pieces) == 1 or is_new(piece)]
            duplicates += len(pieces) - len(kept)
            sides[is_held_out(content, share, 0)].extend(Piece(text, hash64(content, "group") >> 1) for text in kept)
        train, held = (sorted(side, key=lambda piece: hash64(piece.text.encode(), "order 0")) for side in sides)
        result.append(Gathered(train, held, DomainCounts(len(train), len(held), duplicates, len(files), blank)))
    return result


def tangled(rng: random.Random, count: int) -> list[Document]:
    """Long documents that share pieces with one another and with short ones, often equal up to white space or case."""
    blocks = [f"block {n} " + "word " * 1590 + "\n\n" for n in range(12)]
    documents = []
    for number in range(count):
        chosen = rng.choices(blocks, k=rng.choice((1, 1, 1, 2, 3)))
        if rng.random() < 0.1:
            chosen.insert(rng.randrange(len(chosen) + 1), " " * 16_000)
        text = "".join(chosen)
        documents.append(
            Document(rng.choice((text, text, text.upper(), text.replace(" ", "  "))), f"origin {number // 3}")
        )
    return documents


def test_duplicates_are_those_of_a_set_of_all_texts_also_where_dropped_documents_have_pieces(tmp_path: Path) -> None:
    rng = random.Random(0)
    for trial in range(20):
        sources = [tangled(rng, 25), tangled(rng, 25)]
        small = gather(sources, tmp_path / f"{trial} small", 0.2, limit=40_000)
        assert small == in_memory(sources, 0.2)
        assert small == gather(sources, tmp_path / f"{trial} large", 0.2)
