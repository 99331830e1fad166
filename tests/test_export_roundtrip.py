"""Exports read back by the trainers' own parsers, or as they parse: shares, order, places, learning rate."""

from __future__ import annotations

import ast
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

from mixlaw.errors import InputError
from mixlaw.export.blend import blends
from mixlaw.export.remaining import Remaining
from mixlaw.export.trainers import TRAINERS
from mixlaw.recipe import Mixture, Phase, Recipe
from mixlaw.study import Study, open_study
from test_cli import here
from test_doors_corpora import CASES
from test_export import ask, needs_trainers

TEXT = Mixture({"web": 0.9, "code": 0.1})
CODE = Mixture({"web": 0.2, "code": 0.8})


def render(trainer: str, recipe: Recipe, **more: Any) -> list[str]:
    """The files of a trainer, a phase each."""
    given: dict[str, Any] = {"paths": {}, "unique": {}, "lengths": dict.fromkeys(recipe.domains, 10.0)}
    given |= {"sequence": 100, "batch": 2000}
    return [TRAINERS[trainer].render(blend) for blend in blends(Remaining(recipe), **{**given, **more})]


# --- names ----------------------------------------------------------------------------------------------------------

#: Every printable character, and those that end a line in some format.
LETTERS = st.one_of(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters=":"), st.sampled_from("\"\\'#{}[]%& -")
)
NAMES = st.lists(st.text(LETTERS, min_size=1, max_size=10), min_size=2, max_size=4, unique=True)


def sources(text: str) -> dict[str, tuple[Any, ...]]:
    """The table of sources in a Python module."""
    nodes = [node for node in ast.parse(text).body if isinstance(node, ast.Assign)]
    table: dict[str, tuple[Any, ...]] = ast.literal_eval(next(n.value for n in nodes if n.targets[0].id == "SOURCES"))  # type: ignore[attr-defined]
    return table


@settings(max_examples=150, deadline=None)
@given(NAMES, st.data())
def test_names_of_every_printable_character_come_back_with_their_shares(names: list[str], data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.floats(1e-7, 1.0), min_size=len(names), max_size=len(names)))
    mixture = Mixture.normalised(dict(zip(names, weights, strict=True)))
    recipe = Recipe(10**6, (Phase("a\u2028b", 1000, mixture),))
    shares = dict(mixture.shares)
    (mosaic,), (olmo,) = (
        (yaml.safe_load(text) for text in render("mosaic", recipe)),
        map(yaml.safe_load, render("olmo-core", recipe)),
    )
    assert {name: stream["proportion"] for name, stream in mosaic["streams"].items()} == shares
    assert {name: stream["local"] for name, stream in mosaic["streams"].items()} == {n: f"data/{n}" for n in shares}
    listed = olmo["source_list"]["sources"]
    assert {source["source_name"]: source["target_ratio"] for source in listed} == shares
    assert [source["paths"] for source in listed] == [[f"data/{name}"] for name in shares]

    (titan,) = render("torchtitan", recipe)
    table = sources(titan)
    assert [path for path, *_ in table.values()] == [f"data/{name}" for name in shares]
    assert [weight for *_, weight in table.values()] == list(shares.values())
    assert all(key == key.lower() for key in table)
    (documents,) = render("datasets", recipe)
    assert {name: round(probability, 12) for name, (*_, probability) in sources(documents).items()} == {
        name: round(share, 12) for name, share in shares.items()
    }

    (megatron,) = render("megatron", recipe)
    words = megatron.split()
    assert [float(word) for word in words[::2]] == list(shares.values())
    assert len({*words[1::2]}) == len(shares) == len(words) / 2


