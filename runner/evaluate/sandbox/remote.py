"""Both ends of a pipe between an untrusted program and its tests; each runs in a sandbox of its own.

Functions are called across the pipe, and plain values alone come back: the program never sees the tests, and the tests
compare values of their own interpreter, which the program cannot touch. To pass, it has to give the right answers.
This file runs by itself inside the sandbox and imports nothing but the standard library.
"""

from __future__ import annotations

import builtins
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

_KINDS: dict[str, Any] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset, "iterator": Iterator}
_MADE: dict[str, Any] = {**_KINDS, "iterator": iter}
PASSED = b"passed"


def pack(value: Any, keep: Callable[[Any], int]) -> Any:
    """Plain data as JSON with its type; other objects stay here and are sent as a number.

    Args:
        value: anything; instances of subclasses, such as named tuples and counters, are sent as the plain value.
        keep: called with an object that stays here, returns its number.
    """
    if value is None or isinstance(value, bool):
        return value
    plain = next((kind for kind in (int, float, str) if isinstance(value, kind)), None)
    if plain is not None:
        return plain(value)
    if isinstance(value, dict):
        return {"dict": [[pack(key, keep), pack(item, keep)] for key, item in value.items()]}
    for name, kind in _KINDS.items():
        if isinstance(value, kind):
            return {name: [pack(item, keep) for item in value]}
    if isinstance(value, bytes | bytearray):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, range):
        return {"range": [value.start, value.stop, value.step]}
    return {"number": keep(value)}


def unpack(data: Any, get: Callable[[int], Any]) -> Any:
    """The inverse of `pack`; `get` returns the object of a number."""
    if not isinstance(data, dict):
        return data
    ((kind, inner),) = data.items()
    if kind in _MADE:
        return _MADE[kind]([unpack(item, get) for item in inner])
    if kind == "dict":
        return {unpack(key, get): unpack(item, get) for key, item in inner}
    if kind == "bytes":
        return bytes.fromhex(inner)
    if kind in ("complex", "range"):
        return complex(*inner) if kind == "complex" else range(*inner)
    return get(inner)


class Remote:
    """Something of the program, seen from the tests: it can be called, and has attributes; equal only to itself."""

    def __init__(self, ask: Callable[..., Any], number: int) -> None:
        vars(self).update(_ask=ask, _number=number)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the program returns for these arguments, or the exception that it raises."""
        return self._ask("call", self._number, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._ask("get", self._number, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._ask("set", self._number, name, value)


def check(task: Mapping[str, Any], answers: Iterator[bytes], send: Callable[[bytes], Any]) -> None:
    """Run tests on a program at the other end; returning means that it has passed.

    Args:
        task: `before`, code that the tests need; `names` of the program that they use; the `tests`.
        answers: lines from the program.
        send: takes a line for it.
    """

    def keep(value: Any) -> int:
        if isinstance(value, Remote):
            return int(value._number)
        raise TypeError(f"tests can hand over plain values only, not {type(value).__name__}")

    def ask(*request: Any) -> Any:
        """Send a request and return its answer, or raise what the program raised."""
        send(json.dumps(pack(request, keep)).encode() + b"\n")
        answer = json.loads(next(answers, b'["EOFError", "the program has ended"]'))
        if len(answer) == 1:
            return unpack(answer[0], lambda number: Remote(ask, number))
        kind: Any = getattr(builtins, str(answer[0]), None)
        known = isinstance(kind, type) and issubclass(kind, Exception)
        raise kind(str(answer[1])) if known else RuntimeError(": ".join(map(str, answer)))

    space: dict[str, Any] = {"__name__": "tests"}
    exec(task["before"], space)
    space.update({name: ask("get", None, name) for name in task["names"]})
    exec(task["tests"], space)


def serve(source: str, requests: Iterable[bytes], send: Callable[[bytes], Any]) -> None:
    """Run a program and answer the tests' requests with plain values, until there are no more."""
    space: dict[str, Any] = {"__name__": "program"}
    objects: list[Any] = []

    def keep(value: Any) -> int:
        objects.append(value)
        return len(objects) - 1

    failure = _failure(lambda: exec(source, space))
    for line in requests:
        answer: list[Any] = []
        request = unpack(json.loads(line), objects.__getitem__)
        outcome = failure or _failure(lambda: answer.append(pack(_done(space, objects, *request), keep)))  # noqa: B023
        send(json.dumps(outcome or answer).encode() + b"\n")


def _done(space: dict[str, Any], objects: list[Any], what: str, number: int | None, *more: Any) -> Any:
    if number is None:
        return space[more[0]]
    if what == "call":
        return objects[number](*more[0], **more[1])
    return getattr(objects[number], more[0]) if what == "get" else setattr(objects[number], *more)


def _failure(run: Callable[[], Any]) -> list[str]:
    """Kind and text of what a call raised, whatever it was; nothing where it came back."""
    try:
        run()
    except BaseException as error:
        return [type(error).__name__, str(error)[:1000]]
    return []


def _main(role: str, read: int, write: int) -> None:
    incoming, outgoing = os.fdopen(os.dup(read), "rb"), os.fdopen(os.dup(write), "wb", buffering=0)
    sys.set_int_max_str_digits(0)
    if role == "check":
        check(json.loads(Path("task.json").read_text(encoding="utf-8")), iter(incoming), outgoing.write)
        os.write(1, PASSED)
        return
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):  # what the program prints is lost
        os.dup2(null, number)
    serve(Path("task.txt").read_text(encoding="utf-8"), incoming, outgoing.write)


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
