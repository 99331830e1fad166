from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from numpy.typing import NDArray

from mixlaw import import_runs
from mixlaw.analysis.data.design import Design
from mixlaw.analysis.data.observed import Observed, from_log_loss, observe, to_log_loss
from mixlaw.analysis.fit import fit
from mixlaw.analysis.laws import HOFFMANN_2022, Chinchilla
from mixlaw.analysis.surface.link import AccuracyLink, LinkCurve, fit_links
from mixlaw.analysis.surface.surface import Surfaces
from mixlaw.errors import InputError
from mixlaw.study import open_study

Floats = NDArray[np.float64]
DATA = Path(os.environ.get("MIXLAW_DATA", Path(__file__).parents[2] / "shared" / "data"))
UNITS = {"loss": "nats/token", "score": "accuracy"}


def pairs(truth: AccuracyLink, loss: Floats, items: int, seed: int) -> pl.DataFrame:
    """Runs with a loss and the share of right answers among so many items."""
    score = np.random.default_rng(seed).binomial(items, truth(torch.tensor(loss)).numpy()) / items
    runs = {"run": [f"r{i}" for i in range(len(loss))], "params": 1e8 * np.arange(1, len(loss) + 1)}
    return pl.DataFrame(
        runs | {"tokens:train:text": np.full(len(loss), 2e9), "metric:loss": loss, "metric:score": score}
    )


def observed(truth: AccuracyLink, loss: Floats, items: int = 1000, seed: int = 0) -> Observed:
    return observe(pairs(truth, loss, items, seed), UNITS, {})


def random_link(rng: np.random.Generator, loss: Floats) -> AccuracyLink:
    """A link whose bend lies somewhere in the range of the losses."""
    chance = float(rng.choice([0.2, 0.25, 0.5]))
    middle = float(rng.uniform(loss.min() - 0.3 * np.ptp(loss), loss.max()))
    return AccuracyLink(chance, float(rng.uniform(0.85, 1.0)), float(rng.uniform(3, 8) / np.ptp(loss)), middle)


def test_the_link_is_the_curve_of_the_ladder() -> None:
    a, k, x0, b = 0.7, -5.0, 0.8, 0.25  # the paper's a / (1 + exp(-k (x - x0))) + b
    loss = torch.linspace(0.4, 2.0, 9, dtype=torch.float64)
    expected = a / (1 + torch.exp(-k * (loss - x0))) + b
    assert torch.allclose(AccuracyLink(chance=b, ceiling=a + b, k=-k, middle=x0)(loss), expected, rtol=1e-12)


def test_the_jacobian_of_the_form_equals_finite_differences() -> None:
    loss = torch.linspace(0.6, 1.9, 11, dtype=torch.float64)
    form = LinkCurve(loss, None)
    theta = torch.tensor([[-1.0, 2.0, 0.3, -0.5], [0.2, 1.0, -0.4, 0.8]], dtype=torch.float64)
    seen = observed(AccuracyLink(0.25, 0.9, 4.0, 1.0), loss.numpy()).design
    value, jacobian = form.jacobian(theta, seen)
    assert torch.allclose(value, form.log_loss(theta, seen))
    for i in range(4):
        step = torch.zeros_like(theta)
        step[:, i] = 1e-5
        slope = (form.log_loss(theta + step, seen) - form.log_loss(theta - step, seen)) / 2e-5
        assert torch.allclose(jacobian[:, i], slope, atol=1e-8)


def test_a_link_that_the_runs_show_whole_is_recovered() -> None:
    truth = AccuracyLink(chance=0.25, ceiling=0.95, k=6.0, middle=1.2)
    runs = observed(truth, np.linspace(0.4, 2.2, 60), items=20_000)
    found = fit_links(runs, {"score": "loss"}, {}, 16, 0)["score"].link
    assert found.chance == pytest.approx(0.25, abs=0.01)
    assert found.ceiling == pytest.approx(0.95, abs=0.01)
    assert found.k == pytest.approx(6.0, rel=0.05)
    assert found.middle == pytest.approx(1.2, abs=0.01)