def test_names_that_are_one_when_lowered_or_without_spaces_stay_apart() -> None:
    names = ["Code", "code", "CODE", "code-2", "a b", "a_b", "a  b", "a\u00a0b"]
    recipe = Recipe(10**6, (Phase("a", 1000, Mixture.normalised({n: i + 1 for i, n in enumerate(names)})),))
    shares = recipe.phases[0].mixture.shares
    table = sources(render("torchtitan", recipe)[0])
    assert [path for path, *_ in table.values()] == [f"data/{name}" for name in shares]
    assert len(table) == len(names)
    prefixes = render("megatron", recipe)[0].split()[1::2]
    assert len({*prefixes}) == len(names)


def test_a_given_prefix_with_white_space_is_refused_for_megatron_alone() -> None:
    recipe, paths = Recipe(10**6, (Phase("init", 96_000, TEXT),)), {"web": "/data/my corpus/web"}
    with pytest.raises(InputError, match=r"'/data/my corpus/web' of 'web' has white space, at which Megatron splits"):
        render("megatron", recipe, paths=paths)
    assert sources(render("torchtitan", recipe, paths=paths)[0])["web"][0] == "/data/my corpus/web"


@pytest.mark.parametrize("share", [7e-05, 1e-06, 1.5e-07, 0.25])
def test_small_shares_are_numbers_in_yaml_1_1(share: float) -> None:
    recipe = Recipe(10**6, (Phase("a", 10**9, Mixture({"web": share, "code": 1 - share})),))
    for trainer, key in (("mosaic", "proportion"), ("olmo-core", "target_ratio")):
        text = render(trainer, recipe)[0]
        assert f"{key}: {share!r}".replace("e-", ".0e-" if share != 1.5e-07 else "e-") in text
        assert share in json.loads(json.dumps(list(values_of(yaml.safe_load(text)))))


def values_of(tree: Any) -> list[Any]:
    """All leaves of a document."""
    if isinstance(tree, dict | list):
        return [leaf for part in (tree.values() if isinstance(tree, dict) else tree) for leaf in values_of(part)]
    return [tree]


