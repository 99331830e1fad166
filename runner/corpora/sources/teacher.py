"""Verified synthetic code from a teacher: a model writes solutions with tests, and those that pass are documents.

A source `teacher:FILE.toml`. Reading it requests the missing answers, runs their tests in the sandbox, and yields those
that passed. Beside FILE.toml it writes `FILE.transcript.jsonl` (requests and responses), `FILE.attempts.jsonl` (every
answer with its verdict and provenance) and `FILE.kept.jsonl` (those that passed, no solution twice), which is a source
of its own. It is safe to kill and repeat; once every answer is there, no endpoint is needed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import IO, Any

from mixlaw.errors import InputError
from mixlaw.files import replacing
from mixlaw.machine import cores
from mixlaw.numbers import percent
from mixlaw.printable import Printable
from mixlaw.progress import Progress
from mixlaw.runner.corpora.sources.address import Address, Scheme, stats
from mixlaw.runner.corpora.sources.answers import Answer, NoAnswer, parse_answer
from mixlaw.runner.corpora.sources.document import Document
from mixlaw.runner.corpora.sources.part import Part, name_of
from mixlaw.runner.corpora.sources.teacher_settings import Attempt, TeacherSettings, plan_attempts, read_settings
from mixlaw.runner.evaluate.chat import Chat, Endpoint, Reply
from mixlaw.runner.evaluate.sandbox.verdict import Check, Verdict, passing

PASSED = "passed"
SILENCE = 15.0  # seconds between two lines of progress

Row = dict[str, Any]


@dataclass(frozen=True)
class Synthesis(Printable):
    """Result of the attempts: how many there are, how many passed, and why the others did not.

    Attributes:
        kept: file of the documents.
        verdicts: attempts by verdict, the most frequent first.
    """

    kept: Path
    attempts: int
    documents: int
    verdicts: Mapping[str, int]

    def __str__(self) -> str:
        reasons = ", ".join(f"{reason} {count}" for reason, count in self.verdicts.items())
        return f"{self.documents} documents of {self.attempts} attempts in {self.kept}: {reasons}"


def synthesise(file: Path, progress: Progress | None = None) -> Synthesis:
    """Request solutions with tests from a teacher, run the tests in the sandbox, and keep those that pass.

    An answer is kept where it holds a solution and tests, where all tests pass (its own, and those given with the
    problem), where its own fail once every function of the solution returns None, and where no earlier attempt gave
    the same solution.

    Args:
        file: the settings, TOML; see `TeacherSettings`.
        progress: called with the share done, 0 to 1, and a description; by default prints lines to stderr.

    Raises:
        InputError: the settings or the problems are wrong, the endpoint does not answer, or there is no bubblewrap.
    """
    settings = read_settings(file)
    attempts = plan_attempts(settings, file)
    with _ledger(_beside(file, "attempts")) as (ledger, done):
        missing = [attempt for attempt in attempts if attempt.key not in done]
        if missing:
            _fill(ledger, done, settings, missing, file, progress or _Lines(file.name))
        rows = [done[attempt.key] for attempt in attempts]
        documents = list(_documents(rows))
        _write(_beside(file, "kept"), documents)
    verdicts = Counter(row["verdict"] for row in rows)
    return Synthesis(_beside(file, "kept"), len(rows), len(documents), dict(verdicts.most_common()))


def _beside(file: Path, name: str) -> Path:
    return file.with_name(f"{file.stem}.{name}.jsonl")


@contextmanager
def _ledger(path: Path) -> Iterator[tuple[IO[bytes], dict[str, Row]]]:
    """The file of attempts, to be appended to by one process at a time, and the attempts in it by key."""
    with path.open("a+b") as ledger:
        fcntl.flock(ledger, fcntl.LOCK_EX)  # given up by the system when the process dies
        ledger.seek(0)
        *lines, rest = ledger.read().split(b"\n")
        if rest:  # of a process that was killed
            ledger.truncate(ledger.seek(0, os.SEEK_END) - len(rest))
        try:
            rows = [json.loads(line) for line in lines]
            done = {row["key"]: row for row in rows}
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is damaged ({error}): delete it; answers are in the transcript") from error
        yield ledger, done


def _fill(
    ledger: IO[bytes],
    done: dict[str, Row],
    settings: TeacherSettings,
    missing: Sequence[Attempt],
    file: Path,
    progress: Progress,
) -> None:
    """Make the missing attempts, some at a time, and write each of them down with its verdict."""
    endpoint = Endpoint(settings.endpoint, settings.model, key=settings.key, parallel=settings.parallel)
    chat = Chat(endpoint, _beside(file, "transcript"))
    passed, step = 0, 4 * settings.parallel
    for begin in range(0, len(missing), step):
        batch = missing[begin : begin + step]
        replies = list(chat.ask([attempt.request for attempt in batch]))
        now = datetime.now(UTC).isoformat(timespec="seconds")
        for attempt, judged in zip(batch, _judged(batch, replies, settings.seconds), strict=True):
            row = {**judged, **attempt.provenance(settings), "date": now}
            ledger.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
            done[attempt.key] = row
            passed += row["verdict"] == PASSED
        ledger.flush()
        count = begin + len(batch)
        progress(count / len(missing), f"{passed} of {count} answers passed their tests, {len(missing)} in all")


def _judged(attempts: Sequence[Attempt], replies: Sequence[Reply], seconds: float) -> list[Row]:
    """Statement, solution, tests and verdict of each reply."""
    rows: list[Row] = []
    runs: list[tuple[int, Answer]] = []
    for attempt, reply in zip(attempts, replies, strict=True):
        row: Row = {"statement": attempt.problem.statement, "solution": "", "tests": ""}
        try:
            if reply.finish == "length":
                raise NoAnswer("cut off at max_tokens")
            answer = parse_answer(reply.text)
            runs.append((len(rows), answer))
            rows.append({**row, "solution": answer.solution, "tests": answer.tests})
        except NoAnswer as error:
            rows.append({**row, "verdict": str(error), "reason": ""})
    for (number, _), verdict in zip(runs, _verdicts(runs, attempts, seconds), strict=True):
        rows[number] |= verdict
    return rows


def _verdicts(runs: Sequence[tuple[int, Answer]], attempts: Sequence[Attempt], seconds: float) -> Iterator[Row]:
    """Whether the tests pass, and whether they fail without the solution; both in the sandbox."""
    given = [attempts[number].problem.tests for number, _ in runs]
    programs = [answer.solution for _, answer in runs] + [answer.emptied for _, answer in runs]
    checks = [
        Check.of("\n".join(filter(None, [answer.tests, more]))) for (_, answer), more in zip(runs, given, strict=True)
    ]
    checks += [Check.of(answer.tests) for _, answer in runs]
    verdicts = passing(programs, checks, cores(), seconds)
    for verdict, empty in zip(verdicts[: len(runs)], verdicts[len(runs) :], strict=True):
        yield _row_of(verdict, empty)


def _row_of(verdict: Verdict, empty: Verdict) -> Row:
    if not verdict.passed:
        return {"verdict": "failed", "reason": verdict.reason}
    if empty.passed:
        return {"verdict": "tests prove nothing", "reason": "they pass where every function returns None"}
    return {"verdict": PASSED, "reason": ""}


def _documents(rows: Sequence[Row]) -> Iterator[Row]:
    """Rows that passed, the first of each solution, with the text of the document."""
    seen: set[str] = set()
    for row in rows:
        if row["verdict"] == PASSED:
            answer = Answer(row["solution"], row["tests"])
            key = hashlib.sha256(answer.normal.encode("utf-8", "replace")).hexdigest()
            if key not in seen:
                seen.add(key)
                yield {"text": answer.document(row["statement"]), **row}


def _write(path: Path, rows: Sequence[Row]) -> None:
    """Write the documents, whole or not at all; a file that is the same already is left alone."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8", "replace")
    if not path.exists() or path.read_bytes() != text:
        with replacing(path) as temporary:
            temporary.write_bytes(text)


