"""README and docs are executed: every command line and code block, with few exceptions; the site builds.

A block of text directly below an executed one has to be its output, to the last digit.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomlkit

from docs_pages import FENCE, PAGES, ROOT, Block, Story, commands, stories
from docs_studies import foreign_study, train
from mixlaw.adapters.mapping import read_mapping
from mixlaw.cli import app
from mixlaw.settings import validate
from mixlaw.study import open_study

SHELL = ("sh", "bash")
SHOWN = ("text", "math")  # what a command prints, and formulas, which the site's build reads

#: Command lines that are not run: pattern, and why or what is tested instead. Each must match something.
NOT_RUN = {
    r"pip install .*": "packages come from an index",
    r"make \w+.*": "minutes; CI calls each by itself",
    r"python (-m )?benchmarks\S*.*": "minutes to hours; tests check what they are made of",
    r"python tests/fuzzing.py .*": "a night; tests/test_fuzz.py runs a few inputs of each",
    r"python -m mixlaw.runner.evaluate.programs": "328 programs in sandboxes; tests/test_programs.py runs some",
    r"mixlaw demo\b.*": "ten minutes; tests/test_demo.py runs the small one",
    r"mixlaw run (?!.*--dry-run).*(--executor|--gpus [1-9]|--launch).*": "a cluster or GPUs; tests/test_ray.py has one",
    r"mixlaw evaluate .*": "checkpoints of the reader's own; tests/test_evaluate_command.py has some",
    r"mixlaw dashboard .*": "serves until it is stopped; tests/test_dashboard.py drives it",
    r"sbatch .*": "Slurm; tests/test_cluster_scripts.py runs the scripts",
    r"gh api .*": "asks GitHub",
    r"mixlaw (push|pull) .*": "a dataset of the hub; tests/test_sharing.py has one",
}
#: Programs of which only the imports are run, by page and first line.
PROGRAMS_NOT_RUN = {
    ("evaluation.md", "from mixlaw.runner.evaluate.run import evaluate"): "BoolQ comes from the hub; test_harness.py",
    ("gallery.md", "study.plots.paired()"): "needs a proposal that is trained; test_plots.py",
    ("data.md", "from pathlib import Path"): "asks a model behind an endpoint; tests/test_teacher.py has one",
}
#: Pages with a trained STUDY; the others have one of imported runs, or make their own.
TRAINED = {"no_runs.md", "data.md", "cluster.md", "evaluation.md", "training.md"}
#: Pages that make their STUDY themselves.
FRESH = {"start.md", "cool_down.md", "runs.md", "mappings/README.md"}

STORIES = [story for story in stories() if story.blocks]


def reason(words: list[str]) -> str | None:
    """The pattern of NOT_RUN that a command line matches."""
    line = shlex.join(words).replace("'", "")
    return next((pattern for pattern in NOT_RUN if re.fullmatch(pattern, line)), None)


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fitted study of simulated runs, with the files that a reader would have beside it."""
    return foreign_study(tmp_path_factory.mktemp("imported"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained and fitted study with a proposal, like the demo's."""
    return train(tmp_path_factory.mktemp("trained"))


def arrange(story: Story, imported: Path, trained: Path) -> None:
    """Prepare the folder of a page's reader: a study, tables of runs and recipes, and the files that the page shows."""
    if "out/demo" in story.page.read_text(encoding="utf-8"):
        shutil.copytree(trained, "out/demo")
    for name in ("runs.csv", "recipes.csv"):
        shutil.copy(imported / name, name)
    shutil.copytree(imported / "evaluations", "evaluations")
    if story.name not in FRESH and "mixlaw new STUDY" not in "".join(block.text for block in story.blocks):
        shutil.copytree(trained if story.file in TRAINED else imported / "STUDY", "STUDY")
    for block in story.blocks:
        if block.title and not block.title.endswith("study.toml"):
            Path(block.title).write_text(block.text)


def check_toml(block: Block) -> None:
    """Validate a block of TOML by its reader; settings of an existing study are written into it."""
    found = tomllib.loads(block.text)
    if block.title.endswith("/study.toml"):
        path = Path(block.title)
        path.parent.mkdir(exist_ok=True)
        settings = (tomlkit.parse(path.read_text()).unwrap() if path.exists() else {}) | found
        path.write_text(tomlkit.dumps(settings))
        open_study(path.parent)
    elif block.title.endswith("mapping.toml"):
        read_mapping(Path(block.title))
    elif not block.title or block.title == "study.toml":
        validate(found, Path("STUDY"))


def run_line(words: list[str], trained: Path) -> None:
    """Run one command line; `mixlaw` runs in this process."""
    if words[0] == "mixlaw":
        proposals = sorted(Path("STUDY/proposals").glob("*.json")) if "PROPOSAL" in words else []
        words = [proposals[-1].stem if word == "PROPOSAL" else word for word in words]
        if "--domains" in words and Path("STUDY").exists():  # it stands in for that of the reader, of other domains
            words = [*words, "--replace"]
        assert not app(words[1:], prog_name="mixlaw", standalone_mode=False), shlex.join(words)
        if words[1:] == ["new", "STUDY"]:  # its six recipes would train for minutes: a smaller study stands in
            shutil.rmtree("STUDY")
            shutil.copytree(trained, "STUDY")
    else:
        assert words[0] == "python", f"{shlex.join(words)} is neither run nor listed in NOT_RUN"
        done = subprocess.run([sys.executable, *words[1:]], check=True, timeout=120, capture_output=True, text=True)
        print(done.stdout, end="")


def execute(story: Story, block: Block, program: dict[str, Any], trained: Path) -> bool:
    """Execute or check a block; whether all of it was executed."""
    where = f"{story.file}:{block.line}"
    if block.language in SHELL:
        lines = [(words, reason(words)) for words in commands(block.text)]
        for words, why_not in lines:
            if not why_not:
                run_line(words, trained)
        return not any(why_not for _, why_not in lines)
    if block.language == "python":
        tree, whole = ast.parse("\n" * (block.line - 1) + block.text, where), True
        if (story.file, first_line(block)) in PROGRAMS_NOT_RUN:
            tree.body, whole = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)], False
        exec(compile(tree, where, "exec"), program)
        return whole
    if block.language == "toml":
        check_toml(block)
    else:
        assert block.language in (*SHOWN, "csv"), f"{where}: unknown language {block.language!r}"
    return False


