"""Train the ladder: recipes over three phases at four sizes, with repeats, schedules, budgets and repeated data.

    python benchmarks/ladder.py              # train what is missing (hours on two cores; stop and start it at will)
    python benchmarks/ladder.py --table      # write benchmarks/ladder/runs.csv from what is trained

Everything is trained by mixlaw's own runner on the demo's corpora. The table in the repository is the truth that laws
are judged by; `docs/ladder.md` says what it shows. A recipe's name is a hash of its phases, mixtures, sizes and rates,
so it is the same on every machine; losses differ in the last digits, and with the versions of the packages that the
corpora are read from.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from mixlaw.recipe import Decay, Mixture, Phase, Recipe
from mixlaw.runner.models.ladder import shape
from mixlaw.study import Study, open_study

HERE = Path(__file__).parent
STUDY = HERE.parent / "out" / "ladder"
TABLE = HERE / "ladder" / "runs.csv"
#: Tokens of a recipe by size, 20 to 24 for each parameter.
TOKENS = {"0.025M": 600_000, "0.05M": 1_100_000, "0.1M": 2_000_000, "0.22M": 4_400_000}
SHARES = {"init": 0.4, "continue": 0.3, "cooldown": 0.3}
DOMAINS = {
    "prose": ("text", "python:mixlaw.demo.prose"),
    "facts": ("text", "python:mixlaw.demo.facts"),
    "code": ("code", "python:mixlaw.demo.python_source:code"),
    "markup": ("markup", "python:mixlaw.demo.markup"),
    "docstrings": ("code-adjacent", "python:mixlaw.demo.python_source:docstrings"),
    "synthetic": ("synthetic-code", "python:mixlaw.demo.synthetic"),
}
MIXTURES = {
    "even": {"prose": 0.17, "facts": 0.17, "code": 0.17, "markup": 0.16, "docstrings": 0.17, "synthetic": 0.16},
    "balanced": {"prose": 0.30, "facts": 0.20, "code": 0.30, "markup": 0.05, "docstrings": 0.10, "synthetic": 0.05},
    "text": {"prose": 0.60, "facts": 0.40},
    "mostly_text": {"prose": 0.45, "facts": 0.40, "code": 0.10, "docstrings": 0.05},
    "prose_first": {"prose": 0.70, "facts": 0.10, "code": 0.10, "docstrings": 0.10},
    "code": {"code": 0.70, "markup": 0.05, "docstrings": 0.15, "synthetic": 0.10},
    "described": {"prose": 0.10, "facts": 0.10, "code": 0.30, "markup": 0.15, "docstrings": 0.35},
    "verified": {"prose": 0.25, "facts": 0.20, "code": 0.15, "docstrings": 0.10, "synthetic": 0.30},
}
#: The balanced mixture with half of its code moved to prose.
LESS_CODE = MIXTURES["balanced"] | {"prose": 0.45, "code": 0.15}
#: One mixture in each of init, continue and cooldown; beginnings are shared, as a first design shares them.
PHASED = """
balanced balanced prose_first; balanced balanced described; balanced code prose_first; balanced code code
balanced code verified; mostly_text verified text; mostly_text verified described; prose_first mostly_text described
prose_first mostly_text verified; prose_first prose_first code; prose_first prose_first described
code prose_first prose_first; code prose_first verified; code described text; code described even
described text even; described text code; described code verified; verified even prose_first
verified mostly_text mostly_text
"""
#: Recipes with scarce code, and its pools as shares of the tokens of a run: up to five epochs.
SCARCE = """balanced; even; mostly_text; prose_first; code; described; verified
balanced code code; mostly_text verified described; prose_first mostly_text verified; prose_first prose_first code
code described even; described text code; described code verified"""
POOLS = {"code": 0.15, "docstrings": 0.08, "synthetic": 0.06, "markup": 0.04}
RANDOM, RANDOM_SEED = 8, 7  # recipes with three Dirichlet mixtures each
NEAR, NEAR_SEED, NEAR_SPREAD = 14, 11, 0.5  # recipes near the balanced one, and the deviation of their log shares
LENGTHS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8)


def recipes() -> dict[str, list[Recipe]]:
    """All recipes by the question that they answer."""
    return {
        "grid": [recipe for size in TOKENS for recipe in grid(size)],
        "seeds": [recipe for size in TOKENS for recipe in seeds(size)],
        "schedule": [recipe for size in TOKENS for recipe in schedules(size)],
        "rate": [recipe for size in ("0.025M", "0.05M", "0.1M") for recipe in rates(size)],
        "budget": list(budgets("0.05M")),
        "repeats": list(repeats("0.05M")),
        "matched": [recipe for size in ("0.025M", "0.05M", "0.1M") for recipe in matched(size)],
        "near": [recipe for size in ("0.025M", "0.05M", "0.1M") for recipe in near(size)],
    }


def grid(size: str) -> Iterator[Recipe]:
    """The same 36 recipes at every size: each mixture throughout, 20 of three phases, 8 random ones."""
    for mixture in MIXTURES.values():
        yield phased(size, [mixture] * 3)
    for names in PHASED.replace("\n", ";").split(";"):
        if names.strip():
            yield phased(size, [MIXTURES[name] for name in names.split()])
    rng = np.random.default_rng(RANDOM_SEED)
    for _ in range(RANDOM):
        drawn = rng.dirichlet(np.full(len(DOMAINS), 0.7), 3).round(3)
        yield phased(size, [dict(zip(DOMAINS, row, strict=True)) for row in drawn.tolist()])


def seeds(size: str) -> Iterator[Recipe]:
    """Two more seeds of two recipes."""
    for names in (("balanced", "balanced", "balanced"), ("code", "prose_first", "verified")):
        for seed in (1, 2):
            yield replace(phased(size, [MIXTURES[name] for name in names]), seed=seed)


def schedules(size: str) -> Iterator[Recipe]:
    """One mixture throughout: no decay, lengths, shapes and ends of the decay; at other peak rates too."""
    yield cooled(size, 0.0)
    for length in LENGTHS:
        yield cooled(size, length)
    for length in (0.1, 0.2, 0.4):
        yield cooled(size, length, decay=Decay.ONE_SQRT)
    yield cooled(size, 0.2, decay=Decay.COSINE)
    for end in (0.1, 0.3):
        yield cooled(size, 0.2, end=end)
    for lr in (0.5, 2.0):
        for length in (0.1, 0.2, 0.4, 0.6):
            yield replace(cooled(size, length), lr=lr)


def rates(size: str) -> Iterator[Recipe]:
    """Three peak rates at two far recipes; the centre has them in `schedules`."""
    for name in ("code", "prose_first"):
        for lr in (0.5, 2.0):
            yield replace(phased(size, [MIXTURES[name]] * 3), lr=lr)


def budgets(size: str) -> Iterator[Recipe]:
    """10 to 80 tokens for each parameter: cooldown lengths, and pairs that differ in the order of phases alone."""
    for ratio in (10, 40, 80):
        tokens = ratio * shape(size).params
        for length in (0.1, 0.2, 0.4, 0.6):
            yield cooled(size, length, tokens=tokens)
        for names in ("code code prose_first", "prose_first code code", "code prose_first code", "code code code",
                      "prose_first prose_first prose_first", "verified text text", "text text verified"):  # fmt: skip
            yield phased(size, [MIXTURES[name] for name in names.split()], tokens)
    for names in ("code code prose_first", "prose_first code code", "code prose_first code",
                  "verified text text", "text text verified"):  # fmt: skip
        yield phased(size, [MIXTURES[name] for name in names.split()])


def repeats(size: str) -> Iterator[Recipe]:
    """Pools so small that every domain, or the main one alone, is seen 2 to 32 times."""
    for name, capped in (("balanced", tuple(MIXTURES["balanced"])), ("code", ("code",)), ("prose_first", ("prose",))):
        recipe = phased(size, [MIXTURES[name]] * 3)
        for epochs in (2, 4, 8, 16, 32):
            pool = {domain: round(recipe.domain_tokens(domain) / epochs) for domain in capped}
            yield replace(recipe, unique=pool)


def matched(size: str) -> Iterator[Recipe]:
    """Recipes of the grid with scarce code: pools are the same share of the tokens at every size, so as many epochs."""
    for names in SCARCE.replace("\n", ";").split(";"):
        mixtures = names.split() * (3 if " " not in names.strip() else 1)
        recipe = phased(size, [MIXTURES[name] for name in mixtures])
        yield replace(recipe, unique={domain: round(share * TOKENS[size]) for domain, share in POOLS.items()})


def near(size: str) -> Iterator[Recipe]:
    """What an optimum is made of: mixtures near the balanced one, and half of its code moved to prose in phases."""
    for less in ("init", "continue", "cooldown", " ".join(SHARES)):
        recipe = phased(size, [LESS_CODE if phase in less.split() else MIXTURES["balanced"] for phase in SHARES])
        yield from (replace(recipe, seed=seed) for seed in ((0, 1, 2) if size == "0.025M" else (0,)))
    rng, centre = np.random.default_rng(NEAR_SEED), np.log([MIXTURES["balanced"][domain] for domain in DOMAINS])
    for _ in range(NEAR):
        drawn = np.exp(centre + NEAR_SPREAD * rng.normal(size=(3, len(DOMAINS))))
        shares = (drawn / drawn.sum(1, keepdims=True)).round(3)
        yield phased(size, [dict(zip(DOMAINS, row, strict=True)) for row in shares.tolist()])


def phased(size: str, mixtures: list[dict[str, float]], tokens: int | None = None) -> Recipe:
    """A recipe of the three phases, one mixture for each."""
    total = tokens or TOKENS[size]
    phases = [
        Phase(name, round(total * share), Mixture.normalised(mixture), 0.0 if name == "cooldown" else 1.0)
        for (name, share), mixture in zip(SHARES.items(), mixtures, strict=True)
    ]
    return Recipe(shape(size).params, tuple(phases))


def cooled(
    size: str, length: float, *, decay: Decay = Decay.LINEAR, end: float = 0.0, tokens: int | None = None
) -> Recipe:
    """The balanced mixture throughout, its rate falling over the last share `length` of the tokens."""
    total, mixture = tokens or TOKENS[size], Mixture(MIXTURES["balanced"])
    parts = (("init", 1 - length, 1.0, Decay.LINEAR), ("cooldown", length, end, decay))
    phases = [Phase(name, round(total * share), mixture, lr, shape) for name, share, lr, shape in parts if share]
    return Recipe(shape(size).params, tuple(phases))


def create(folder: Path) -> Study:
    """The study, made if it is not there."""
    if not (folder / "study.toml").exists():
        domains = "\n".join(
            f'{n} = {{ kind = "{kind}", source = "{source}" }}' for n, (kind, source) in DOMAINS.items()
        )
        phases = "\n".join(f'[[phases]]\nname = "{n}"\nshare = {share}' for n, share in SHARES.items())
        sizes = "\n".join(f'"{size}" = {tokens}' for size, tokens in TOKENS.items())
        folder.mkdir(parents=True)
        (folder / "study.toml").write_text(
            f'version = 1\nname = "ladder"\n\n[domains]\n{domains}\n\n[tokenizer]\nvocabulary = 1024\n\n'
            f"[training]\nsequence = 128\nbatch = 8\ncheckpoint_seconds = 60\n"
            f"longest_document = 8000\n\n[sizes]\n{sizes}\n\n{phases}\n",
            encoding="utf-8",
        )
    return open_study(folder)


def name_of(recipe: Recipe) -> str:
    """Hash of a recipe as it is trained, in whole steps of 8 sequences of 128 tokens; the corpora are no part of it."""
    step = 8 * 128
    phases = tuple(replace(p, tokens=max(1, round(p.tokens / step)) * step) for p in recipe.phases)
    return replace(recipe, phases=phases, data="", shards={}).lineage


def train(parts: list[str], workers: int) -> None:
    """Train what the table lacks of these parts, small sizes first."""
    study, wanted = create(STUDY), recipes()
    study.prepare()
    done = set(pl.read_csv(TABLE)["recipe"]) if TABLE.exists() else set()
    for size in TOKENS:
        for recipe in (recipe for part in parts or list(wanted) for recipe in wanted[part]):
            if recipe.params == shape(size).params and name_of(recipe) not in done:
                study.add_recipe(recipe)
        outcome = study.run(workers=workers)
        if outcome.failed:
            print(outcome, flush=True)


def write_table() -> None:
    """Add what is trained to the table."""
    study = create(STUDY)
    names = {record.run: name_of(record.recipe) for record in study.records()}
    table = study.table()
    table = table.with_columns(pl.Series("recipe", [names[run] for run in table["run"]]))
    if TABLE.exists():
        before = pl.read_csv(TABLE, infer_schema_length=None)
        table = pl.concat([before, table], how="diagonal_relaxed").unique("recipe", keep="first", maintain_order=True)
    wanted = {name_of(recipe) for recipes_of_part in recipes().values() for recipe in recipes_of_part}
    table = table.filter(pl.col("recipe").is_in(wanted)).with_columns(pl.col("lr").fill_null(1.0))
    TABLE.parent.mkdir(exist_ok=True)
    table.sort("params", "recipe").write_csv(TABLE)
    print(f"{table.height} runs in {TABLE}")


def main() -> None:
    """Train, or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "parts", nargs="*", help="grid, seeds, schedule, rate, budget, repeats, matched, near; all if none is named"
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--table", action="store_true", help="write the table of what is trained, and train nothing")
    options = parser.parse_args()
    if options.table:
        return write_table()
    return train(options.parts, options.workers)


if __name__ == "__main__":
    main()
