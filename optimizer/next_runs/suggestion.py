"""The answer to "what should we train next": runs, what they cost and bring, and when to stop."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from mixlaw.numbers import percent, size
from mixlaw.optimizer.answers.phase_lines import phase_lines
from mixlaw.optimizer.policy import UNLIKELY
from mixlaw.optimizer.target.target import Target
from mixlaw.printable import Page, Printable
from mixlaw.recipe import Recipe, Schedule
from mixlaw.tables import Cell, Column, Table, Tone, number


@dataclass(frozen=True)
class Job:
    """One run to train.

    Attributes:
        recipe: what to train.
        why: what speaks for it.
        cost: FLOPs that are still to be paid, after the jobs before it.
        paid: FLOPs of the recipe that are paid already, or by a job before it.
        start: lineage of the recipe whose training it resumes; empty where it starts anew.
        start_tokens: tokens of the recipe that are trained by then.
        brings: expected reduction of the regret, percent of loss; None before there is anything to learn from.
        task: on which it tells most; empty in a cold start.
    """

    recipe: Recipe
    why: str
    cost: float
    paid: float
    start: str = ""
    start_tokens: int = 0
    brings: float | None = None
    task: str = ""

    def as_json(self) -> dict[str, Any]:
        """What a trainer needs, and what speaks for it; a line of the job file."""
        recipe = self.recipe.as_json()
        return {
            "run": self.recipe.lineage,
            "params": self.recipe.params,
            "seed": self.recipe.seed,
            "tokens": self.recipe.tokens,
            "phases": recipe["phases"],
            **{name: recipe[name] for name in ("lr", "warmup") if name in recipe},
            **({"unique": dict(self.recipe.unique)} if self.recipe.unique else {}),
            **({} if self.recipe.schedule is Schedule.WSD else {"schedule": self.recipe.schedule.value}),
            "start": {"run": self.start, "tokens": self.start_tokens} if self.start else None,
            "flops": self.cost,
            "flops_paid": self.paid,
            "brings": self.brings,
            "task": self.task,
            "why": self.why,
        }


@dataclass(frozen=True)
class Value:
    """What a batch of runs is worth.

    Attributes:
        regret: expected loss of the recommendation against the best recipe, percent of loss.
        gain: expected gain from the batch.
        changes: chance that it changes the recommendation noticeably.
        longer: what the same FLOPs would gain in a longer training of the target, phases in proportion.
        stop: whether more runs would not change the recommendation.
        broken: what the audit says of the largest size, where the target is larger and it is broken; else empty.
    """

    regret: float
    gain: float
    changes: float
    longer: float
    stop: bool
    broken: str = ""


@dataclass(frozen=True)
class Spending:
    """What a budget would gain.

    Attributes:
        budget, cost: FLOPs that may be and would be spent.
        runs: how many.
        gain: expected of them, percent of loss.
        later: chance that the runs which the greatest budget adds to as many change the recommendation noticeably.
        enough: runs of the greatest budget after which those that follow change it with less than 5 %; None where that
            is more than it has.
    """

    budget: float
    cost: float
    runs: int
    gain: float
    later: float
    enough: int | None = None


@dataclass(frozen=True)
class Suggestion(Printable):
    """The next runs for a target, under a budget.

    Attributes:
        target: what they are for.
        budget: FLOPs that they may cost.
        jobs: in the order in which they are worth most; a job may share the trunk of one before it.
        value: of all of them together; None before there is anything to learn from.
        curve: what other budgets would gain.
        job_file: where the jobs are written, a line each.
        recipe_files: where the recipes are written that `mixlaw run` takes.
    """

    target: Target
    budget: float
    jobs: tuple[Job, ...]
    value: Value | None = None
    curve: tuple[Spending, ...] = ()
    job_file: str = ""
    recipe_files: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Content hash."""
        jobs = [job.recipe.as_json() for job in self.jobs]
        return hashlib.sha256(json.dumps([self.target.as_json(), jobs], sort_keys=True).encode()).hexdigest()[:12]

    @property
    def cost(self) -> float:
        """FLOPs of all jobs, shared training counted once."""
        return sum(job.cost for job in self.jobs)

    @property
    def stop(self) -> bool:
        """Whether more runs would not change the recommendation."""
        return self.value is not None and self.value.stop

    @property
    def pays(self) -> bool | None:
        """Whether the jobs bring more than the target's training would bring for the same FLOPs; None if not known."""
        return None if self.value is None else not self.stop and self.value.gain >= self.value.longer

    @property
    def sentence(self) -> str:
        """What to do, and what it is worth."""
        if self.value is None:
            return f"{self._runs} for a first fit: {self.cost:.3g} of {self.budget:.3g} FLOPs."
        value = self.value
        if self.stop:
            return (
                f"Stop: more runs would not change the recommendation. {self._runs} for {self.cost:.3g} FLOPs would "
                f"be expected to gain {value.gain:.2g} % of loss, and to change it with a chance of "
                f"{percent(value.changes)}."
            )
        return (
            f"{self._runs} for {self.cost:.3g} of {self.budget:.3g} FLOPs. Expected gain of the recommendation: "
            f"{value.gain:.2g} % of loss (perfect knowledge: {value.regret:.2g} %); {percent(value.changes)} chance "
            f"that it changes. {self._verdict(value)}"
        )

    @property
    def _runs(self) -> str:
        return f"{len(self.jobs)} run" + ("s" if len(self.jobs) != 1 else "")

    def _verdict(self, value: Value) -> str:
        verdict = "Worth it" if self.pays else "Not worth it for this target alone"
        gain = f"{value.longer:.2g} %" if value.longer > 0 else "nothing"
        why = f" Do not stop here: the target is larger than anything measured, and {value.broken}."
        return (
            f"{verdict}: training the target longer for the same FLOPs would gain {gain}.{why if value.broken else ''}"
        )

    def as_json(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        value = self.value
        return {
            "id": self.id,
            "sentence": self.sentence,
            "stop": self.stop,
            "pays": self.pays,
            "cold_start": value is None,
            "budget": self.budget,
            "flops": self.cost,
            "regret": value and value.regret,
            "gain": value and value.gain,
            "changes": value and value.changes,
            "longer": value and value.longer,
            "broken": value.broken or None if value else None,
            "curve": [asdict(spending) for spending in self.curve],
            "job_file": self.job_file or None,
            "recipe_files": list(self.recipe_files),
            "jobs": [job.as_json() for job in self.jobs],
        }

    def lines(self, **more: str) -> str:
        """The jobs for any trainer, a JSON document per line, with more values in each."""
        return "".join(json.dumps({**job.as_json(), **more}, ensure_ascii=False) + "\n" for job in self.jobs)

    def table(self) -> Table:
        """A row per job."""
        numbers = {job.recipe.lineage: str(i) for i, job in enumerate(self.jobs, 1)}
        columns = [
            Column("", "job"),
            Column("params"),
            Column("tokens"),
            Column("FLOPs"),
            Column("expected gain", "gain"),
            "recipe and why",
        ]
        return Table("jobs", columns, list(self._cells(numbers)))

    def _cells(self, numbers: dict[str, str]) -> Iterator[list[Cell | str]]:
        for i, job in enumerate(self.jobs, 1):
            gain = None if job.brings is None else max(job.brings, 0)
            start = numbers.get(job.start, job.start)
            paid = f" ({percent(job.paid / (job.paid + job.cost))} already trained)" if job.paid else ""
            lines = [
                *phase_lines(job.recipe),
                *([f"resumes from {start} at {size(job.start_tokens)}{paid}"] if job.start else []),
                f"{job.why}; most informative for {job.task}" if job.task else job.why,
                *([f"run {job.recipe.lineage}"] if self.job_file else []),
            ]
            yield [
                Cell(str(i), i),
                Cell(size(job.recipe.params), job.recipe.params),
                Cell(size(job.recipe.tokens), job.recipe.tokens),
                number(job.cost, ".2e"),
                Cell("-" if gain is None else f"{gain:.2g} %", gain),
                "\n".join(lines),
            ]

    @property
    def tone(self) -> Tone:
        """Green where the runs pay."""
        return "" if self.pays is None else "better" if self.pays else "unsure"

    def page(self) -> Page:
        """The jobs, what other budgets would gain, and what to do."""
        tables = [self.table()] if self.jobs else []
        return Page(self.sentence, self.tone, tables=[*tables, *self._spendings()], notes=list(self._written()))

    def _spendings(self) -> Iterator[Table]:
        """What other budgets would gain."""
        if not self.curve:
            return
        columns = [
            Column("budget"),
            Column("spent", "cost"),
            Column("runs"),
            Column("expected gain", "gain"),
            Column("later runs change it", "later"),
        ]
        rows = [
            [
                number(s.budget, ".2e"),
                number(s.cost, ".2e"),
                number(s.runs),
                Cell(f"{s.gain:.2g} %", s.gain),
                Cell(f"{percent(s.later)} likely", s.later),
            ]
            for s in self.curve
        ]
        enough, most = self.curve[-1].enough, self.curve[-1].runs
        when = f"only beyond {most} runs" if enough is None else f"after {enough} runs" if enough else "already now"
        note = f"{when} the chance that more runs change the recommendation is below {percent(UNLIKELY)}"
        yield Table("budgets", columns, rows, "Other budgets", note)

    def _written(self) -> Iterator[str]:
        if self.job_file:
            yield f"jobs for any trainer, a line each: {self.job_file}"
        if self.recipe_files:
            count = len(self.recipe_files)
            yield f"{count} recipes are queued: `mixlaw run` trains them; delete from recipes/ those you do not want"
