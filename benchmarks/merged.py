"""Do weighted averages of cooldowns on one domain each stand for cooldowns on mixtures? On the demo's corpora.

    python benchmarks/merged.py FOLDER [SIZE ...]

From one trunk on an even mixture, every domain gets a branch: a cooldown on it alone, and one of as many tokens at a
constant rate. A mixture of domains is emulated by the average of their weights by its shares (MergeMix,
arXiv:2601.17858; DeMix, arXiv:2602.00747), and trained for comparison. Printed for each size, over the six held-out
domains: ranks of merged against trained, what is left after a linear map, and the error of a surface of the mixture
from n trained cooldowns with and without merged values. FOLDER keeps the runs: a repeated call trains what is missing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from mixlaw.recipe import Mixture, Phase, Recipe
from mixlaw.runner.batches.shards import open_shards
from mixlaw.runner.evaluate.run import evaluate
from mixlaw.runner.models.ladder import parse_size
from mixlaw.runner.models.load import load_model
from mixlaw.runner.plan.tree import plan
from mixlaw.runner.train.loop import train_segment
from mixlaw.study import Study, open_study

Floats = NDArray[np.float64]

TOKENS = {"0.025M": (420_000, 180_000), "0.05M": (300_000, 120_000)}  # of trunk and cooldown
MIXTURES, CALIBRATIONS, DRAWS = 12, (0, 1, 2, 3, 4, 6, 8), 200
PENALTIES = np.geomspace(1e-4, 10, 16)  # of the ridge, chosen by leaving one out


def mixtures(domains: list[str], count: int) -> Floats:
    """Shares drawn uniformly from the simplex, shape (count, domains)."""
    return np.random.default_rng(0).dirichlet(np.ones(len(domains)), count)


def recipe(study: Study, size: str, shares: Mapping[str, float], lr_end: float) -> Recipe:
    """The even trunk, and a branch on these shares."""
    trunk, cooldown = TOKENS[size]
    even = Mixture.normalised(dict.fromkeys(study.settings.domains, 1.0))
    phases = Phase("init", trunk, even), Phase("cooldown", cooldown, Mixture.normalised(shares), lr_end)
    return study.setup.adopt(Recipe(parse_size(size), phases))


def trained(study: Study, recipes: list[Recipe]) -> list[Path]:
    """Checkpoint of each recipe."""
    streams = {name: domain.tokens for name, domain in open_shards(study.data).domains.items()}
    for number, segment in enumerate((tree := plan(recipes)).segments):
        print(f"\r{number + 1} of {len(tree.segments)} segments", end="", file=sys.stderr)
        if not (study.runs / segment.lineage / "checkpoint").exists():
            train_segment(segment, study.setup, streams, study.runs)
    return [study.runs / each.lineage / "checkpoint" for each in recipes]


def losses(study: Study, model: Any) -> Floats:
    """Bits per byte of held-out text, shape (domains,)."""
    domains = list(study.settings.domains)
    measured = evaluate(model, study.data, domains, sequence=study.setup.sequence)
    return np.array([measured[name].value for name in domains])


def merged(branches: list[Path], shares: Floats) -> Any:
    """The model whose weights are the average of the branches' by shares."""
    models = [load_model(path) for path in branches]
    result: Any = models[0]
    weights = [dict(model.named_parameters()) for model in models]
    with torch.no_grad():
        for name, weight in result.named_parameters():
            stacked = torch.stack([each[name] for each in weights])
            weight.copy_(torch.tensordot(torch.tensor(shares, dtype=torch.float32), stacked, dims=1))
    return result


def measured(study: Study, size: str) -> dict[str, Floats]:
    """Shares, and losses of cooldowns, merged cooldowns and merged constant branches, kept beside the runs."""
    kept = study.path / f"merged-{size}.json"
    if not kept.exists():
        domains = list(study.settings.domains)
        corners, inside = np.eye(len(domains)), mixtures(domains, MIXTURES)
        cooled = [recipe(study, size, dict(zip(domains, s, strict=True)), 0.0) for s in (*corners, *inside)]
        steady = [recipe(study, size, dict(zip(domains, s, strict=True)), 1.0) for s in corners]
        paths = trained(study, cooled + steady)
        ends, flat = paths[: len(domains)], paths[len(cooled) :]
        table = {
            "shares": inside,
            "corners": np.stack([losses(study, load_model(path)) for path in ends]),
            "trained": np.stack([losses(study, load_model(path)) for path in paths[len(domains) : len(cooled)]]),
            "cooled": np.stack([losses(study, merged(ends, s)) for s in inside]),
            "steady": np.stack([losses(study, merged(flat, s)) for s in inside]),
        }
        kept.write_text(json.dumps({name: value.tolist() for name, value in table.items()}))
    return {name: np.array(value) for name, value in json.loads(kept.read_text()).items()}


