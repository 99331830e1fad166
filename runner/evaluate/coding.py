"""The tokens in which a model reads a study's text: the study's own, or those of a model from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mixlaw.errors import InputError
from mixlaw.runner.batches.shards import DomainShards, HeldOut, Shards
from mixlaw.runner.batches.tokenizer import encode, load, token_bytes
from mixlaw.runner.models.foreign import PROBE

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from mixlaw.runner.evaluate.measure import Subject

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Documents:
    """Held-out documents: `sizes` are their tokens, shape (documents,); `end` is the token before each of them."""

    sizes: Ints
    documents: Sequence[HeldOut]
    end: int


@dataclass(frozen=True)
class Coding:
    """How a model reads a study's text.

    Attributes:
        tokenizer: of the model.
        end: token before a document.
        stored: tokenizer of the shards where the model has another one, else None.
    """

    tokenizer: Tokenizer
    end: int
    stored: Tokenizer | None = None

    @classmethod
    def of(cls, subject: Subject, shards: Shards) -> Coding:
        """The study's tokenizer if the model has the same one, else the model's.

        Raises:
            InputError: the model comes without a tokenizer.json, or has fewer tokens than its tokenizer.
        """
        ours = load(shards.tokenizer)
        if subject.tokens == shards.tokenizer:
            return cls(ours, shards.manifest.end)
        if not (subject.tokens / "tokenizer.json").exists():
            raise InputError(
                f"{subject.tokens} has no tokenizer.json, so that its tokens are unknown; save its tokenizer there"
            )
        theirs = load(subject.tokens)
        known = subject.model.get_input_embeddings().num_embeddings
        if theirs.get_vocab() == ours.get_vocab() and theirs.encode(PROBE).ids == ours.encode(PROBE).ids:
            coding = cls(ours, shards.manifest.end)
        else:
            first = (subject.tokenizer.bos_token_id, subject.tokenizer.eos_token_id, subject.model.config.eos_token_id)
            begins = [token for token in first if isinstance(token, int)]
            if not begins:
                raise InputError(f"{subject.tokens} does not say which token begins or ends a text; set eos_token")
            coding = cls(theirs, begins[0], ours)
        if max(coding.tokenizer.get_vocab().values()) >= known:
            raise InputError(f"{subject.tokens} has embeddings of {known:,} tokens and a tokenizer with more; fix it")
        return coding

    def bytes(self) -> Ints:
        """Length of each token in bytes, shape (vocabulary,)."""
        return token_bytes(self.tokenizer)

    def held_out(self, domain: DomainShards, length: int, most: int) -> Documents:
        """Held-out documents of a domain in the model's tokens: all, or those of which `most` tokens are scored."""
        documents = domain.held_out
        if self.stored is None:
            return Documents(documents.sizes, documents, self.end)
        chosen = [documents[n] for n in sorted({number for number, _ in spread(documents.sizes, length, most)})]
        texts = [self.stored.decode(document.tokens.tolist(), skip_special_tokens=False) for document in chosen]
        again = [
            HeldOut(tokens, len(text.encode()), document.group)  # type: ignore[arg-type]
            for tokens, text, document in zip(encode(self.tokenizer, texts), texts, chosen, strict=True)
        ]
        return Documents(np.array([document.tokens.size for document in again], np.int64), again, self.end)


def spread(sizes: Ints, length: int, most: int) -> list[tuple[int, int]]:
    """Windows of `length` tokens, evenly spaced over documents of these sizes, `most` tokens in all.

    Returns:
        The document of each, and its first token there.
    """
    ends = np.cumsum(-(-sizes // length))
    count = min(int(ends[-1]), max(1, most // length))
    windows = [int(chosen) for chosen in (np.arange(count) * int(ends[-1])) // count]
    numbers = [int(np.searchsorted(ends, chosen, side="right")) for chosen in windows]
    return [(n, (chosen - int(ends[n - 1]) * (n > 0)) * length) for n, chosen in zip(numbers, windows, strict=True)]
