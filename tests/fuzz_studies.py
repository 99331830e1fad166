"""Fuzzing of studies and of what they are trained on: study.toml, recipes, proposals, sources, corpora, arguments."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import tempfile
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from fuzz_inputs import Fuzzed, as_json, document, one_sentence, spoilt, toml
from mixlaw.cli import app
from mixlaw.errors import InputError
from mixlaw.export.write import export
from mixlaw.runner.corpora.sources.registry import identity, notes, partitions
from mixlaw.settings.recipes import read_recipe, read_recipes, written_recipes
from mixlaw.settings.target import goal_of
from mixlaw.study import open_study

STUDY = """\
version = 1
name = "try"
suites = ["paper"]
sizes = { "0.025M" = 500_000, "0.1M" = 2_000_000 }
[domains.text]
source = "text.jsonl"
unique_tokens = 8_000
[domains.code]
kind = "code"
unique_tokens = "9K"
[tasks]
text = "bits/byte"
capitals = { unit = "choice-prob", link = "text", chance = 0.25 }
[groups]
all = ["text", "capitals"]
[tokenizer]
vocabulary = 300
[training]
sequence = 32
batch = 4
simulate_epochs = true
[[phases]]
name = "init"
share = 0.8
[[phases]]
name = "cooldown"
share = 0.2
lr_end = 0
decay = "1-sqrt"
[mixtures]
half = { text = 0.5, code = 0.5 }
code = { code = 1 }
[[recipes]]
size = ["0.025M", "0.1M"]
seeds = [0, 1]
phases = { init = "half", cooldown = { mixture = "code", share = 0.2 } }
[target]
params = "0.1M"
tokens = 4_000_000
cooldown = [0.1, 0.4]
lengths = { init = 1 }
max_epochs = 4
floors = { init = { text = 0.1 } }
caps = { recipe = { "kind:code" = 0.9 } }
weights = { text = 1 }
prefix = [{ phase = "init", tokens = 1000, mixture = "half", goes_on = true }]
"""
RECIPE = {
    "params": "1M",
    "seed": 1,
    "unique": {"code": 700},
    "schedule": "wsd",
    "lr": 0.5,
    "warmup": 10,
    "phases": [
        {"name": "init", "tokens": "2M", "mixture": "half"},
        {"name": "cooldown", "tokens": 1000, "mixture": {"code": 1.0}, "lr_end": 0.1, "decay": "cosine"},
    ],
}


def settings_of(folder: Path, content: bytes) -> None:
    """Everything that follows from study.toml alone."""
    (folder / "study.toml").write_bytes(content)
    study = open_study(folder)
    looks: list[Callable[[], object]] = [
        lambda: list(written_recipes(study.settings, study.domains)),
        lambda: study.target(),
        lambda: str(study.target()),
        lambda: goal_of(study.settings),
        lambda: str(study),
        lambda: study.table(),
        lambda: study.recipes(),
    ]
    for look in looks:
        with contextlib.suppress(InputError):
            look()


def recipe_of(folder: Path, content: bytes) -> None:
    """A recipe in a file, as TOML and as JSON, among those to train, and exported."""
    (folder / "study.toml").write_text(STUDY)
    study = open_study(folder)
    (folder / "recipes").mkdir(exist_ok=True)
    for name in ("a.toml", "recipes/a.json"):
        (folder / name).write_bytes(content)
    looks: list[Callable[[], object]] = [
        lambda: list(read_recipes(folder / "recipes")),
        lambda: read_recipe(folder / "a.toml", study.settings).lineage,
        lambda: export(study, folder / "recipes" / "a.json", ["mosaic", "megatron"], folder / "out").as_json(),
    ]
    refused = 0
    for look in looks:
        try:
            look()
        except InputError as error:
            refused += 1
            one_sentence(error)
    if refused == len(looks):
        raise InputError("all are refused")


@cache
def proposal() -> dict[str, Any]:
    """A frozen proposal as plain data."""
    from studies import study

    with tempfile.TemporaryDirectory() as folder:
        study().proposal.freeze(Path(folder))
        data: dict[str, Any] = json.loads(next(Path(folder).glob("*.json")).read_text())
        return data


def proposals_of(folder: Path, content: bytes) -> None:
    """Frozen proposals; one that was changed is never read as if it were not."""
    from studies import study

    (folder / "study.toml").write_text(STUDY)
    (folder / "proposals").mkdir(exist_ok=True)
    path = folder / "proposals" / f"{study().proposal.id}.json"
    path.write_bytes(content)
    assert open_study(folder).proposals() == [study().proposal]


def paths_of(folder: Path, content: bytes) -> None:
    """The file of paths of an export."""
    (folder / "study.toml").write_text(STUDY)
    (folder / "recipe.json").write_bytes(as_json(RECIPE))
    (folder / "paths.toml").write_bytes(content)
    export(open_study(folder), folder / "recipe.json", (), folder / "out", folder / "paths.toml")


def source_of(folder: Path, source: str) -> None:
    """A source string, below a folder with files of every kind."""
    for name, content in FILES.items():
        path = folder / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    known = partitions(source, folder)
    identity(source, folder)
    notes(source, folder)
    for part in known[:3]:
        for _ in zip(range(3), part.read(), strict=False):
            pass


def corpus_of(folder: Path, given: tuple[str, str, bytes]) -> None:
    """A file of a corpus, whose content may be damaged."""
    scheme, name, content = given
    (folder / "corpus").mkdir(exist_ok=True)
    path = folder / "corpus" / name
    path.write_bytes(content)
    try:
        for part in partitions(f"{scheme}corpus", folder):
            for document in part.read():
                document.text.encode("utf-8", "replace")
    finally:
        path.unlink()


def arguments_of(folder: Path, words: list[str]) -> None:
    """A command line, in a folder with a study that has no data."""
    (folder / "study").mkdir(exist_ok=True)
    (folder / "study" / "study.toml").write_text(STUDY)
    (folder / "recipe.json").write_bytes(as_json(RECIPE))
    before, here = (folder / "study" / "study.toml").read_bytes(), Path.cwd()
    try:
        os.chdir(folder)
        app(words, standalone_mode=False)
    except InputError:
        raise
    except Exception as error:
        if not hasattr(error, "show"):  # an option that is none shows itself
            raise
        raise InputError("a wrong option or argument") from error
    finally:
        os.chdir(here)
        assert (folder / "study" / "study.toml").read_bytes() == before


LINES = b'{"text": "one line"}\n{"text": "and \\u00e9 another", "n": 1}\n{"text": null}\n'
POSTS = (
    b'<?xml version="1.0"?><posts>\n<row Id="1" PostTypeId="1" Score="2" Body="&lt;p&gt;a&lt;/p&gt;" Title="T"/>\n'
    + (b'<row Id="2" ParentId="1" PostTypeId="2" Score="1" Body="b &#x0E;"/>\n</posts>\n')
)
NOTEBOOK = as_json({"nbformat": 4, "metadata": {}, "cells": [{"cell_type": "code", "source": ["x = 1\n", "y"]}]})
PULLS = as_json(
    [{"url": "https://api.github.com/repos/a/b/pulls/1", "title": "T", "body": "B", "user": {"type": "User"}}]
)


@cache
def parquet() -> bytes:
    """A small Parquet file."""
    import polars as pl

    buffer = io.BytesIO()
    pl.DataFrame({"text": ["one", None, "three"], "n": [1, 2, 3]}).write_parquet(buffer)
    return buffer.getvalue()


FILES = {
    "a.jsonl": LINES,
    "b.json": as_json([{"text": "x"}]),
    "c.txt": b"text",
    "d.py": b"def documents():\n    yield 'x'\n",
    "e.ipynb": NOTEBOOK,
    "site/Posts.xml": POSTS,
    "pulls/p.json": PULLS,
    "teacher.toml": b'endpoint = "http://127.0.0.1:1"\nmodel = "m"\nproblems = "p.jsonl"\n',
    "[x]*.jsonl.gz": gzip.compress(LINES),
}
CORPORA: list[tuple[str, str, bytes]] = [
    *[("", "a.jsonl", LINES), ("", "a.json", as_json([{"text": "x"}, {"text": "y"}])), ("", "a.txt", b"caf\xc3\xa9")],
    *[("", "a.jsonl.gz", gzip.compress(LINES)), ("stackexchange:", "Posts.xml", POSTS), ("pulls:", "p.json", PULLS)],
    *[("notebooks:", "e.ipynb", NOTEBOOK), ("tree:", "d.py", b"def f():\n    return 1\n")],
]
PLACES = st.sampled_from(
    [*(f"files/{name}" for name in FILES), "files", "files/*", "files/**", "files/**x", "", ".", "~x", "files/d.py:x"]
)
#: No module is imported by chance: what python: names is one of these files.
SCHEMES = st.sampled_from(["", "tree:", "notebooks:", "pulls:", "stackexchange:", "teacher:", "hf:", "http:", "s3://"])
OPTIONS = st.sampled_from(
    [
        "",
        "?",
        "?x=1",
        "?languages=c,%zz",
        "?max_bytes=x",
        "?max_bytes=9" * 3,
        "?split=%00",
        "#text",
        "#n",
        "#",
        "?column=n&&=",
    ]
)
#: Nor is what lies outside of the folder read.
HARMLESS = st.text(max_size=12).filter(
    lambda text: not ({"/", "~"} & set(text) or ".." in text or text.startswith("python:"))
)
SOURCES = st.builds("{}{}{}{}".format, SCHEMES, PLACES, HARMLESS, OPTIONS) | HARMLESS
_COMMANDS = """
new prepare plan run import fit predict suggest propose what-if compare pareto dependence verify report export data
nothing --help --version
"""
_ARGUMENTS = """
study study/study.toml recipe.json nowhere . r1 --json --unit bits/byte --to mosaic --budget 1e18 nan -n -1 0
--workers x --gpus 4x8 --dry-run --gpu H100 --mfu --executor ray --launch ' --address x:99999 --store q://
--baseline half --law a:b --group a=text --more code=1e400 --mapping --results --domains -o out --paths \0 é
"""
COMMANDS = st.sampled_from(_COMMANDS.split())
ARGUMENTS = st.just("") | st.sampled_from(_ARGUMENTS.split())


STUDIES = {
    "study.toml": Fuzzed(lambda: document(tomllib.loads(STUDY), toml), settings_of, 0.2),
    "recipes": Fuzzed(lambda: document(RECIPE, toml) | document(RECIPE, as_json), recipe_of, 0.15),
    "proposals": Fuzzed(lambda: document(proposal(), as_json), proposals_of, 0.1),
    "paths of an export": Fuzzed(
        lambda: document({"paths": {"code": "x y"}, "tokens_per_document": {"code": 5, "text": 2.5}}, toml),
        paths_of,
        0.1,
    ),
    "sources": Fuzzed(lambda: SOURCES, source_of, 0.15),
    "files of a corpus": Fuzzed(
        lambda: st.sampled_from([*CORPORA, ("", "a.parquet", parquet())]).flatmap(
            lambda case: st.tuples(st.just(case[0]), st.just(case[1]), spoilt(case[2]))
        ),
        corpus_of,
        0.2,
    ),
    "arguments": Fuzzed(
        lambda: st.builds(lambda command, rest: [command, *rest], COMMANDS, st.lists(ARGUMENTS, max_size=5)),
        arguments_of,
        0.1,
    ),
}