# --- what it is worth -------------------------------------------------------------------------------------------------


def ridge(shares: Floats, values: Floats) -> Callable[[Floats], Floats]:
    """A surface in shares and their products around its mean, its penalty the best at leaving one out."""
    mean, columns = values.mean(0), features(shares)
    gram = columns @ columns.T
    errors = []
    for penalty in PENALTIES:
        inverse = np.linalg.inv(gram + penalty * np.eye(len(gram)))
        errors.append(float(np.mean(((inverse @ (values - mean)) / np.diag(inverse)[:, None]) ** 2)))
    penalty = PENALTIES[int(np.argmin(errors))]
    weights = columns.T @ np.linalg.solve(gram + penalty * np.eye(len(gram)), values - mean)
    return lambda at: mean + features(at) @ weights


def features(shares: Floats) -> Floats:
    """Shares over even ones, and logs of shares above 1 %: losses fall steeply with the first of a domain."""
    logs = np.log(shares + 0.01)
    return np.concatenate([shares - 1 / shares.shape[1], 0.3 * (logs - np.log(1 / shares.shape[1]))], axis=1)


def surface_errors(table: Mapping[str, Floats], prior: Floats | None, count: int, corners: bool) -> float:
    """Error in % of a surface from `count` trained mixtures, over `prior` where there is one, on the others."""
    rng, shares, logs, errors = np.random.default_rng(1), table["shares"], np.log(table["trained"]), []
    before = np.zeros_like(logs) if prior is None else np.log(prior)
    ends = np.log(table["corners"])
    for _ in range(DRAWS):
        order = rng.permutation(len(shares))
        known, rest = order[:count], order[count:]
        x = np.concatenate([np.eye(shares.shape[1]), shares[known]]) if corners else shares[known]
        # A merged corner is the branch itself, so there it is right.
        y = (logs - before)[known]
        y = np.concatenate([ends if prior is None else np.zeros_like(ends), y]) if corners else y
        guess = ridge(x, y)(shares[rest]) if len(x) > 1 else np.zeros((len(rest), logs.shape[1])) + y.sum(0)
        errors.append(np.mean((before[rest] + guess - logs[rest]) ** 2))
    return float(100 * np.sqrt(np.mean(errors)))


def report(table: Mapping[str, Floats], size: str) -> None:
    """Print one size."""
    truth = np.log(table["trained"])
    noise = 100 * truth.std(0).mean()
    print(f"\n{size}: {len(truth)} mixtures; trained cooldowns differ by {noise:.2f} % (one standard deviation)")
    print(
        f"{'merged of':>10} {'rank, mean of domains':>22} {'worst':>6} {'rank of the mean':>17} {'bias':>7} {'left':>6}"
    )
    for name in ("cooled", "steady"):
        value = np.log(table[name])
        ranks = [spearmanr(value[:, d], truth[:, d]).statistic for d in range(truth.shape[1])]
        overall = spearmanr(value.mean(1), truth.mean(1)).statistic
        left = [
            np.std(truth[:, d] - np.polyval(np.polyfit(value[:, d], truth[:, d], 1), value[:, d])) for d in range(6)
        ]
        bias = 100 * (value - truth).mean()
        cells = f"{np.mean(ranks):22.3f} {min(ranks):6.3f} {overall:17.3f} {bias:6.2f}%"
        print(f"{name:>10} {cells} {100 * np.mean(left):5.2f}%")
    print("error of the surface, %, from n trained mixtures:")
    print(f"{'n':>34}" + "".join(f"{count:7d}" for count in CALIBRATIONS))
    rows: dict[str, tuple[Floats | None, bool]] = {
        "mixtures alone": (None, False),
        "and the six cooldowns": (None, True),
        "merged cooldowns": (table["cooled"], True),
        "merged constant branches": (table["steady"], False),
    }
    for label, (prior, corners) in rows.items():
        least = 0 if corners else 1
        errors = [
            f"{surface_errors(table, prior, count, corners):7.2f}" if count >= least else f"{'':>7}"
            for count in CALIBRATIONS
        ]
        print(f"{label:>34}" + "".join(errors))


def main(folder: str, *sizes: str) -> None:
    """Prepare, train what is missing, and print."""
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    (path / "study.toml").write_text(files("mixlaw.demo").joinpath("demo.toml").read_text(encoding="utf-8"))
    study = open_study(path)
    study.prepare()
    for size in sizes or TOKENS:
        report(measured(study, size), size)


if __name__ == "__main__":
    main(*sys.argv[1:])
