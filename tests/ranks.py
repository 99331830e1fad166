"""Run a function in several processes that train together, forked from this one: no start-up, real gloo."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from typing import Any

from mixlaw.runner.train.parallel import Ranks, joined


def begun(world: int, work: Callable[..., None], *arguments: Any) -> list[Any]:
    """Processes that call `work(ranks, *arguments)`, one for each rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes: list[Any] = [
        multiprocessing.get_context("fork").Process(target=_rank, args=(rank, world, port, work, arguments))
        for rank in range(world)
    ]
    for process in processes:
        process.start()
    return processes


def together(world: int, work: Callable[..., None], *arguments: Any) -> None:
    """Call `work(ranks, *arguments)` in every rank; fails if one fails or takes ten minutes."""
    processes = begun(world, work, *arguments)
    for process in processes:
        process.join(600)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert codes == [0] * world


def _rank(rank: int, world: int, port: int, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    here = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_PORT": port, "MASTER_ADDR": "127.0.0.1"}
    os.environ.update({name: str(value) for name, value in here.items()}, CUDA_VISIBLE_DEVICES="")
    with joined() as ranks:
        assert ranks == Ranks(rank, world)
        work(ranks, *arguments)
