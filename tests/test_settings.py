"""study.toml: what is right is read, what is wrong is named with key, value and fix."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixlaw.errors import InputError
from mixlaw.recipe import Domain, Kind
from mixlaw.settings import read_settings
from mixlaw.settings.recipes import written_recipes

GOOD = """\
version = 1
name = "try"
sizes = { "0.025M" = 500_000, "0.1M" = 2_000_000 }

[domains.text]
source = "text.jsonl"

[domains.code]
kind = "code"
source = "code.jsonl"
unique_tokens = 9_000

[tasks]
text = "bits/byte"
capitals = "choice-prob"

[tokenizer]
vocabulary = 300

[training]
sequence = 32
batch = 4

[[phases]]
name = "init"
share = 0.8

[[phases]]
name = "cooldown"
share = 0.2
lr_end = 0

[mixtures]
half = { text = 0.5, code = 0.5 }
code = { code = 1 }

[[recipes]]
size = "0.025M"
seeds = [0, 1]
phases = { init = "half", cooldown = { mixture = "code", share = 0.2 } }

[target]
params = "0.1M"
tokens = 4_000_000
floors = { init = { text = 0.1 } }
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "study.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_study_is_read_as_it_is_written(tmp_path: Path) -> None:
    settings = read_settings(write(tmp_path, GOOD))
    assert settings.name == "try"
    assert settings.sizes == {"0.025M": 500_000, "0.1M": 2_000_000}
    assert settings.units() == {"text": "bits/byte", "capitals": "choice-prob"}
    assert [(phase.name, phase.share, phase.lr_end) for phase in settings.phases] == [
        ("init", 0.8, 1.0),
        ("cooldown", 0.2, 0.0),
    ]
    recipe = settings.recipes[0]
    assert (recipe.size, recipe.seeds, recipe.tokens) == (("0.025M",), [0, 1], None)
    assert recipe.phases["init"].mixture == "half"
    assert (recipe.phases["cooldown"].mixture, recipe.phases["cooldown"].share) == ("code", 0.2)
    assert settings.target is not None
    assert settings.target.floors == {"init": {"text": 0.1}}


WRITTEN = {"4_000_000": 4_000_000, '"4M"': 4_000_000, '"2.8 b"': 2_800_000_000, '"15T"': 15_000_000_000_000, '"7"': 7}


@pytest.mark.parametrize(("text", "tokens"), WRITTEN.items())
def test_tokens_may_be_written_like_sizes(tmp_path: Path, text: str, tokens: int) -> None:
    changed = GOOD.replace("4_000_000", text).replace("500_000", text).replace("9_000", text)
    settings = read_settings(write(tmp_path, changed))
    assert settings.target is not None
    assert settings.target.nominal == (100_000, tokens)
    assert settings.sizes["0.025M"] == tokens
    assert settings.domains["code"].unique_tokens == tokens


def test_a_score_may_name_the_loss_it_follows_and_the_score_of_guessing(tmp_path: Path) -> None:
    linked = 'capitals = { unit = "choice-prob", link = "text", chance = 0.25 }'
    settings = read_settings(write(tmp_path, GOOD.replace('capitals = "choice-prob"', linked)))
    assert settings.units() == {"text": "bits/byte", "capitals": "choice-prob"}
    assert (settings.links(), settings.chance()) == ({"capitals": "text"}, {"capitals": 0.25})


def test_unique_tokens_are_those_written_or_else_those_counted(tmp_path: Path) -> None:
    settings = read_settings(write(tmp_path, GOOD))
    assert settings.domain_values({"text": 70, "code": 80}) == [
        Domain("text", Kind.TEXT, 70),
        Domain("code", Kind.CODE, 9_000),
    ]
    with pytest.raises(InputError, match=r"domain 'text' has no unique_tokens: run `mixlaw prepare`"):
        settings.domain_values()


def test_an_almost_empty_study_has_the_defaults(tmp_path: Path) -> None:
    settings = read_settings(write(tmp_path, ""))
    assert settings.training.sequence == 2048
    assert settings.recipes == []
    assert settings.target is None


