"""A server on this machine that speaks S3 over HTTP, for what keeps checkpoints there."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def serving() -> Iterator[str]:
    """URL of a bucket; while it is there, clients of this process and of its children find the server."""
    moto = pytest.importorskip("moto.server")
    s3fs = pytest.importorskip("s3fs")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    where = {"AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": f"http://{host}:{port}"}
    credentials = {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nobody"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (where | credentials).items():
            patch.setenv(name, value)
        bucket = f"bucket-{port}"  # what servers of one process hold outlives them
        s3fs.S3FileSystem.clear_instance_cache()  # clients of a server that is gone
        s3fs.S3FileSystem().mkdir(bucket)
        yield f"s3://{bucket}/study"
    server.stop()
