"""What lies in the folder of a study: settings, data, runs, surfaces and proposals, read anew whenever asked."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixlaw.errors import InputError
from mixlaw.files import read_text, write_json
from mixlaw.folder.tasks import chance_of, measured_on, units_of
from mixlaw.numbers import size
from mixlaw.recipe import Domain, Recipe
from mixlaw.records import UNMEASURED, Record, is_measured_on, read_records, to_table
from mixlaw.settings import Settings, read_settings, study_folder
from mixlaw.settings.data import UNLIMITED

if TYPE_CHECKING:
    import polars as pl

    from mixlaw.analysis.data.design import Design
    from mixlaw.analysis.surface.surface import Surfaces
    from mixlaw.optimizer.answers.proposal import Proposal
    from mixlaw.optimizer.goal.goal import Goal
    from mixlaw.optimizer.target.target import Target
    from mixlaw.runner.plan.setup import Setup


@dataclass(frozen=True)
class Folder:
    """The folder of a study.

    Nothing is remembered between two looks at it, so that it may change at any time: whole files are written, and many
    processes may share one.

    Attributes:
        path: the folder; a path to its study.toml means the same.
        changes: to [target] of study.toml, for this value alone.

    Raises:
        InputError: there is no study.toml, or it is wrong.
    """

    path: Path
    changes: Mapping[str, Any] = field(compare=False)

    def __init__(self, path: str | os.PathLike[str], changes: Mapping[str, Any] | None = None) -> None:
        object.__setattr__(self, "path", study_folder(path))
        object.__setattr__(self, "changes", changes or {})
        _ = self.settings  # what is wrong with study.toml is reported when a study is opened

    @property
    def settings(self) -> Settings:
        """The content of study.toml, its [target] with the changes."""
        return read_settings(self.path / "study.toml", self.changes)

    # --- data -------------------------------------------------------------------------------------------------------

    @property
    def data(self) -> Path:
        """Folder of tokenizer, token shards and evaluation items."""
        return self.path / "data"

    @property
    def has_data(self) -> bool:
        """Whether the token shards are complete; without them all runs are foreign."""
        return (self.data / "manifest.json").exists()

    @property
    def domains(self) -> list[Domain]:
        """Domains with kind and unique tokens, as written in study.toml or else counted in the shards.

        Raises:
            InputError: a domain's unique tokens are neither written nor counted.
        """
        return self.settings.domain_values(self._counted)

    @property
    def domains_or_unlimited(self) -> list[Domain]:
        """Domains for fitting; unknown unique tokens count as unlimited."""
        unlimited = dict.fromkeys(self.settings.domains, UNLIMITED)
        return self.settings.domain_values(unlimited | self._counted)

    @property
    def phases(self) -> tuple[str, ...]:
        """Names of the phases of study.toml, in the order of training."""
        return tuple(phase.name for phase in self.settings.phases)

    @property
    def unique(self) -> dict[str, float]:
        """Unique tokens of the domains where they are known; an analysis takes the others to be unlimited."""
        written = {n: domain.unique_tokens for n, domain in self.settings.domains.items() if domain.unique_tokens}
        return {name: float(count) for name, count in {**self._counted, **written}.items()}

    @property
    def _counted(self) -> dict[str, int]:
        """Unique tokens per domain in the shards, empty before there are any."""
        from mixlaw.runner.batches.manifest import read_manifest

        if not self.has_data:
            return {}
        return {name: domain.unique_tokens for name, domain in read_manifest(self.data).domains.items()}

    # --- tasks and training -----------------------------------------------------------------------------------------

    @property
    def units(self) -> dict[str, str]:
        """Unit of every task: those of study.toml; if it has none, all tasks that the data measure, and its suites."""
        return units_of(self.data, self.settings)

    @property
    def chance(self) -> dict[str, float]:
        """Score of guessing by task: as study.toml says, or from the number of choices."""
        return chance_of(self.data, self.settings)

    @property
    def setup(self) -> Setup:
        """How recipes are trained here; the one value that is kept, as long as study.toml and the data stay the same.

        Raises:
            InputError: there is no data yet, or training.start is no model that goes with it.
        """
        from mixlaw.folder.setup import setup_of

        manifest = self.data / "manifest.json"
        key = (self.settings, manifest.read_bytes() if manifest.exists() else b"")
        last: tuple[object, Setup] | None = self.__dict__.get("_setup")
        if last is None or last[0] != key:
            last = key, setup_of(self.path, self.settings)
            self.__dict__["_setup"] = last
        return last[1]

    def recipes(self) -> list[Recipe]:
        """Recipes to train: those of study.toml and those in recipes/*.json, as they will be trained here."""
        from mixlaw.settings.recipes import read_recipes, written_recipes

        recipes = [*written_recipes(self.settings, self.domains), *read_recipes(self.path / "recipes")]
        setup = self.setup
        return list(dict.fromkeys(setup.adopt(recipe) for recipe in recipes))

    def add_recipe(self, recipe: Recipe) -> Path:
        """Put a recipe among those that `run` trains, decaying as the study's phases do; the same one is added once."""
        from mixlaw.settings.recipes import with_decays

        adopted = self.setup.adopt(with_decays(self.settings, recipe))
        path = self.path / "recipes" / f"{adopted.lineage}.json"
        if not path.exists():
            write_json(path, adopted.as_json())
        return path

    # --- runs -------------------------------------------------------------------------------------------------------

    @property
    def runs(self) -> Path:
        """Folder of records and checkpoints, one folder per lineage."""
        return self.path / "runs"

    @property
    def measured(self) -> frozenset[str]:
        """Names of the folders in runs/ that hold a record with every task: of our own runs, their lineages.

        A run whose tasks have other held-out text or items by now, or more of them, is measured again, not trained.
        """
        complete = (p for p in self.runs.glob("*/record.json") if not p.with_name(UNMEASURED).exists())
        wanted = measured_on(self.data, self.settings)
        return frozenset(path.parent.name for path in complete if is_measured_on(path, wanted))

    def records(self) -> list[Record]:
        """Everything measured so far."""
        return read_records(self.runs)

    def table(self) -> pl.DataFrame:
        """Everything measured so far, a row per record; the columns are those of `mixlaw.records`."""
        return to_table(self.records(), list(self.settings.domains), list(self.units), self.phases)

    def design(self) -> Design | None:
        """What the measured runs were trained on; None before there are any."""
        table = self.table()
        if table.is_empty():
            return None
        from mixlaw.analysis.data.design import Design

        return Design.from_table(table, self.unique, self.phases)

    # --- surfaces, target, proposals --------------------------------------------------------------------------------

    def surfaces(self) -> Surfaces:
        """The surfaces that the last `fit` saved.

        Raises:
            InputError: there are none.
        """
        if not (self.path / "surfaces").exists():
            raise InputError(f"study {self.path} has no surfaces; run `mixlaw fit {self.path}` first")
        from mixlaw.analysis.surface.surface import Surfaces

        return Surfaces.load(self.path / "surfaces")

    def target(self) -> Target:
        """What the study is for: [target] of study.toml.

        Raises:
            InputError: there is no [target].
        """
        from mixlaw.settings.target import target_of

        try:
            return target_of(self.settings)
        except InputError as error:
            if self.settings.target is not None or not (proposals := self.proposals()):
                raise
            last = proposals[-1]
            asked = f"--params {size(last.target.params)} --tokens {size(last.target.tokens)}"
            raise InputError(f"{error}, as proposal {last.number} had: {asked}") from error

    def goal(self, surfaces: Surfaces | None = None) -> Goal:
        """What counts as better; a task with no signal above seed noise counts only where it has a weight."""
        from mixlaw.analysis.audit.readiness import spread_of_recipes
        from mixlaw.analysis.surface.model import Status
        from mixlaw.settings.target import goal_of

        if surfaces is None:
            return goal_of(self.settings)
        noise = [task for task, status in surfaces.status.items() if status is Status.NOISE]
        return goal_of(self.settings, noise, dict.fromkeys(surfaces.tasks, 0.0) | spread_of_recipes(surfaces.observed))

    def hashes(self) -> tuple[str, str]:
        """Hashes of the surfaces and of the table of runs, by which a proposal says what it was made from."""
        names = self.path / "surfaces" / "surfaces.json"  # holds the checksums of the other files
        surfaces = hashlib.sha256(names.read_bytes() if names.exists() else b"")
        records = sorted(self.runs.glob("*/record.json"))
        return surfaces.hexdigest()[:12], hashlib.sha256(b"".join(r.read_bytes() for r in records)).hexdigest()[:12]

    def suggested(self) -> list[dict[str, Any]]:
        """The job lines of all suggestions that were queued.

        Raises:
            InputError: a file of them is damaged.
        """
        found = []
        for path in sorted((self.path / "suggestions").glob("*.jsonl")):
            try:
                jobs = [dict(json.loads(line)) for line in read_text(path).splitlines()]
                found += [{**job, "run": str(job["run"])} for job in jobs]
            except (ValueError, LookupError, TypeError, RecursionError) as error:
                raise InputError(f"{path} is damaged ({error!r:.200}); restore it, or delete it") from error
        return found

    @property
    def proposals_folder(self) -> Path:
        """Folder of frozen proposals; none is ever overwritten."""
        return self.path / "proposals"

    def proposals(self) -> list[Proposal]:
        """All frozen proposals, oldest first.

        Raises:
            InputError: one was changed after it was frozen, or is of another version.
        """
        if next(self.proposals_folder.glob("*.json"), None) is None:
            return []
        from mixlaw.optimizer.answers.proposal import load_proposals  # seconds

        return list(load_proposals(self.proposals_folder))
