"""The stages of building a data folder; finished work of a stage is kept until the manifest is written.

Read (a job for some parts of a source) -> de-duplicate (a job for a range of digests) -> train the tokenizer ->
tokenise (a job for a range of order hashes) -> shard files (a job each) -> items. Memory holds what the running jobs
work on, so it depends on the number of processes and not on the size of a corpus.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

from mixlaw.errors import InputError
from mixlaw.files import copy_whole, hash64, sha256_of, with_ending, write_json
from mixlaw.machine import cores
from mixlaw.progress import Progress
from mixlaw.runner.batches.manifest import PLACES, ShardFile, TokenSource
from mixlaw.runner.batches.tokenizer import dtype_of
from mixlaw.runner.corpora.cleaning import ITEMS, NOTHING, Cleaning, Look, benchmark_texts, drop
from mixlaw.runner.corpora.contamination import Finder
from mixlaw.runner.corpora.duplicates import DomainCounts, find_duplicates
from mixlaw.runner.corpora.in_place import AssemblePlaces, Locate, decoded
from mixlaw.runner.corpora.kept import KeptDomain, dropped, find_kept, forget, keep, kept_domain
from mixlaw.runner.corpora.process_pool import Job, ProcessPool
from mixlaw.runner.corpora.reading import UNKNOWN, ReadDomain, Reading, read_domain, readings
from mixlaw.runner.corpora.shard_files import Assemble, cut
from mixlaw.runner.corpora.sources.registry import notes, partitions
from mixlaw.runner.corpora.spill_files import SIDES
from mixlaw.runner.corpora.stages import Stages
from mixlaw.runner.corpora.tokenise import Bucket, TokenFile, Tokenise, buckets
from mixlaw.runner.corpora.tokenizer import SavedTokenizer, adopt, train_and_save
from mixlaw.runner.evaluate.items import build_items, read_items

MEMORY = 384 * 2**20  # bytes of text that all processes together hold
MOST, LEAST = 32 * 2**20, 4 * 2**20  # bytes of text that one process holds
HELD_OUT_TEXTS = "held_out.json"  # in the folder of a domain's spill files
PROSE_BYTES = 16_000_000  # of held-out prose, the lowest hashes first, that items are built from
FEW = 16 * 2**20  # bytes of sources up to which it does not pay to start processes

Side = tuple[str, str]  # name of a domain; "train" or "held_out"


@dataclass(frozen=True)
class BuildSettings:
    """The arguments of `prepare`, with hashes of the inputs.

    Attributes:
        domains: source by name.
        identities: by domain, a hash of its source and of the split; another one means that it is read again.
        in_place: by domain whose tokens stay where they are, the files that hold them.
        root: folder that paths are relative to.
        vocabulary, tokenizer, sample_bytes, held_out, seed, longest, processes: as in `prepare`.
        fingerprint: hash of everything that decides the result.
        cleaning: what is dropped besides exact duplicates.
        prose: domain whose held-out text items are built from.
    """

    domains: Mapping[str, str]
    identities: Mapping[str, str]
    in_place: Mapping[str, tuple[TokenSource, ...]]
    root: Path
    vocabulary: int
    tokenizer: Path | None
    sample_bytes: int
    held_out: float
    seed: int
    longest: int | None
    fingerprint: str
    processes: int | None
    cleaning: Cleaning = NOTHING
    prose: str | None = None


class Build:
    """A data folder under construction, in a folder of its own; `large` where several processes pay."""

    def __init__(self, folder: Path, settings: BuildSettings, progress: Progress) -> None:
        self.settings, self.folder = settings, folder
        self.work = folder / settings.fingerprint[:16]
        self.out = self.work / "out"
        self.exact = self.work / "dropped.bits"
        self.bits = self.work / "cleaned.bits" if settings.cleaning else self.exact
        trained = hash64(repr((settings.vocabulary, settings.sample_bytes, settings.held_out)).encode(), "tokenizer")
        self.trained = folder / f"tokenizer-{trained ^ settings.seed:016x}"  # stays while a domain does
        self.kept: dict[str, KeptDomain] = {}
        self.stages = Stages(progress)
        self.parts = {name: partitions(source, settings.root) for name, source in settings.domains.items()}
        self.large = sum(part.size or UNKNOWN for parts in self.parts.values() for part in parts) > FEW
        processes = settings.processes
        self.processes = processes if processes is not None else cores() if self.large else 0
        self.limit = max(LEAST, min(MOST, MEMORY // max(1, self.processes)))

    def run(self) -> tuple[dict[str, DomainCounts], SavedTokenizer, dict[Side, tuple[ShardFile, ...]]]:
        """Write tokenizer and shards, or resume; returns counts by domain, the tokenizer, and the shard files.

        Raises:
            InputError: a source is wrong, or a domain is empty or has no held-out document.
        """
        self.work.mkdir(parents=True, exist_ok=True)
        self._look_for_kept()
        with ProcessPool(self.processes if self.processes > 1 else 0) as pool:
            self._read(pool)
            counts = self._compare(pool)
            self._tidy()  # not before: a build that is refused leaves what the last one kept
            self._read_again(pool)
            if self.settings.cleaning:
                counts = self._clean(pool, counts)
            tokenizer = self._tokenizer()
            files = self._tokenise(pool, tokenizer)
            shards = self._assemble(pool, tokenizer, files)
        shutil.copytree(tokenizer.folder, self.out / "tokenizer", dirs_exist_ok=True, copy_function=copy_whole)
        shards |= {(name, side): kept.shards[side] for name, kept in self.kept.items() for side in SIDES}
        return counts, tokenizer, shards

    def _tidy(self) -> None:
        """Remove work of other sources or settings."""
        current = {self.work, self.trained, *(self._reading(name) for name in self.parts)}
        for path in self.folder.glob("*"):
            if path not in current:
                shutil.rmtree(path, ignore_errors=True)

    def _look_for_kept(self) -> None:
        """Find the domains whose shards stay, and the tokenizer if there are any."""
        tokenizer, width, place = None, dtype_of(self.settings.vocabulary).itemsize, self.work / "tokenizer"
        if self.settings.tokenizer is not None:  # reject a wrong one before hours are spent
            adopted = adopt(self.settings.tokenizer, place)
            tokenizer, width = adopted.hash, adopted.dtype.itemsize
        elif self.trained.exists():
            tokenizer = sha256_of(self.trained / "tokenizer.json")
        for name in self.parts:
            folder = self._reading(name)
            kept = find_kept(folder, tokenizer, self.folder.parent / name, width)
            if name == self.settings.prose and not (folder / HELD_OUT_TEXTS).exists():
                kept = None  # it gives items for the first time
            if kept is not None:
                self.kept[name] = kept
            else:
                forget(folder)
        cleans = bool(self.settings.cleaning)  # then every text is looked at, and the tokenizer stays all the same
        if (self.kept or (cleans and self.trained.exists())) and self.settings.tokenizer is None:
            shutil.copytree(self.trained, place, dirs_exist_ok=True, copy_function=copy_whole)
        for name in self.kept if cleans else ():
            forget(self._reading(name))
        self.kept = {} if cleans else self.kept

    def keep(self, tokenizer: SavedTokenizer, shards: Mapping[Side, tuple[ShardFile, ...]]) -> None:
        """Leave what the next build needs of this one, whose data are in place, and remove the rest."""
        if self.settings.tokenizer is None:
            shutil.copytree(tokenizer.folder, self.trained, dirs_exist_ok=True, copy_function=copy_whole)
        for name in self.parts:
            own = {side: shards[name, side] for side in SIDES}
            lost = dropped(self.exact, self._domains[name])
            keep(self._reading(name), KeptDomain(tokenizer=tokenizer.hash, dropped=lost, shards=own))
        shutil.rmtree(self.work)
        self.stages.end()

    def discard(self) -> None:
        """Remove unfinished work."""
        shutil.rmtree(self.work, ignore_errors=True)
        for name in self.parts.keys() - self.kept.keys():
            shutil.rmtree(self._reading(name), ignore_errors=True)

    def _do(self, pool: ProcessPool, stage: str, jobs: Sequence[tuple[Job, int, Path, str]]) -> None:
        """Run the jobs, each with its size, a path that exists once it is done, and a message."""
        total = max(1, sum(size for _, size, _, _ in jobs))
        open_jobs = [(job, size / total, message) for job, size, done, message in jobs if not done.exists()]
        done = 1 - sum(weight for _, weight, _ in open_jobs)
        self.stages.begin(stage, open_jobs[0][2] if open_jobs else stage, done)

        def report(number: int, share: float) -> None:
            _, weight, message = open_jobs[number]
            self.stages.report(number, share * weight, message)

        for number, _ in pool.run([job for job, _, _ in open_jobs], report):
            report(number, 1.0)

    # --- reading and de-duplication ---------------------------------------------------------------------------------

    def _reading(self, domain: str) -> Path:
        return self.folder / f"read-{domain}-{self.settings.identities[domain][:16]}"

    def _read(self, pool: ProcessPool) -> None:
        jobs = [(job, name) for name, jobs in self._readings.items() if name not in self.kept for job in jobs]
        self._do(pool, "reading", [(job, job.size, job.done, f"reading {name}") for job, name in jobs])

    def _read_again(self, pool: ProcessPool) -> None:
        """Read kept domains that have lost other documents to the domains before them than in the last build."""
        changed = [name for name, kept in self.kept.items() if dropped(self.exact, self._domains[name]) != kept.dropped]
        for name in changed:
            del self.kept[name]
            forget(self._reading(name))
        if changed:
            self._read(pool)
            del self._domains

    @property
    def fresh(self) -> list[str]:
        """Domains that are tokenised."""
        return [name for name in self.settings.domains if name not in self.kept]

    @cached_property
    def _readings(self) -> dict[str, list[Reading]]:
        split, longest = (self.settings.held_out, self.settings.seed), self.settings.longest
        return {
            name: readings(parts, self._reading(name), *split, self.limit, longest, name in self.settings.in_place)
            for name, parts in self.parts.items()
        }

    @cached_property
    def _domains(self) -> dict[str, ReadDomain]:
        """Spill files by domain, with the entries of all domains numbered consecutively."""
        domains: dict[str, ReadDomain] = {}
        for name, jobs in self._readings.items():
            base = sum(domain.entries for domain in domains.values())
            domains[name] = kept_domain(self._reading(name), base) if name in self.kept else read_domain(jobs, base)
        return domains

    def _compare(self, pool: ProcessPool) -> dict[str, DomainCounts]:
        self.stages.begin("comparing", "dropping duplicates")
        path = self.work / "counts.json"
        if not path.exists():
            by_domain = find_duplicates(self._domains, self.exact, pool, self.limit // 4)
            write_json(path, {name: asdict(counts) for name, counts in by_domain.items()})
        rows = json.loads(path.read_text(encoding="utf-8"))
        counts = {name: DomainCounts(**row) for name, row in rows.items()}
        for name, source in self.settings.domains.items():
            _check_split(name, source, counts[name], notes(source, self.settings.root))
        return counts

    def _clean(self, pool: ProcessPool, counts: Mapping[str, DomainCounts]) -> dict[str, DomainCounts]:
        """Drop contaminated training documents and near-duplicates; returns what is left."""
        cleaning, tokenizer, looks = self.settings.cleaning, self.work / "tokenizer", dict[Side, list[Look]]()
        texts = benchmark_texts(cleaning, self.settings.root)
        if self.settings.tokenizer is not None:
            adopt(self.settings.tokenizer, tokenizer)
        if ITEMS in cleaning.contaminated:
            texts |= self._items()
        finder = Finder(texts) if texts else None
        for name, side in ((name, side) for name in self.parts for side in SIDES):
            sources, near = self.settings.in_place.get(name), cleaning.near_duplicates
            ranges = self.buckets(name, side, self.exact)
            outs = [self.work / f"look-{name}-{side}-{len(ranges)}-{number:05d}.npy" for number in range(len(ranges))]
            looks[name, side] = [
                Look(bucket, sources, tokenizer, finder if side == "train" else None, near, out)
                for bucket, out in zip(ranges, outs, strict=True)
            ]
        jobs = [(job, job.bucket.size, job.out, f"looking at {name}") for (name, _), of in looks.items() for job in of]
        self._do(pool, "cleaning", jobs)
        lost = drop(looks, cleaning, self.exact, self.bits, self.work)
        for path in (*self.work.glob("look-*"), self.work / "signatures"):
            path.unlink(missing_ok=True)
        left = {name: of.without(**asdict(lost[name])) for name, of in counts.items()}
        for name, source in self.settings.domains.items():
            _check_split(name, source, left[name], notes(source, self.settings.root))
        return left

    def _items(self) -> dict[str, list[str]]:
        """Question and right answer of the items that this build will have."""
        folder = self.work / "cleaning-items"
        built = build_items(folder / "items", self.held_out_prose(), self.settings.seed)
        return {
            task: [item.context + item.choices[0] for item in read_items(folder, task)]
            for task, known in built.items()
            if known.count
        }

    # --- tokens -----------------------------------------------------------------------------------------------------

    def buckets(self, domain: str, side: str, bits: Path | None = None) -> list[Bucket]:
        """Pieces of a side of a domain, in the order of their hash: several for each process, to end together."""
        size = sum(texts for read in self._domains.values() for _, texts in read.sizes.values())
        share = size // (4 * self.processes) if self.processes > 1 else size
        return buckets(self._domains[domain], side, bits or self.bits, min(self.limit, max(2**20, share)))

    def _tokenizer(self) -> SavedTokenizer:
        self.stages.begin("tokenizer", "training the tokenizer")
        folder, source = self.work / "tokenizer", self.settings.tokenizer
        if source is not None:
            return adopt(source, folder)
        texts = ((p.text for p in chain.from_iterable(self.buckets(name, "train"))) for name in self.fresh)
        samples = (first_texts(of_domain, self.settings.sample_bytes) for of_domain in texts)
        return train_and_save(chain.from_iterable(samples), self.settings.vocabulary, folder)

    def _tokenise(self, pool: ProcessPool, tokenizer: SavedTokenizer) -> dict[Side, list[TokenFile]]:
        files: dict[Side, list[TokenFile]] = {}
        jobs: list[tuple[Job, int, Path, str]] = []
        for name, side in ((name, side) for name in self.fresh for side in SIDES):
            ranges = self.buckets(name, side)
            # Named by range: another number of processes asks for other ranges, and must not reuse these files.
            stem = f"{name}-{side}-{len(ranges)}"
            files[name, side] = [TokenFile(self.work / f"{stem}-{number:05d}") for number in range(len(ranges))]
            for bucket, file in zip(ranges, files[name, side], strict=True):
                job: Job = Tokenise(bucket, tokenizer.folder, tokenizer.end, tokenizer.dtype.str, file)
                if (sources := self.settings.in_place.get(name)) is not None:
                    job = Locate(bucket, sources, tokenizer.end, tokenizer.dtype.str, file, side == "held_out")
                jobs.append((job, bucket.size, file.index, f"tokenising {name}"))
        self._do(pool, "tokenising", jobs)
        return files

    def _assemble(
        self, pool: ProcessPool, tokenizer: SavedTokenizer, files: Mapping[Side, Sequence[TokenFile]]
    ) -> dict[Side, tuple[ShardFile, ...]]:
        jobs: dict[Side, list[Assemble]] = {}
        for (name, side), of_side in files.items():
            sources = self.settings.in_place.get(name) if side == "train" else None
            jobs[name, side] = []
            for number, part in enumerate(cut(of_side)):
                stem, dtype = f"{side}-{number:05d}", tokenizer.dtype.str
                place, done = self.out / name / stem, self.work / f"{name}-{stem}.json"
                jobs[name, side].append(
                    Assemble(part, with_ending(place, ".bin"), dtype, done)
                    if sources is None
                    else AssemblePlaces(part, with_ending(place, PLACES), dtype, done, sources, tokenizer.end)
                )
            for job in jobs[name, side]:
                if not job.path.exists():  # it was moved into place before the process was killed
                    job.done.unlink(missing_ok=True)
        whole = [
            (job, job.tokens, job.done, f"writing {name}") for (name, _), of_side in jobs.items() for job in of_side
        ]
        self._do(pool, "writing", whole)
        return {side: tuple(job.described() for job in of_side) for side, of_side in jobs.items()}

    def held_out_prose(self) -> list[str] | None:
        """Held-out texts that items are built from, None where the study has no prose."""
        name = self.settings.prose
        return None if name is None else self.held_out_texts(name, PROSE_BYTES)

    def held_out_texts(self, name: str, most: int) -> list[str]:
        """Held-out texts of a domain, the lowest hashes first, until there are `most` bytes."""
        path = self._reading(name) / HELD_OUT_TEXTS
        if name not in self.kept:
            pieces = chain.from_iterable(self.buckets(name, "held_out", self.exact))
            texts: Iterable[str] = (piece.text for piece in pieces)
            if (sources := self.settings.in_place.get(name)) is not None:
                texts = decoded(texts, sources, self.work / "tokenizer")
            write_json(path, list(first_texts(texts, most)))
        return [str(text) for text in json.loads(path.read_text(encoding="utf-8"))]


def _check_split(name: str, source: str, counts: DomainCounts, notes: Sequence[str]) -> None:
    if not counts.train and not counts.held_out:
        again, left = counts.duplicates - counts.blank, "".join(f"; {note}" for note in notes)
        why = [f"{again} were dropped: an earlier domain has them"] * bool(again)
        why += [f"{counts.blank} are empty or null"] * bool(counts.blank)
        reason = f" ({', '.join(why)})" if why else ""
        raise InputError(
            f"the domain {name!r} is empty{reason}{left}: its source {source!r} must give documents of its own"
        )
    if not counts.train or not counts.held_out:
        side = "held-out" if counts.train else "training"
        raise InputError(
            f"the domain {name!r} has no {side} document, as its source {source!r} gives {counts.files}: give more "
            "documents (one a row of a .jsonl file, for instance) or change held_out"
        )


def first_texts(texts: Iterable[str], most: int) -> Iterator[str]:
    """The first texts, until there are `most` bytes."""
    size = 0
    for text in texts:
        if size >= most:
            return
        size += len(text.encode())
        yield text
