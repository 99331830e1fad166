"""Options that commands share: what is printed, and what changes [target] of study.toml for one call."""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from mixlaw.errors import InputError
from mixlaw.output import print_result, printing

StudyPath = Annotated[Path, typer.Argument(metavar="STUDY", help="Folder of the study.")]
Measured = Annotated[bool, typer.Option("--measure", help="Time a few micro-batches of each size first.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Training processes; as many as cores if not given.")]


def print_version(wanted: bool) -> None:
    """Print the version and exit, where it is wanted."""
    if wanted:
        import mixlaw

        print(f"mixlaw {mixlaw.__version__}")
        raise typer.Exit


class _Flags:
    """Help in which flags have no type beside them: they take no value."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters of a command, and its --help."""
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            if getattr(param, "is_flag", False):
                param.metavar = ""
        return params


class Group(_Flags, TyperGroup):
    """The program."""


class _Command(_Flags, TyperCommand):
    """One command of it."""


_TARGET = {
    "params": (str, typer.Option("--params", help="Size of the model, e.g. 7B.", rich_help_panel="Target")),
    "tokens": (str, typer.Option("--tokens", help="Tokens to train it on, e.g. 1T.", rich_help_panel="Target")),
    "cooldown": (
        str,
        typer.Option("--cooldown", help="Share of the last phase: 0.1:0.4 or 0.2.", rich_help_panel="Target"),
    ),
    "weight": (
        list[str],
        typer.Option(
            "--weight",
            metavar="TASK=WEIGHT",
            help="Of a task or group, repeated; others do not count.",
            rich_help_panel="Target",
        ),
    ),
    "guard": (
        str,
        typer.Option("--guard", help="Percent of loss that no task may lose; off for none.", rich_help_panel="Target"),
    ),
    "max_epochs": (float, typer.Option("--max-epochs", help="Most epochs of any domain.", rich_help_panel="Target")),
    "baseline": (
        str,
        typer.Option(
            "--baseline",
            help="What gains refer to: a named baseline, mixture, run or file.",
            rich_help_panel="Target",
        ),
    ),
    "changed": (
        list[str],
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Any other key of [target]; repeated.", rich_help_panel="Target"
        ),
    ),
}
_OUTPUT = {
    "everything": typer.Option("--all", help="Print all rows, columns and notes.", rich_help_panel="Output"),
    "quiet": typer.Option("--quiet", "-q", help="Print the answer alone, no progress.", rich_help_panel="Output"),
    "verbose": typer.Option("--verbose", "-v", help="Print every step with its time.", rich_help_panel="Output"),
    "as_json": typer.Option(
        "--json", help="Print one JSON document and nothing else on stdout.", rich_help_panel="Output"
    ),
}

Command = Callable[..., Any]


def command(
    app: typer.Typer, panel: str, name: str | None = None, *, tables: bool = True
) -> Callable[[Command], Command]:
    """Register a command, with the options that it shares with others; what it returns is printed.

    Args:
        app: of the commands.
        panel: where the help lists it.
        name: of the command; that of the function where None.
        tables: whether it prints tables, of which `--all` prints everything.
    """

    def register(function: Command) -> Command:
        app.command(name=name, cls=_Command, rich_help_panel=panel)(_with_options(function, tables))
        return function

    return register


def _with_options(function: Command, tables: bool) -> Command:
    """The command with options for what it prints, and, if it takes a `target`, for changes to [target]."""
    signature = inspect.signature(function, eval_str=True)
    keyword = inspect.Parameter.KEYWORD_ONLY
    own = [each.replace(kind=keyword) for name, each in signature.parameters.items() if name != "target"]
    target = {name: each for name, each in _TARGET.items() if name not in signature.parameters}
    target = target if "target" in signature.parameters else {}
    output = {name: option for name, option in _OUTPUT.items() if tables or name != "everything"}
    added = [
        *(
            inspect.Parameter(n, keyword, default=None, annotation=Annotated[k | None, o])
            for n, (k, o) in target.items()
        ),
        *(inspect.Parameter(n, keyword, default=False, annotation=Annotated[bool, o]) for n, o in output.items()),
    ]

    @wraps(function)
    def wrapped(**values: Any) -> None:
        with printing(**{name: values.pop(name) for name in output}):
            if "target" in signature.parameters:
                values["target"] = changes_of(**{name: values.pop(name) for name in target})
            result = function(**values)
            if result is not None:
                print_result(result)

    parameters = [*own, *added]
    wrapped.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return wrapped


def changes_of(
    params: str | None = None,
    tokens: str | None = None,
    cooldown: str | None = None,
    weight: Sequence[str] | None = None,
    guard: str | None = None,
    max_epochs: float | None = None,
    baseline: str | None = None,
    changed: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Changes to [target] from the words of the command line.

    Raises:
        InputError: a word that is no number, or not NAME=VALUE.
    """
    changes: dict[str, Any] = {}
    for word in changed or ():
        key, equals, value = word.partition("=")
        if not equals or not key.strip():
            raise InputError(f"--set takes KEY=VALUE with a key of [target], as caps.cooldown.code=0.3, got {word!r}")
        changes |= _toml(key.strip(), value.strip())
    plain = {"params": params, "tokens": tokens, "max_epochs": max_epochs, "baseline": baseline}
    changes |= {key: value for key, value in plain.items() if value is not None}
    if cooldown is not None:
        least, _, most = cooldown.partition(":")
        changes["cooldown"] = [_number("--cooldown", least), _number("--cooldown", most or least)]
    if weight:
        pairs = [word.rpartition("=") for word in weight]
        changes["weights"] = {name: _number("--weight", value) for name, _, value in pairs}
    if guard is not None:
        changes["guard"] = False if guard == "off" else {"most": _number("--guard", guard)}
    return changes


def _toml(key: str, value: str) -> dict[str, Any]:
    """One key, dotted where it lies in a table, and its value, as TOML has it or else as text."""
    for text in (value, f"'{value}'"):
        try:
            return tomllib.loads(f"{key} = {text}")
        except tomllib.TOMLDecodeError:
            continue
    raise InputError(f"--set {key}={value} is neither a key with a TOML value nor one with a text; quote the value")


def _number(option: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{option} takes a number, got {text!r}; write for instance 0.2") from None