def test_a_chance_that_is_given_is_kept() -> None:
    runs = observed(AccuracyLink(0.25, 0.95, 6.0, 1.0), np.linspace(1.0, 1.4, 12))
    found = fit_links(runs, {"score": "loss"}, {"score": 0.2}, 16, 0)["score"]
    assert found.link.chance == pytest.approx(0.2, abs=1e-5)
    assert bool((found.draws[:, 0] - 0.2).abs().max() < 1e-3)


def test_intervals_of_larger_models_cover_what_they_will_score() -> None:
    rng = np.random.default_rng(3)
    sizes = np.repeat(np.geomspace(1e8, 1.3e9, 6), 4)
    small = HOFFMANN_2022.at(torch.tensor(sizes), torch.tensor(sizes * np.tile([5.0, 20, 60, 200], 6))).numpy()
    large = HOFFMANN_2022.at(7e9, torch.tensor([1.4e11, 1e12])).numpy()
    inside, width, level = [], [], []
    for number in range(40):
        truth = random_link(rng, small)
        found = fit_links(observed(truth, small, seed=number), {"score": "loss"}, {}, 48, number)["score"]
        mean, spread = found.moments(torch.tensor(large).log(), torch.zeros(2, dtype=torch.float64))
        score = rng.binomial(1000, truth(torch.tensor(large)).numpy()) / 1000
        error = (np.log(-np.log(score.clip(1e-3, 0.999))) - mean.numpy()) / spread.numpy()
        inside += (np.abs(error) <= 1.645).tolist()
        width += spread.tolist()
        level += np.log(-np.log(score.clip(1e-3, 0.999))).tolist()
    assert 0.84 <= np.mean(inside) <= 0.98
    assert np.median(width) < 0.25 * np.std(level)  # and are far narrower than what scores differ by


def test_doubt_about_the_loss_widens_the_accuracy() -> None:
    found = fit_links(
        observed(AccuracyLink(0.25, 0.95, 6.0, 1.0), np.linspace(0.6, 1.6, 30)), {"score": "loss"}, {}, 64, 0
    )
    at = torch.tensor([1.0], dtype=torch.float64).log()
    sure, unsure = (found["score"].moments(at, torch.tensor([d], dtype=torch.float64))[1] for d in (0.0, 0.05))
    # Delta method at the middle: d accuracy = k (ceiling - chance) / 4 d loss, over the slope of log(-log p) at p = .6.
    wider = 6.0 * 0.7 / 4 * 0.05 / (0.6 * -np.log(0.6))
    assert torch.sqrt(unsure**2 - sure**2).item() == pytest.approx(wider, rel=0.1)


def test_a_link_that_cannot_be_is_refused_in_words() -> None:
    runs = observed(AccuracyLink(0.25, 0.95, 6.0, 1.0), np.linspace(0.6, 1.6, 8))
    with pytest.raises(InputError, match="no run measures"):
        fit_links(runs, {"score": "bpb"}, {}, 4, 0)
    with pytest.raises(InputError, match="link a score to a loss"):
        fit_links(runs, {"loss": "score"}, {}, 4, 0)
    with pytest.raises(InputError, match="3 rows measure both"):
        fit_links(runs.select(torch.arange(3)), {"score": "loss"}, {}, 4, 0)


def ladder() -> pl.DataFrame:
    """Runs of the OLMo ladder with the BPB and the accuracy of 20 tasks, 190M to 3.2B parameters."""
    path = DATA / "olmo_ladder" / "tidy_final_rows.csv"
    if not path.exists():
        pytest.skip(f"{path} is not here; set MIXLAW_DATA to the folder of the public tables")
    raw = pl.read_csv(path, infer_schema_length=None)
    columns = {
        "run": raw["run"],
        "params": raw["n"],
        "tokens:train:mix": raw["throughput/total_tokens"].cast(pl.Float64),
    }
    for name in raw.columns:
        kind, _, task = name.removeprefix("eval/").partition("/")
        stem = task.partition("_5shot")[0]
        if kind in ("downstream", "downstream_bpb"):
            columns[f"metric:{'acc' if kind == 'downstream' else 'bpb'}/{stem}"] = raw[name]
    return pl.DataFrame(columns)


