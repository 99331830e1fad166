"""Write a recipe of a study for trainers: a folder per trainer, a file per phase, and a README."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from glob import escape
from pathlib import Path
from typing import Any

from mixlaw.errors import InputError, did_you_mean, unknown
from mixlaw.export.blend import Blend, blends, printed
from mixlaw.export.remaining import Remaining, remaining_of
from mixlaw.export.trainers import TRAINERS, Trainer
from mixlaw.files import read_text, write_text
from mixlaw.folder import Folder
from mixlaw.folder.names import RecipeLike
from mixlaw.printable import Page, Printable
from mixlaw.recipe import Recipe
from mixlaw.runner.models.ladder import batch_rule, shape
from mixlaw.tables import Table

TABLES = ("paths", "tokens_per_document")


@dataclass(frozen=True)
class Exported(Printable):
    """What was written, and for which trainers that was not possible.

    Attributes:
        recipe: the recipe to train.
        folder: where the files are.
        files: trainer -> files, a phase each, in order.
        left_out: trainer -> why it has none.
        placed: domains whose path is unknown for some trainer; `data/<domain>` is written instead.
        over: tokens and phases that have been trained and have no files, in words; empty where there are none.
    """

    recipe: Recipe
    folder: Path
    files: Mapping[str, tuple[Path, ...]]
    left_out: Mapping[str, str]
    placed: tuple[str, ...]
    over: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        return {
            "recipe": self.recipe.as_json(),
            "folder": str(self.folder),
            "files": {name: [str(path) for path in paths] for name, paths in self.files.items()},
            "left_out": dict(self.left_out),
            "without_path": list(self.placed),
            "over": self.over,
        }

    def page(self) -> Page:
        """A row per trainer; what it lacks."""
        rows = [[name, TRAINERS[name].unit, " ".join(p.name for p in paths)] for name, paths in self.files.items()]
        notes = [f"continues after {self.over}: they have no files"] if self.over else []
        notes += [f"{name} left out: {why}" for name, why in self.left_out.items()]
        if self.placed:
            notes.append(
                f"no paths given for {', '.join(self.placed)}: wrote data/<domain> instead; set them with "
                "--paths, a TOML file with [paths]"
            )
        trainers = f"{len(self.files)} trainer{'s' * (len(self.files) != 1)}"
        answer = f"wrote recipe {self.recipe.lineage} for {trainers} to {self.folder}"
        return Page(answer, tables=[Table("trainers", ["trainer", "weights by", "files"], rows)], notes=notes)


def export(
    study: Folder,
    recipe: RecipeLike | None = None,
    trainers: Sequence[str] = (),
    out: Path | None = None,
    paths: Path | None = None,
) -> Exported:
    """Write what is still to be trained of a recipe as mixture configuration.

    Args:
        study: where the recipe, its domains and their sources are known.
        recipe: a recipe, its file, a run or a proposal; the last proposal where None.
        trainers: names out of TRAINERS; all where empty.
        out: folder; `exports/<lineage>` in the study where None.
        paths: TOML with [paths] and [tokens_per_document] per domain.

    Raises:
        InputError: no such recipe or trainer, a file that is not as described, or one trainer was asked for and
            something that it needs is not known.
    """
    wanted = [_trainer(name) for name in trainers or TRAINERS]
    remaining, given = _in_context(remaining_of(study, recipe), study), _given(paths, study)
    lengths = {**_lengths(study), **{name: float(value) for name, value in given["tokens_per_document"].items()}}
    folder = study.path / "exports" / remaining.asked.lineage if out is None else out
    files: dict[str, tuple[Path, ...]] = {}
    left_out: dict[str, str] = {}
    placed: set[str] = set()
    for trainer in wanted:
        places = {**(_sources(study) if trainer.reads_text else {}), **given["paths"]}
        usual = study.settings.training.sequence
        phases = blends(remaining, places, study.unique, lengths, usual, _step(study, remaining.recipe.params))
        placed |= {source.name for blend in phases for source in blend.sources} - set(places)
        try:
            files[trainer.name] = _write(trainer, phases, folder / trainer.name, usual, str(remaining))
        except InputError as error:
            if len(wanted) == 1:
                raise
            left_out[trainer.name] = str(error)
    return Exported(remaining.asked, folder, files, left_out, tuple(sorted(placed)), str(remaining))


def _in_context(remaining: Remaining, study: Folder) -> Remaining:
    """The recipe with the sequences and rotary embeddings that study.toml gives its phases."""
    contexts = {phase.name: phase.context for phase in study.settings.phases}
    recipe, rest = remaining.recipe, remaining.rest
    phases = tuple(replace(p, context=p.context or contexts.get(p.name)) for p in recipe.phases)
    rest = rest and replace(rest, context=rest.context or contexts.get(rest.name))
    return replace(remaining, recipe=replace(recipe, phases=phases), rest=rest)


def _step(study: Folder, params: int) -> int:
    """Tokens per step: of study.toml, for the size or for all, else of the rule for the size."""
    training = study.settings.training
    own = [one.batch for size, one in training.sizes.items() if one.batch and shape(size).params == params]
    sequences = next(iter(own), training.batch) or round(batch_rule(params) / training.sequence)
    return max(1, sequences) * training.sequence


def _trainer(name: str) -> Trainer:
    if name not in TRAINERS:
        raise unknown("trainer", name, TRAINERS)
    return TRAINERS[name]


def _given(paths: Path | None, study: Folder) -> dict[str, dict[str, Any]]:
    """The two tables of a paths file, empty where there is none."""
    if paths is None:
        return {table: {} for table in TABLES}
    try:
        data = tomllib.loads(read_text(paths))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{paths} is not TOML: {error}; fix it") from error
    for table, entries in data.items():
        if table not in TABLES or not isinstance(entries, dict):
            raise InputError(f"{paths}: unknown key {table!r}; there are the tables {' and '.join(TABLES)}")
        for name, value in entries.items():
            if name not in study.settings.domains:
                known = study.settings.domains
                likely = " ".join(filter(None, [did_you_mean(name, known), f"there are {', '.join(known)}"]))
                raise InputError(f"{paths}: {table}.{printed(name)} is no domain; {likely}")
            if not (isinstance(value, str) and value.strip() if table == "paths" else _is_length(value)):
                raise InputError(f"{paths}: {table}.{printed(name)} = {value!r}; it takes a {_WANTED[table]}")
    return {table: data.get(table, {}) for table in TABLES}


_WANTED = {"paths": "text", "tokens_per_document": "positive number"}


def _is_length(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def _sources(study: Folder) -> dict[str, str]:
    """Files of text that domains of the study are read from, whose text is in the field `text`."""
    plain = {n: d.source for n, d in study.settings.domains.items() if d.source and not set(":#") & set(d.source)}
    return {name: _pattern((study.path / source).resolve()) for name, source in plain.items()}


def _pattern(path: Path) -> str:
    """A path or glob for `datasets`, which takes every path for a glob."""
    return escape(str(path)) if path.is_file() else str(path)


def _lengths(study: Folder) -> dict[str, float]:
    """Tokens per document of the domains that were tokenised here."""
    from mixlaw.runner.batches.manifest import read_manifest

    if not study.has_data:
        return {}
    domains = read_manifest(study.data).domains
    return {name: (d.unique_tokens + d.held_out_tokens) / d.files for name, d in domains.items() if d.files}


def _write(trainer: Trainer, phases: Sequence[Blend], folder: Path, usual: int, over: str) -> tuple[Path, ...]:
    """A file per phase, one of the schedule where that is apart, and README.txt, as not all can hold comments.

    `usual` is the study's sequence. A schedule that counts sequences counts those.
    """
    texts = [(_name(blend) + trainer.suffix, trainer.render(blend)) for blend in phases]
    for name, text in texts:
        write_text(folder / name, text)
    notes = [
        "\n".join([name, *(f"  {line}" for line in blend.header(trainer.unit)), f"  {_steps(blend, usual)}"])
        for (name, _), blend in zip(texts, phases, strict=True)
    ]
    head = [f"{trainer.name}: {trainer.how}", f"Places: {trainer.places}"]
    head += [f"Continues after {over}, which have no files here."] if over else []
    if trainer.schedule is not None:
        name, render = trainer.schedule
        text, said = render(phases[0].recipe, usual)
        if text:
            write_text(folder / name, text)
        else:
            (folder / name).unlink(missing_ok=True)
        head += [f"Learning rate: {said}."] if said else []
        if text and "samples" in text and any(blend.sequence != usual for blend in phases):
            head.append(f"The samples of {name} are of {usual:,} tokens; longer sequences take fewer.")
    write_text(folder / "README.txt", "\n\n".join([*head, *notes]) + "\n")
    return tuple(folder / name for name, _ in texts)


def _name(blend: Blend) -> str:
    return f"{blend.number + 1}-{re.sub(r'[^A-Za-z0-9_-]+', '-', blend.phase.name)[:60]}"


def _steps(blend: Blend, usual: int) -> str:
    """How many sequences, and what the phase changes of the rotary embeddings, by transformers' names."""
    context, text = blend.phase.context, f"{blend.sequences:,} sequences of {blend.sequence:,} tokens."
    if context is None or (context.rope_theta, context.rope_scaling) == (None, None):
        return text
    theta = [] if context.rope_theta is None else [f"rope_theta {context.rope_theta:g}"]
    scaling = f"rope_type {context.rope_scaling} with factor {blend.sequence / usual:g}"
    return f"{text} From here on: {', '.join([*theta, *([scaling] if context.rope_scaling else [])])}."
