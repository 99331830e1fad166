"""Pages and text that the build adds: the reference of commands and code, formulas, meanings of words."""

from __future__ import annotations

import json
import re
from enum import Enum
from pathlib import Path
from typing import Any

import typer.main
from latex2mathml.converter import convert
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[2]

#: Pages of the reference: title, what it says first, and the modules or objects that it shows.
API: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "study": (
        "Python",
        "`import mixlaw` has most of this under one name: `mixlaw.open_study`, `mixlaw.fit`, `mixlaw.propose`, ...",
        (
            *("mixlaw.study.open_study", "mixlaw.study.Study", "mixlaw.study.import_runs"),
            *("mixlaw.analysis.fit.fit", "mixlaw.optimizer.answers.propose.propose"),
            *("mixlaw.optimizer.answers.front.pareto", "mixlaw.optimizer.answers.what_if.what_if"),
            *("mixlaw.optimizer.next_runs.suggest.suggest", "mixlaw.errors.InputError"),
        ),
    ),
    "records": (
        "Recipes and records",
        "The contract between trainer, analysis and optimizer.",
        ("mixlaw.recipe", "mixlaw.records", "mixlaw.settings", "mixlaw.settings.data", "mixlaw.settings.tasks"),
    ),
    "analysis": (
        "Analysis",
        "Records in, surfaces out.",
        (
            *(
                "mixlaw.analysis.data.design.Design",
                "mixlaw.analysis.data.recipe_features.RecipeFeatures",
                "mixlaw.analysis.surface.surface",
                "mixlaw.analysis.surface.model",
                "mixlaw.analysis.audit.result",
            ),
            *("mixlaw.analysis.surface.link", "mixlaw.analysis.audit.readiness", "mixlaw.analysis.data.code_share"),
        ),
    ),
    "laws": (
        "Laws",
        "Each a small frozen value that can be called on a design; [the laws](../laws.md) says what they are for.",
        tuple(  # every law comes before these
            f"mixlaw.analysis.laws.{name}"
            for name in (
                *("own.ParametricLaw", "own.loss_term", "own.exponent", "own.by_domain", "base.Procedure"),
                *("data_constrained.saturate", "exposure.rise", "base.Law", "base.Form", "base.Parameter"),
            )
        ),
    ),
    "plots": (
        "Plots",
        "Functions of results that return plotly figures.",
        tuple(f"mixlaw.plots.{path.stem}" for path in sorted((ROOT / "src" / "mixlaw" / "plots").glob("[!_]*.py"))),
    ),
    "optimizer": (
        "Optimizer",
        "Surfaces in, recipes out.",
        (
            *("mixlaw.optimizer.target.target", "mixlaw.optimizer.goal.goal", "mixlaw.optimizer.answers.proposal"),
            *("mixlaw.optimizer.answers.verify", "mixlaw.optimizer.next_runs.suggestion"),
            *("mixlaw.optimizer.next_runs.costs", "mixlaw.optimizer.next_runs.value"),
            *("mixlaw.testing.replay", "mixlaw.optimizer.optuna.sampler", "mixlaw.testing.worlds"),
        ),
    ),
    "runner": (
        "Runner",
        "Recipe in, record out.",
        (
            *(
                "mixlaw.runner.plan.tree",
                "mixlaw.runner.plan.price",
                "mixlaw.runner.batches.order",
                "mixlaw.runner.models.ladder",
            ),
            *("mixlaw.runner.evaluate.run", "mixlaw.runner.execute.machines"),
            *("mixlaw.runner.corpora.sources.teacher", "mixlaw.runner.corpora.contamination"),
        ),
    ),
}

#: Pages that the code makes: guides come before them in the results of a search.
MADE = {"commands.md", "json.md", *(f"api/{name}.md" for name in API)}
WORKER = """\
if (location.protocol === "file:") {
  const source = new Blob([SOURCE])
  window.Worker = class extends Worker { constructor() { super(URL.createObjectURL(source)) } }
}
"""
FORMULA = re.compile(r"^```math\n(.*?)\n```$", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"\$`([^`\n]+)`\$")
MARK = "⟦{}⟧"
#: A row of the table of words: | word | meaning |.
WORD = re.compile(r"^\| ([a-z][a-z, -]*) \| (.+) \|$", re.MULTILINE)
ABBR = re.compile(r'<abbr title="[^"]*">([^<]*)</abbr>')
PART = re.compile(r"(?=<h[1-6][ >])")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made from the code and the log."""
    made = {"commands.md": commands(), "log.md": (ROOT / "dev" / "LOG.md").read_text(encoding="utf-8")}
    made["json.md"] = documents()
    made |= {f"api/{name}.md": api(name) for name in API}
    for path, content in made.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Replace formulas by marks, point links to the log to its page, and give every page the words."""
    page.meta["formulas"] = formulas = []

    def mark(display: str) -> Any:
        def put(found: re.Match[str]) -> str:
            formulas.append(convert(found[1].strip(), display=display))
            return MARK.format(len(formulas) - 1)

        return put

    text = INLINE.sub(mark("inline"), FORMULA.sub(mark("block"), markdown))
    text = text.replace("](../dev/LOG.md)", "](log.md)")
    path = page.file.src_uri
    page.meta["search"] = {"exclude": True} if path == "log.md" else {"boost": 0.1 if path in MADE else 4}
    return text if path.startswith("api/") else f"{text}\n\n{words()}"