def test_on_the_ladder_accuracy_through_bpb_is_closer_than_accuracy_by_itself() -> None:
    table = ladder()
    small, large = table.filter(pl.col("params") < 2e9), table.filter(pl.col("params") > 2e9)
    tasks = [c.removeprefix("metric:acc/") for c in table.columns if c.startswith("metric:acc/")]
    units = {f"acc/{t}": "accuracy" for t in tasks} | {f"bpb/{t}": "bits/byte" for t in tasks}
    truth = large.select([f"metric:acc/{t}" for t in tasks]).to_numpy()
    links = {f"acc/{t}": f"bpb/{t}" for t in tasks}
    found = fit(small, units=units, unique={}, resamples=4, audited=False, links=links)
    error = {}
    for name, surfaces in (("linked", found), ("direct", replace(found, links={}))):
        predicted = surfaces.predict(Design.from_table(large, {}))
        mean = predicted.mean[:, [predicted.tasks.index(f"acc/{t}") for t in tasks]]
        error[name] = 100 * np.abs(mean - truth)
    assert len(tasks) == 20
    assert np.median(error["linked"]) <= 1.5  # the ladder's own figure is about 2 points
    assert np.mean(error["linked"]) < np.mean(error["direct"])


LINK = AccuracyLink(chance=0.25, ceiling=0.95, k=3.0, middle=2.3)


def world(sizes: tuple[float, ...], link: AccuracyLink = LINK, rows: int = 30, seed: int = 0) -> pl.DataFrame:
    """Losses by a published law, scores by a link, both with noise."""
    rng = np.random.default_rng(seed)
    params = rng.choice(sizes, rows)
    tokens = params * rng.choice([5.0, 20.0, 60.0, 200.0], rows)
    loss = HOFFMANN_2022.at(torch.tensor(params), torch.tensor(tokens)).numpy() * np.exp(0.003 * rng.normal(size=rows))
    score = rng.binomial(2000, link(torch.tensor(loss)).numpy()) / 2000
    runs = {"run": [f"r{i}" for i in range(rows)], "params": params, "tokens:train:text": tokens}
    return pl.DataFrame(runs | {"metric:loss": loss, "metric:score": score})


SMALL = (1e8, 2e8, 4e8, 8e8)


@pytest.fixture(scope="module")
def linked() -> Surfaces:
    """A score linked to its loss, and a copy of it linked to a loss that has nothing to do with it."""
    table = world(SMALL)
    unrelated = np.random.default_rng(1).permutation(table["metric:loss"].to_numpy())
    table = table.with_columns(pl.Series("metric:other", unrelated), table["metric:score"].alias("metric:copy"))
    units = UNITS | {"other": "nats/token", "copy": "accuracy"}
    links = {"score": "loss", "copy": "other"}
    return fit(table, units=units, unique={}, links=links, law=Chinchilla, resamples=16)


def test_predictions_of_a_linked_score_are_the_link_at_the_predicted_loss(linked: Surfaces) -> None:
    new = Design.from_table(world((3e9,), rows=5, seed=9), {})
    found = linked.predict(new)
    loss, score = (found.tasks.index(t) for t in ("loss", "score"))
    through = linked.links["score"].link(torch.tensor(found.mean[:, loss])).numpy()
    assert np.allclose(found.mean[:, score], through, atol=1e-9)
    worlds = linked.draws(new, 16)
    for i in (0, 7, 15):
        curve = AccuracyLink(*linked.links["score"].draws[i].tolist())
        assert torch.allclose(worlds[i, :, score], curve(worlds[i, :, loss]), atol=1e-9)
    assert (found.lo90[:, score] < found.mean[:, score]).all()
    assert (found.mean[:, score] < found.hi90[:, score]).all()


