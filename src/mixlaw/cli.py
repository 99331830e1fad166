"""The command line: every command parses, calls the library once, and prints."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from mixlaw.errors import InputError, printable
from mixlaw.machine import collect_rarely
from mixlaw.options import Json, Measured, StudyPath, Workers, print_version, target_options
from mixlaw.output import groups_of, open_study_at, print_file, print_result, table_writer, tokens_of

app = typer.Typer(
    name="mixlaw",
    help="How much code goes with how much text, in which phase, and how to cool down.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

INTERRUPTED = 130  # what typer returns for Ctrl-C


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """How much code goes with how much text, in which phase, and how to cool down."""


@app.command()
def demo(
    study: StudyPath = Path("demo"),
    smoke: Annotated[bool, typer.Option("--smoke", help="A small version, under two minutes.")] = False,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Run the whole loop on the embedded corpora."""
    from mixlaw.demo.loop import run_demo

    print_result(run_demo(study, smoke=smoke, workers=workers), as_json)


@app.command()
def new(study: StudyPath, as_json: Json = False) -> None:
    """Create a study with a commented study.toml."""
    from mixlaw.templates import create

    print_file(create(study), as_json)


@app.command()
def prepare(
    study: StudyPath,
    verify: Annotated[bool, typer.Option("--verify", help="Read all files and compare their checksums.")] = False,
    contamination: Annotated[
        bool, typer.Option("--contamination", help="Look for evaluation items in the training text.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Tokenise the domains into shards; existing ones are kept."""
    from mixlaw.progress import progress_bar

    opened = open_study_at(study)
    with progress_bar("data") as report:
        results: list[Any] = [opened.prepare(verify=verify, progress=report)]
        results += [opened.contamination(progress=report)] if contamination else []
    print_result(results, as_json)


@app.command(name="data", hidden=True, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def data() -> None:
    """The former name of `prepare`."""
    raise InputError("`mixlaw data` is now `mixlaw prepare STUDY`")


@app.command()
def status(study: StudyPath, as_json: Json = False) -> None:
    """Print what a study holds and what comes next."""
    print_result(open_study_at(study).status(), as_json)


@app.command()
def show(
    study: StudyPath,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Run or proposal; the last proposal.")] = None,
    as_json: Json = False,
) -> None:
    """Print one run or proposal."""
    print_result(open_study_at(study).show(name), as_json)


@app.command()
def plan(study: StudyPath, workers: Workers = None, measure: Measured = False, as_json: Json = False) -> None:
    """Print the segment tree with FLOPs, hours and disk."""
    print_result(open_study_at(study).plan(workers=workers, measure=measure), as_json)


@app.command()
def run(
    study: StudyPath,
    workers: Workers = None,
    gpus: Annotated[
        str | None, typer.Option(help="GPUs to use, all if not given; with --dry-run also machines x GPUs, as 4x8.")
    ] = None,
    executor: Annotated[Literal["local", "ray"], typer.Option(help="This machine, or a Ray cluster.")] = "local",
    address: Annotated[
        str | None, typer.Option(help="Of the Ray cluster: auto (if not given), HOST:6379 or ray://HOST:10001.")
    ] = None,
    store: Annotated[
        str | None, typer.Option(help="Where a Ray cluster keeps checkpoints: s3://... or any fsspec URL.")
    ] = None,
    launch: Annotated[
        str | None, typer.Option(help='Command that starts a worker over several machines: "srun ... torchrun ...".')
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what would be trained where and when.")
    ] = False,
    gpu: Annotated[str | None, typer.Option(help="With --dry-run: GPU assumed for the estimate, e.g. H100.")] = None,
    mfu: Annotated[float, typer.Option(help="With --dry-run: model FLOPs utilisation.")] = 0.4,
    price: Annotated[float | None, typer.Option(help="With --dry-run: price of a GPU or core for an hour.")] = None,
    as_json: Json = False,
) -> None:
    """Train and evaluate what is pending; safe to kill and repeat."""
    from mixlaw.runner.execute.machines import backend_of
    from mixlaw.runner.plan.price import Assumptions

    opened = open_study_at(study)
    backend = backend_of(executor, workers, None if dry_run else gpus, launch, address, store)
    if dry_run:
        print_result(opened.dry_run(backend=backend, assumptions=Assumptions(gpus, gpu, mfu, price)), as_json)
        return
    from mixlaw.progress import progress_bar

    with progress_bar("training") as report:
        outcome = opened.run(backend=backend, progress=report)
    print_result(outcome, as_json)
    if outcome.failed or outcome.unmeasured:
        raise typer.Exit(1)


@app.command(name="import")
def import_(
    study: StudyPath,
    table: Annotated[
        Path, typer.Argument(metavar="TABLE", help="CSV, Parquet or NDJSON, a row per run, or a folder of them.")
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
        list[Path] | None, typer.Option(help="Results of lm-evaluation-harness, file or folder; may be repeated.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Take values that contradict those of the study in their place.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be understood.")] = False,
    as_json: Json = False,
) -> None:
    """Import runs of any trainer; creates the study if needed."""
    from mixlaw.study import import_runs, preview_import

    options = {"unit": unit, "domains": domains, "mapping": mapping, "results": results or (), "replace": replace}
    understood = preview_import(study, table, **options) if dry_run else import_runs(study, table, **options).imported  # type: ignore[arg-type]
    print_result(understood, as_json)


@app.command()
def fit(
    study: StudyPath,
    law: Annotated[str | None, typer.Option(help="Fit this law alone, by name or module:Class; only print it.")] = None,
    save: Annotated[bool, typer.Option("--save", help="With --law: replace the surfaces of the study.")] = False,
    as_json: Json = False,
) -> None:
    """Fit the response of every task to the measured runs."""
    from mixlaw.progress import progress_bar

    with progress_bar("fit") as report:
        surfaces = open_study_at(study).fit(law=law, save=save or None, progress=report)
    print_result(surfaces, as_json)


@app.command()
def predict(
    study: StudyPath,
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="Recipes, as a table like the one of the runs.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="CSV, Parquet or NDJSON to write, a line per row and task.")],
    mapping: Annotated[Path | None, typer.Option(help="TOML that says what the columns of TABLE mean.")] = None,
    as_json: Json = False,
) -> None:
    """Predict every task for the recipes of a table."""
    write = table_writer(out)
    predictions = open_study_at(study).predict(table, mapping=mapping)
    write(predictions)
    print_file(out, as_json, predictions.height)


@app.command()
@target_options
def suggest(
    study: StudyPath,
    budget: Annotated[float, typer.Option(help="FLOPs that the runs may cost together, for instance 2e18.")],
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="Most runs.")] = 8,
    queue: Annotated[
        bool, typer.Option("--queue", help="Let `mixlaw run` train them, and write job lines for other trainers.")
    ] = False,
    as_json: Json = False,
    target: dict[str, Any] | None = None,
) -> None:
    """Suggest the next proxies to train under a FLOP budget."""
    from mixlaw.progress import progress_bar

    with progress_bar("suggest") as report:
        suggestion = open_study_at(study, target).suggest(budget, count=count, queue=queue, progress=report)
    print_result(suggestion, as_json)


@app.command()
@target_options
def propose(
    study: StudyPath,
    draft: Annotated[bool, typer.Option("--draft", help="Only print it: freeze no predictions.")] = False,
    queue: Annotated[bool, typer.Option("--queue", help="Let `mixlaw run` train it and the baseline.")] = False,
    ladder: Annotated[
        bool, typer.Option("--ladder", help="Let `mixlaw run` train both at the sizes between, first.")
    ] = False,
    as_json: Json = False,
    target: dict[str, Any] | None = None,
) -> None:
    """Propose a recipe for the target; freeze its predictions."""
    from mixlaw.progress import progress_bar

    with progress_bar("propose") as report:
        opened = open_study_at(study, target)
        proposal = opened.propose(draft=draft, queue=queue, ladder=ladder, progress=report)
    print_result(proposal, as_json)


@app.command(name="what-if")
@target_options
def what_if(
    study: StudyPath,
    recipe: Annotated[
        str | None,
        typer.Argument(metavar="[RECIPE]", help="TOML or JSON file, run, or proposal; the last proposal if not given."),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option("--baseline", "--against", help="What gains refer to: a named baseline, mixture, or RECIPE."),
    ] = None,
    as_json: Json = False,
    target: dict[str, Any] | None = None,
) -> None:
    """Predict one recipe, and the effect of changing it."""
    print_result(open_study_at(study, target).what_if(recipe, against=baseline), as_json)


@app.command()
@target_options
def compare(
    study: StudyPath,
    recipe: Annotated[str, typer.Argument(metavar="A", help="TOML or JSON file, run, or proposal.")],
    other: Annotated[
        str | None, typer.Argument(metavar="[B]", help="The same, or a baseline at the size and schedule of A.")
    ] = None,
    as_json: Json = False,
    target: dict[str, Any] | None = None,
) -> None:
    """Compare two recipes task by task."""
    print_result(open_study_at(study, target).compare(recipe, other), as_json)


@app.command()
@target_options
def pareto(
    study: StudyPath,
    group: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=TASK,TASK", help="A group of tasks, repeated; [groups] of study.toml if not given."),
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="HTML page with plot and table to write.")] = None,
    as_json: Json = False,
    target: dict[str, Any] | None = None,
) -> None:
    """Find the Pareto front between groups of tasks."""
    from mixlaw.files import write_text
    from mixlaw.progress import progress_bar

    with progress_bar("pareto") as report:
        front = open_study_at(study, target).pareto(groups_of(group or ()), progress=report)
    if out is not None:
        from mixlaw.report.front import front_page

        write_text(out, front_page(front, f"{study.resolve().name}: between {', '.join(front.groups)}"))
    print_result(front, as_json)


