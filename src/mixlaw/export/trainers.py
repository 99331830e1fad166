"""The files of each trainer: a function of a blend that gives name and text; formats as of the versions named here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mixlaw.errors import InputError
from mixlaw.export.blend import Blend, Source, commented, number, printed, quoted
from mixlaw.export.schedule import schedule_of
from mixlaw.recipe import Decay, Recipe, Schedule

LOADERS = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".ndjson": "json", ".txt": "text"}


AFRESH = "It cannot begin within a domain: every phase draws from all of it, in another order by its seed."
ONWARDS = "Every domain begins with the document at which the phase before ended, as far as its length tells."


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
        places: what becomes of the place in each domain where the phase before ended.
        schedule: name of a file with the learning rate of the whole recipe, and a function of recipe and sequence that
            gives its text, or none, and what it cannot say; None where the files of the phases hold it.
    """

    name: str
    unit: str
    suffix: str
    render: Callable[[Blend], str]
    how: str
    reads_text: bool = False
    places: str = AFRESH
    schedule: tuple[str, Callable[[Recipe, int], tuple[str, str]]] | None = None


def torchtitan(blend: Blend) -> str:
    """A Python module with the configuration of `InterleavedHuggingFaceTextDataLoader`, as torchtitan 0.3 has it.

    Every source packs its documents into sequences before they are interleaved, so weights are shares of tokens.
    """
    rows = "".join(
        f"    {quoted(key)}: ({quoted(s.path)}, {quoted(_loader(s))}, {s.documents_before or 0}, {number(s.share)}),\n"
        for key, s in zip(_different([s.name.lower() for s in blend.sources]), blend.sources, strict=True)
    )
    return (
        commented([*blend.header(TORCHTITAN.unit), *_places(blend), TORCHTITAN.how])
        + f"""from functools import partial

from datasets import concatenate_datasets, load_dataset
from torchtitan.components.optimizer.lr_scheduler import LRSchedulersContainer
from torchtitan.hf_datasets import DatasetConfig
from torchtitan.hf_datasets.text_datasets import DATASETS, HFDataSource, InterleavedHuggingFaceTextDataLoader

SOURCES = {{  # name: (path, loader of datasets or empty for a hub id, documents drawn before this phase, weight)
{rows}}}


{_LOAD}
def text(sample: dict) -> str:
    return sample["text"]


for name, (path, loader, begin, _) in SOURCES.items():
    DATASETS[name] = DatasetConfig(path=path, loader=partial(load, loader=loader, begin=begin), sample_processor=text)

dataloader = InterleavedHuggingFaceTextDataLoader.Config(
    sources=[HFDataSource(dataset=name, weight=weight, infinite=True) for name, (*_, weight) in SOURCES.items()],
    seed={blend.seed},
)
{_torchtitan_schedule(blend)}"""
    )


#: Part of two modules: documents of a source from a place on, then those before it, so that none is drawn too often.
_LOAD = """def load(path: str, loader: str, begin: int):
    if loader:
        stream = load_dataset(loader, data_files=path, split="train", streaming=True)
    else:
        stream = load_dataset(path, split="train", streaming=True)
    stream = stream.select_columns("text")
    return concatenate_datasets([stream.skip(begin), stream.take(begin)]) if begin else stream

"""


def _different(names: Sequence[str]) -> list[str]:
    """Names, with a number behind those that became the same: torchtitan looks them up in lower case, for instance."""
    keys: list[str] = []
    for name in names:
        ends = ("", *(f"-{count}" for count in range(2, 2 * len(names) + 2)))
        keys.append(next(f"{name}{end}" for end in ends if f"{name}{end}" not in (*keys, *({*names} - {name}))))
    return keys


def _places(blend: Blend) -> list[str]:
    """Where the documents of each domain begin."""
    unknown = [printed(s.name) for s in blend.sources if s.documents_before is None]
    return [f"Documents begin at the first one of {', '.join(unknown)}: their length is not known."] if unknown else []


