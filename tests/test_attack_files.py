"""Files that would run a program when they are loaded: none does, and each is refused in one sentence."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from mixlaw.adapters.reading import read_table
from mixlaw.errors import InputError
from mixlaw.runner.corpora.sources.token_files import _file


class Evil:
    """Leaves a mark in the working directory when its pickle is loaded."""

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("ran"),)


@pytest.fixture(autouse=True)
def unharmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Evil()))
    os.remove("ran")  # it works, where it is let
    yield
    assert not Path("ran").exists()


@pytest.mark.parametrize("name", ["x.pkl", "x.csv", "x.parquet", "x.jsonl"])
def test_a_pickle_is_no_table(name: str) -> None:
    Path(name).write_bytes(pickle.dumps(Evil()))
    with pytest.raises(InputError):
        read_table(Path(name))


def test_an_array_of_objects_holds_no_tokens() -> None:
    np.save("x.npy", np.array([Evil()], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="is no array of whole numbers"):
        _file(Path("x.npy"), "", "tokens:x.npy")


def test_a_dataset_with_a_script_is_refused() -> None:
    pytest.importorskip("datasets", reason="needs the package datasets")
    from mixlaw.runner.corpora.sources.registry import partitions

    Path("set").mkdir()
    Path("set/set.py").write_text("open('ran', 'w')")
    with pytest.raises(InputError, match="cannot be opened"):
        partitions("hf:set", Path.cwd())


def test_weights_that_are_pickled_and_models_with_code_of_their_own_are_refused() -> None:
    """Without an answer to transformers' question whether to run the code: it is not asked."""
    transformers = pytest.importorskip("transformers", reason="needs the package transformers")
    from mixlaw.runner.models.foreign import read_start
    from mixlaw.runner.models.load import load_model, skeleton

    config = transformers.LlamaConfig(
        vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    folder = Path("model")
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(InputError, match="has no safetensors that can be loaded"):
        load_model(folder)
    weights.unlink()
    torch.save(Evil(), folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="pickled weights are not read"):
        read_start("model", Path.cwd(), optimizer=False, tokenizer=folder, vocabulary=16, sequence=8)
    with pytest.raises(InputError, match="has no safetensors that can be loaded"):
        load_model(folder)
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}
    (folder / "config.json").write_text(json.dumps(own))
    (folder / "own.py").write_text("open('ran', 'w')")
    with pytest.raises(InputError, match="cannot build a causal language model"):
        skeleton(folder)