class _Lines:
    """Progress on stderr: a line now and then, with the time that is left."""

    def __init__(self, title: str) -> None:
        self.title, self.began, self.last = title, time.monotonic(), time.monotonic()

    def __call__(self, share: float, description: str) -> None:
        now = time.monotonic()
        if now - self.last > SILENCE:
            self.last = now
            remaining = (now - self.began) * (1 - share) / share
            print(
                f"{self.title}: {percent(share)}, about {remaining:.0f} s left: {description}",
                file=sys.stderr,
                flush=True,
            )


def _read(file: Path, where: str) -> Iterator[Document]:
    done = synthesise(file)
    if not done.documents:
        raise InputError(f"{file}: none of the answers passed: {done}")
    with done.kept.open("rb") as lines:
        for line in lines:
            row = json.loads(line)
            yield Document(row["text"], f"{where} {row['problem']} {row['sample']}", row["statement"])


def _files(address: Address) -> list[Path]:
    """The settings and the problems, both checked."""
    files = address.paths()
    for file in files:
        plan_attempts(read_settings(file), file)
    return files


def _parts(address: Address) -> list[Part]:
    return [
        Part(where, partial(_read, file, where)) for file in _files(address) for where in (name_of(file, address.root),)
    ]


def _identity(address: Address) -> object:
    return {
        "files": stats([path for file in _files(address) for path in (file, read_settings(file).problems_of(file))])
    }


TEACHER = Scheme(_parts, _identity)