def _torchtitan_schedule(blend: Blend) -> str:
    rate = schedule_of(blend.recipe)
    if isinstance(rate, str):
        return f"# No lr_scheduler: {printed(rate)}.\n"
    shape = {Decay.LINEAR: "linear", Decay.COSINE: "cosine", Decay.ONE_SQRT: "sqrt"}[rate.shape]
    warmup = "" if rate.warmup is None else f"    warmup_steps=round({rate.warmup} / TOKENS_PER_STEP),\n"
    return f"""
TOKENS_PER_STEP = {blend.batch_tokens}  # write yours
lr_scheduler = LRSchedulersContainer.Config(  # the same in every phase: the schedule of the whole recipe
{warmup}    total_steps=round({rate.tokens} / TOKENS_PER_STEP),
    decay_ratio={number(rate.share)},
    decay_type="{shape}",
    min_lr_factor={number(rate.end)},
)
"""


def megatron(blend: Blend) -> str:
    """Weights and prefixes for `--data-args-path` of Megatron-LM (megatron-core 0.16): a sample is one sequence.

    Raises:
        InputError: a prefix has white space, at which Megatron splits the file.
    """
    prefixes = _different([_prefix(source) for source in blend.sources])
    return "".join(f"{number(s.share)} {prefix}\n" for s, prefix in zip(blend.sources, prefixes, strict=True))


def _prefix(source: Source) -> str:
    if source.path == f"data/{source.name}":  # it was not given
        return "_".join(source.path.split())
    if source.path.split() != [source.path]:
        raise InputError(
            f"the path {source.path!r} of {source.name!r} has white space, at which Megatron splits its file; link it "
            "to a name without"
        )
    return source.path


def megatron_schedule(recipe: Recipe, sequence: int) -> tuple[str, str]:
    """Arguments of Megatron-LM for the learning rate, in samples, and what they cannot say."""
    rate = schedule_of(recipe)
    if isinstance(rate, str):
        return "", rate
    shape = {Decay.LINEAR: "linear", Decay.COSINE: "cosine", Decay.ONE_SQRT: "minus_sqrt"}[rate.shape]
    samples = math.ceil(rate.tokens / sequence)
    arguments = [f"--lr-decay-samples {samples}"]
    if rate.warmup is not None:
        arguments.append(f"--lr-warmup-samples {math.ceil(rate.warmup / sequence)}")
    if not rate.falling:
        return " ".join(["--lr-decay-style constant", *arguments]) + "\n", ""
    falling = math.ceil(rate.falling / sequence)
    style = f"--lr-decay-style WSD --lr-wsd-decay-style {shape} --lr-wsd-decay-samples {falling}"
    least = "" if rate.end else "--min-lr 0.0"
    said = f"give --min-lr as {rate.end:g} of your --lr" if rate.end else ""
    return " ".join(filter(None, [style, *arguments, least])) + "\n", said


def olmo_core(blend: Blend) -> str:
    """A `SourceMixtureDatasetConfig` of OLMo-core 3.0 as YAML; target ratios are shares of tokens.

    Tokens are rounded up to whole steps: what OLMo-core adds to fill the last one it spreads evenly over the files.
    """
    tokens = math.ceil(blend.phase.tokens / blend.batch_tokens) * blend.batch_tokens
    sources = "".join(
        f"    - source_name: {quoted(s.name)}\n      target_ratio: {number(s.share)}\n      paths: [{quoted(s.path)}]\n"
        f"      max_repetition_ratio: {number(_repetitions(s, tokens))}\n"
        for s in blend.sources
    )
    return (
        commented([*blend.header(OLMO_CORE.unit), OLMO_CORE.how])
        + f"source_list:\n  sources:\n{sources}"
        + f"requested_tokens: {tokens}\nglobal_batch_size: {blend.batch_tokens}\nseed: {blend.seed}\n"
    )