@pytest.mark.parametrize("story", STORIES, ids=[f"{s.file}:{s.section}" for s in STORIES])
def test_a_page_runs(
    story: Story,
    imported: Path,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    arrange(story, imported, trained)
    program: dict[str, Any] = {"__name__": "__main__"}
    printed: str | None = None  # by the block before, where all of it was run
    for block in story.blocks:
        if block.language == "text" and block.follows and printed is not None:
            shown = printed[: len(block.text)] if block.cut else printed
            assert shown == block.text, f"{story.file}:{block.line}"
        capsys.readouterr()
        printed = capsys.readouterr().out if execute(story, block, program, trained) else None


def test_what_programs_and_commands_print_stands_directly_below_some() -> None:
    below = {s.file for s in STORIES for block in s.blocks if block.language == "text" and block.follows}
    assert {"runs.md", "suggest.md", "training.md"} <= below


def first_line(block: Block) -> str:
    return block.text.splitlines()[0]


LINES = [(s, words) for s in STORIES for b in s.blocks if b.language in SHELL for words in commands(b.text)]


def test_every_exception_is_used() -> None:
    assert set(NOT_RUN) == {reason(words) for _, words in LINES} - {None}
    there = {(s.file, first_line(b)) for s in STORIES for b in s.blocks if b.language == "python"}
    assert set(PROGRAMS_NOT_RUN) <= there


def test_commands_that_are_not_run_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for _, words in LINES:
        if words[0] == "mixlaw":
            parse(words)
        elif words[:2] == ["pip", "install"]:
            named = re.findall(r"\[(.*?)\]", " ".join(words))
            assert {extra for group in named for extra in group.split(",")} <= {*extras, "binary"}
        elif words[0] == "make":
            subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, check=True, capture_output=True)
        elif words[0] == "python" and words[1].endswith(".py"):
            assert (ROOT / words[1]).is_file()
        elif words[0] == "sbatch":
            script = next(word for word in words if word.endswith(".sbatch"))
            subprocess.run(["bash", "-n", ROOT / script], check=True)


def parse(words: list[str]) -> None:
    """Parse a command with its arguments and options, without running it."""
    import typer.main

    group: Any = typer.main.get_command(app)
    context = group.make_context("mixlaw", [words[1]], resilient_parsing=True)
    command = group.get_command(context, words[1])
    assert command, f"mixlaw has no command {words[1]!r}"
    command.make_context(words[1], words[2:])


INLINE = re.compile(r"(?<!`)`((?:mixlaw|python) [^`\n]*(?:\n[^`\n]+)?)`")


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_commands_in_the_text_exist(page: Path) -> None:
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    for line in (" ".join(found[1].split()) for found in INLINE.finditer(prose)):
        for part in line.split(" && "):
            words = shlex.split(part)
            if words[0] == "python":
                assert (ROOT / words[1]).is_file() or words[1] == "-m", part
            elif re.fullmatch("[a-z-]+", words[1]):
                check_command(words)


def check_command(words: list[str]) -> None:
    """Check a command in running text: its name and options exist; arguments may be left out."""
    import typer.main

    group: Any = typer.main.get_command(app)
    context = group.make_context("mixlaw", [words[1]], resilient_parsing=True)
    command = group.get_command(context, words[1])
    assert command, f"mixlaw has no command {words[1]!r}"
    known = {name for parameter in command.get_params(context) for name in parameter.opts}
    assert {word for word in words[2:] if word.startswith("-")} <= {*known, "--help"}, shlex.join(words)


