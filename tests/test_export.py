"""Exports, read by the trainers they are for: real parsers, real draws, shares of tokens as in the recipe."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mixlaw.errors import InputError
from mixlaw.files import write_json
from mixlaw.recipe import Context, Mixture, Phase, Recipe
from mixlaw.study import Study, open_study
from test_cli import document_here, mixlaw, refused_here

TRAINERS = Path(__file__).resolve().parents[1] / "out" / "trainers"
SHARES = {"code": 0.3, "web": 0.6, "wiki": 0.1}
LENGTHS = {"code": 400, "web": 50, "wiki": 1000}  # words of a document
UNIQUE = {"code": 80_000, "web": 100_000, "wiki": 40_000}
COOLDOWN = {"code": 0.8, "wiki": 0.2}
SEQUENCE = 64

needs_trainers = pytest.mark.skipif(not TRAINERS.exists(), reason="no trainers to check against: make trainers")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study of three domains of JSON lines whose documents differ in length by a factor of twenty."""
    folder = tmp_path_factory.mktemp("export")
    lines = [f"[training]\nsequence = {SEQUENCE}\n"]
    for name, words in LENGTHS.items():
        rows = [json.dumps({"text": " ".join([name] * words)}) for _ in range(UNIQUE[name] // words)]
        (folder / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
        lines.append(f'[domains.{name}]\nsource = "{name}.jsonl"\nunique_tokens = {UNIQUE[name]}\n')
    (folder / "study.toml").write_text("\n".join(lines))
    phases = (Phase("init", 128_000, Mixture(SHARES)), Phase("cooldown", 64_000, Mixture(COOLDOWN), 0.1))
    write_json(folder / "recipe.json", Recipe(1_000_000, phases, seed=7).as_json())
    return open_study(folder)


@pytest.fixture(scope="module")
def lengths(study: Study) -> Path:
    path = study.path / "lengths.toml"
    path.write_text("[tokens_per_document]\n" + "".join(f"{name} = {words}\n" for name, words in LENGTHS.items()))
    return path


def ask(code: str, *arguments: object) -> object:
    """The JSON that a program prints in a process of its own that sees the trainers, and no hub."""
    environment = {**os.environ, "PYTHONPATH": str(TRAINERS), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def within_chance(drawn: dict[str, float], shares: dict[str, float], draws: float) -> bool:
    """Whether shares of independent draws lie within four standard errors."""
    return all(abs(drawn.get(name, 0) - p) < 4 * (p * (1 - p) / draws) ** 0.5 for name, p in shares.items())


TORCHTITAN = """
import json, runpy, sys
from collections import Counter
from torchtitan.hf_datasets.text_datasets import HuggingFaceTextDataset, InterleavedHuggingFaceTextDataLoader
from torchtitan.hf_datasets.interleaved import InterleavedDataset

class Words:  # a token per word, the first one's hash
    eos_id = 0
    def encode(self, text, add_bos, add_eos):
        return [{"code": 1, "web": 2, "wiki": 3}[word] for word in text.split()]

def drawn(path):
    config = runpy.run_path(path)["dataloader"]
    assert type(config) is InterleavedHuggingFaceTextDataLoader.Config
    read = HuggingFaceTextDataset
    sources = [read(s.dataset, s.dataset_path, Words(), 64, infinite=s.infinite) for s in config.sources]
    mixed = iter(InterleavedDataset(sources, [s.weight for s in config.sources], config.seed, config.stopping_strategy))
    names = [None, "code", "web", "wiki"]
    return Counter(names[int(next(mixed)[1][0])] for _ in range(2000))

print(json.dumps([drawn(path) for path in sys.argv[1:]]))
"""


@needs_trainers
def test_torchtitan_draws_packed_sequences_in_the_recipe_s_shares_of_tokens(study: Study, lengths: Path) -> None:
    written = study.export(study.path / "recipe.json", ["torchtitan"], paths=lengths)
    phases = ask(TORCHTITAN, *written.files["torchtitan"])
    assert isinstance(phases, list)
    counts, ends = phases
    assert within_chance({name: n / 2000 for name, n in counts.items()}, SHARES, 2000)
    assert set(ends) == {"code", "wiki"}


MEGATRON = """
import json, sys, types
import numpy
package = types.ModuleType("megatron.core")  # its own __init__ imports all models, its datasets do not
package.__path__ = [sys.argv[2] + "/megatron/core"]
sys.modules["megatron.core"] = package
import megatron.core.parallel_state
from megatron.core.datasets.blended_megatron_dataset_config import BlendedMegatronDatasetConfig
from megatron.core.datasets.helpers_cpp import build_blending_indices
from megatron.core.datasets.utils import get_blend_from_list, normalize

prefixes, weights = get_blend_from_list(open(sys.argv[1]).read().split())
config = BlendedMegatronDatasetConfig(random_seed=1, sequence_length=64, blend=(prefixes, weights), split="1,0,0")
size = 2000
index, sample = numpy.zeros(size, numpy.int16), numpy.zeros(size, numpy.int64)
build_blending_indices(index, sample, numpy.array(normalize(weights)), len(prefixes), size, False)
print(json.dumps([config.blend, numpy.bincount(index).tolist()]))
"""


@needs_trainers
def test_megatron_blends_sequences_in_the_recipe_s_shares(study: Study) -> None:
    paths = study.path / "prefixes.toml"
    paths.write_text('[paths]\ncode = "/corpora/code_text_document"\n')
    written = study.export(study.path / "recipe.json", ["megatron"], paths=paths)
    found = ask(MEGATRON, written.files["megatron"][0], TRAINERS)
    assert isinstance(found, list)
    blend, counts = found
    assert blend == [["/corpora/code_text_document", "data/web", "data/wiki"], [0.3, 0.6, 0.1]]
    assert np.abs(np.array(counts) - 2000 * np.array([0.3, 0.6, 0.1])).max() <= 1
    assert written.placed == ("web", "wiki")
    assert "--data-args-path" in (written.folder / "megatron" / "README.txt").read_text()


OLMO = """
import json, sys, yaml
from olmo_core.data.source_mixture import SourceMixtureDatasetConfig
from olmo_core.data.types import NumpyDatasetDType

def tokens(path):
    settings = yaml.safe_load(open(path))
    config = SourceMixtureDatasetConfig.from_dict({**settings, "quiet": True, "render_tables": False})
    found = config.build(npdtype=NumpyDatasetDType.uint16.as_np_dtype(), sequence_length=64)
    return {source.name: sum(path.tokens for path in source.path_tokens) for source in found.sources}

print(json.dumps([tokens(path) for path in sys.argv[1:]]))
"""


@needs_trainers
def test_olmo_core_selects_the_recipe_s_tokens_and_repeats_what_is_scarce(study: Study) -> None:
    places = study.path / "tokens.toml"
    for name, tokens in UNIQUE.items():
        np.zeros(tokens, np.uint16).tofile(study.path / f"{name}.npy")
    places.write_text("[paths]\n" + "".join(f'{name} = "{study.path / name}.npy"\n' for name in UNIQUE))
    recipe = Recipe.from_json(json.loads((study.path / "recipe.json").read_text()))
    longer = replace(recipe, phases=(replace(recipe.phases[0], tokens=1_280_000), recipe.phases[1]))
    written = study.export(longer, ["olmo-core"], study.path / "longer", paths=places)
    chosen = ask(OLMO, *written.files["olmo-core"])
    assert isinstance(chosen, list)
    for drawn, phase in zip(chosen, longer.phases, strict=True):
        whole = sum(drawn.values())
        assert phase.tokens <= whole
        # It rounds to sequences in every pass over a file, of which there are up to eight here.
        assert drawn == pytest.approx({name: share * whole for name, share in phase.mixture.items()}, abs=8 * SEQUENCE)
    assert chosen[0]["web"] > 7 * UNIQUE["web"], "768,000 tokens out of 100,000 that are different"


MOSAIC = """
import json, sys, types, yaml
import numpy
package = types.ModuleType("streaming")  # its own __init__ wants torchvision, its streams do not
package.__path__ = [sys.argv[2] + "/streaming"]
sys.modules["streaming"] = package
from streaming.base.stream import Stream
config = yaml.safe_load(open(sys.argv[1]))
streams = [Stream(**keywords) for keywords in config["streams"].values()]
assert Stream.validate_weights(streams)[0], "weights are relative"
Stream.apply_weights(streams, numpy.array([500] * len(streams)), config["epoch_size"], config["shuffle_seed"])
print(json.dumps(dict(zip(config["streams"], [int(stream.choose) for stream in streams]))))
"""


@needs_trainers
def test_mosaic_chooses_samples_in_the_recipe_s_shares(study: Study) -> None:
    written = study.export(study.path / "recipe.json", ["mosaic"])
    chosen = ask(MOSAIC, written.files["mosaic"][0], TRAINERS)
    assert isinstance(chosen, dict)
    assert sum(chosen.values()) == 128_000 // SEQUENCE
    assert chosen == pytest.approx({name: 2000 * share for name, share in SHARES.items()}, abs=1)


def test_datasets_draws_documents_so_that_tokens_have_the_recipe_s_shares(study: Study, lengths: Path) -> None:
    import runpy

    written = study.export(study.path / "recipe.json", ["datasets"], paths=lengths)
    stream = iter(runpy.run_path(str(written.files["datasets"][0]))["dataset"])
    draws = 4000
    documents = Counter(next(stream)["text"].split()[0] for _ in range(draws))
    rates = {name: share / LENGTHS[name] for name, share in SHARES.items()}
    expected = {name: rate / sum(rates.values()) for name, rate in rates.items()}
    assert within_chance({name: n / draws for name, n in documents.items()}, expected, draws)
    tokens = {name: n * LENGTHS[name] for name, n in documents.items()}
    assert tokens["code"] / sum(tokens.values()) == pytest.approx(0.3, abs=0.06)
    assert documents["code"] / draws < 0.06, "by documents it is a fraction of its share of tokens"


def test_the_command_writes_all_trainers_and_says_units_and_what_is_missing(
    study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = mixlaw("export", study.path, study.path / "recipe.json", "-o", tmp_path / "all")
    assert "left out: tokens per document of 'code' are not known" in done.stdout
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == [
        "megatron",
        "mosaic",
        "olmo-core",
        "torchtitan",
    ]
    found = document_here(capsys, "export", study.path, study.path / "recipe.json", "--to", "mosaic")
    assert found["recipe"]["seed"] == 7
    assert [Path(path).name for path in found["files"]["mosaic"]] == ["1-init.yaml", "2-cooldown.yaml"]


def test_longer_sequences_of_a_phase_and_its_rotary_embeddings_are_written(study: Study, tmp_path: Path) -> None:
    longer = Context(8 * SEQUENCE, 5e6, "yarn")
    phases = (Phase("init", 128_000, Mixture(SHARES)), Phase("long", 64_000, Mixture(COOLDOWN), 0.1, context=longer))
    write_json(tmp_path / "long.json", Recipe(1_000_000, phases).as_json())
    study.export(tmp_path / "long.json", ["mosaic"], out=tmp_path / "out")
    said = (tmp_path / "out" / "mosaic" / "README.txt").read_text()
    assert f"{128_000 // SEQUENCE:,} sequences of {SEQUENCE:,} tokens.\n" in said
    count = 64_000 // (8 * SEQUENCE)
    assert (
        f"{count:,} sequences of {8 * SEQUENCE:,} tokens. From here on: rope_theta 5e+06, rope_type yarn with factor 8."
        in said
    )
    assert f"epoch_size: {count}\n" in (tmp_path / "out" / "mosaic" / "2-long.yaml").read_text()


def test_a_wrong_trainer_domain_or_length_is_refused(study: Study, tmp_path: Path) -> None:
    recipe = study.path / "recipe.json"
    assert "there is no trainer 'nemo'" in refused_here(study.path, "export", study.path, recipe, "--to", "nemo")
    wrong = tmp_path / "wrong.toml"
    for text, sentence in [
        ('[paths]\nbooks = "x"\n', "paths.books is no domain"),
        ("[tokens_per_document]\ncode = 0\n", "tokens_per_document.code = 0"),
        ('[tokens_per_document]\ncode = "many"\n', "it takes a positive number"),
        ("[places]\n", "unknown key 'places'"),
    ]:
        wrong.write_text(text)
        with pytest.raises(InputError, match=sentence.replace("[", r"\[")):
            study.export(recipe, paths=wrong)
    with pytest.raises(InputError, match="this trainer draws documents"):
        study.export(recipe, ["datasets"])
