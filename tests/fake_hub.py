"""A small stand-in for the Hugging Face hub on this machine: its commits, ranges, and what goes wrong."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

__all__ = ["OLD", "REPO", "FakeHub", "fake_hub"]

REPO = "somebody/made-up"
OLD = "0" * 39 + "1"


@dataclass
class FakeHub:
    """``commits``: commit -> path -> bytes. ``branches``: name -> commit. ``refuse``: (status, error code) for files.
    ``busy``: so many requests for files are answered 503 first."""

    commits: dict[str, dict[str, bytes]]
    branches: dict[str, str]
    refuse: tuple[int, str] | None = None
    busy: int = 0
    endpoint: str = ""
    requests: Counter[str] = field(default_factory=Counter)
    sent: int = 0

    def answer(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        parts = [unquote(part) for part in urlsplit(path).path.strip("/").split("/")]
        if parts[:2] == ["api", "datasets"]:
            if "/".join(parts[2:4]) != REPO:
                return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
            kind, revision = (parts[4], parts[5]) if len(parts) > 5 else ("revision", "main")
            self.requests[f"{kind} {revision}"] += 1
            commit = self.branches.get(revision, revision)
            if commit not in self.commits:
                return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
            if kind == "revision":
                return 200, {}, json.dumps({"id": REPO, "sha": commit, "tags": [], "siblings": []}).encode()
            return 200, {}, json.dumps(self._tree(commit)).encode()
        if parts[0] != "datasets" or parts[3] != "resolve":
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        self.requests["file"] += 1
        commit = self.branches.get(parts[4], parts[4])
        data = self.commits[commit].get("/".join(parts[5:]))
        if self.busy:
            self.busy -= 1
            return 503, {}, b""
        if self.refuse is not None:
            return self.refuse[0], {"X-Error-Code": self.refuse[1]}, b""
        if data is None:
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        more = {"ETag": '"etag"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        asked = headers.get("range", "")
        if asked.startswith("bytes="):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            piece = data[int(first) : int(last) + 1 if last else None]
            self.sent += len(piece)
            return 206, more | {"Content-Range": f"bytes {first}-{int(first) + len(piece) - 1}/{len(data)}"}, piece
        self.sent += len(data) if method == "GET" else 0
        return 200, more, data

    def _tree(self, commit: str) -> list[dict[str, object]]:
        files = self.commits[commit]
        folders = sorted({name.rpartition("/")[0] for name in files if "/" in name})
        entries: list[dict[str, object]] = [{"type": "directory", "path": name, "oid": "0" * 40, "size": 0} for name in folders]
        return entries + [{"type": "file", "path": name, "oid": "0" * 40, "size": len(data)} for name, data in files.items()]


@contextmanager
def fake_hub(commits: dict[str, dict[str, bytes]], branches: dict[str, str]) -> Iterator[FakeHub]:
    """The hub, listening on a free port of the loop-back address until the block ends."""
    hub = FakeHub(commits, branches)

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            self.rfile.read(length)
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, more, body = hub.answer(self.command, self.path, headers)
            self.send_response(status)
            for name, value in more.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_POST = do_GET

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