# What is put for what in the good study, and what the message must name: the key, the value, the fix.
WRONG = {
    "unknown domain in a mixture": ("code = 1 }", "prose = 1 }", ["mixtures.code", "'prose'", "'text', 'code'"]),
    "shares that sum to 1.2": (
        "text = 0.5,",
        "text = 0.7,",
        ["mixtures.half", "sum to 1, got 1.2", "correct one share"],
    ),
    "a negative share": ("text = 0.5, code = 0.5", "text = -0.5, code = 1.5", ["mixtures.half", "-0.5", "minus"]),
    "a share that is no number": ("text = 0.5,", "text = nan,", ["mixtures.half", "nan", "finite"]),
    "a share that is text": ("text = 0.5,", 'text = "x",', ["mixtures.half.text", "'x'", "valid number"]),
    "negative tokens of a size": ("2_000_000 }", "-2 }", ["sizes.0.1M", "-2", "greater than 0"]),
    "a size that is none": ('"0.1M" = 2', '"big" = 2', ["sizes", "'big'", '"470M"']),
    "negative tokens of a recipe": ("seeds = [0, 1]", "tokens = -5", ["recipes.0.tokens", "-5", "greater than 0"]),
    "no tokens of the target": ("4_000_000", "0", ["target.tokens", "0", "greater than 0"]),
    "a target size that is none": ('params = "0.1M"', 'params = "0.1X"', ["target.params", "'0.1X'", '"470M"']),
    "a negative seed": ("[0, 1]", "[0, -1]", ["recipes.0.seeds.1", "-1", "greater than or equal to 0"]),
    "a recipe without phases": (
        'phases = { init = "half", cooldown = { mixture = "code", share = 0.2 } }',
        "phases = {}",
        ["recipes.0.phases", "{}", "at least 1"],
    ),
    "an unknown key": ("batch = 4", "batches = 4", ["'training.batches'", "spelling"]),
    "an unknown table": ("[tokenizer]", "[tokeniser]", ["'tokeniser'", "spelling"]),
    "another version": ("version = 1", "version = 7", ["version 7", "reads version 1", "use the mixlaw that wrote it"]),
    "a link to what is no loss": (
        'capitals = "choice-prob"',
        'capitals = { unit = "choice-prob", link = "prose" }',
        ["tasks.capitals.link", "'prose'", "choose one of 'text'"],
    ),
    "a loss with a chance": (
        'text = "bits/byte"',
        'text = { unit = "bits/byte", chance = 0.5 }',
        ["tasks.text", "bits/byte", "score"],
    ),
    "an unknown unit": ('"choice-prob"', '"points"', ["'capitals'", "'points'", "use one of nats/token"]),
    "an unknown kind": ('kind = "code"', 'kind = "software"', ["domains.code.kind", "'software'", "'synthetic-code'"]),
    "a colon in a domain": ("[domains.text]", '["domains"."a:b"]', ["domains", "'a:b'", "without a colon"]),
    "a colon in a phase": ('name = "init"', 'name = "a:b"', ["phases.0.name", "'a:b'", "pattern"]),
    "two phases of one name": ('name = "cooldown"', 'name = "init"', ["phases", "'init'", "another name"]),
    "phases that do not sum to 1": ("share = 0.8", "share = 0.7", ["phases", "sum to 1", "0.9"]),
    "a recipe's phases that do not sum to 1": (
        'mixture = "code", share = 0.2',
        'mixture = "code", share = 0.1',
        ["recipes[1].phases", "sum to 1, got 0.9", "give each"],
    ),
    "epochs of an unknown domain": (
        "tokens = 4_000_000",
        "tokens = 4_000_000\ndomain_epochs = { prose = 2 }",
        ["target.domain_epochs", "'prose'", "'text', 'code'"],
    ),
    "a learning rate above the peak": ("lr_end = 0", "lr_end = 2", ["phases.1.lr_end", "2", "less than or equal to 1"]),
    "an unknown size in a recipe": ('size = "0.025M"', 'size = "1M"', ["recipes[1].size", "'1M'", "'0.025M', '0.1M'"]),
    "an unknown mixture": ('init = "half"', 'init = "third"', ["recipes[1].phases", "'third'", "'half', 'code'"]),
    "an unknown phase": ('{ init = "half"', '{ start = "half"', ["recipes[1].phases", "'start'", "'init', 'cooldown'"]),
    "an unknown phase in the target": ("{ init = { text", "{ start = { text", ["target", "'start'", "'init'"]),
    "an unknown domain in the target": ("{ text = 0.1 }", "{ prose = 0.1 }", ["target.init", "'prose'", "'text'"]),
    "a vocabulary below the bytes": ("vocabulary = 300", "vocabulary = 100", ["tokenizer.vocabulary", "100", "257"]),
    "a missing key": ("share = 0.8\n", "", ["phases.0.share", "missing", "add it"]),
    "no TOML": ("[tokenizer]", "[tokenizer", ["study.toml", "not TOML", "line 17", "fix that line"]),
}


@pytest.mark.parametrize(("old", "new", "named"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_named_in_one_sentence(old: str, new: str, named: list[str], tmp_path: Path) -> None:
    assert GOOD.count(old) == 1
    path = write(tmp_path, GOOD.replace(old, new))
    with pytest.raises(InputError) as caught:
        read_settings(path)
    message = str(caught.value)
    assert [part for part in named if part not in message] == [], message
    assert str(path) in message
    assert "\n" not in message


def test_a_folder_without_a_study_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no study at .*create one with `mixlaw new"):
        read_settings(tmp_path / "study.toml")


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="is not TOML"):
        read_settings(tmp_path / "study.toml")


def test_a_recipe_of_several_sizes_is_a_recipe_at_each(tmp_path: Path) -> None:
    text = GOOD.replace('size = "0.025M"', 'size = ["0.025M", "0.1M"]')
    (tmp_path / "study.toml").write_text(text, encoding="utf-8")
    recipes = list(written_recipes(read_settings(tmp_path / "study.toml"), []))
    assert [(r.params, r.seed, r.tokens) for r in recipes[:4]] == [
        (25_000, 0, 500_000), (25_000, 1, 500_000), (100_000, 0, 2_000_000), (100_000, 1, 2_000_000),
    ]  # fmt: skip
    assert len({tuple(p.mixture for p in r.phases) for r in recipes[:4]}) == 1
