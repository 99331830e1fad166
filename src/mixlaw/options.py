"""Options that commands share, those among them that change [target] of study.toml for one call."""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from mixlaw.errors import InputError

StudyPath = Annotated[Path, typer.Argument(metavar="STUDY", help="Folder of the study.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else on stdout.")]
Measured = Annotated[bool, typer.Option("--measure", help="Time a few micro-batches of each size first.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Training processes; as many as cores if not given.")]


def print_version(wanted: bool) -> None:
    """Print the version and exit, where it is wanted."""
    if wanted:
        import mixlaw

        print(f"mixlaw {mixlaw.__version__}")
        raise typer.Exit


_OPTIONS = {
    "params": (str, typer.Option("--params", help="Size of the model, as 7B.")),
    "tokens": (str, typer.Option("--tokens", help="Its tokens, as 1T.")),
    "cooldown": (str, typer.Option("--cooldown", help="Share of the tokens in the last phase, as 0.1:0.4 or 0.2.")),
    "weight": (
        list[str],
        typer.Option("--weight", metavar="TASK=WEIGHT", help="Of a task or group, repeated; others do not count."),
    ),
    "guard": (str, typer.Option("--guard", help="Percent of loss that no task may lose; off for none.")),
    "max_epochs": (float, typer.Option("--max-epochs", help="How often data may be seen.")),
    "baseline": (str, typer.Option("--baseline", help="What gains refer to: a named baseline, mixture, run or file.")),
    "changed": (list[str], typer.Option("--set", metavar="KEY=VALUE", help="Any other key of [target]; repeated.")),
}


def target_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options to a command, which gets them as `target`: changes to [target], none where none is given."""
    signature = inspect.signature(command, eval_str=True)
    keyword = inspect.Parameter.KEYWORD_ONLY
    own = [parameter.replace(kind=keyword) for name, parameter in signature.parameters.items() if name != "target"]
    options = {name: each for name, each in _OPTIONS.items() if name not in signature.parameters}
    added = [
        inspect.Parameter(name, keyword, default=None, annotation=Annotated[kind | None, option])
        for name, (kind, option) in options.items()
    ]
    last = own.pop() if own[-1].name == "as_json" else None  # --json stays the last one in --help

    @wraps(command)
    def wrapped(**values: Any) -> None:
        changes = changes_of(**{name: values.pop(name) for name in options})
        command(**values, target=changes)

    parameters = [*own, *added, *([last] if last else [])]
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