@app.command()
@target_options
def dependence(
    study: StudyPath,
    proposal: Annotated[str | None, typer.Argument(metavar="[PROPOSAL]", help="The last one if not given.")] = None,
    more: Annotated[
        list[str] | None, typer.Option(metavar="DOMAIN=TOKENS", help="More unique tokens of a domain; may be repeated.")
    ] = None,
    as_json: Json = False,
    target: dict[str, Any] | None = None,
) -> None:
    """Show how weights and more data would move a proposal."""
    print_result(open_study_at(study, target).dependence(proposal, tokens_of(more or ())), as_json)


@app.command()
def verify(
    study: StudyPath,
    baseline: Annotated[str | None, typer.Option(help="Gains over this baseline alone; over all if not given.")] = None,
    as_json: Json = False,
) -> None:
    """Compare frozen predictions with later measurements."""
    print_result(open_study_at(study).verify(baseline), as_json)


@app.command()
def report(
    study: StudyPath,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="HTML to write; STUDY/report.html if not given.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write one self-contained interactive HTML page."""
    print_file(open_study_at(study).report(out), as_json)


@app.command()
def dashboard(
    study: StudyPath,
    host: Annotated[
        str, typer.Option(help="Address to listen at; by default this machine alone can ask.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to listen; 0 takes any that is free.")] = 8050,
    as_json: Json = False,
) -> None:
    """Serve a local page with sliders for target and limits."""
    open_study_at(study).dashboard(host, port, ready=lambda server: print_result(server, as_json))


@app.command()
def export(
    study: StudyPath,
    proposal: Annotated[
        str | None,
        typer.Argument(
            metavar="[PROPOSAL]", help="Proposal, run, or file of a recipe; the last proposal if not given."
        ),
    ] = None,
    to: Annotated[
        list[str] | None,
        typer.Option(help="torchtitan, megatron, olmo-core, mosaic or datasets, repeated; all if not given."),
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder; STUDY/exports/... if not given.")] = None,
    paths: Annotated[Path | None, typer.Option(help="TOML with [paths] and [tokens_per_document] by domain.")] = None,
    as_json: Json = False,
) -> None:
    """Write a recipe as configuration for other trainers."""
    print_result(open_study_at(study).export(proposal, to or (), out, paths=paths), as_json)


def main() -> None:
    """Entry point: exit code 2 and one sentence for bad input, 1 for a run that was stopped or failed."""
    collect_rarely()
    try:
        code = app(standalone_mode=False)
    except InputError as error:
        print(f"mixlaw: {printable(str(error))}", file=sys.stderr)
        raise SystemExit(2) from None
    except Exception as error:
        if not hasattr(error, "show"):  # a wrong option or argument knows how to show itself
            raise
        error.show()
        raise SystemExit(2) from None
    if code == INTERRUPTED:
        print("mixlaw: stopped; repeat the command to continue", file=sys.stderr)
        code = 1
    raise SystemExit(code)
