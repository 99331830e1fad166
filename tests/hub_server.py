"""A server on loopback that answers what the hub's client asks of a dataset or model: facts, folders, files, commits.

with serve("org/set", {"data/a.jsonl": b"..."}) as server:
    run(..., env={"HF_ENDPOINT": server.url, "HF_HOME": ...})  # the client reads both when it is imported
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """A running server: its address, what it holds, and the files that were fetched, in order."""

    url: str
    name: str
    files: Mapping[str, bytes]
    fetched: list[str] = field(default_factory=list)

    def listed(self, folder: str, recursive: bool = False) -> list[dict[str, Any]]:
        """What a folder has, in itself or also in its folders."""
        start = f"{folder}/" if folder else ""
        if recursive:
            return [self._entry(name) for name in sorted(self.files) if name.startswith(start)]
        names = sorted({name[len(start) :].partition("/")[0] for name in self.files if name.startswith(start)})
        return [self._entry(start + name) for name in names]

    def _entry(self, path: str) -> dict[str, Any]:
        if path not in self.files:
            return {"type": "directory", "path": path, "size": 0, "oid": "0"}
        return {"type": "file", "path": path, "size": len(self.files[path]), "oid": tag(self.files[path])}


def tag(data: bytes) -> str:
    """What tells that a file has changed."""
    return hashlib.sha1(data).hexdigest()


@contextmanager
def serve(name: str, files: Mapping[str, bytes]) -> Iterator[Hub]:
    """Serve a dataset until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    hub = Hub(f"http://127.0.0.1:{server.server_address[1]}", name, files)
    server.hub = hub  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""

    def do_HEAD(self) -> None:
        """Whether a file is there."""
        self.do_GET()

    def do_GET(self) -> None:
        """Facts about the dataset, a folder, or a file or a range of it."""
        hub: Hub = self.server.hub  # type: ignore[attr-defined]
        path = unquote(urlsplit(self.path).path)
        if re.fullmatch(rf"/api/(datasets|models)/{hub.name}(/revision/[^/]+)?", path):
            self._json({"id": hub.name, "sha": COMMIT, "siblings": [{"rfilename": name} for name in hub.files]})
        elif found := re.fullmatch(rf"/api/(?:datasets|models)/{hub.name}/tree/{COMMIT}/?(.*)", path):
            self._json(hub.listed(found[1], "recursive=true" in urlsplit(self.path).query.lower()))
        elif (found := re.fullmatch(rf"(/datasets)?/{hub.name}/resolve/{COMMIT}/(.*)", path)) and found[2] in hub.files:
            self._file(hub, found[2])
        else:
            code = "EntryNotFound" if "/resolve/" in path else "RepoNotFound"
            self._send(404, b"{}", {"X-Error-Code": code})

    def do_POST(self) -> None:
        """Create the dataset, say how files are to be sent, take a commit; a token is needed, as on the hub."""
        hub: Hub = self.server.hub  # type: ignore[attr-defined]
        path = unquote(urlsplit(self.path).path)
        chunked = self.headers.get("Transfer-Encoding") == "chunked"
        body = self._chunks() if chunked else self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if not self.headers.get("Authorization"):
            self._send(401, json.dumps({"error": "Invalid username or password."}).encode(), {})
        elif path == "/api/repos/create":
            self._json({"url": f"{hub.url}/datasets/{hub.name}", "name": hub.name})
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif path == f"/api/datasets/{hub.name}/preupload/main":
            asked = json.loads(body)["files"]
            self._json({"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked]})
        elif path == f"/api/datasets/{hub.name}/commit/main":
            assert isinstance(hub.files, dict)
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    hub.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self._json({"commitUrl": f"{hub.url}/datasets/{hub.name}/commit/{COMMIT}", "commitOid": COMMIT})
        else:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def _chunks(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _file(self, hub: Hub, name: str) -> None:
        data = hub.files[name]
        headers = {"ETag": f'"{tag(data)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if self.command == "GET":
            hub.fetched.append(name)
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if asked is None:
            self._send(200, data, headers)
            return
        first, last = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
        self._send(206, data[first : last + 1], {**headers, "Content-Range": f"bytes {first}-{last}/{len(data)}"})

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
