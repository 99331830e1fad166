"""The server behind the page; by default it listens to this machine only."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mixlaw.errors import InputError
from mixlaw.folder import Folder
from mixlaw.machine import collect_as_usual
from mixlaw.printable import Printable

if TYPE_CHECKING:
    from flask import Response
    from werkzeug.serving import BaseWSGIServer

#: Names under which a browser on this machine may ask; any other name comes from a foreign page.
LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")
#: No page of anybody's may frame this one and have its buttons pressed.
UNFRAMED = "frame-ancestors 'none'"


@dataclass(frozen=True)
class Listening(Printable):
    """The address of a dashboard."""

    address: str

    def as_json(self) -> dict[str, Any]:
        """The address."""
        return {"address": self.address}

    def __str__(self) -> str:
        return f"the dashboard is at {self.address}; Ctrl-C stops it"


def server_of(
    study: Folder,
    propose: Callable[..., Any],
    freeze: Callable[..., Any],
    host: str = "127.0.0.1",
    port: int = 8050,
) -> BaseWSGIServer:
    """A server for the dashboard of a study; `serve_forever` runs it, its `port` is where it listens.

    Args:
        study: the study.
        propose, freeze: as in `mixlaw.study.choosing`.
        host: address to listen at.
        port: where; 0 takes any that is free.

    Raises:
        InputError: there is no study, its study.toml is wrong, Dash is not installed, or the port is taken.
    """
    try:
        from werkzeug.serving import make_server

        from mixlaw.dashboard.app import app_of
    except ModuleNotFoundError as error:
        raise InputError(
            f"the dashboard needs {error.name}, which is not installed; pip install 'mixlaw[app]'"
        ) from error
    if port and not _free(host, port):
        raise InputError(f"something listens at {host}:{port} already; give another --port, or 0 for any that is free")
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    app = app_of(study.path, propose, freeze)
    app.server.before_request(_refuse_other_sites)
    app.server.after_request(_unframed)
    if host in LOOPBACK:
        app.server.config["TRUSTED_HOSTS"] = list(LOOPBACK)
    return make_server(host, port, app.server, threaded=True)


def _refuse_other_sites() -> None:
    """Let other sites link to the page, and neither read, fill in nor frame it.

    Browsers say in Sec-Fetch-Site who asks, but not where the page comes by HTTP from another machine; then its Origin
    does. https://developer.mozilla.org/docs/Web/HTTP/Headers/Sec-Fetch-Site
    """
    from flask import abort, request

    said = request.headers
    origin = said.get("Origin")
    own = origin is None or origin.partition("://")[2] == request.host
    if "Sec-Fetch-Site" in said:
        followed = request.method == "GET" and said.get("Sec-Fetch-Dest") == "document"
        own = followed or said["Sec-Fetch-Site"] in ("same-origin", "none")
    if not own:
        abort(403, "another site asked; open the dashboard by its own address")


def _unframed(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = UNFRAMED
    return response


def _free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except PermissionError:
            raise InputError(f"port {port} is not allowed here; give a --port from 1024 on") from None
        except OSError:
            return False
    return True


def serve(
    study: Folder,
    propose: Callable[..., Any],
    freeze: Callable[..., Any],
    host: str,
    port: int,
    ready: Callable[[Listening], object],
) -> None:
    """Serve the dashboard of a study until it is interrupted; `ready` is called with the address."""
    server = server_of(study, propose, freeze, host, port)
    name = f"[{host}]" if ":" in host else "127.0.0.1" if host == "0.0.0.0" else host
    ready(Listening(f"http://{name}:{server.port}/"))
    collect_as_usual()
    from mixlaw.dashboard.app import warm

    calls = server.app.config["CALLS"]  # type: ignore[attr-defined]
    threading.Thread(target=warm, args=(calls,), daemon=True).start()
    try:
        server.serve_forever()  # until Ctrl-C, which it keeps to itself
    finally:
        calls.moves = dict.fromkeys(calls.moves, -1.0)  # ends searches: torch aborts where one outlives the interpreter
        for thread in set(threading.enumerate()) - {threading.current_thread()}:
            thread.join(10)
