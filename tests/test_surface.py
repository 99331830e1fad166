from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.fit import fit
from mixlaw.analysis.surface.surface import Surfaces
from mixlaw.errors import InputError
from worlds import DOMAINS, MEDIUM, PHASES, SMALL, UNIQUE, world

TRUTH = world(4, tasks=3)
TABLE = TRUTH.measure(TRUTH.recipes(26, (SMALL, MEDIUM), repeated=3))
DESIGN = Design.from_table(TABLE, UNIQUE)


@pytest.fixture(scope="module")
def surfaces() -> Surfaces:
    return fit(TABLE, units=TRUTH.units, unique=UNIQUE, resamples=24)


def test_surfaces_name_what_they_know(surfaces: Surfaces) -> None:
    assert surfaces.tasks == ("task0", "task1", "task2")
    assert surfaces.units == TRUTH.units
    assert (surfaces.phases, surfaces.domains) == (PHASES, DOMAINS)


def test_distance_is_zero_on_a_run_and_grows_with_size_alone(surfaces: Surfaces) -> None:
    assert np.allclose(surfaces.predict(DESIGN).distance, 0, atol=1e-6)
    steps = [surfaces.predict(replace(DESIGN, params=DESIGN.params * f)).distance.min() for f in (10.0, 100.0)]
    assert 0 < steps[0] < steps[1]
    assert 0 < surfaces.reach() < steps[1]


def test_intervals_widen_away_from_the_measured_sizes(surfaces: Surfaces) -> None:
    widths = []
    for factor in (1.0, 10.0, 1000.0):
        grown = replace(
            DESIGN, params=DESIGN.params * factor, tokens=DESIGN.tokens * factor, unique=DESIGN.unique * factor
        )
        found = surfaces.predict(grown)
        widths.append(np.median(np.log(found.hi90 / found.lo90), 0))
    assert np.all(widths[0] < widths[1])
    assert np.all(widths[1] < widths[2])


def test_intervals_and_new_runs_are_as_wide_as_held_out_runs_call_for(surfaces: Surfaces) -> None:
    wider = replace(surfaces, calibration=2 * surfaces.calibration)
    one, two = surfaces.predict(DESIGN), wider.predict(DESIGN)
    assert np.allclose(two.mean, one.mean)
    assert np.allclose(np.log(two.hi90 / two.lo90), 2 * np.log(one.hi90 / one.lo90))
    spread = [made.new_runs(DESIGN, 24).log().std(0) for made in (surfaces, wider)]
    assert torch.allclose(spread[1], 2 * spread[0])


def test_the_order_of_columns_does_not_matter(surfaces: Surfaces) -> None:
    shuffled = TABLE.select(
        ["run", "params", *sorted((c for c in TABLE.columns if c.startswith("tokens:")), reverse=True)]
    )
    turned = Design.from_table(shuffled, UNIQUE)
    assert turned.domains != DESIGN.domains
    # Where the final rate is not given it follows from the order of phases, so hand it over with them.
    turned = replace(turned, lr_end=DESIGN.aligned(turned.phases, turned.domains).lr_end)
    assert np.allclose(surfaces.predict(turned).mean, surfaces.predict(DESIGN).mean, rtol=1e-12)


def test_the_same_index_is_the_same_sample_in_every_call(surfaces: Surfaces) -> None:
    whole = surfaces.draws(DESIGN, 24)
    assert whole.shape == (24, 26, 3)
    assert torch.allclose(surfaces.draws(DESIGN.select([5, 2]), 8), whole[:8, [5, 2]], rtol=1e-10)


def test_draws_scatter_around_the_mean_less_than_new_runs_do(surfaces: Surfaces) -> None:
    spread = surfaces.draws(DESIGN, 24).detach().std(0).numpy()
    found = surfaces.predict(DESIGN)
    assert np.all(spread.mean(0) < (found.hi90 - found.lo90).mean(0) / 2)
    assert np.all(surfaces.noise.numpy() > 0)


def test_the_spread_over_seeds_is_near_the_noise_that_made_the_data(surfaces: Surfaces) -> None:
    spread = surfaces.spread(DESIGN)
    assert spread.shape == (len(DESIGN), 3)
    ratio = spread.median(0).values / TRUTH.noise
    assert bool(((ratio > 1 / 3) & (ratio < 3)).all())  # 26 runs, three of them repeats
    found = surfaces.predict(DESIGN)
    half = np.log(found.hi90 / found.lo90) / 2 / 1.645
    assert np.all(half >= (surfaces.calibration * spread).numpy() * (1 - 1e-6))


