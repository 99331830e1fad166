"""What a trainer needs to know about one phase: the path of each domain, and its share in the trainer's unit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from mixlaw.errors import InputError
from mixlaw.export.remaining import Remaining
from mixlaw.numbers import percent
from mixlaw.recipe import Phase, Recipe


@dataclass(frozen=True)
class Source:
    """A domain as a trainer reads it.

    Attributes:
        share: of the phase's tokens.
        path: where it lies: a file, a glob, a prefix or a hub id, as the trainer wants it.
        unique_tokens: number of different tokens, None if unknown.
        tokens_per_document: mean length, None if unknown.
        before: tokens of it that earlier phases drew.
    """

    name: str
    share: float
    path: str
    unique_tokens: float | None = None
    tokens_per_document: float | None = None
    before: float = 0.0

    @property
    def documents_before(self) -> int | None:
        """Documents of the domain that earlier phases drew, whole epochs aside; None where their length is unknown."""
        if not self.before:
            return 0
        if not self.tokens_per_document:
            return None
        documents = round(self.before / self.tokens_per_document)
        most = round((self.unique_tokens or 0) / self.tokens_per_document)
        return documents % most if most else documents


@dataclass(frozen=True)
class Blend:
    """One phase of a recipe for a trainer.

    Attributes:
        phase: name, tokens, mixture and end of the learning rate; what is left of one that is under way.
        number: its place in the recipe, from 0 on.
        sources: domains with a share, sorted by name.
        sequence: tokens per sequence.
        batch_tokens: tokens per step, a whole number of sequences.
        seed: of the recipe and the phase: another one in each, so that a trainer that draws at random draws anew.
        position: tokens trained before the phase, and in all.
        recipe: of which it is a phase.
    """

    phase: Phase
    number: int
    sources: tuple[Source, ...]
    sequence: int
    batch_tokens: int
    seed: int
    position: tuple[int, int]
    recipe: Recipe

    @property
    def sequences(self) -> int:
        """Sequences of the phase."""
        return math.ceil(self.phase.tokens / self.sequence)

    def document_shares(self) -> dict[str, float]:
        """Share of the documents drawn that come from each domain, so that the tokens have the recipe's shares.

            q_j = (s_j / m_j) / sum_i (s_i / m_i),   m_j tokens per document of domain j

        Raises:
            InputError: a domain's tokens per document are not known.
        """
        weights = {}
        for source in self.sources:
            if not source.tokens_per_document:
                raise InputError(
                    f"tokens per document of {source.name!r} are not known, and this trainer draws documents; "
                    f"write [tokens_per_document] {source.name} = ... into the file that --paths names"
                )
            weights[source.name] = source.share / source.tokens_per_document
        total = math.fsum(weights.values())
        return {name: weight / total for name, weight in weights.items()}

    def header(self, unit: str) -> list[str]:
        """What the file is, in words: phase, tokens, schedule, and what the weights are shares of."""
        begin, whole = self.position
        before = ", ".join(f"{printed(s.name)} {s.before:,.0f}" for s in self.sources)
        end = "not known" if self.phase.lr_end is None else f"{self.phase.lr_end:g} of its peak"
        shape = "" if self.phase.lr_end in (None, 1) else f" ({self.phase.decay.value})"
        return [
            f"Phase '{printed(self.phase.name)}': {self.phase.tokens:,} tokens, from token {begin:,} of {whole:,}; "
            f"the learning rate ends at {end}{shape}.",
            f"Shares of tokens: {', '.join(f'{printed(s.name)} {percent(s.share, 4)}' for s in self.sources)}.",
            f"Tokens drawn of each domain before this phase: {before}.",
            f"Weights below are shares of {unit}.",
        ]


def blends(
    remaining: Remaining,
    paths: Mapping[str, str],
    unique: Mapping[str, float],
    lengths: Mapping[str, float],
    sequence: int,
    batch: int,
) -> list[Blend]:
    """The phases of a recipe that are still to be trained, in order.

    Args:
        remaining: the recipe to train, and what is over of it.
        paths: domain -> where it lies; a domain without one gets `data/<domain>`.
        unique: domain -> unique tokens, where known.
        lengths: domain -> tokens per document, where known.
        sequence: tokens per sequence, in phases that do not set their own.
        batch: tokens per step.
    """
    recipe, begun = remaining.recipe, remaining.under_way
    found: list[Blend] = []
    done, drawn = 0, dict.fromkeys(recipe.domains, 0.0)
    for number, phase in enumerate(recipe.phases):
        now, before, already = phase, dict(drawn), 0
        if remaining.rest is not None and begun is not None and number == remaining.over:
            assert begun.mixture is not None
            now, already = remaining.rest, begun.tokens
            before = {name: count + already * begun.mixture.share(name) for name, count in drawn.items()}
        if number >= remaining.over:
            sources = tuple(
                Source(name, share, paths.get(name, f"data/{name}"), unique.get(name), lengths.get(name), before[name])
                for name, share in sorted(now.mixture.items())
            )
            length = (now.context and now.context.sequence) or sequence
            step = max(1, round(batch / length)) * length
            at = (done + already, recipe.tokens)
            found.append(Blend(now, number, sources, length, step, recipe.seed + number, at, recipe))
        done += phase.tokens
        if phase.name not in remaining.unknown:
            drawn = {name: count + phase.tokens * phase.mixture.share(name) for name, count in drawn.items()}
    return found


def commented(lines: list[str]) -> str:
    """Lines as comments of YAML, TOML or Python."""
    return "".join(f"# {line}\n" for line in lines)


def printed(text: str) -> str:
    """A text for a comment: what cannot be printed, a line end among it, as an escape."""
    return "".join(letter if letter.isprintable() else _escape(letter) for letter in text)


def quoted(text: str) -> str:
    """A text as a string of Python or YAML."""
    return '"' + printed(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def _escape(letter: str) -> str:
    code = ord(letter)
    return f"\\x{code:02x}" if code < 2**8 else f"\\u{code:04x}" if code < 2**16 else f"\\U{code:08x}"


def number(value: float) -> str:
    """A number as Python, and YAML 1.1, read it: PyYAML takes 7e-05 for a text, and 7.0e-05 for a number."""
    text = repr(float(value))
    return text.replace("e", ".0e") if "e" in text and "." not in text else text