def olmo_core_schedule(recipe: Recipe, sequence: int) -> tuple[str, str]:
    """A `ComposableScheduler` of OLMo-core as YAML, over the tokens of the whole recipe, and what it cannot say."""
    if recipe.schedule is Schedule.COSINE:
        stages = [(recipe.tokens, Decay.COSINE, recipe.cosine_end)]
    else:
        stages = [(p.tokens, p.decay, 1.0 if p.lr_end is None else p.lr_end) for p in recipe.phases]
        if any(phase.lr_end is None for phase in recipe.phases):
            return "", "the learning rate of the recipe is not known"
    if any(shape is Decay.ONE_SQRT for _, shape, _ in stages):
        return "", "its schedules are linear or cosine, and this one falls as 1-sqrt"
    lines, said, (length, shape, end) = "", "", stages[0]
    if recipe.warmup and end == 1 and recipe.warmup < length:
        lines = _stage(recipe.warmup, Decay.LINEAR, 1.0, "start_lr_fraction: 0.0, ")
        stages[0] = length - recipe.warmup, shape, end
    elif recipe.warmup:
        said = f"add the warm-up over {recipe.warmup:,} tokens yourself: the rate falls during it"
    return f"units: tokens\nstages:\n{lines}" + "".join(_stage(*stage) for stage in stages), said


def _stage(tokens: int, shape: Decay, end: float, more: str = "") -> str:
    return f"  - {{duration: {tokens}, shape: {shape.value}, {more}end_lr_fraction: {number(end)}}}\n"


def mosaic(blend: Blend) -> str:
    """Streams of Mosaic Streaming 0.13 as YAML, in the shape that llm-foundry takes; a sample is one sequence."""
    streams = "".join(
        f"  {quoted(s.name)}:\n    local: {quoted(s.path)}\n    proportion: {number(s.share)}\n" for s in blend.sources
    )
    return (
        commented([*blend.header(MOSAIC.unit), MOSAIC.how])
        + f"streams:\n{streams}epoch_size: {blend.sequences}\nshuffle_seed: {blend.seed}\n"
        + _mosaic_schedule(blend)
    )


def _mosaic_schedule(blend: Blend) -> str:
    """The scheduler of llm-foundry for one phase, which is a run of its own there, from the weights of the last."""
    recipe, phase, begin = blend.recipe, blend.phase, blend.position[0]
    if recipe.schedule is Schedule.COSINE or phase.lr_end is None or phase.decay is Decay.ONE_SQRT:
        return "# No scheduler: llm-foundry has none of this shape over one phase, or the learning rate is not known.\n"
    level = next((p.lr_end for p in reversed(recipe.phases[: blend.number])), 1.0)
    if phase.tokens < recipe.phases[blend.number].tokens and phase.lr_end != level:
        return "# No scheduler: the rate is falling already, and llm-foundry's begins with the phase.\n"
    if level != 1 and not (phase.decay is Decay.LINEAR and level is not None):
        return "# No scheduler: the phase begins below the peak, which llm-foundry has for linear falls alone.\n"
    warm = 0 if begin else recipe.warmup or 0
    warmup = f"  t_warmup: {warm}tok\n"
    if phase.lr_end == level == 1:
        return f"scheduler:\n  name: constant_with_warmup\n{warmup}"
    length = f"  t_max: {phase.tokens}tok\n"
    if phase.decay is Decay.COSINE:
        said = "# Composer's fall begins after the warm-up, that of the recipe with the phase.\n" if warm else ""
        tail = f"  alpha_f: {number(phase.lr_end)}\n{length}"
        return f"{said}scheduler:\n  name: cosine_with_warmup\n{warmup}{tail}"
    start = (level or 0) + (
        phase.lr_end - (level or 0)
    ) * warm / phase.tokens  # the fall begins after the warm-up there
    ends = f"  alpha_i: {number(start)}\n  alpha_f: {number(phase.lr_end)}\n"
    return f"scheduler:\n  name: linear_decay_with_warmup\n{warmup}{ends}{length}"


