"""The stages of building a data folder; what a stage has finished is kept aside until the manifest is written.

Read (a job for some parts of a source) -> de-duplicate (a job for a range of digests) -> train the tokenizer ->
tokenise (a job for a range of order hashes) -> shard files (a job each) -> items. Memory holds what the jobs under way
work on, so it depends on the number of processes and not on the size of a corpus.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

from mixlaw.errors import InputError
from mixlaw.files import write_json
from mixlaw.machine import cores
from mixlaw.progress import Progress
from mixlaw.runner.batches.manifest import ShardFile
from mixlaw.runner.corpora.buckets import Bucket, TokenFile, Tokenise, buckets
from mixlaw.runner.corpora.duplicates import Found, find_duplicates
from mixlaw.runner.corpora.process_pool import Job, ProcessPool
from mixlaw.runner.corpora.shard_files import Assemble, cut
from mixlaw.runner.corpora.sources.registry import partitions
from mixlaw.runner.corpora.spill_files import SIDES, read_counts
from mixlaw.runner.corpora.spool import UNKNOWN, Piece, Reading, Spooled, readings
from mixlaw.runner.corpora.stages import Stages
from mixlaw.runner.corpora.tokenizer import SavedTokenizer, adopt, train_and_save

#: Bytes of each domain to train the tokenizer on: equal bytes, so that no domain owns the vocabulary.
SAMPLE_BYTES = 1_000_000
MEMORY = 384 * 2**20  # bytes of text that all processes together hold
MOST, LEAST = 32 * 2**20, 4 * 2**20  # bytes of text that one process holds
FEW = 16 * 2**20  # bytes of sources up to which it does not pay to start processes

Side = tuple[str, str]  # name of a domain; "train" or "held_out"


@dataclass(frozen=True)
class Wanted:
    """What to build.

    Attributes:
        domains, identities: source of each domain, and what decides whether it was read already.
        root: what paths are relative to.
        vocabulary, tokenizer, held_out, seed: as in `prepare`.
        fingerprint: hash of all that.
        processes: as in `prepare`.
    """

    domains: Mapping[str, str]
    identities: Mapping[str, str]
    root: Path
    vocabulary: int
    tokenizer: Path | None
    held_out: float
    seed: int
    fingerprint: str
    processes: int | None


class Build:
    """A data folder on its way, in a folder of its own; `large` if so much is read that processes pay."""

    def __init__(self, folder: Path, wanted: Wanted, progress: Progress) -> None:
        self.wanted, self.folder = wanted, folder
        self.work = folder / wanted.fingerprint[:16]
        self.out = self.work / "out"
        self.bits = self.work / "dropped.bits"
        self.stages = Stages(progress)
        self.parts = {name: partitions(source, wanted.root) for name, source in wanted.domains.items()}
        self.large = sum(part.size or UNKNOWN for parts in self.parts.values() for part in parts) > FEW
        available = cores() if self.large else 0
        self.processes = available if wanted.processes is None else wanted.processes
        self.limit = max(LEAST, min(MOST, MEMORY // max(1, self.processes)))

    def run(self) -> tuple[dict[str, Found], SavedTokenizer, dict[Side, tuple[ShardFile, ...]]]:
        """Write tokenizer and shards, or go on with what was begun; returns what was found, tokenizer, and files.

        Raises:
            InputError: a source is wrong, or a domain is empty or has no held-out document.
        """
        self._tidy()
        if self.wanted.tokenizer is not None:  # a wrong one is found before hours are spent
            adopt(self.wanted.tokenizer, self.work / "tokenizer")
        with ProcessPool(self.processes if self.processes > 1 else 0) as crew:
            self._read(crew)
            found = self._compare(crew)
            words = self._words()
            files = self._tokenise(crew, words)
            shards = self._assemble(crew, words, files)
        shutil.copytree(words.folder, self.out / "tokenizer", dirs_exist_ok=True)
        return found, words, shards

    def _tidy(self) -> None:
        """Remove what other sources or settings had begun."""
        kept = {self.work, *(self._reading(name) for name in self.parts)}
        for path in self.folder.glob("*"):
            if path not in kept:
                shutil.rmtree(path, ignore_errors=True)
        self.work.mkdir(parents=True, exist_ok=True)

    def _do(self, crew: ProcessPool, stage: str, jobs: Sequence[tuple[Job, int, Path, str]]) -> None:
        """Do the jobs, each with its size, a path that is there once it is done, and what it is called."""
        total = max(1, sum(size for _, size, _, _ in jobs))
        left = [(job, size / total, what) for job, size, done, what in jobs if not done.exists()]
        self.stages.begin(stage, left[0][2] if left else stage, 1 - sum(weight for _, weight, _ in left))

        def tell(number: int, share: float) -> None:
            _, weight, what = left[number]
            self.stages.tell(number, share * weight, what)

        for number, _ in crew.run([job for job, _, _ in left], tell):
            tell(number, 1.0)

    # --- reading and de-duplication ---------------------------------------------------------------------------------

    def _reading(self, domain: str) -> Path:
        return self.folder / f"read-{domain}-{self.wanted.identities[domain][:16]}"

    def _read(self, crew: ProcessPool) -> None:
        jobs = [(job, name) for name, jobs in self._readings.items() for job in jobs]
        self._do(crew, "reading", [(job, job.size, job.done, f"reading {name}") for job, name in jobs])

    @cached_property
    def _readings(self) -> dict[str, list[Reading]]:
        split = self.wanted.held_out, self.wanted.seed
        return {name: readings(parts, self._reading(name), *split, self.limit) for name, parts in self.parts.items()}

    @cached_property
    def _spooled(self) -> dict[str, Spooled]:
        """What was read, with the entries of all domains numbered through."""
        found, base = {}, 0
        for name, jobs in self._readings.items():
            runs = [[read_counts(path) for path in job.runs()] for job in jobs]
            entries = [sum(counts.entries for counts in of_job) for of_job in runs]
            bases = [base + sum(entries[:number]) for number in range(len(jobs))]
            blank = sum(counts.blank for of_job in runs for counts in of_job)
            found[name] = Spooled(self._reading(name), tuple(map(len, runs)), tuple(bases), blank)
            base += sum(entries)
        return found

    def _compare(self, crew: ProcessPool) -> dict[str, Found]:
        self.stages.begin("comparing", "dropping duplicates")
        path = self.work / "found.json"
        if not path.exists():
            found = find_duplicates(self._spooled, self.bits, crew, self.limit // 4)
            write_json(path, {name: asdict(left) for name, left in found.items()})
        kept = {name: Found(**row) for name, row in json.loads(path.read_text(encoding="utf-8")).items()}
        for name, source in self.wanted.domains.items():
            _check_split(name, source, kept[name])
        return kept

    # --- tokens -----------------------------------------------------------------------------------------------------

    def buckets(self, domain: str, stem: str) -> list[Bucket]:
        """Pieces of a side of a domain, in the order of their hash: several for each process, to end together."""
        size = sum(counts.bytes for spooled in self._spooled.values() for counts in map(read_counts, spooled.paths))
        share = size // (4 * self.processes) if self.processes > 1 else size
        return buckets(self._spooled[domain], SIDES[stem], self.bits, min(self.limit, max(2**20, share)))

    def _words(self) -> SavedTokenizer:
        self.stages.begin("tokenizer", "training the tokenizer")
        folder, given = self.work / "tokenizer", self.wanted.tokenizer
        if given is not None:
            return adopt(given, folder)
        samples = (first_pieces(self.buckets(name, "train"), SAMPLE_BYTES) for name in self.wanted.domains)
        return train_and_save((piece.text for sample in samples for piece in sample), self.wanted.vocabulary, folder)

    def _tokenise(self, crew: ProcessPool, words: SavedTokenizer) -> dict[Side, list[TokenFile]]:
        files: dict[Side, list[TokenFile]] = {}
        jobs: list[tuple[Job, int, Path, str]] = []
        for name, stem in ((name, stem) for name in self.wanted.domains for stem in SIDES):
            found = self.buckets(name, stem)
            # Named by its range: where another number of processes asks for other ranges, none is taken for another.
            files[name, stem] = [TokenFile(self.work / f"{name}-{stem}-{b.first:04d}-{b.last:04d}") for b in found]
            for bucket, file in zip(found, files[name, stem], strict=True):
                job = Tokenise(bucket, words.folder, words.end, words.dtype.str, file)
                jobs.append((job, bucket.size, file.index, f"tokenising {name}"))
        self._do(crew, "tokenising", jobs)
        return files

    def _assemble(
        self, crew: ProcessPool, words: SavedTokenizer, files: Mapping[Side, Sequence[TokenFile]]
    ) -> dict[Side, tuple[ShardFile, ...]]:
        jobs = {}
        for (name, stem), of_side in files.items():
            names = [(part, f"{stem}-{number:05d}") for number, part in enumerate(cut(of_side))]
            jobs[name, stem] = [
                Assemble(part, self.out / name / f"{file}.bin", words.dtype.str, self.work / f"{name}-{file}.json")
                for part, file in names
            ]
            for job in jobs[name, stem]:
                if not job.path.exists():  # moved into place, and then the process was killed
                    job.done.unlink(missing_ok=True)
        whole = [(job, job.tokens, job.done, f"writing {name}") for (name, _), found in jobs.items() for job in found]
        self._do(crew, "writing", whole)
        return {side: tuple(job.described() for job in found) for side, found in jobs.items()}


def _check_split(name: str, source: str, found: Found) -> None:
    if not found.train and not found.held_out:
        again = f" ({found.duplicates} were dropped: an earlier domain has them)" if found.duplicates else ""
        raise InputError(f"the domain {name!r} is empty{again}: its source {source!r} must give documents of its own")
    if not found.train or not found.held_out:
        lacking = "held-out" if found.train else "training"
        raise InputError(
            f"the domain {name!r} has no {lacking} document, as its source {source!r} gives {found.files}: give more "
            "documents (one a row of a .jsonl file, for instance) or change held_out"
        )


def first_pieces(found: Sequence[Bucket], most: int) -> Iterator[Piece]:
    """Pieces of lowest hash, until there are `most` bytes of text."""
    size = 0
    for piece in chain.from_iterable(found):
        if size >= most:
            return
        size += len(piece.text.encode())
        yield piece
