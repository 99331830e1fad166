"""The command line: every command parses, calls the library once, and prints."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from mixlaw.errors import InputError, of_machine
from mixlaw.long_commands import evaluate, run
from mixlaw.machine import collect_rarely, keep_freed_memory
from mixlaw.options import Group, Measured, StudyPath, Workers, command, print_version
from mixlaw.output import (
    Predictions,
    Written,
    groups_of,
    open_study_at,
    print_error,
    print_result,
    print_warning,
    table_writer,
    tokens_of,
)
from mixlaw.progress import progress_bar

app = typer.Typer(
    name="mixlaw",
    cls=Group,
    help="How much code goes with how much text, in which phase, and how to cool down.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
#: Groups of commands, in the order of the data.
START, RUNS, FIT = "Start and look", "Data and runs", "What the runs teach"
CHOOSE, SHOW = "What to train", "What came of it, and who gets it"

INTERRUPTED = 130  # what typer returns for Ctrl-C


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """How much code goes with how much text, in which phase, and how to cool down."""


@command(app, START, tables=False)
def demo(
    study: StudyPath = Path("demo"),
    smoke: Annotated[bool, typer.Option("--smoke", help="A small version, under two minutes.")] = False,
    workers: Workers = None,
) -> object:
    """Run the whole loop on the embedded corpora."""
    from mixlaw.demo.loop import run_demo

    return run_demo(study, smoke=smoke, workers=workers)


@command(app, START, tables=False)
def new(study: StudyPath) -> object:
    """Create a study with a commented study.toml."""
    from mixlaw.templates import create

    return Written(create(study))


@command(app, RUNS, tables=False)
def prepare(
    study: StudyPath,
    verify: Annotated[bool, typer.Option("--verify", help="Read all files and compare their checksums.")] = False,
    contamination: Annotated[
        bool, typer.Option("--contamination", help="Look for evaluation items in the training text.")
    ] = False,
) -> object:
    """Tokenise the domains into shards; existing ones are kept."""
    opened = open_study_at(study)
    with progress_bar("data") as report:
        results: list[Any] = [opened.prepare(verify=verify, progress=report)]
        results += [opened.contamination(progress=report)] if contamination else []
    return results


@app.command(name="data", hidden=True, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def data() -> None:
    """The former name of `prepare`."""
    raise InputError("`mixlaw data` is now `mixlaw prepare STUDY`")


@command(app, START)
def status(study: StudyPath) -> object:
    """Print what a study holds and what comes next."""
    return open_study_at(study).status()


@command(app, START)
def show(
    study: StudyPath,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Run or proposal; the last proposal.")] = None,
) -> object:
    """Print one run or proposal."""
    return open_study_at(study).show(name)


@command(app, RUNS)
def plan(study: StudyPath, workers: Workers = None, measure: Measured = False) -> object:
    """Print the segment tree with FLOPs, hours and disk."""
    return open_study_at(study).plan(workers=workers, measure=measure)


command(app, RUNS, tables=False)(run)
command(app, RUNS)(evaluate)


@command(app, RUNS, "import")
def import_(
    study: StudyPath,
    table: Annotated[
        Path,
        typer.Argument(
            metavar="TABLE", help="CSV, Parquet or NDJSON, a row per run; a folder of them; or what a tracker keeps."
        ),
    ],
    unit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[TASK=]UNIT", help="Unit of metrics that study.toml does not name, or of one task; repeated."
        ),
    ] = None,
    domains: Annotated[Path | None, typer.Option(help="TOML with kind and unique_tokens per domain.")] = None,
    mapping: Annotated[Path | None, typer.Option(help="TOML that says what the columns of TABLE mean.")] = None,
    results: Annotated[
        list[Path] | None, typer.Option(metavar="PATH", help="Results of evaluations, file or folder; may be repeated.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Take values that contradict those of the study in their place.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be understood.")] = False,
    sketch: Annotated[
        Path | None, typer.Option(help="Only write a draft of a mapping for TABLE here, to check and to fill in.")
    ] = None,
) -> object:
    """Import runs of any trainer; creates the study if needed."""
    from mixlaw.study import import_runs, preview_import

    if sketch is not None:
        from mixlaw.adapters.sketch import sketch as write_sketch

        return write_sketch(table, sketch)
    options = {"unit": unit, "domains": domains, "mapping": mapping, "results": results or (), "replace": replace}
    if dry_run:
        return preview_import(study, table, **options)  # type: ignore[arg-type]
    return import_runs(study, table, **options).imported  # type: ignore[arg-type]


@command(app, FIT)
def fit(
    study: StudyPath,
    law: Annotated[str | None, typer.Option(help="Fit this law alone, by name or module:Class; only print it.")] = None,
    save: Annotated[bool, typer.Option("--save", help="With --law: replace the surfaces of the study.")] = False,
    refit: Annotated[bool, typer.Option("--refit", help="Fit anew though nothing has changed.")] = False,
) -> object:
    """Fit the response of every task to the measured runs."""
    with progress_bar("fit") as report:
        return open_study_at(study).fit(law=law, save=save or None, refit=refit, progress=report)


@command(app, FIT)
def predict(
    study: StudyPath,
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="Recipes, as a table like the one of the runs.")],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="CSV, Parquet or NDJSON to write; stdout if not given."),
    ] = None,
    mapping: Annotated[Path | None, typer.Option(help="TOML that says what the columns of TABLE mean.")] = None,
) -> object:
    """Predict every task for the recipes of a table."""
    from mixlaw.study.learning import extrapolated

    write = None if out is None else table_writer(out)
    opened = open_study_at(study)
    predictions = opened.predict(table, mapping=mapping)
    print_warning(extrapolated(opened, predictions))
    if out is None or write is None:
        return Predictions(predictions)
    write(predictions)
    return Written(out, predictions.height)


@command(app, CHOOSE)
def suggest(
    study: StudyPath,
    budget: Annotated[float, typer.Option(help="FLOPs that the runs may cost together, for instance 2e18.")],
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="Most runs.")] = 8,
    queue: Annotated[
        bool, typer.Option("--queue", help="Let `mixlaw run` train them, and write job lines for other trainers.")
    ] = False,
    target: dict[str, Any] | None = None,
) -> object:
    """Suggest the next proxies to train under a FLOP budget."""
    with progress_bar("suggest") as report:
        return open_study_at(study, target).suggest(budget, count=count, queue=queue, progress=report)


@command(app, CHOOSE)
def propose(
    study: StudyPath,
    draft: Annotated[bool, typer.Option("--draft", help="Only print it: freeze no predictions.")] = False,
    queue: Annotated[bool, typer.Option("--queue", help="Let `mixlaw run` train it and the baseline.")] = False,
    ladder: Annotated[
        bool, typer.Option("--ladder", help="Let `mixlaw run` train both at the sizes between, first.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Let `mixlaw run` train both at the proxies' sizes, to fit and propose again."),
    ] = False,
    target: dict[str, Any] | None = None,
) -> object:
    """Propose a recipe for the target; freeze its predictions."""
    with progress_bar("propose") as report:
        opened = open_study_at(study, target)
        return opened.propose(draft=draft, queue=queue, ladder=ladder, check=check, progress=report)


@command(app, CHOOSE, "what-if")
def what_if(
    study: StudyPath,
    recipe: Annotated[
        str | None,
        typer.Argument(metavar="RECIPE", help="web=.5,code=.5, file, run or proposal; the last proposal without."),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option("--baseline", "--against", help="What gains refer to: a named baseline, mixture, or RECIPE."),
    ] = None,
    target: dict[str, Any] | None = None,
) -> object:
    """Predict one recipe, and the effect of changing it."""
    return open_study_at(study, target).what_if(recipe, against=baseline)


@command(app, CHOOSE)
def compare(
    study: StudyPath,
    recipe: Annotated[str, typer.Argument(metavar="A", help="File, run, proposal, baseline, or web=.5,code=.5.")],
    other: Annotated[
        str | None, typer.Argument(metavar="B", help="The same; a baseline has the size and schedule of the other.")
    ] = None,
    target: dict[str, Any] | None = None,
) -> object:
    """Compare two recipes task by task."""
    return open_study_at(study, target).compare(recipe, other)


@command(app, CHOOSE)
def pareto(
    study: StudyPath,
    group: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=TASK,TASK", help="A group of tasks, repeated; [groups] of study.toml if not given."),
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="HTML page with plot and table to write.")] = None,
    target: dict[str, Any] | None = None,
) -> object:
    """Find the Pareto front between groups of tasks."""
    from mixlaw.files import write_text

    opened = open_study_at(study, target)
    with progress_bar("pareto") as report:
        front = opened.pareto(groups_of(group or ()), progress=report)
    if out is not None:
        from mixlaw.report.front import front_page

        title = f"{study.resolve().name}: between {', '.join(front.groups)}"
        write_text(out, front_page(front, title, opened.domains_or_unlimited))
    return front


@command(app, CHOOSE)
def dependence(
    study: StudyPath,
    proposal: Annotated[str | None, typer.Argument(metavar="PROPOSAL", help="The last one if not given.")] = None,
    more: Annotated[
        list[str] | None, typer.Option(metavar="DOMAIN=TOKENS", help="More unique tokens of a domain; may be repeated.")
    ] = None,
    target: dict[str, Any] | None = None,
) -> object:
    """Show how weights and more data would move a proposal."""
    return open_study_at(study, target).dependence(proposal, tokens_of(more or ()))


@command(app, SHOW)
def verify(
    study: StudyPath,
    baseline: Annotated[str | None, typer.Option(help="Gains over this baseline alone; over all if not given.")] = None,
) -> object:
    """Compare frozen predictions with later measurements."""
    return open_study_at(study).verify(baseline)


@command(app, SHOW, tables=False)
def report(
    study: StudyPath,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="HTML to write; STUDY/report.html if not given.")
    ] = None,
) -> object:
    """Write one self-contained interactive HTML page."""
    return Written(open_study_at(study).report(out))


@command(app, SHOW, tables=False)
def dashboard(
    study: StudyPath,
    host: Annotated[
        str, typer.Option(help="Address to listen at; by default this machine alone can ask.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to listen; 0 takes any that is free.")] = 8050,
) -> object:
    """Serve a local page with sliders for target and limits."""
    open_study_at(study).dashboard(host, port, ready=print_result)
    return None


@command(app, SHOW, tables=False)
def export(
    study: StudyPath,
    proposal: Annotated[
        str | None,
        typer.Argument(metavar="PROPOSAL", help="Proposal, run, or file of a recipe; the last proposal if not given."),
    ] = None,
    to: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TRAINER", help="torchtitan, megatron, olmo-core, mosaic or datasets, repeated; all if not given."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder; STUDY/exports/... if not given.")] = None,
    paths: Annotated[Path | None, typer.Option(help="TOML with [paths] and [tokens_per_document] by domain.")] = None,
) -> object:
    """Write a recipe as configuration for other trainers."""
    return open_study_at(study).export(proposal, to or (), out, paths=paths)


Dataset = Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Dataset of the Hugging Face hub.")]


@command(app, SHOW, tables=False)
def push(
    study: StudyPath,
    repository: Dataset,
    public: Annotated[bool, typer.Option("--public", help="Let everybody see a dataset that is created.")] = False,
) -> object:
    """Write a study to a dataset of the Hugging Face hub."""
    return open_study_at(study).push(repository, public=public)


@command(app, SHOW, tables=False)
def pull(study: StudyPath, repository: Dataset) -> object:
    """Read a study from a dataset into a new folder."""
    from mixlaw.study.sharing import pull as pull_study

    return pull_study(study, repository)


def main() -> None:
    """Entry point: exit code 2 and one sentence for bad input, 1 for a run that was stopped or failed."""
    collect_rarely()
    keep_freed_memory()
    as_json = "--json" in sys.argv[1:]
    try:
        code = app(standalone_mode=False)
    except InputError as error:
        print_error(str(error), as_json)
        raise SystemExit(2) from None
    except Exception as error:
        if sentence := of_machine(error):
            print_error(sentence, as_json)
            raise SystemExit(2) from None
        if not hasattr(error, "show"):  # a wrong option or argument knows how to show itself
            raise
        if as_json:
            print_error(error.format_message() if hasattr(error, "format_message") else str(error), as_json)
        else:
            error.show()
        raise SystemExit(2) from None
    if code == INTERRUPTED:
        print_error("stopped; repeat the command to continue", as_json)
        code = 1
    raise SystemExit(code)
