"""Text that a model continues prompts with: in batches, with a cache of keys and values, until it ends or must stop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from mixlaw.runner.evaluate.measure import Subject

ROOM = 4  # a batch of answers is so much larger than one that is scored: a step has logits of one token a row


def generate(
    subject: Subject,
    prompts: Sequence[str],
    *,
    tokens: int,
    stops: Sequence[str] = (),
    temperature: float = 0.0,
    seed: int = 0,
) -> list[str]:
    """Continue every prompt, as a document that begins with it.

    Args:
        subject: the model; a prompt keeps the end that leaves room for the answer in its context.
        prompts: texts.
        tokens: most tokens of an answer; half of the model's context where that is less.
        stops: an answer ends before the first of these.
        temperature: 0 takes the likeliest token each time; above, tokens are drawn from the whole distribution.
        seed: of the draws.
    """
    import torch

    tokenizer, room = subject.tokenizer, min(tokens, subject.length // 2)
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    begin = [] if first is None else [first]
    encoded = [begin + tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in prompts]
    encoded = [ids[-(subject.length - room) :] for ids in encoded]
    texts = [""] * len(prompts)
    with subject.at_rest() as model:
        torch.manual_seed(seed)
        for batch in _batches(encoded, room, ROOM * subject.batch_tokens):
            answers = _continue(model, tokenizer, [encoded[n] for n in batch], room, stops, temperature)
            for number, answer in zip(batch, answers, strict=True):
                texts[number] = answer
    return texts


def _batches(encoded: Sequence[list[int]], room: int, most: int) -> Iterator[list[int]]:
    """Numbers of prompts of like length, the longest first: what does not fit in memory fails at once."""
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
    for row, ids in enumerate(encoded):  # padding stands to the left: every answer begins at the same place
        inputs[row, longest - len(ids) :] = torch.tensor(ids)
        mask[row, longest - len(ids) :] = 1
    drawn = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {}
    made = model.generate(
        input_ids=inputs.to(model.device),
        attention_mask=mask.to(model.device),
        max_new_tokens=room,
        stop_strings=list(stops) or None,
        tokenizer=tokenizer,
        eos_token_id=end,
        pad_token_id=0 if end is None else end,
        **(drawn or {"do_sample": False}),
    )
    return [_cut(tokenizer, ids, end, stops) for ids in made[:, longest:].tolist()]


def _cut(tokenizer: Any, ids: list[int], end: int | None, stops: Sequence[str]) -> str:
    kept = ids[: ids.index(end)] if end in ids else ids
    text = str(tokenizer.decode(kept, clean_up_tokenization_spaces=False))
    places = [place for place in (text.find(stop) for stop in stops) if place >= 0]
    return text[: min(places, default=len(text))]