def on_post_build(config: Any, **_: Any) -> None:
    """Let pages that are opened from the disk search too: browsers give these neither workers nor files by address.

    The index becomes a script, as the theme expects it there, and the theme's worker one that starts from a string.
    """
    search = Path(config.site_dir) / "search"
    index = (search / "search_index.json").read_text(encoding="utf-8")
    (search / "search_index.js").write_text(f"var __index = {index}", encoding="utf-8")
    (worker,) = (Path(config.site_dir) / "assets" / "javascripts" / "workers").glob("search.*.js")
    source = json.dumps(worker.read_text(encoding="utf-8"))
    (search / "worker.js").write_text(WORKER.replace("SOURCE", source), encoding="utf-8")


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """Replace marks by formulas; keep the meaning of a word at its first place under a heading only."""
    for number, formula in enumerate(page.meta["formulas"]):
        html = html.replace(MARK.format(number), formula)
    return "".join(_first_only(part) for part in PART.split(html))


def _first_only(part: str) -> str:
    heading, end, body = part.rpartition("</h2>") if part.startswith("<h2") else part.partition("\n")
    seen: set[str] = set()

    def once(found: re.Match[str]) -> str:
        stem = found[1].lower().rstrip("s")
        if stem in seen:
            return found[1]
        seen.add(stem)
        return found[0]

    return ABBR.sub(r"\1", heading) + end + ABBR.sub(once, body)


def words() -> str:
    """Every word of the table in concepts.md as an abbreviation, also as plural and at the start of a sentence."""
    table = (ROOT / "docs" / "concepts.md").read_text(encoding="utf-8").partition("\n## Words\n")[2]
    lines = []
    for found in WORD.finditer(table):
        meaning = re.sub(r"[`*]|\[([^]]*)\]\([^)]*\)", r"\1", found[2])
        for word in found[1].split(", "):
            forms = (word, plural(word), word.capitalize(), plural(word).capitalize())
            lines += [f"*[{form}]: {meaning}" for form in forms]
    return "\n".join(dict.fromkeys(lines))


def plural(word: str) -> str:
    """The plural of a word that ends in y."""
    return f"{word[:-1]}ies" if word.endswith("y") else f"{word}s"


def api(name: str) -> str:
    """One page of the reference of the code."""
    from mixlaw.analysis.laws import LAWS

    title, lead, names = API[name]
    laws = tuple(f"{law.__module__}.{law.__name__}" for law in LAWS.values()) if name == "laws" else ()
    return f"# {title}\n\n{lead}\n\n" + "\n\n".join(f"::: {shown}" for shown in (*laws, *names)) + "\n"


def documents() -> str:
    """The page of JSON documents, from their models."""
    import mixlaw.documents as module
    from mixlaw.document_parts import PARTS

    lines = [
        "# JSON documents",
        "",
        "What commands print with `--json`. " + str(module.__doc__).partition("\n\n")[2],
        "",
    ]
    lines += ["`mixlaw.documents` has them as pydantic models; `Fit.model_json_schema()` is a JSON schema.", ""]
    for document in module.DOCUMENTS:
        lines += [f"## {document.__name__} {{ #{document.__name__.lower()} }}", "", str(document.__doc__), ""]
        lines += ["| field | type | |", "| --- | --- | --- |"]
        for name, field in document.model_fields.items():
            kind = str(document.__annotations__.get(name, "int")).replace("|", "or")
            lines.append(f"| `{name}` | `{kind}` | {field.description or ''} |")
        lines.append("")
    lines += ["## Parts", "", "| type | fields | |", "| --- | --- | --- |"]
    for part in PARTS:
        named = [f"{name}: {kind}" for name, kind in part.__annotations__.items()]
        if issubclass(part, Enum):
            named = [str(one.value) for one in part]
        fields = ", ".join(f"`{text.replace('|', 'or')}`" for text in named)
        lines.append(f"| `{part.__name__}` | {fields} | {str(part.__doc__).splitlines()[0]} |")
    return "\n".join(lines) + "\n"


def commands() -> str:
    """The page of commands, from the program's own help."""
    from mixlaw.cli import app

    group: Any = typer.main.get_command(app)
    context = group.make_context("mixlaw", ["new"], resilient_parsing=True)
    listed = [(name, group.get_command(context, name)) for name in group.list_commands(context)]
    lines = [
        "# Commands",
        "",
        "`mixlaw COMMAND --help` prints the same. Every command takes `--json`, which prints one JSON document on",
        "stdout and nothing else there; logs and bars go to stderr. Exit codes: 0 done, 2 bad input (one sentence",
        "that says what to do), 1 anything else.",
        "",
        "| command | |",
        "| --- | --- |",
        *(f"| [`mixlaw {name}`](#{name}) | {command.help.splitlines()[0]} |" for name, command in listed),
    ]
    for name, command in listed:
        lines += section(name, command, type(context)(command, info_name=name))
    return "\n".join(lines) + "\n"


def section(title: str, command: Any, context: Any) -> list[str]:
    """A command: what it does, how it is called, arguments and options."""
    pieces = (piece.strip("{}") for piece in command.collect_usage_pieces(context))
    rows = []
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record and "--help" not in parameter.opts:
            name, meaning = (" ".join(cell.split()) for cell in record)
            rows.append(f"| `{name}` | {meaning.replace('|', chr(92) + '|')} |")
    table = ["", "| | |", "| --- | --- |", *rows]
    usage = " ".join(["mixlaw", title, *pieces])
    return ["", f"## {title} {{ #{title} }}", "", command.help, "", "```text", usage, "```", *table]
