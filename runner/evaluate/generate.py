"""Generation: continuations of prompts, in batches with a key-value cache, up to an end of text or a stop string."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from mixlaw.runner.evaluate.measure import Subject, continued_tokens, in_halves
from mixlaw.runner.evaluate.team import shared


def generate(
    subject: Subject,
    prompts: Sequence[str],
    *,
    tokens: int,
    stops: Sequence[str] = (),
    temperature: float = 0.0,
    seed: int = 0,
) -> list[str]:
    """Continue every prompt as a document that begins with it.

    Args:
        subject: the model; a long prompt is cut at its beginning, to leave room for the answer in the context.
        prompts: texts.
        tokens: limit on the tokens of an answer; half of the model's context where that is less.
        stops: an answer ends before the first of these.
        temperature: 0 takes the likeliest token each time; above, tokens are drawn from the whole distribution.
        seed: of the sampling.
    """
    tokenizer, room = subject.tokenizer, min(tokens, subject.length // 2)
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    begin = [] if first is None else [first]
    encoded = [begin + tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in prompts]
    encoded = [ids[-(subject.length - room) :] for ids in encoded]
    texts = [""] * len(prompts)
    with subject.at_rest() as model:
        batches = list(_batches(encoded, room, continued_tokens(model)))
        how = room, tuple(stops), temperature
        work = [(seed + number, [encoded[n] for n in batch], how) for number, batch in enumerate(batches)]
        for batch, answers in zip(batches, shared(subject, _answers, work), strict=True):
            for number, answer in zip(batch, answers, strict=True):
                texts[number] = answer
    return texts


def _answers(subject: Subject, work: tuple[int, list[list[int]], tuple[int, tuple[str, ...], float]]) -> list[str]:
    """Answers of one batch, drawn with a seed of its own, whichever rank draws them."""
    import torch

    seed, encoded, how = work
    torch.manual_seed(seed)
    numbers = list(range(len(encoded)))
    return in_halves(
        numbers, lambda part: _continue(subject.model, subject.tokenizer, [encoded[n] for n in part], *how)
    )


def _batches(encoded: Sequence[list[int]], room: int, most: int) -> Iterator[list[int]]:
    """Numbers of prompts of like length, the longest first, so that a batch too large for memory fails at once."""
    order = sorted(range(len(encoded)), key=lambda number: (-len(encoded[number]), number))
    while order:
        count = max(1, most // (len(encoded[order[0]]) + room))
        yield order[:count]
        order = order[count:]


def _continue(
    model: Any, tokenizer: Any, encoded: list[list[int]], room: int, stops: Sequence[str], temperature: float
) -> list[str]:
    import torch

    end = tokenizer.eos_token_id
    longest = max(map(len, encoded))
    inputs = torch.full((len(encoded), longest), 0 if end is None else end)
    mask = torch.zeros_like(inputs)
    for row, ids in enumerate(encoded):  # padding to the left, so that every answer begins at the same place
        inputs[row, longest - len(ids) :] = torch.tensor(ids)
        mask[row, longest - len(ids) :] = 1
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {}
    output = model.generate(
        input_ids=inputs.to(model.device),
        attention_mask=mask.to(model.device),
        max_new_tokens=room,
        stop_strings=list(stops) or None,
        tokenizer=tokenizer,
        eos_token_id=end,
        pad_token_id=0 if end is None else end,
        **(sampling or {"do_sample": False}),
    )
    return [_cut(tokenizer, ids, end, stops) for ids in output[:, longest:].tolist()]


def _cut(tokenizer: Any, ids: list[int], end: int | None, stops: Sequence[str]) -> str:
    answer = ids[: ids.index(end)] if end in ids else ids
    text = str(tokenizer.decode(answer, clean_up_tokenization_spaces=False))
    places = [place for place in (text.find(stop) for stop in stops) if place >= 0]
    return text[: min(places, default=len(text))]
