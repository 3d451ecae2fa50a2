"""A hub on loopback that serves the files of a folder as datasets, as the hub's own API lists them."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def blob(content: bytes) -> str:
    """The name that git gives to a content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def handler(folder: Path) -> type[BaseHTTPRequestHandler]:
    """Answers for `folder/org/name/…`, whatever the revision, which is settled to `COMMIT`."""

    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Nothing on the screen."""

        def do_GET(self) -> None:
            parts = unquote(urlsplit(self.path).path).strip("/").split("/")
            if parts[:2] == ["api", "datasets"] and parts[4] in ("revision", "tree"):
                place = folder.joinpath(*parts[2:4], *parts[6:])
                listing = {"sha": COMMIT} if parts[4] == "revision" else self.tree(place, parts)
                return self.answer(listing is not None, json.dumps(listing).encode())
            place = folder.joinpath(*parts[1:3], *parts[5:])
            there = parts[3:5] == ["resolve", COMMIT] and place.is_file()
            return self.answer(there, place.read_bytes() if there else b"")

        def tree(self, place: Path, parts: list[str]) -> list[dict[str, object]] | None:
            """The files below a folder."""
            root = folder.joinpath(*parts[2:4])
            found = [path for path in sorted(place.rglob("*")) if path.is_file()]
            contents = [(path.relative_to(root).as_posix(), path.read_bytes()) for path in found]
            return [
                {"type": "file", "path": path, "size": len(content), "oid": blob(content)}
                for path, content in contents
            ] or None

        def answer(self, there: bool, content: bytes) -> None:
            self.send_response(200 if there else 404)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    return Answers


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address of a hub that serves a folder."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
