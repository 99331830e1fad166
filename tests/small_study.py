"""A real study that trains in seconds: ten segments of a model of 0.025M parameters, on made-up words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from mixlaw.runner.plan.tree import plan
from mixlaw.study import Study, open_study

SETTINGS = """\
[domains.text]
source = "text.jsonl"
[domains.code]
kind = "code"
source = "code.jsonl"

[tasks]
text = "bits/byte"
code = "bits/byte"

[tokenizer]
vocabulary = 300

[training]
sequence = 32
batch = 4
warmup_tokens = 2000
held_out = 0.2
checkpoint_seconds = 0.1

[sizes]
"0.025M" = 24_000

[[phases]]
name = "init"
share = 0.5
[[phases]]
name = "continue"
share = 0.25
[[phases]]
name = "cooldown"
share = 0.25
lr_end = 0.0

[mixtures]
text = { text = 1.0 }
code = { code = 1.0 }
half = { text = 0.5, code = 0.5 }

[[recipes]]
size = "0.025M"
phases = { init = "half", continue = "half", cooldown = "text" }
[[recipes]]
size = "0.025M"
phases = { init = "half", continue = "half", cooldown = "code" }
[[recipes]]
size = "0.025M"
phases = { init = "text", continue = "code", cooldown = "text" }
seeds = [0, 1]
"""
SEGMENTS = 4 + 2 * 3


def documents(line: str, rng: np.random.Generator) -> str:
    """Lines of JSON, each a document of words of `line` drawn by rank (Zipf): something to learn at this size."""
    words = line.split()
    chances = 1 / np.arange(1, len(words) + 1)
    texts = (" ".join(rng.choice(words, 60, p=chances / chances.sum())) for _ in range(80))
    return "".join(json.dumps({"text": text}) + "\n" for text in texts)


def prepare(folder: Path, settings: str = SETTINGS) -> Path:
    """Make the study with its data, nothing trained; return its folder."""
    folder.mkdir()
    (folder / "study.toml").write_text(settings)
    write_documents(folder)
    open_study(folder).prepare()
    return folder


def write_documents(folder: Path) -> None:
    """The sources of both domains."""
    rng = np.random.default_rng(0)
    (folder / "text.jsonl").write_text(documents("the model sees a word and another one after it", rng))
    (folder / "code.jsonl").write_text(documents("def f(x): return x + 1 if x else None # end", rng))


def copy(prepared: Path, folder: Path) -> Study:
    """The study as it is, in another folder."""
    shutil.copytree(prepared, folder)
    return open_study(folder)


def train_here(study: Study, *ranks: Any) -> None:
    """What one worker does, in this process, which may be one of several ranks: all segments, one after the other."""
    from mixlaw.runner.execute.worker import Worker

    tree, worker = plan(study.recipes()), Worker(study.setup, study.runs, *ranks)
    recipes = {recipe.lineage: recipe for recipe in tree.recipes}
    for segment in tree.segments:
        worker.work(segment, segment.finished(recipes))


def files(study: Study) -> dict[str, bytes]:
    """All files of a study, by path."""
    return {str(path.relative_to(study.path)): path.read_bytes() for path in study.path.rglob("*") if path.is_file()}


def results(study: Study) -> dict[str, bytes]:
    """Records and checkpoints, by path."""
    return {name: content for name, content in files(study).items() if name.startswith("runs/") and name.count("/") > 1}
