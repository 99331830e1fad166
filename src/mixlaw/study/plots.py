"""The plots of a study: each method gathers results and returns a plotly figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from inspect import getdoc
from typing import TYPE_CHECKING

from mixlaw import plots
from mixlaw.errors import InputError, unknown
from mixlaw.folder import Folder
from mixlaw.folder.names import RecipeLike, recipe_of
from mixlaw.optimizer.answers.proposal import Proposal
from mixlaw.optimizer.goal.values import PROPOSAL
from mixlaw.plots.style import themed
from mixlaw.printable import Printable
from mixlaw.study.choosing import pareto, verify, what_if
from mixlaw.study.next_runs import suggest

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from mixlaw.analysis.surface.surface import Surfaces
    from mixlaw.optimizer.answers.front import Front
    from mixlaw.optimizer.next_runs.suggestion import Suggestion
    from mixlaw.recipe import Recipe

CORNERS = 3  # of a triangle


@dataclass(frozen=True)
class Plots(Printable):
    """The plots of a study; without a task, the first one is drawn.

    A recipe may be given as itself, its file, the name of a run or the id of a proposal; by default it is the last
    proposal, or the largest measured run before there is one.

    Attributes:
        study: whose results are drawn.
        mode: `light` or `dark`, the background of the page.
    """

    study: Folder
    mode: str = "light"

    @property
    def dark(self) -> Plots:
        """The same for a dark page."""
        return replace(self, mode="dark")

    @cached_property
    def _surfaces(self) -> Surfaces:
        return self.study.surfaces()

    def __str__(self) -> str:
        names = [name for name in vars(Plots) if not name.startswith("_") and callable(getattr(Plots, name))]
        width = max(map(len, names))
        lines = [f"  {name:{width}}  {(getdoc(getattr(Plots, name)) or '').splitlines()[0]}" for name in names]
        return "\n".join(
            ["plots of the study, each a plotly figure; `.dark` before the name suits a dark page:", *lines]
        )

    # --- what was learned --------------------------------------------------------------------------------------------

    def response(
        self,
        task: str | None = None,
        recipe: RecipeLike | None = None,
        *,
        domain: str | None = None,
        phase: str | None = None,
    ) -> go.Figure:
        """A task against the share of a domain, or of all code, in each phase or in one, with 90 % bands and the runs.

        Raises:
            InputError: there is no such domain or phase, or no code where no domain is named.
        """
        reference, domains = self._recipe(recipe), self.study.domains_or_unlimited
        if domain is None:
            self._has_code()
        elif domain not in {one.name for one in domains}:
            raise unknown("domain", domain, [one.name for one in domains])
        if phase not in (None, *(one.name for one in reference.phases)):
            raise unknown("phase", str(phase), [one.name for one in reference.phases])
        figure = plots.response(self._surfaces, self._task(task), reference, domains, domain=domain, phase=phase)
        return self._themed(figure)

    def two_phases(
        self, task: str | None = None, phases: tuple[str, str] | None = None, recipe: RecipeLike | None = None
    ) -> go.Figure:
        """A task over the code shares of two phases, by default the first and the last, with the optimum's spread.

        Raises:
            InputError: the recipe has only one phase.
        """
        self._has_code()
        reference = self._recipe(recipe)
        names = [phase.name for phase in reference.phases]
        if len(names) < 2:
            raise InputError(f"a landscape needs two phases, the recipe has only {names[0]!r}; use plots.response")
        across = phases or (names[0], names[-1])
        figure = plots.two_phases(self._surfaces, self._task(task), reference, across, self.study.domains_or_unlimited)
        return self._themed(figure)

    def ternary(
        self,
        task: str | None = None,
        corners: Sequence[str] | None = None,
        phase: str | None = None,
        recipe: RecipeLike | None = None,
    ) -> go.Figure:
        """A task over the shares of three domains in a phase, with contours, runs and the optimum's spread.

        By default the three domains that the recipe has most of, in its last phase.

        Raises:
            InputError: not three domains of the study.
        """
        reference, domains = self._recipe(recipe), self.study.domains_or_unlimited
        known = sorted((d.name for d in domains), key=lambda name: -reference.domain_tokens(name))
        three = list(corners or known[:CORNERS])
        if len(three) != CORNERS or not {*three} <= {*known}:
            raise InputError(f"a triangle needs three domains of {', '.join(known)}, got {', '.join(three)}")
        where = phase or reference.phases[-1].name
        return self._themed(plots.ternary(self._surfaces, self._task(task), reference, where, three, domains))

    def extrapolation(self, task: str | None = None) -> go.Figure:
        """A task over model size: measured runs, and the proposal and its baseline with 90 % intervals."""
        name, (proposal, *_) = self._task(task), [*self.study.proposals()[::-1], None]
        recipes, measured = {"largest run": self._recipe(None)}, dict[str, list[float]]()
        if proposal:
            recipes = {PROPOSAL: proposal.recipe, proposal.against: proposal.baselines[proposal.against]}
            values = verify(self.study).measured(proposal.id)
            measured = {recipe: runs for (recipe, task), runs in values.items() if task == name}
        return self._themed(
            plots.extrapolation(self._surfaces, name, recipes, self.study.domains_or_unlimited, measured)
        )

    def worth(self, recipe: RecipeLike | None = None) -> go.Figure:
        """Change of each task per extra point of each domain in each phase, as a heat map."""
        return self._themed(plots.worth(what_if(self.study, self._recipe(recipe)).points))

    # --- how well it is known ----------------------------------------------------------------------------------------

    def parity(self, task: str | None = None) -> go.Figure:
        """Predicted against measured values with 90 % intervals, of held-out runs where some were held out."""
        return self._themed(plots.parity(plots.checked(self._surfaces, self._task(task))))

    def residuals(self, task: str | None = None) -> go.Figure:
        """Measured over predicted against the predicted value, for the same runs as `parity`."""
        return self._themed(plots.residuals(plots.checked(self._surfaces, self._task(task))))

    def calibration(self) -> go.Figure:
        """Observed against nominal coverage of intervals, a line per task."""
        return self._themed(plots.calibration([plots.checked(self._surfaces, task) for task in self._surfaces.tasks]))

    # --- what to train -----------------------------------------------------------------------------------------------

    def schedule(self, recipe: RecipeLike | None = None) -> go.Figure:
        """Phases of a recipe, its mixture as a stacked area, and the learning rate."""
        return self._themed(plots.schedule(self._recipe(recipe), self.study.domains_or_unlimited))

    def paired(self) -> go.Figure:
        """Gains of the last proposal that is trained, in their predicted intervals; the baseline is trained, too."""
        pairs = verify(self.study).pairs
        if not pairs:
            raise InputError("no proposal is trained together with a baseline yet; run `mixlaw propose --queue`")
        return self._themed(plots.paired(pairs[-1]))

    def comparison(self) -> go.Figure:
        """What the last proposal and every baseline were predicted to gain by task, and what was measured since."""
        proposal = self._proposal()
        measured = verify(self.study).measured(proposal.id)
        return self._themed(plots.comparison(proposal.forecasts, proposal.against, measured, proposal.recipes))

    def spread(self) -> go.Figure:
        """90 % range of the best share of each domain over posterior samples, a panel per phase."""
        proposal = self._proposal()
        free = proposal.free.recipe if proposal.free else None
        return self._themed(plots.spread(proposal.recipe, proposal.spread, self.study.domains_or_unlimited, free))

    def flat_directions(self) -> go.Figure:
        """Ranges of shares and lengths that are statistically equivalent to the last proposal."""
        return self._themed(plots.flat_directions(self._proposal().flat))

    def over_sizes(self) -> go.Figure:
        """The best mixture against model size, a panel per phase."""
        return self._themed(plots.over_sizes(self._proposal().way))

    def front(self, front: Front | None = None) -> go.Figure:
        """The Pareto front between the first two groups of tasks; computed if not given.

        Raises:
            InputError: the study has no groups of tasks.
        """
        from mixlaw.report.front import front_figure

        proposal = next(reversed(self.study.proposals()), None)
        return self._themed(front_figure(front or pareto(self.study), proposal))

    def value_of_runs(self, suggestion: Suggestion | float) -> go.Figure:
        """Expected gain of suggested runs against their cost.

        Args:
            suggestion: what `study.suggest` returned; or a budget in FLOPs to ask it for.

        Raises:
            InputError: there is nothing to learn from yet.
        """
        if isinstance(suggestion, float | int):
            suggestion = suggest(self.study, suggestion)
        if suggestion.value is None:
            raise InputError("the value of a first design is not known; train it, fit, and ask again")
        return self._themed(plots.value_of_runs(suggestion.jobs, suggestion.value.regret))

    # --- what was trained --------------------------------------------------------------------------------------------

    def segment_tree(self) -> go.Figure:
        """The tree of training segments: what recipes share, and what is done.

        Raises:
            InputError: all runs are foreign, so that their segments are not known.
        """
        from mixlaw.report.evidence import nodes

        segments = nodes(self.study)
        if not segments:
            raise InputError("the study trains nothing itself, so there are no segments to plot")
        return self._themed(plots.segment_tree(segments))

    def losses(self, runs: Sequence[str] = ()) -> go.Figure:
        """Training loss against tokens, as logged in runs/*.training.jsonl; of all runs, or of those named.

        Raises:
            InputError: there are no logs.
        """
        from mixlaw.report.evidence import curves

        logged = curves(self.study, runs)
        if not logged:
            what = f"of {', '.join(runs)} " if runs else ""
            raise InputError(f"{self.study.runs} has no training log {what}to draw; `mixlaw run` writes them")
        return self._themed(plots.losses(logged))

    # --- shared ---------------------------------------------------------------------------------------------

    def _themed(self, figure: go.Figure) -> go.Figure:
        return themed(figure, self.mode)

    def _task(self, task: str | None) -> str:
        known = self._surfaces.tasks
        if task is not None and task not in known:
            raise unknown("task", task, known)
        return task or known[0]

    def _recipe(self, name: RecipeLike | None) -> Recipe:
        if name is None and not self.study.proposals():
            from mixlaw.analysis.data.recipes import largest_run

            return largest_run(self._surfaces.observed.design)
        return recipe_of(self.study, name)

    def _proposal(self) -> Proposal:
        proposals = self.study.proposals()
        if not proposals:
            raise InputError("there is no proposal to plot yet; run `mixlaw propose`")
        return proposals[-1]

    def _has_code(self) -> None:
        kinds = {domain.kind.is_code for domain in self.study.domains_or_unlimited}
        if len(kinds) < 2:
            raise InputError("the study has only code or only text, so there is no code share to vary; use ternary")