def test_gradients_equal_finite_differences(surfaces: Surfaces) -> None:
    rows = DESIGN.select([7, 9])
    # Between the measured sizes and budgets: at their ends distances have a kink.
    inside = rows.tokens * (1.2e6 / rows.total)[:, None, None]
    rows = replace(rows, tokens=inside, params=torch.full((2,), 5e4, dtype=torch.float64))
    tokens, params = rows.tokens.clone().requires_grad_(), rows.params.clone().requires_grad_()
    varied = replace(rows, tokens=tokens, params=params)
    for value in (surfaces.mean, lambda d: surfaces.draws(d, 3)[2]):
        loss = value(varied).sum()
        by_tokens, by_params = torch.autograd.grad(loss, (tokens, params))
        assert bool(by_tokens.isfinite().all())
        phase, domain = divmod(int(rows.tokens[0].argmax()), len(DOMAINS))
        step = torch.zeros_like(rows.tokens)
        step[0, phase, domain] = 1e-4 * rows.tokens[0].max()
        up, down = (value(replace(rows, tokens=rows.tokens + s * step)).sum() for s in (1, -1))
        assert torch.isclose((up - down) / (2 * step.max()), by_tokens[0, phase, domain], rtol=1e-3)
        grow = torch.tensor([1e-3, 0.0]) * rows.params
        up, down = (value(replace(rows, params=rows.params + s * grow)).sum() for s in (1, -1))
        assert torch.isclose((up - down) / (2 * grow[0]), by_params[0], rtol=1e-4)


def test_draws_beyond_the_measured_sizes_are_the_same_whatever_is_asked_with_them(surfaces: Surfaces) -> None:
    rows = DESIGN.select([7, 9, 9])
    budget = rows.tokens * (1.2e6 / rows.total)[:, None, None]
    rows = replace(rows, tokens=budget, params=torch.tensor([2e7, 2e7, 4e7], dtype=torch.float64))
    together = surfaces.draws(rows, 8)
    assert not torch.allclose(together[:, 1], together[:, 2])
    for some in ([0, 1], [2], [1]):  # of one size: what the typical mixture has there is computed once
        assert torch.allclose(surfaces.draws(rows.select(some), 8), together[:, some], rtol=1e-10)
    params = rows.params[:2].clone().requires_grad_()
    two = rows.select([0, 1])
    (slope,) = torch.autograd.grad(surfaces.draws(replace(two, params=params), 8).sum(), params)
    up, down = (surfaces.draws(replace(two, params=two.params * (1 + s)), 8).sum((0, 2)) for s in (1e-4, -1e-4))
    assert torch.allclose((up - down) / (2e-4 * two.params), slope, rtol=1e-3)


def test_surfaces_print_tasks_status_and_what_to_think_of_them_in_this_order(surfaces: Surfaces) -> None:
    text = str(surfaces)
    assert text.startswith("3 tasks fitted to 26 runs")
    assert text.index("task0") < text.index("- fitted") < text.index("can be optimised for")
    assert set(surfaces.as_json()["tasks"]) == {"task0", "task1", "task2"}
    assert "Two model sizes: alpha is barely identified" in str(surfaces)
    assert "<table>" in surfaces._repr_html_()


def test_surfaces_survive_the_disk(surfaces: Surfaces, tmp_path: Path) -> None:
    surfaces.save(tmp_path)
    again = Surfaces.load(tmp_path)
    assert torch.equal(again.draws(DESIGN, 6), surfaces.draws(DESIGN, 6))
    assert str(again) == str(surfaces)
    assert again.status == dict(surfaces.status)


def test_missing_damaged_and_foreign_surfaces_are_refused(surfaces: Surfaces, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no surfaces"):
        Surfaces.load(tmp_path)
    surfaces.save(tmp_path)
    names = tmp_path / "surfaces.json"
    words = json.loads(names.read_text())
    names.write_text(json.dumps(words | {"format": 99}))
    with pytest.raises(InputError, match="format 99"):
        Surfaces.load(tmp_path)
    older = [saved | {"parameters": saved["parameters"][:-1]} for saved in words["members"]]
    del words["own"]  # as if another version had written it
    names.write_text(json.dumps(words | {"members": older}))
    with pytest.raises(InputError, match="other parameters of Exposure; fit again"):
        Surfaces.load(tmp_path)
    names.write_text(json.dumps(words))
    tensors = tmp_path / words["tensors"]
    whole = tensors.read_bytes()
    tensors.write_bytes(b"torn")
    with pytest.raises(InputError, match="damaged"):
        Surfaces.load(tmp_path)
    tensors.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(InputError, match="damaged"):
        Surfaces.load(tmp_path)


def test_a_recipe_on_an_unknown_domain_is_refused(surfaces: Surfaces) -> None:
    foreign = Design.from_table(pl.DataFrame({"params": [1e5], "tokens:init:law": [1e6]}), {})
    with pytest.raises(InputError, match="law never measured"):
        surfaces.predict(foreign)


def test_a_task_shows_its_laws_and_their_coefficients(surfaces: Surfaces) -> None:
    task = surfaces.tasks[0]
    shown = surfaces[task]
    shares = [law.share for law in shown.laws.values()]
    assert sum(shares) == pytest.approx(1.0)
    assert shares == sorted(shares, reverse=True)
    assert shown.law.share == shares[0]
    fitted = {name: each for name, each in shown.law.coefficients.items() if each.error > 0}
    assert fitted
    assert all(each.lo90 < each.hi90 and each.meaning for each in fitted.values())
    assert not re.search(r"\([KP],\)", str(shown.law)), "a shape is for those who write laws"
    assert (
        shown.law[next(iter(fitted))].as_json()
        == surfaces.as_json()["tasks"][task]["laws"][shown.law.name]["coefficients"][next(iter(fitted))]
    )
    assert f"{shown.law.name} for {task}" in str(shown.law)
    assert task in str(shown)
