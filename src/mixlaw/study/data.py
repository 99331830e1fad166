"""The data of a study: tokenised into shards, and looked through for evaluation items."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixlaw.errors import InputError
from mixlaw.machine import cores
from mixlaw.runner.batches import shards
from mixlaw.runner.batches.manifest import Manifest
from mixlaw.runner.corpora.contamination import Contamination, check
from mixlaw.runner.corpora.prepare import prepare

if TYPE_CHECKING:
    from mixlaw.study import Progress, Study


def prepared(study: Study, progress: Progress | None, verify: bool) -> Manifest:
    """The work of `Study.prepare`."""
    settings = study.settings
    lacking = [name for name, domain in settings.domains.items() if domain.source is None]
    if lacking or not settings.domains:
        what = f"domain {lacking[0]!r} has no source" if lacking else "study.toml has no domains"
        raise InputError(f'{what}; write source = "..." for it under [domains] of {study.path / "study.toml"}')
    manifest = prepare(
        study.data,
        {name: str(domain.source) for name, domain in settings.domains.items()},
        root=study.path,
        vocabulary=settings.tokenizer.vocabulary,
        tokenizer=None if settings.tokenizer.file is None else study.path / settings.tokenizer.file,
        held_out=settings.training.held_out,
        progress=progress,
    )
    if verify:
        shards.verify(study.data, progress)
    return manifest


def contamination_of(study: Study, progress: Progress | None) -> Contamination:
    """The work of `Study.contamination`, in as many processes as there are cores."""
    return check(study.data, processes=cores(), progress=progress or (lambda *_: None))
