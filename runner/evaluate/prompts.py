"""Open-ended prompts, for models that were never taught to follow instructions: each can be answered by going on."""

from __future__ import annotations

import json
from pathlib import Path

from mixlaw.errors import InputError

#: Of explaining, advising, describing, arguing, telling, summarising, writing letters, and explaining code.
PROMPTS = (
    "Question: Why does bread rise, and what happens when the oven is too cold?\nAnswer:",
    "Question: How does a vaccine protect somebody who has never been ill?\nAnswer:",
    "Question: What is the difference between weather and climate?\nAnswer:",
    "Question: Why do ships made of steel float?\nAnswer:",
    "Question: How does a city decide where a new tram line should go?\nAnswer:",
    "Question: What should I check before I buy a used bicycle?\nAnswer:",
    "Question: How can I learn the names of thirty new colleagues in a week?\nAnswer:",
    "Question: My tomato plants have yellow leaves. What may be wrong, and what can I do?\nAnswer:",
    "Question: I have two hours in a museum and little patience. How should I spend them?\nAnswer:",
    "Question: How do I tell a friend that I cannot lend him money?\nAnswer:",
    "Question: What makes a chess opening good for a beginner?\nAnswer:",
    "Question: Why is the sky blue at noon and red in the evening?\nAnswer:",
    "Question: What did the printing press change in Europe?\nAnswer:",
    "Question: Should towns close their centres to cars? Give reasons on both sides.\nAnswer:",
    "Question: Is it better to rent a home or to buy one?\nAnswer:",
    "Question: How does a hash table find a value so quickly?\nAnswer:",
    "Question: When is recursion a poor choice in a program?\nAnswer:",
    "Question: What is the difference between a process and a thread?\nAnswer:",
    "Question: How would you find out why a web page loads slowly?\nAnswer:",
    "Question: Explain to a child of eight what electricity is.\nAnswer:",
    "A recipe for a soup of lentils, for four people, step by step:\n",
    "Directions for changing the tyre of a bicycle:\n",
    "A packing list for three days of walking in the hills in autumn:\n",
    "Five ideas for a birthday party indoors, each with a sentence on what it needs:\n",
    "A short description of a harbour at night:\n",
    "A story about a lighthouse keeper who finds a letter that was never sent:\n",
    "The first page of a detective story that takes place in a library:\n",
    "A letter to a landlord about a heating that has been broken for two weeks:\n\nDear",
    "An e-mail that asks a professor for more time for an essay:\n\nDear Professor",
    "A speech of one minute for the opening of a small bookshop:\n\nDear guests,",
    "A summary of what photosynthesis is, in three sentences:\n",
    "The advantages and disadvantages of working from home, as a list:\n",
    "A dialogue between a baker and a customer who wants bread that is sold out:\n",
    "The rules of a simple card game for three players:\n",
    "A review of a restaurant where the food was good and the service slow:\n",
    "A plan for learning to swim in eight weeks as an adult:\n",
    '"""How to read a large file line by line in Python, explained with an example."""\n',
    "# A Python function that tells whether two words are anagrams, with an explanation of how it works\n",
    "The command `git rebase` explained to somebody who knows only `git merge`:\n",
    "Why floating-point numbers cannot hold 0.1 exactly, and what follows from it for programs:\n",
)


def read_prompts(source: str | None) -> tuple[str, ...]:
    """The prompts above, or those of a JSONL file: a line per prompt, {"prompt": "..."}.

    Raises:
        InputError: no such file, or a line of another form.
    """
    if source is None:
        return PROMPTS
    try:
        lines = Path(source).read_text(encoding="utf-8").split("\n")
        found = tuple(str(json.loads(line)["prompt"]) for line in lines if line.strip())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f'{source} cannot be read as prompts: {error}; write {{"prompt": "..."}} per line') from error
    if not found:
        raise InputError(f'{source} holds no prompts; write {{"prompt": "..."}} per line')
    return tuple(dict.fromkeys(found))