def hf_datasets(blend: Blend) -> str:
    """A Python module with `dataset`, made by `datasets.interleave_datasets`, whose examples are documents."""
    chosen = blend.document_shares()
    rows = "".join(
        f"    {quoted(s.name)}: ({quoted(s.path)}, {quoted(_loader(s))}, {s.documents_before}, "
        f"{number(chosen[s.name])}),"
        f"  # {s.tokens_per_document:,.1f} tokens per document\n"
        for s in blend.sources
    )
    return (
        commented([*blend.header(HF_DATASETS.unit), HF_DATASETS.how])
        + f"""from datasets import concatenate_datasets, interleave_datasets, load_dataset

SOURCES = {{  # name: (path, loader of datasets or empty for a hub id, documents drawn before, probability)
{rows}}}


{_LOAD}
# Every stream begins again at its end, so that no domain runs out.
dataset = interleave_datasets(
    [load(path, loader, begin).repeat(None) for path, loader, begin, _ in SOURCES.values()],
    probabilities=[probability for *_, probability in SOURCES.values()],
    seed={blend.seed},
)
{_transformers_schedule(blend)}"""
    )


def _transformers_schedule(blend: Blend) -> str:
    rate = schedule_of(blend.recipe)
    if isinstance(rate, str):
        return f"# No learning rate: {printed(rate)}.\n"
    warmup = "" if rate.warmup is None else f'    "warmup_steps": round({rate.warmup} / TOKENS_PER_STEP),\n'
    return f"""
TOKENS_PER_STEP = {blend.batch_tokens}  # write yours
schedule = {{  # of the whole recipe, for transformers.TrainingArguments(**schedule, ...)
    "max_steps": round({rate.tokens} / TOKENS_PER_STEP),
{warmup}    "lr_scheduler_type": "warmup_stable_decay",
    "lr_scheduler_kwargs": {{
        "num_decay_steps": round({rate.falling} / TOKENS_PER_STEP),
        "decay_type": "{rate.shape.value}",
        "min_lr_ratio": {number(rate.end)},
    }},
}}
"""


def _loader(source: Source) -> str:
    """Loader of `datasets` for files of that suffix; none for what looks like a hub id."""
    name = source.path.rsplit("/", 1)[-1].lower()
    bare = name.removesuffix(".gz").removesuffix(".zst")
    return next((loader for suffix, loader in LOADERS.items() if bare.endswith(suffix)), "" if bare == name else "json")


def _repetitions(source: Source, tokens: int) -> float:
    """Repetitions to allow: at least one, rounded up to hundredths, so that rounding never makes tokens scarce."""
    return max(1.0, math.ceil(100 * source.share * tokens / (source.unique_tokens or math.inf)) / 100)


TORCHTITAN = Trainer(
    "torchtitan",
    "packed sequences of equal length, so of tokens",
    ".py",
    torchtitan,
    "Put `dataloader` in the place of the data loader's configuration in your training configuration, and "
    "`lr_scheduler` in the place of its learning rate's.",
    reads_text=True,
    places=ONWARDS,
)
MEGATRON = Trainer(
    "megatron",
    "samples, which are sequences of equal length, so of tokens",
    ".txt",
    megatron,
    "Pass the file as --data-args-path, with --seed other than in the phase before, and with the arguments of "
    "schedule.args; paths are prefixes of .bin and .idx.",
    schedule=("schedule.args", megatron_schedule),
)
OLMO_CORE = Trainer(
    "olmo-core",
    "tokens",
    ".yaml",
    olmo_core,
    "Read it with SourceMixtureDatasetConfig.from_dict; paths hold flat token files. schedule.yaml is for "
    "ComposableScheduler.from_dict.",
    schedule=("schedule.yaml", olmo_core_schedule),
)
MOSAIC = Trainer(
    "mosaic",
    "samples, taken to be sequences of equal length (concatenated tokens), so of tokens",
    ".yaml",
    mosaic,
    "Each entry is the keywords of one streaming.Stream, epoch_size and shuffle_seed are those of StreamingDataset; "
    "scheduler is that of llm-foundry, for a run of this phase from the weights of the one before.",
)
HF_DATASETS = Trainer(
    "datasets",
    "documents, converted from tokens by the documents' mean length",
    ".py",
    hf_datasets,
    "Import `dataset`: it streams documents without end; `schedule` holds arguments of transformers.TrainingArguments.",
    reads_text=True,
    places=ONWARDS,
)

TRAINERS = {trainer.name: trainer for trainer in (TORCHTITAN, MEGATRON, OLMO_CORE, MOSAIC, HF_DATASETS)}
