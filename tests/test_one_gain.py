"""Two recipes have one gain, whichever command is asked."""

from __future__ import annotations

from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mixlaw.cli import app
from mixlaw.dashboard.answer import Answer
from mixlaw.dashboard.watched import opened
from mixlaw.optimizer.answers.proposal import Proposal, load_proposals
from mixlaw.optimizer.goal.gains import recipes_losses
from mixlaw.optimizer.search.support import evidence_of
from mixlaw.study import open_study
from studies import on_disk

TARGET = "[target]\nparams = 330000\ntokens = 6600000\ncooldown = [0.1, 0.3]\nweights = { task0 = 2.0, task1 = 1.0 }\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = on_disk(tmp_path_factory.mktemp("one"), TARGET)
    open_study(path).propose()
    return path


@pytest.fixture(scope="module")
def proposal(made: Path) -> Proposal:
    return load_proposals(made / "proposals")[0]


def test_propose_what_if_dashboard_and_report_show_one_gain(made: Path, proposal: Proposal) -> None:
    study, texts = open_study(made), [gain.text() for gain in proposal.gains.values()]
    found = study.what_if()
    assert found.against == proposal.against
    assert [gain.text() for gain in found.gains.values()] == texts
    assert found.gain is not None
    assert found.gain.text() == proposal.gain.text()
    beside = study.compare(proposal.id, proposal.against)
    assert (beside.gain.by_task, beside.gain.total) == (found.gains, found.gain)
    assert beside.gain.probability == pytest.approx(proposal.beats[proposal.against])
    page = opened(made)
    answer = Answer.of(page, replace(page.view, recipe=proposal.recipe))
    assert answer.here.against == proposal.against
    assert answer.here.beats == pytest.approx(proposal.beats[proposal.against])
    assert [gain.text() for gain in answer.here.gains.values()] == texts
    assert answer.here.gain.text() == proposal.gain.text()
    report = unescape((made / study.report()).read_text(encoding="utf-8")).replace("\u00a0", " ")
    assert all(text in report for text in (proposal.gain.text(f" {proposal.unit}"), *texts))


def test_what_propose_says_of_a_size_far_beyond_the_runs_compare_says_too(made: Path) -> None:
    study = open_study(made)
    far = f"--params={int(30 * max(record.recipe.params for record in study.records()))}"
    mixture = ",".join(f"{domain}={1 / len(study.domains)}" for domain in study.surfaces().domains)
    proposed, compared = (
        CliRunner().invoke(app, [*command, far]).output
        for command in (["propose", str(made), "--draft"], ["compare", str(made), mixture, "text-only"])
    )
    for said in (proposed, compared):
        assert "30 times the parameters of the largest measured run" in " ".join(said.split())
    assert "The data support" not in compared
    assert "`mixlaw suggest` ranks the runs that would make this clearer" in " ".join(proposed.split())


def test_so_do_what_if_and_dashboard_of_any_other_recipe(made: Path, proposal: Proposal) -> None:
    phases = proposal.recipe.phases
    recipe = replace(proposal.recipe, phases=(*phases[:-1], replace(phases[-1], mixture=phases[0].mixture)))
    found, page = open_study(made).what_if(recipe, proposal.against), opened(made)
    here = Answer.of(page, replace(page.view, recipe=recipe)).here
    assert [gain.text() for gain in found.gains.values()] == [gain.text() for gain in here.gains.values()]
    assert found.gain is not None
    assert found.gain.text() == here.gain.text()


def test_a_verdict_has_the_chances_of_the_table_of_baselines(made: Path, proposal: Proposal) -> None:
    page = opened(made)
    problem = page.problem(replace(page.view, recipe=proposal.recipe))
    objective = problem.objectives[0]
    losses = recipes_losses(objective.posterior, objective.allowed, [proposal.recipe], len(objective.baseline))[:, 0]
    evidence, _ = evidence_of(problem, objective, proposal.recipe, losses, None, problem.runs[0])
    chances = {evidence.against: evidence.gain.probability, **evidence.others}
    assert len(chances) > 1
    assert chances == pytest.approx(proposal.beats, abs=1e-4)  # a share of draws would be off by some percent
