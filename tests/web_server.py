"""A small web server on the loopback interface, good and bad ones, that counts what it sends."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote


@dataclass
class Site:
    """Files by path, and how the server behaves: ``faults`` are statuses of the next requests."""

    files: dict[str, bytes]
    ranges: bool = True
    says_length: bool = True
    etag: str = '"1"'
    status: int = 0
    faults: list[int] = field(default_factory=list)
    cut: int = 0
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    sent: int = 0
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def serving(site: Site) -> Iterator[Site]:
    """The site on a free port for as long as the context is open."""
    handler = type("Handler", (_Handler,), {"site": site})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    site.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    site: Site

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def _answer(self, *, with_body: bool) -> None:
        site = self.site
        span = self.headers.get("Range", "")
        site.requests.append((self.command, self.path, span))
        data = site.files.get(unquote(self.path.partition("?")[0]))
        status = site.faults.pop(0) if site.faults else site.status or (200 if data else 404)
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", span)
        if status != 200 or data is None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = data
        if found and site.ranges:
            first, last = int(found[1]), min(int(found[2]), len(data) - 1)
            body = data[first : last + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        else:
            self.send_response(200)
        if site.says_length:
            self.send_header("Content-Length", str(len(body)))
        if site.etag:
            self.send_header("ETag", site.etag)
        self.end_headers()
        if with_body:
            self._send(body)

    def _send(self, body: bytes) -> None:
        if self.site.cut:
            self.site.cut -= 1
            body = body[: len(body) // 2]
        try:
            for start in range(0, len(body), 1 << 16):
                self.wfile.write(body[start : start + (1 << 16)])
                self.site.sent += len(body[start : start + (1 << 16)])
        except (BrokenPipeError, ConnectionResetError):
            pass  # whoever asked has heard enough