# --- places ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Numbered documents of ten words in two domains; three phases in which each is drawn on."""
    root = tmp_path_factory.mktemp("places") / "study [a]"
    root.mkdir()
    lines = ["[training]\nsequence = 100\n"]
    for name in ("web", "code"):
        rows = [json.dumps({"text": " ".join([f"{name}{number}"] * 10)}) for number in range(1000)]
        (root / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
        lines.append(f'[domains.{name}]\nsource = "{name}.jsonl"\nunique_tokens = 10_000\n')
    (root / "study.toml").write_text("".join(lines))
    phases = (Phase("a", 4_000, TEXT), Phase("b", 4_000, CODE), Phase("c", 8_000, CODE, 0.1))
    (root / "recipe.json").write_text(json.dumps(Recipe(10**6, phases).as_json()))
    (root / "paths.toml").write_text("[tokens_per_document]\nweb = 10\ncode = 10\n", encoding="utf-8-sig")
    return open_study(root)


#: Documents drawn before each phase: 3,600 and 400 tokens, then 800 and 3,200 more, of 10 each; 1,000 documents in all.
BEFORE = [{"web": 0, "code": 0}, {"web": 360, "code": 40}, {"web": 440, "code": 360}]


def test_documents_begin_where_the_phase_before_ended(study: Study) -> None:
    import runpy

    files = study.export(study.path / "recipe.json", ["datasets"], paths=study.path / "paths.toml").files["datasets"]
    assert [path.name for path in files] == ["1-a.py", "2-b.py", "3-c.py"], "in the recipe's order"
    for path, before in zip(files, BEFORE, strict=True):
        stream, first, seen = iter(runpy.run_path(str(path))["dataset"]), dict[str, str](), list[str]()
        for _ in range(3000):
            word = next(stream)["text"].split()[0]
            first.setdefault(word[:3], word)
            seen.append(word)
        assert first == {"web": f"web{before['web']}", "cod": f"code{before['code']}"}
        web = [word for word in seen if word.startswith("web")]
        assert len({*web[:1000]}) == min(1000, len(web)), "every document once before one comes again"


TITAN = """
import json, runpy, sys
from torchtitan.hf_datasets.text_datasets import HuggingFaceTextDataset

class Words:
    eos_id = 0
    def encode(self, text, add_bos, add_eos):
        return [int(word.lstrip("webcod")) for word in text.split()] + [0]

def first(path):
    config = runpy.run_path(path)["dataloader"]
    read = HuggingFaceTextDataset
    sources = {s.dataset: read(s.dataset, s.dataset_path, Words(), 10, infinite=s.infinite) for s in config.sources}
    return {name: int(next(iter(source))[0]["input"][0]) for name, source in sources.items()}

print(json.dumps([first(path) for path in sys.argv[1:]]))
"""


@needs_trainers
def test_torchtitan_begins_where_the_phase_before_ended(study: Study) -> None:
    files = study.export(study.path / "recipe.json", ["torchtitan"], paths=study.path / "paths.toml").files
    assert ask(TITAN, *files["torchtitan"]) == BEFORE


def test_what_cannot_be_said_of_places_is_said_in_words_and_seeds_differ(study: Study) -> None:
    written = study.export(study.path / "recipe.json", ["megatron", "mosaic", "olmo-core", "torchtitan"])
    for trainer in ("megatron", "mosaic", "olmo-core"):
        readme = (written.folder / trainer / "README.txt").read_text()
        assert "Places: It cannot begin within a domain" in readme
        assert "Tokens drawn of each domain before this phase: code 400, web 3,600." in readme
    assert "the first one of code, web: their length is not known" in written.files["torchtitan"][1].read_text()
    seeds = [yaml.safe_load(path.read_text())["shuffle_seed"] for path in written.files["mosaic"]]
    assert seeds == [0, 1, 2]


# --- the file of paths ----------------------------------------------------------------------------------------------

PATHS = {
    "[tokens_per_document]\ncode = [1]\n": r"tokens_per_document.code = [1]; it takes a positive number",
    "[tokens_per_document]\ncode = true\n": r"tokens_per_document.code = True; it takes a positive number",
    "[tokens_per_document]\ncode = nan\n": r"tokens_per_document.code = nan; it takes a positive number",
    "[tokens_per_document]\ncode = inf\n": r"tokens_per_document.code = inf; it takes a positive number",
    "[tokens_per_document]\ncode = { a = 1 }\n": r"it takes a positive number",
    "[paths]\ncode = 1\n": "paths.code = 1; it takes a text",
    "[paths]\ncode = ' '\n": "paths.code = ' '; it takes a text",
    "[paths]\ncod = 'x'\n": "paths.cod is no domain; did you mean 'code'?",
    "paths = 1\n": "unknown key 'paths'",
    "[paths\n": "is not TOML",
}


@pytest.mark.parametrize("text", PATHS)
def test_a_wrong_file_of_paths_is_one_sentence(text: str, study: Study, tmp_path: Path) -> None:
    (tmp_path / "wrong.toml").write_text(text)
    with pytest.raises(InputError) as caught:
        study.export(study.path / "recipe.json", paths=tmp_path / "wrong.toml")
    assert PATHS[text] in str(caught.value)


@pytest.mark.skipif(not CASES.exists(), reason="the handed cases are not beside this checkout")
def test_handed_cases() -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for case, trainer in (("09-export-megatron-space", "megatron"), ("11-export-yaml-exponent", "mosaic")):
            here("import", root / case, CASES / case / "runs.csv", "--unit", "bits/byte")
            here("export", root / case, "r1", "--to", trainer, "-o", root / "out")
        words = (root / "out" / "megatron" / "1-init.txt").read_text().split()
        assert words[1::2] == ["data/Code", "data/Gutenberg_(PG-19)", "data/code"]
        assert [float(word) for word in words[::2]] == pytest.approx([0.03, 0.1, 0.87], abs=1e-5)
        streams = yaml.safe_load((root / "out" / "mosaic" / "1-init.yaml").read_text())["streams"]
        assert streams["web"]["proportion"] == 7e-05
