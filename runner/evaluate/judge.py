"""Win rate: a model's answers against those of a reference model, judged by a third model behind an endpoint."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from mixlaw.errors import InputError
from mixlaw.files import write_text
from mixlaw.runner.evaluate.chat import Chat, Endpoint, Request
from mixlaw.runner.evaluate.generate import generate
from mixlaw.runner.evaluate.measure import Measure, Measured, Subject, mean
from mixlaw.runner.train.store import STATE, Store

UNREAD = 0.1  # tolerated share of judgements without a verdict

QUESTION = """Two writers were given the same beginning of a text and continued it. Judge which continuation serves \
somebody who wrote that beginning better: it should be to the point, correct, helpful and well written. Neither the \
order in which the continuations are shown nor their length should sway you; a continuation may be cut off at its end.

[Beginning]
{prompt}

[Continuation A]
{first}

[Continuation B]
{second}

[Your verdict]
Give your reasons in a few sentences, then end with [[A]] if A is better, [[B]] if B is better, or [[C]] if they are \
equally good."""


@dataclass(frozen=True)
class Judged(Measure):
    """Answers judged in both orders; a win counts 1, a tie one half.

    Attributes:
        url, model, key: the judge's endpoint: `mixlaw.runner.evaluate.chat.Endpoint`.
        reference: folder of the checkpoint that the model is compared with.
        prompts: a JSONL file of {"prompt": ...}; absent, the built-in ones.
        tokens: limit on the tokens of an answer.
        parallel: concurrent judgements.
        options: of the requests to the judge, as the protocol names them.
        store: URL of the store that has the reference, a run, where it is in no folder.
    """

    kind: ClassVar[str] = "judge"

    url: str
    model: str
    reference: str
    key: str = "OPENAI_API_KEY"
    prompts: str | None = None
    tokens: int = 256
    parallel: int = 8
    options: Mapping[str, Any] = field(default_factory=lambda: {"temperature": 0, "max_tokens": 512})
    store: str | None = None

    @property
    def endpoint(self) -> Endpoint:
        """The judge's endpoint."""
        return Endpoint(self.url, self.model, self.key, parallel=self.parallel)

    def check(self) -> None:
        """The judge answers, the prompts can be read, and the reference is there.

        Raises:
            InputError: one of these fails.
        """
        read_prompts(self.prompts)
        if self.store is None and not (Path(self.reference) / "config.json").exists():
            raise InputError(
                f"there is no checkpoint at {self.reference} to compare with; train it, or correct the path"
            )
        with tempfile.TemporaryDirectory(prefix="mixlaw-") as folder:
            few = {**self.options, "max_tokens": 1} if "max_tokens" in self.options else self.options
            list(Chat(self.endpoint, Path(folder, "chat.jsonl")).ask([Request((("user", "Say yes."),), few)]))

    def measure(self, task: str, subject: Subject) -> Measured:
        """Mean score over prompts, with the standard error over prompts: the two orders of one are not independent.

        Both answers and the verdicts are in `<task>.jsonl`, the requests as sent in `<task>.chat.jsonl`:
        requests with an answer there are not sent again.
        """
        prompts = read_prompts(self.prompts)
        ours = generate(subject, prompts, tokens=self.tokens)
        theirs = self._theirs(prompts, subject)
        pairs = [(o, t) for o, t in zip(ours, theirs, strict=True)]
        differing = [n for n, (o, t) in enumerate(pairs) if o != t]  # equal answers are a tie
        requests = [self._request(prompts[n], *order) for n in differing for order in (pairs[n], pairs[n][::-1])]
        replies = [r.text for r in Chat(self.endpoint, subject.folder / f"{task}.chat.jsonl").ask(requests)]
        verdicts = {n: (_verdict(replies[2 * i]), _verdict(replies[2 * i + 1])) for i, n in enumerate(differing)}
        subject.keep(task, [
            {"prompt": prompts[n], "ours": o, "reference": t, "verdicts": verdicts.get(n, ("C", "C"))}
            for n, (o, t) in enumerate(pairs)
        ])  # fmt: skip
        return self._read([verdicts.get(n) for n in range(len(pairs))])

    def _theirs(self, prompts: tuple[str, ...], subject: Subject) -> list[str]:
        """Answers of the reference, the same for all models: kept in the study for the next worker or job."""
        what = [self._identity(), prompts, self.tokens, subject.model.device.type]
        name = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16] + ".json"
        kept = None if subject.data is None else subject.data.parent / "evaluations" / ".references" / name
        if kept is not None:
            with suppress(OSError, ValueError):
                return list(json.loads(kept.read_text(encoding="utf-8")))
        with self._folder() as folder:
            reference = Subject.load(folder, folder)
            reference.model.to(subject.model.device)
            answers = generate(reference, prompts, tokens=self.tokens)
        if kept is not None:
            with suppress(OSError):
                write_text(kept, json.dumps(answers, ensure_ascii=False))
        return answers

    def _identity(self) -> str:
        """What changes when the reference does: the checksums of a run's checkpoint, sizes and times of other files."""
        folder = Path(self.reference)
        if self.store is not None:
            return Store(self.store).state(_name(folder))
        if (folder / STATE).exists():
            return (folder / STATE).read_text(encoding="utf-8")
        files = [(path.name, path.stat()) for path in sorted(folder.glob("*"))]
        return json.dumps([str(folder), [(name, stat.st_size, stat.st_mtime_ns) for name, stat in files]])

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        """The folder of the reference, for as long as it is needed where it comes from a store."""
        if self.store is None:
            yield Path(self.reference)
            return
        with tempfile.TemporaryDirectory(prefix="mixlaw-") as scratch:
            Store(self.store).get(_name(Path(self.reference)), folder := Path(scratch, "reference"))
            yield folder

    def _request(self, prompt: str, first: str, second: str) -> Request:
        text = QUESTION.format(prompt=prompt.strip(), first=first.strip(), second=second.strip())
        return Request((("user", text),), self.options)

    def _read(self, verdicts: Sequence[tuple[str, str] | None]) -> Measured:
        """Score of each prompt: the first verdict has our answer as A, the second as B."""
        judged = [pair for pair in verdicts if pair is not None]
        given = [verdict for pair in judged for verdict in pair]
        unread, decided = given.count(""), [verdict for verdict in given if verdict in "AB" and verdict]
        if unread > UNREAD * len(given):
            raise InputError(
                f"{self.model} at {self.url} gave no [[A]], [[B]] or [[C]] in {unread} of {len(given)} judgements; "
                "choose a judge that follows instructions, or let it write more with options = { max_tokens = ... }"
            )
        scores = [(_POINTS[a] + 1 - _POINTS[b]) / 2 for a, b in (pair or ("C", "C") for pair in verdicts)]
        first = decided.count("A") / len(decided) if decided else None
        agree = sum(_POINTS[a] == 1 - _POINTS[b] for a, b in judged) / len(judged) if judged else None
        details = {
            "judge": self.model,
            "reference": self.reference,
            "judgements": len(given),
            "ties": given.count("C"),
            "unread": unread,
            "equal": len(verdicts) - len(judged),
            "first wins": first,  # one half, where the order does not matter to the judge
            "orders agree": agree,
        }
        return mean(scores, details)


