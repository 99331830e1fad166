"""Win rate: a model's answers against those of a reference model, judged by a third one behind an endpoint."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from mixlaw.errors import InputError
from mixlaw.runner.evaluate.chat import Chat, Endpoint, Request
from mixlaw.runner.evaluate.generate import generate
from mixlaw.runner.evaluate.measure import Measure, Measured, Subject, mean
from mixlaw.runner.evaluate.prompts import read_prompts

UNREAD = 0.1  # share of judgements without a verdict that is put up with

QUESTION = """Two writers were given the same beginning of a text and went on from it. Judge which continuation serves \
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
        tokens: most tokens of an answer.
        parallel: judgements under way at once.
        options: what the judge is asked with.
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

    @property
    def endpoint(self) -> Endpoint:
        """Where the judge is asked."""
        return Endpoint(self.url, self.model, self.key, parallel=self.parallel)

    def check(self) -> None:
        """The judge answers, the prompts can be read, and the reference is there.

        Raises:
            InputError: one of these fails.
        """
        read_prompts(self.prompts)
        if not (Path(self.reference) / "config.json").exists():
            raise InputError(f"there is no checkpoint at {self.reference} to compare with; train it first, or mend it")
        with tempfile.TemporaryDirectory(prefix="mixlaw-") as folder:
            few = {**self.options, "max_tokens": 1} if "max_tokens" in self.options else self.options
            list(Chat(self.endpoint, Path(folder, "chat.jsonl")).ask([Request((("user", "Say yes."),), few)]))

    def measure(self, task: str, subject: Subject) -> Measured:
        """Mean score over prompts, with the standard error over prompts: the two orders of one are not independent.

        Both answers, the judge's words and verdicts are in `<task>.jsonl`, the requests as sent in `<task>.chat.jsonl`:
        what is in there is not asked again.
        """
        prompts = read_prompts(self.prompts)
        ours = generate(subject, prompts, tokens=self.tokens)
        theirs = _answers(self.reference, prompts, self.tokens, str(subject.model.device))
        pairs = [(o, t) for o, t in zip(ours, theirs, strict=True)]
        asked = [n for n, (o, t) in enumerate(pairs) if o != t]  # equal answers are a tie
        requests = [self._request(prompts[n], *order) for n in asked for order in (pairs[n], pairs[n][::-1])]
        replies = [r.text for r in Chat(self.endpoint, subject.folder / f"{task}.chat.jsonl").ask(requests)]
        verdicts = {n: (_verdict(replies[2 * i]), _verdict(replies[2 * i + 1])) for i, n in enumerate(asked)}
        subject.keep(task, [
            {"prompt": prompts[n], "ours": o, "reference": t, "verdicts": verdicts.get(n, ("C", "C"))}
            for n, (o, t) in enumerate(pairs)
        ])  # fmt: skip
        return self._read([verdicts.get(n) for n in range(len(pairs))])

    def _request(self, prompt: str, first: str, second: str) -> Request:
        text = QUESTION.format(prompt=prompt.strip(), first=first.strip(), second=second.strip())
        return Request((("user", text),), self.options)

    def _read(self, verdicts: Sequence[tuple[str, str] | None]) -> Measured:
        """Score of each prompt: the first verdict has our answer as A, the second as B."""
        judged = [pair for pair in verdicts if pair is not None]
        told = [verdict for pair in judged for verdict in pair]
        unread, decided = told.count(""), [verdict for verdict in told if verdict in "AB" and verdict]
        if unread > UNREAD * len(told):
            raise InputError(
                f"{self.model} at {self.url} gave no [[A]], [[B]] or [[C]] in {unread} of {len(told)} judgements; "
                "take a judge that follows instructions, or let it write more with options = { max_tokens = ... }"
            )
        scores = [(_POINTS[a] + 1 - _POINTS[b]) / 2 for a, b in (pair or ("C", "C") for pair in verdicts)]
        first = decided.count("A") / len(decided) if decided else None
        agree = sum(_POINTS[a] == 1 - _POINTS[b] for a, b in judged) / len(judged) if judged else None
        details = {
            "judge": self.model,
            "reference": self.reference,
            "judgements": len(told),
            "ties": told.count("C"),
            "unread": unread,
            "equal": len(verdicts) - len(judged),
            "first wins": first,  # one half, where the order does not matter to the judge
            "orders agree": agree,
        }
        return mean(scores, details)


_POINTS = {"A": 1.0, "B": 0.0, "C": 0.5, "": 0.5}


def _verdict(reply: str) -> str:
    """The last verdict of a reply; nothing where there is none."""
    found = re.findall(r"\[\[([ABC])\]\]", reply)
    return found[-1] if found else ""


@lru_cache(maxsize=2)
def _answers(reference: str, prompts: tuple[str, ...], tokens: int, device: str) -> tuple[str, ...]:
    """Answers of the reference, which are the same for all models that are compared with it."""
    subject = Subject.load(reference, Path(reference))
    subject.model.to(device)
    return tuple(generate(subject, prompts, tokens=tokens))
