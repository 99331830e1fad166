"""A Ray cluster of three nodes on this machine; as a program, it prints its address and kills a node for every line."""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pytest

from processes import family

NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "GRPC_ENABLE_FORK_SUPPORT": "0",  # docs/cluster.md, `ray://`
    "RAY_worker_niceness": "0",  # at 15, as by default, a worker beside two busy processes got a hundredth of a core
}


@dataclass(frozen=True)
class Nodes:
    """Nodes of this machine: their cluster, its address, and that of its client server."""

    cluster: Any
    address: str
    client: str


@contextmanager
def started(others: Sequence[Mapping[str, Any]] = (NODE, NODE)) -> Iterator[Nodes]:
    """A node of one core and others beside it, by their resources; they end with the block."""
    # Ray's sockets want a short path: a name of theirs has 107 bytes at most.
    with (
        pytest.MonkeyPatch.context() as patch,
        tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as scratch,
        socket.socket() as free,
    ):
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        for name, value in {**SETTINGS, "TMPDIR": scratch}.items():
            patch.setenv(name, value)
        import ray
        from ray.cluster_utils import Cluster

        head = {**NODE, "include_dashboard": False, "ray_client_server_port": port}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            for other in others:
                cluster.add_node(**{**NODE, **other}, wait=False)
            cluster.wait_for_nodes()
            yield Nodes(cluster, cluster.address, f"ray://127.0.0.1:{port}")
        finally:
            ray.shutdown()
            cluster.shutdown()  # type: ignore[no-untyped-call]


def kill(node: Any) -> None:
    """What a loss of power does: everything that runs on a node ends in the same moment."""
    (raylet,) = node.all_processes["raylet"]
    for pid in family(raylet.process.pid):
        with suppress(ProcessLookupError):  # it has ended since it was listed
            os.kill(pid, signal.SIGKILL)


def main() -> None:
    """Nodes until the input ends; for every line one besides the head is killed, and another one joins."""
    with started() as nodes:
        print(nodes.address, flush=True)
        for _ in sys.stdin:
            node = next(iter(nodes.cluster.worker_nodes))
            kill(node)
            print("killed", flush=True)
            nodes.cluster.remove_node(node, allow_graceful=False)
            nodes.cluster.add_node(**NODE, wait=False)


if __name__ == "__main__":
    main()