_POINTS = {"A": 1.0, "B": 0.0, "C": 0.5, "": 0.5}


def _verdict(reply: str) -> str:
    """The last verdict of a reply, or an empty string."""
    verdicts = re.findall(r"\[\[([ABC])\]\]", reply)
    return verdicts[-1] if verdicts else ""


def _name(reference: Path) -> str:
    """A run's checkpoint as a store names it."""
    return f"{reference.parent.name}/{reference.name}"


#: Open-ended prompts for models that were not taught to follow instructions, each to be answered by continuing it:
#: explaining, advising, describing, arguing, narrating, summarising, writing letters, and explaining code.
PROMPTS = (
    "Question: Why does bread rise, and what happens when the oven is too cold?\nAnswer:",
    "Question: How does a vaccine protect somebody who has never been ill?\nAnswer:",
    "Question: What is the difference between weather and climate?\nAnswer:",
    "Question: Why do ships made of steel float?\nAnswer:",
    "Question: How does a city decide where a new tram line should go?\nAnswer:",
    "Question: What should I check before I buy a used bicycle?\nAnswer:",
    "Question: How can I learn the names of thirty new colleagues in a week?\nAnswer:",
    "Question: My tomato plants have yellow leaves. What may be wrong, and what can I do?\nAnswer:",
    "Question: I have two hours in a museum and little patience. How should I spend them?\nAnswer:",
    "Question: How do I tell a friend that I cannot lend him money?\nAnswer:",
    "Question: What makes a chess opening good for a beginner?\nAnswer:",
    "Question: Why is the sky blue at noon and red in the evening?\nAnswer:",
    "Question: What did the printing press change in Europe?\nAnswer:",
    "Question: Should towns close their centres to cars? Give reasons on both sides.\nAnswer:",
    "Question: Is it better to rent a home or to buy one?\nAnswer:",
    "Question: How does a hash table find a value so quickly?\nAnswer:",
    "Question: When is recursion a poor choice in a program?\nAnswer:",
    "Question: What is the difference between a process and a thread?\nAnswer:",
    "Question: How would you find out why a web page loads slowly?\nAnswer:",
    "Question: Explain to a child of eight what electricity is.\nAnswer:",
    "A recipe for a soup of lentils, for four people, step by step:\n",
    "Directions for changing the tyre of a bicycle:\n",
    "A packing list for three days of walking in the hills in autumn:\n",
    "Five ideas for a birthday party indoors, each with a sentence on what it needs:\n",
    "A short description of a harbour at night:\n",
    "A story about a lighthouse keeper who finds a letter that was never sent:\n",
    "The first page of a detective story that takes place in a library:\n",
    "A letter to a landlord about a heating that has been broken for two weeks:\n\nDear",
    "An e-mail that asks a professor for more time for an essay:\n\nDear Professor",
    "A speech of one minute for the opening of a small bookshop:\n\nDear guests,",
    "A summary of what photosynthesis is, in three sentences:\n",
    "The advantages and disadvantages of working from home, as a list:\n",
    "A dialogue between a baker and a customer who wants bread that is sold out:\n",
    "The rules of a simple card game for three players:\n",
    "A review of a restaurant where the food was good and the service slow:\n",
    "A plan for learning to swim in eight weeks as an adult:\n",
    '"""How to read a large file line by line in Python, explained with an example."""\n',
    "# A Python function that tells whether two words are anagrams, with an explanation of how it works\n",
    "The command `git rebase` explained to somebody who knows only `git merge`:\n",
    "Why floating-point numbers cannot hold 0.1 exactly, and what follows from it for programs:\n",
)


def read_prompts(source: str | None) -> tuple[str, ...]:
    """The built-in prompts, or those of a JSONL file: a line per prompt, {"prompt": "..."}.

    Raises:
        InputError: no such file, or a line of another form.
    """
    if source is None:
        return PROMPTS
    try:
        lines = Path(source).read_text(encoding="utf-8").split("\n")
        prompts = tuple(str(json.loads(line)["prompt"]) for line in lines if line.strip())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f'{source} cannot be read as prompts: {error}; write {{"prompt": "..."}} per line') from error
    if not prompts:
        raise InputError(f'{source} holds no prompts; write {{"prompt": "..."}} per line')
    return tuple(dict.fromkeys(prompts))
