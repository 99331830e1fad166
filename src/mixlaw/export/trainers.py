"""The files of each trainer: a function of a blend that gives name and text; formats as of the versions named here."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from mixlaw.export.blend import Blend, Source, commented, quoted

LOADERS = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".gz": "json", ".zst": "json", ".txt": "text"}


@dataclass(frozen=True)
class Trainer:
    """A trainer whose mixture mixlaw can write.

    Attributes:
        name: what `--to` takes.
        unit: what its weights are shares of.
        suffix: of the file of a phase.
        render: text of that file.
        how: how the file is used, a sentence.
        reads_text: whether it reads documents of text, such as a study's own sources, and not tokens made for it.
    """

    name: str
    unit: str
    suffix: str
    render: Callable[[Blend], str]
    how: str
    reads_text: bool = False


def torchtitan(blend: Blend) -> str:
    """A Python module with the configuration of `InterleavedHuggingFaceTextDataLoader`, as torchtitan 0.3 has it.

    Every source packs its documents into sequences before they are interleaved, so weights are shares of tokens.
    """
    rows = "".join(
        f"    {quoted(s.name.lower())}: ({quoted(s.path)}, {quoted(_loader(s))}, {s.share!r}),\n" for s in blend.sources
    )
    return (
        commented([*blend.header(TORCHTITAN.unit), TORCHTITAN.how])
        + f"""from functools import partial

from datasets import load_dataset
from torchtitan.hf_datasets import DatasetConfig
from torchtitan.hf_datasets.text_datasets import DATASETS, HFDataSource, InterleavedHuggingFaceTextDataLoader

SOURCES = {{  # name: (path, loader of datasets or empty for a hub id, weight)
{rows}}}


def load(path: str, loader: str):
    if loader:
        return load_dataset(loader, data_files=path, split="train", streaming=True)
    return load_dataset(path, split="train", streaming=True)


def text(sample: dict) -> str:
    return sample["text"]


for name, (path, loader, _) in SOURCES.items():
    DATASETS[name] = DatasetConfig(path=path, loader=partial(load, loader=loader), sample_processor=text)

dataloader = InterleavedHuggingFaceTextDataLoader.Config(
    sources=[HFDataSource(dataset=name, weight=weight, infinite=True) for name, (_, _, weight) in SOURCES.items()],
    seed={blend.seed},
)
"""
    )


def megatron(blend: Blend) -> str:
    """Weights and prefixes for `--data-args-path` of Megatron-LM (megatron-core 0.16): a sample is one sequence."""
    return "".join(f"{source.share!r} {source.path}\n" for source in blend.sources)


def olmo_core(blend: Blend) -> str:
    """A `SourceMixtureDatasetConfig` of OLMo-core 3.0 as YAML; target ratios are shares of tokens.

    Tokens are rounded up to whole steps: what OLMo-core adds to fill the last one it spreads evenly over the files.
    """
    tokens = math.ceil(blend.phase.tokens / blend.batch_tokens) * blend.batch_tokens
    sources = "".join(
        f"    - source_name: {quoted(s.name)}\n      target_ratio: {s.share!r}\n      paths: [{quoted(s.path)}]\n"
        f"      max_repetition_ratio: {_repetitions(s, tokens)!r}\n"
        for s in blend.sources
    )
    return (
        commented([*blend.header(OLMO_CORE.unit), OLMO_CORE.how])
        + f"source_list:\n  sources:\n{sources}"
        + f"requested_tokens: {tokens}\nglobal_batch_size: {blend.batch_tokens}\nseed: {blend.seed}\n"
    )


def mosaic(blend: Blend) -> str:
    """Streams of Mosaic Streaming 0.13 as YAML, in the shape that llm-foundry takes; a sample is one sequence."""
    streams = "".join(
        f"  {quoted(s.name)}:\n    local: {quoted(s.path)}\n    proportion: {s.share!r}\n" for s in blend.sources
    )
    return (
        commented([*blend.header(MOSAIC.unit), MOSAIC.how])
        + f"streams:\n{streams}epoch_size: {blend.sequences}\nshuffle_seed: {blend.seed}\n"
    )


def hf_datasets(blend: Blend) -> str:
    """A Python module with `dataset`, made by `datasets.interleave_datasets`, whose examples are documents."""
    chosen = blend.document_shares()
    rows = "".join(
        f"    {quoted(s.name)}: ({quoted(s.path)}, {quoted(_loader(s))}, {chosen[s.name]!r}),"
        f"  # {s.tokens_per_document:,.1f} tokens per document\n"
        for s in blend.sources
    )
    return (
        commented([*blend.header(HF_DATASETS.unit), HF_DATASETS.how])
        + f"""from datasets import interleave_datasets, load_dataset

SOURCES = {{  # name: (path, loader of datasets or empty for a hub id, probability of a document)
{rows}}}


def load(path: str, loader: str):
    if loader:
        stream = load_dataset(loader, data_files=path, split="train", streaming=True)
    else:
        stream = load_dataset(path, split="train", streaming=True)
    return stream.select_columns("text").repeat(None)  # begins again at its end, so that no domain runs out


dataset = interleave_datasets(
    [load(path, loader) for path, loader, _ in SOURCES.values()],
    probabilities=[probability for _, _, probability in SOURCES.values()],
    seed={blend.seed},
)
"""
    )


def _loader(source: Source) -> str:
    """Loader of `datasets` for files of that suffix; none for what looks like a hub id."""
    name = source.path.rsplit("/", 1)[-1]
    return next((loader for suffix, loader in LOADERS.items() if name.endswith(suffix)), "")


def _repetitions(source: Source, tokens: int) -> float:
    """Repetitions to allow: at least one, rounded up to hundredths, so that rounding never makes tokens scarce."""
    return max(1.0, math.ceil(100 * source.share * tokens / (source.unique_tokens or math.inf)) / 100)


TORCHTITAN = Trainer(
    "torchtitan",
    "packed sequences of equal length, so of tokens",
    ".py",
    torchtitan,
    "Put `dataloader` in the place of the data loader's configuration in your training configuration.",
    reads_text=True,
)
MEGATRON = Trainer(
    "megatron",
    "samples, which are sequences of equal length, so of tokens",
    ".txt",
    megatron,
    "Pass the file as --data-args-path; paths are prefixes of .bin and .idx.",
)
OLMO_CORE = Trainer(
    "olmo-core",
    "tokens",
    ".yaml",
    olmo_core,
    "Read it with SourceMixtureDatasetConfig.from_dict; paths hold flat token files.",
)
MOSAIC = Trainer(
    "mosaic",
    "samples, taken to be sequences of equal length (concatenated tokens), so of tokens",
    ".yaml",
    mosaic,
    "Each entry is the keywords of one streaming.Stream, epoch_size and shuffle_seed are those of StreamingDataset.",
)
HF_DATASETS = Trainer(
    "datasets",
    "documents, converted from tokens by the documents' mean length",
    ".py",
    hf_datasets,
    "Import `dataset`: it streams documents without end.",
    reads_text=True,
)

TRAINERS = {trainer.name: trainer for trainer in (TORCHTITAN, MEGATRON, OLMO_CORE, MOSAIC, HF_DATASETS)}
