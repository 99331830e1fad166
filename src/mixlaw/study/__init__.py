"""A study: a folder with its settings, data, runs, surfaces and proposals, and the verbs of the workflow."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mixlaw.errors import InputError
from mixlaw.files import write_json, write_text
from mixlaw.printable import Printable
from mixlaw.progress import Progress as Progress
from mixlaw.progress import progress_or_bar
from mixlaw.recipe import Domain, Recipe
from mixlaw.records import Record, read_records, to_table
from mixlaw.settings import Settings, read_settings
from mixlaw.settings.data import ENDLESS
from mixlaw.study.progress import run_progress_or_bar

if TYPE_CHECKING:
    import polars as pl

    from mixlaw.analysis.surface.surface import Surfaces
    from mixlaw.export.write import Exported
    from mixlaw.optimizer.answers.compare import WhatIf
    from mixlaw.optimizer.answers.front import Front
    from mixlaw.optimizer.answers.proposal import Proposal
    from mixlaw.optimizer.answers.verify import Verification
    from mixlaw.optimizer.next_runs.suggestion import Suggestion
    from mixlaw.optimizer.target.target import Target
    from mixlaw.runner.batches.manifest import Manifest
    from mixlaw.runner.corpora.contamination import Contamination
    from mixlaw.runner.execute.backends import Backend
    from mixlaw.runner.execute.queue import Outcome, RunProgress
    from mixlaw.runner.plan.dry_run import Assumptions, DryRun
    from mixlaw.runner.plan.price import Plan
    from mixlaw.runner.plan.setup import Setup
    from mixlaw.study.named import Named
    from mixlaw.study.showing import Plots


def open_study(path: str | os.PathLike[str]) -> Study:
    """Open the study in a folder.

    Raises:
        InputError: there is none, or its study.toml is wrong.
    """
    folder = Path(path)
    return Study(folder, read_settings(folder / "study.toml"))


@dataclass(frozen=True)
class Study(Printable):
    """A study on disk; every verb reads what is there and writes whole files, so many processes may share one."""

    path: Path
    settings: Settings

    def __str__(self) -> str:
        from mixlaw.study.text import text

        return text(self)

    @property
    def runs(self) -> Path:
        """Folder of records and checkpoints, one folder per lineage."""
        return self.path / "runs"

    @property
    def data(self) -> Path:
        """Folder of tokenizer, token shards and evaluation items."""
        return self.path / "data"

    @property
    def proposals_folder(self) -> Path:
        """Folder of frozen proposals; none is ever overwritten."""
        return self.path / "proposals"

    # --- data -------------------------------------------------------------------------------------------------------

    def prepare(self, progress: Progress | None = None, verify: bool = False) -> Manifest:
        """Tokenise the domains into shards; nothing is done again that is there already.

        With `verify`, every file that is there is read and compared with its checksum.

        Raises:
            InputError: a domain has no source, is empty, or its source cannot be read; or a file is damaged.
        """
        from mixlaw.study.data import prepared

        with progress_or_bar("data", progress) as tell:
            return prepared(self, tell, verify)

    def contamination(self, progress: Progress | None = None) -> Contamination:
        """Look for the evaluation items of the data folder in its training text, by n-grams of up to 13 words.

        Raises:
            InputError: there is no data, or no items.
        """
        from mixlaw.study.data import contamination_of

        with progress_or_bar("contamination", progress) as tell:
            return contamination_of(self, tell)

    @cached_property
    def domains(self) -> list[Domain]:
        """Domains with kind and unique tokens, as written in study.toml or else counted in the shards.

        Raises:
            InputError: a domain's unique tokens are neither written nor counted.
        """
        return self.settings.domain_values(self._counted)

    @property
    def described(self) -> list[Domain]:
        """Domains as a fit takes them: where nobody knows the unique tokens, without end."""
        endless = dict.fromkeys(self.settings.domains, ENDLESS)
        return self.settings.domain_values({**endless, **{name: int(count) for name, count in self.unique.items()}})

    @property
    def unique(self) -> dict[str, float]:
        """Unique tokens of the domains where they are known; an analysis takes the others to be unlimited."""
        written = {n: domain.unique_tokens for n, domain in self.settings.domains.items() if domain.unique_tokens}
        return {name: float(count) for name, count in {**self._counted, **written}.items()}

    @cached_property
    def _counted(self) -> dict[str, int]:
        """Unique tokens per domain in the shards, nothing before there are any."""
        from mixlaw.runner.batches.manifest import read_manifest

        if not (self.data / "manifest.json").exists():
            return {}
        return {name: domain.unique_tokens for name, domain in read_manifest(self.data).domains.items()}

    @cached_property
    def units(self) -> dict[str, str]:
        """Unit of every task: those of study.toml; where it writes none, all that the data measure, and its suites."""
        from mixlaw.study.tasks import units_of

        return units_of(self)

    # --- runs -------------------------------------------------------------------------------------------------------

    @cached_property
    def setup(self) -> Setup:
        """How recipes are trained here.

        Raises:
            InputError: there is no data yet, or training.start is no model that goes with it.
        """
        from mixlaw.study.setup import setup_of

        return setup_of(self)

    def recipes(self) -> list[Recipe]:
        """Recipes to train: those of study.toml and those in recipes/*.json, as they will be trained here."""
        from mixlaw.settings.recipes import filed, written

        found = [*written(self.settings, self.domains), *filed(self.path / "recipes")]
        return list(dict.fromkeys(self.setup.adopt(recipe) for recipe in found))

    def add_recipe(self, recipe: Recipe) -> Path:
        """Put a recipe among those that `run` trains, decaying as the study's phases do; the same one is added once."""
        from mixlaw.settings.recipes import shaped

        adopted = self.setup.adopt(shaped(self.settings, recipe))
        path = self.path / "recipes" / f"{adopted.lineage}.json"
        if not path.exists():
            write_json(path, adopted.as_json())
        return path

    def plan(self, workers: int | None = None) -> Plan:
        """The segment tree of all recipes with FLOPs, time and disk; times a few steps of sizes not yet timed."""
        from mixlaw.study.training import planned

        return planned(self, workers)

    def run(
        self,
        workers: int | None = None,
        progress: Callable[[RunProgress], None] | None = None,
        site: Backend | None = None,
    ) -> Outcome:
        """Train and evaluate what is pending, in worker processes; safe to kill and repeat.

        Args:
            workers: most processes, where they train on this machine.
            progress: told whenever something moved; at a prompt and in a notebook a bar where None, as of all verbs.
            site: `mixlaw.runner.execute.backends.Local` or `Ray`, with what there is to choose; this machine if None.

        Raises:
            InputError: no data, a damaged checkpoint, or another process running this study.
        """
        from mixlaw.runner.execute.backends import Local
        from mixlaw.study.training import ran

        with run_progress_or_bar(progress) as show:
            return ran(self, site or Local(workers), show)

    def dry_run(self, site: Backend | None = None, terms: Assumptions | None = None) -> DryRun:
        """What `run` would do: placement, hours, FLOPs, disk and bill; nothing is written and nothing trained."""
        from mixlaw.study.training import foreseen

        return foreseen(self, site, terms)

    def records(self) -> list[Record]:
        """Everything measured so far."""
        return read_records(self.runs)

    def table(self) -> pl.DataFrame:
        """Everything measured so far, a row per record; the columns are those of `mixlaw.records`."""
        return to_table(self.records(), list(self.settings.domains), list(self.units))

    # --- analysis ---------------------------------------------------------------------------------------------------

    def fit(
        self, law: str | None = None, table: pl.DataFrame | None = None, progress: Progress | None = None
    ) -> Surfaces:
        """Fit the response of every task to what was measured, and keep it in surfaces/.

        Args:
            law: name of one law to fit alone.
            table: rows to fit, where not all records are meant.
            progress: called with the share done and what is being done.

        Raises:
            InputError: nothing is measured yet, or there is no such law.
        """
        rows = self.table() if table is None else table
        if rows.is_empty():
            raise InputError(
                f"study {self.path} has no records; train with `mixlaw run` or bring runs with `mixlaw import`"
            )
        from mixlaw.analysis.fit import fit  # seconds of imports: what is wrong with the study is said before
        from mixlaw.analysis.laws import LAWS
        from mixlaw.study.tasks import chance_of

        if law is not None and law not in LAWS:
            raise InputError(f"there is no law {law!r}; choose one of {', '.join(LAWS)}")
        family = None if law is None else LAWS[law]
        links, chance = self.settings.links(), chance_of(self)
        with progress_or_bar("fit", progress) as tell:
            surfaces = fit(
                rows, units=self.units, unique=self.unique, law=family, links=links, chance=chance, progress=tell
            )
        surfaces.save(self.path / "surfaces")
        return surfaces

    def surfaces(self) -> Surfaces:
        """The surfaces that the last `fit` kept.

        Raises:
            InputError: there are none.
        """
        if not (self.path / "surfaces").exists():
            raise InputError(f"study {self.path} has no surfaces; run `mixlaw fit {self.path}` first")
        from mixlaw.analysis.surface.surface import Surfaces

        return Surfaces.load(self.path / "surfaces")

    def target(self) -> Target:
        """What the study is for, as [target] of study.toml says.

        Raises:
            InputError: there is no [target].
        """
        from mixlaw.settings.target import target_of

        return target_of(self.settings)

    def predict(self, table: pl.DataFrame) -> pl.DataFrame:
        """Predict every task for the recipes of a table, a row per row and task.

        Args:
            table: columns run, params, tokens:<phase>:<domain> and the optional ones; metrics are not needed.

        Returns:
            Columns run, progress, task, mean, lo90, hi90, law_only, distance (to the measured runs).

        Raises:
            InputError: there are no surfaces, or the table lacks a column or holds a value that makes no sense.
        """
        from mixlaw.study.learning import predicted

        return predicted(self, table)

    # --- optimizer --------------------------------------------------------------------------------------------------

    def propose(self, progress: Progress | None = None, queue: bool = False) -> Proposal:
        """Propose a recipe for the target and freeze it, with its predictions, in proposals/.

        Tasks count alike, unless [target] gives weights; one that is hardly more than noise does not count. With
        `queue`, `run` will train the proposal and the best baseline, to see.

        Raises:
            InputError: no target, no surfaces, or constraints that cannot be met together.
        """
        from mixlaw.study.choosing import proposed

        with progress_or_bar("propose", progress) as tell:
            return proposed(self, tell, queue)

    def suggest(self, budget: float, count: int = 8, progress: Progress | None = None) -> Suggestion:
        """Suggest the next proxies for the target, and write them down: job lines in suggestions/, recipes for `run`.

        Nothing is queued where more runs would not change the recommendation, or where there is no data to train on.

        Args:
            budget: FLOPs that the runs may cost together.
            count: most runs.
            progress: told the share done and what is being done.

        Raises:
            InputError: no target, no surfaces though there are runs, or a budget that pays for no run.
        """
        from mixlaw.study.next_runs import suggested

        with progress_or_bar("suggest", progress) as tell:
            return suggested(self, budget, count, tell)

    def what_if(self, recipe: Named | None = None, against: Named = "proportional") -> WhatIf:
        """What a recipe would measure, and what one more point of any domain in any phase is worth, per task.

        Args:
            recipe: a recipe, its file, the name of a run or the id of a proposal; the last proposal where None.
            against: the same, or a named baseline at the recipe's size and phases: what gains refer to.

        Raises:
            InputError: there are no surfaces or no such recipe, or it has phases or domains that no run has used.
        """
        from mixlaw.study.named import answered

        return answered(self, recipe, against)

    def pareto(self, groups: Mapping[str, Sequence[str]] | None = None, progress: Progress | None = None) -> Front:
        """The recipes for the target between which only a preference for one group of tasks can choose.

        Args:
            groups: name -> tasks, two or more; [groups] of study.toml where None.
            progress: called with the share done and what is being done.

        Raises:
            InputError: no target, surfaces or groups, an unknown task, or constraints that cannot be met together.
        """
        from mixlaw.study.front import front_of

        with progress_or_bar("pareto", progress) as tell:
            return front_of(self, groups, tell)

    def proposals(self) -> list[Proposal]:
        """All frozen proposals, oldest first.

        Raises:
            InputError: one was changed after it was frozen, or is of another version.
        """
        from mixlaw.optimizer.answers.proposal import load_proposals

        return list(load_proposals(self.proposals_folder))

    def verify(self) -> Verification:
        """Compare the frozen predictions of all proposals with what has been measured since."""
        proposals, table = self.proposals(), self.table()
        from mixlaw.optimizer.answers.verify import verify

        return verify(proposals, table)

    # --- plots and report ---------------------------------------------------------------------------------------------

    @property
    def plots(self) -> Plots:
        """All plots of what is there, each a method that returns a plotly figure; print it to see which there are."""
        from mixlaw.study.showing import Plots

        return Plots(self)

    def report(self, out: str | Path | None = None) -> Path:
        """Write one offline HTML page with all results, by default report.html in the study; return its path.

        Raises:
            InputError: there are no surfaces yet.
        """
        from mixlaw.report.evidence import page

        path = self.path / "report.html" if out is None else Path(out)
        write_text(path, page(self))
        return path

    def export(
        self, recipe: Named | None = None, trainers: Sequence[str] = (), out: Path | None = None, **more: Path | None
    ) -> Exported:
        """Write a recipe, by default the last proposal's, for trainers; see `mixlaw.export.write.export`."""
        from mixlaw.export.write import export

        return export(self, recipe, trainers, out, **more)