def test_no_command_hides_in_a_block_that_is_only_shown() -> None:
    prompt = re.compile(r"^(\$ |(mixlaw [a-z-]+ [A-Z]|pip |python \S+[.]py|make |sbatch ))", re.M)
    hidden = [
        f"{s.file}:{b.line}" for s in STORIES for b in s.blocks if b.language in ("text", "") if prompt.search(b.text)
    ]
    assert hidden == []
    loose = [
        page.name for page in PAGES if re.search(r"\n\n    (mixlaw|python|pip) ", page.read_text(encoding="utf-8"))
    ]
    assert loose == []


#: Figures of README's first table: its row -> that of the scoreboard, and the peer beside mixlaw.
BOARD = {
    "Olmix": ("olmix | Spearman of the mean of all tasks", "LightGBM"),
    "RegMix": ("regmix | Spearman at 1B, mean of 13 losses", "LightGBM"),
    "Marin": ("marin | RMSE of code BPB, all runs", "GP on shares"),
    "open_lm": ("open_lm | median relative loss error at 6.9B, all corpora", "bar"),
}


@pytest.mark.parametrize("row", BOARD)
def test_the_first_figures_of_readme_are_those_of_the_scoreboard(row: str) -> None:
    start, peer = BOARD[row]
    found = re.search(rf"^\| {row},.*\|(.*)\|(.*)\|$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)
    board = re.search(
        rf"^\| {re.escape(start)} \|(.*)$", (ROOT / "docs/scoreboard.md").read_text(encoding="utf-8"), re.M
    )
    assert found
    assert board
    own, bar, _, peers = board[1].strip(" |").split(" | ") if peer != "bar" else (*board[1].split("|")[:2], "", "")
    theirs = re.search(rf"{re.escape(peer)} ([.\d]+)", peers) or re.search(r"([.\d]+)", bar)
    assert theirs
    numbers = [float(re.sub(r"[^.\d]", "", cell)) for cell in found.groups()]
    assert numbers == [round(float(own), 3), float(theirs[1])]
    assert found[0] in (ROOT / "docs/index.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built in a process of its own; warnings are errors."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(ROOT / "mkdocs.yml"), "-d", str(folder)]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}  # an announcement of the theme's
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=quiet, timeout=300)
    assert done.returncode == 0, done.stderr
    assert not re.search("^(WARNING|ERROR)", done.stderr, re.M), done.stderr
    return folder


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    outside = re.compile(r"<(?:script|img|source|iframe)[^>]+src=\"?https?:|<link[^>]+href=\"?https?:[^>]+stylesheet")
    assert [page.name for page in site.rglob("*.html") if outside.search(page.read_text(encoding="utf-8"))] == []


def test_search_works_from_the_disk_and_finds_guides_first(site: Path) -> None:
    api = pytest.importorskip("playwright.sync_api")
    if (path := shutil.which("chromium")) is None:
        pytest.skip("no chromium")
    with api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto((site / "index.html").as_uri())
        page.fill("[data-md-component=search-query]", "cooldown")
        page.wait_for_selector(".md-search-result__link")
        found = page.eval_on_selector_all(".md-search-result__link", "links => links.map(link => link.href)")
        browser.close()
    names = [link.split("?")[0].split("#")[0].rpartition("/site")[2].rpartition("/")[2] for link in found]
    assert names[0] in ("cool_down.html", "continue.html", "schedule.html")
    assert "log.html" not in names


def test_every_command_and_option_is_in_the_reference(site: Path) -> None:
    import typer.main

    page = (site / "commands.html").read_text(encoding="utf-8")
    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        assert f'id="{name}"' in page
        shown = [
            option
            for parameter in command.params
            if not getattr(parameter, "hidden", False)
            for option in parameter.opts
        ]
        assert all(option in page for option in shown if option[0] == "-")


def test_every_json_document_is_in_the_reference(site: Path) -> None:
    from mixlaw.documents import DOCUMENTS

    page = (site / "json.html").read_text(encoding="utf-8")
    for model in DOCUMENTS:
        assert f'id="{model.__name__.lower()}"' in page
        assert all(f"<code>{name}</code>" in page for name in model.model_fields)


def test_every_law_has_a_section_and_its_reference(site: Path) -> None:
    from mixlaw.analysis.laws import LAWS

    page, reference = ((site / name).read_text(encoding="utf-8") for name in ("laws.html", "api/laws.html"))
    assert [name for name in LAWS if name not in page or f'.{name}"' not in reference] == []
    assert page.count("<math") > len(LAWS)
    assert "⟦" not in page


def test_words_have_their_meaning_as_a_hint(site: Path) -> None:
    page = (site / "suggest.html").read_text(encoding="utf-8")
    meant = dict(re.findall(r'<abbr title="([^"]*)">([^<]*)</abbr>', page))
    assert "loss of a chosen recipe compared with the best one" in meant
    search = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    assert len({entry["location"].split("#")[0] for entry in search["docs"]}) > 25
