"""Models whose weights are allocated only once they are sharded, so that no process ever holds a whole one.

A model is built with its parameters on the meta device. Ranks then allocate their shards, and fill them from a
checkpoint, or with the very weights that a fresh model has in one process: every random draw of the initialisation is
remembered with the state of the generator before it, and repeated one parameter at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

Assign = Callable[[torch.Tensor, torch.Tensor], None]


@dataclass
class Draws:
    """How the initialisation of a model fills its parameters, so that it can be repeated.

    Attributes:
        last: the operation that filled each parameter last, after the state of the generator before it.
    """

    last: dict[int, tuple[torch.Tensor, Any, tuple[Any, ...], dict[str, Any]]] = field(default_factory=dict)

    def repeat(self, weight: torch.Tensor) -> torch.Tensor:
        """The whole value of a parameter that was built on the meta device, on the CPU."""
        value = torch.empty(weight.shape, dtype=weight.dtype)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            state, operation, arguments, named = self.last[id(weight)]
            torch.set_rng_state(state)
            operation(value, *arguments, **named)
        return value


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records what is done in place to tensors on the meta device, and draws the same numbers as there."""

    def __init__(self, draws: Draws) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.draws = draws

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if (
            func.overloadpacket.__name__.endswith("_")
            and args
            and isinstance(args[0], torch.Tensor)
            and args[0].is_meta
        ):
            weight, rest = args[0], args[1:]
            self.draws.last[id(weight)] = (torch.get_rng_state(), func, rest, kwargs)
            func(torch.empty(weight.shape, dtype=weight.dtype), *rest, **kwargs)  # the generator goes on
            return weight
        return func(*args, **kwargs)


@contextmanager
def parameters_on_meta(record: bool = True) -> Iterator[Draws]:
    """Modules built in here have their parameters on the meta device, and their buffers as usual.

    Args:
        record: whether to record how they are initialised, which draws the numbers of the whole model once.
    """
    usual = torch.nn.Module.register_parameter

    def on_meta(self: torch.nn.Module, name: str, param: torch.nn.Parameter | None) -> None:
        if param is not None and not param.is_meta:
            param = torch.nn.Parameter(param.to("meta"), requires_grad=param.requires_grad)
        usual(self, name, param)

    draws = Draws()
    torch.nn.Module.register_parameter = on_meta  # type: ignore[method-assign]
    try:
        with _Recorder(draws) if record else nullcontext():
            yield draws
    finally:
        torch.nn.Module.register_parameter = usual  # type: ignore[method-assign]


def allocate(model: torch.nn.Module, device: torch.device) -> None:
    """Give parameters on the meta device memory of their own, unfilled; tied ones stay one."""
    made: dict[int, torch.nn.Parameter] = {}
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is not None and weight.is_meta:
                if id(weight) not in made:
                    made[id(weight)] = torch.nn.Parameter(torch.empty_like(weight, device=device), weight.requires_grad)
                module._parameters[name] = made[id(weight)]
