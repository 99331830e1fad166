"""The tables of study.toml on data: domains with their sources, and the tokenizer."""

from __future__ import annotations

import re
from typing import Annotated, Any, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from mixlaw.recipe import LARGEST, Kind

UNLIMITED = 10**18  # unique tokens of a domain that gives none: more than any run takes
_COUNT = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)\s*([KMBT]?)", re.IGNORECASE)
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


def no_truth(value: Any) -> Any:
    """The value, which pydantic would take for 1 or 0 where it is a truth value and a number is wanted."""
    if isinstance(value, bool):
        raise ValueError("it must not be a truth value")
    return value


def parse_tokens(value: Any) -> Any:
    """Tokens from `"20B"`, with K, M, B or T behind the number; other values are returned as they are."""
    if not isinstance(value, str):
        return no_truth(value)
    match = _COUNT.fullmatch(value.strip().replace("_", ""))
    exact = float(match[1]) * _UNITS[match[2].upper()] if match else LARGEST * 2.0
    if exact > LARGEST:
        raise ValueError('tokens are a number below 2^63, K, M, B or T behind it: write "20B" or 20_000_000_000')
    return round(exact)


Number = Annotated[float, BeforeValidator(no_truth)]
Share = Annotated[float, BeforeValidator(no_truth), Field(ge=0, le=1)]
Tokens = Annotated[int, BeforeValidator(parse_tokens), Field(gt=0, le=LARGEST)]


class Strict(BaseModel):
    """A table of study.toml; an unknown key is an error, not ignored, and numbers are finite and no truth values."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth(cls, value: Any, info: ValidationInfo) -> Any:
        wanted = cls.model_fields[str(info.field_name)].annotation
        return value if bool in (wanted, *get_args(wanted)) else no_truth(value)


class DomainSettings(Strict):
    """A named source of tokens.

    Attributes:
        kind: text, code, markup, code-adjacent, synthetic-code, math or instruct.
        source: where the documents are; absent for runs of another trainer.
        unique_tokens: different tokens at the target; absent, the token shards are counted.
        items: whether the tasks cloze and agreement are built from its held-out text, which must be English prose;
            absent, of a domain called prose or text, where no other says so.
    """

    kind: Kind = Kind.TEXT
    source: str | None = None
    unique_tokens: Tokens | None = None
    items: bool | None = None


class TokenizerSettings(Strict):
    """Byte-level BPE trained on a balanced sample of the domains, or a tokenizer that is there.

    Attributes:
        vocabulary: tokens of the one that is trained.
        file: a `tokenizer.json` to use instead, or a folder that holds one, such as a checkpoint.
        sample_bytes: bytes of each domain to train it on; absent, 512 a token and at least a million.
    """

    vocabulary: int = Field(default=32_768, ge=257)
    file: str | None = None
    sample_bytes: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _one_of_them(self) -> TokenizerSettings:
        if self.file is not None and "vocabulary" in self.model_fields_set:
            raise ValueError(f"the tokenizer {self.file!r} has a vocabulary of its own; leave out vocabulary, or file")
        if self.file is not None and self.sample_bytes is not None:
            raise ValueError(f"the tokenizer {self.file!r} is not trained here; leave out sample_bytes, or file")
        return self