def test_a_linked_score_is_differentiable_by_tokens(linked: Surfaces) -> None:
    new = Design.from_table(world((3e9,), rows=3, seed=9), {})
    tokens = new.tokens.clone().requires_grad_()
    score = linked.mean(replace(new, tokens=tokens))[:, linked.tasks.index("score")]
    assert bool((torch.autograd.grad(score.sum(), tokens)[0] > 0).all())


def test_the_fit_reports_whether_the_link_predicted_held_out_runs_better(linked: Surfaces) -> None:
    assert linked.audit is not None
    by_link, alone = linked.audit.of_link("score") or (1.0, 0.0)
    assert by_link < alone  # a score that bends with size is no power law
    assert f"score ({100 * by_link:.1f} % against {100 * alone:.1f} %)" in " ".join(str(linked).split())
    assert linked.as_json()["tasks"]["score"]["link"]["source"] == "loss"


def test_a_link_that_misleads_is_called_so(linked: Surfaces) -> None:
    assert "a direct fit does better, remove the link: copy" in " ".join(str(linked).split())


def test_a_study_names_the_link_of_a_task(tmp_path: Path) -> None:
    world(SMALL).write_csv(tmp_path / "runs.csv")
    folder = tmp_path / "study"
    folder.mkdir()
    tasks = 'loss = "nats/token"\nscore = { unit = "accuracy", link = "loss", chance = 0.25 }'
    (folder / "study.toml").write_text(f"[tasks]\n{tasks}\n", encoding="utf-8")
    import_runs(folder, tmp_path / "runs.csv")
    study = open_study(folder)
    assert tasks in (folder / "study.toml").read_text(encoding="utf-8")
    found = study.fit(law="Chinchilla", save=True)
    assert found.links["score"].link.chance == pytest.approx(0.25, abs=1e-5)
    assert study.surfaces().chance == {"score": 0.25}
    assert any(found.readiness["score"].words in note for note in found.page().more)


def test_the_noise_of_a_linked_score_has_that_of_its_loss(linked: Surfaces) -> None:
    link, draw = linked.links["score"], torch.Generator().manual_seed(0)
    t, s = linked.tasks.index("score"), linked.tasks.index("loss")
    normal = torch.randn(40_000, 2, generator=draw, dtype=torch.float64)
    loss = linked.observed.centre[s] + linked.log_noise[s] * normal[:, 0]
    through = from_log_loss(link.follow(loss, link.best), "accuracy")
    questions = link.noise * torch.sqrt(through * (1 - through)) * normal[:, 1]
    measured = to_log_loss(through + questions, "accuracy")
    assert float(linked.log_noise[t]) == pytest.approx(float(measured.std()), rel=0.1)


def test_links_are_kept_on_disk(linked: Surfaces, tmp_path: Path) -> None:
    linked.save(tmp_path)
    new = Design.from_table(world((3e9,), rows=4, seed=9), {})
    again = Surfaces.load(tmp_path).predict(new)
    for name in ("mean", "lo90", "hi90", "law_only"):
        assert np.array_equal(getattr(again, name), getattr(linked.predict(new), name))


def test_intervals_of_linked_scores_cover_larger_models() -> None:
    inside = []
    for seed in range(6):
        truth = AccuracyLink(0.25, 0.9, 2.0 + 0.4 * seed, 2.2 + 0.05 * seed)
        found = fit(
            world(SMALL, truth, seed=seed),
            units=UNITS,
            unique={},
            links={"score": "loss"},
            law=Chinchilla,
            audited=False,
        )
        new = world((2e9, 4e9), truth, rows=20, seed=100 + seed)
        predicted = found.predict(Design.from_table(new, {}))
        t, score = predicted.tasks.index("score"), new["metric:score"].to_numpy()
        inside.append(np.mean((predicted.lo90[:, t] <= score) & (score <= predicted.hi90[:, t])))
    assert 0.8 <= np.mean(inside) <= 1.0
