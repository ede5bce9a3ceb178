"""moto's S3 server as a process of its own on the loopback interface, which can be made to fail.

Run as ``python s3_server.py``, it prints its port, and ends when its standard input is closed, so
that it never outlives a test. A request to ``/-/`` sets what is to go wrong from then on, and
returns the requests since the last one: lines of method, path, range, status and bytes sent.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

CONTROL = "/-/"


@dataclass
class Request:
    """One that the server answered."""

    method: str
    path: str
    range: str
    status: int
    sent: int


@dataclass(frozen=True)
class S3:
    """A running server: where it is, and what a process needs to use it."""

    port: int
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def control(self, **faults: Any) -> list[Request]:
        """Sets what goes wrong, nothing if nothing is given; the requests since the last time.

        ``fail``: so many requests get a status (``status``, 500 unless given), only those of a
        ``method`` and with ``only`` in their path and query. ``pause``: seconds before each.
        """
        data = json.dumps(faults).encode()
        with urllib.request.urlopen(f"{self.url}{CONTROL}", data, timeout=30) as answer:
            return [Request(*each) for each in json.load(answer)]

    def client(self) -> Any:
        """boto3's client, which is not what ckgrow goes through."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )


def environment(port: int) -> dict[str, str]:
    """The standard variables of S3's own tools, and no settings of the person who runs the test."""
    cleared = {
        name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "FSSPEC"))
    }
    return {
        **cleared,
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "3",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@contextmanager
def running() -> Iterator[S3]:
    """A server for as long as the context is open."""
    process = subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        yield S3(port, environment(port))
    finally:
        process.communicate(timeout=30)


class Faulty:
    """A WSGI application between the tests and moto's: it counts, delays and fails requests."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._lock = threading.Lock()
        self._faults: dict[str, Any] = {}
        self._requests: list[tuple[str, str, str, int, int]] = []

    def __call__(self, environ: dict[str, Any], start: Any) -> Any:
        path = environ["PATH_INFO"]
        if path == CONTROL:
            return self._control(environ, start)
        asked = f"{path}?{environ.get('QUERY_STRING', '')}"
        pause, status = self._fault(environ["REQUEST_METHOD"], asked)
        time.sleep(pause)
        if status:
            self._answered(environ, asked, status, 0)
            start(f"{status} Fault", [("Content-Length", "0"), ("Connection", "close")])
            return [b""]
        said: list[int] = []

        def started(line: str, headers: Any, *rest: Any) -> Any:
            said.append(int(line.split()[0]))
            return start(line, headers, *rest)

        body = b"".join(self._inner(environ, started))
        self._answered(environ, asked, said[0], len(body))
        return [body]

    def _control(self, environ: dict[str, Any], start: Any) -> list[bytes]:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        with self._lock:
            self._faults = json.loads(environ["wsgi.input"].read(length))
            requests, self._requests = self._requests, []
        body = json.dumps(requests).encode()
        start("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    def _fault(self, method: str, asked: str) -> tuple[float, int]:
        with self._lock:
            faults = self._faults
            if method != faults.get("method", method) or faults.get("only", "") not in asked:
                return 0, 0
            if not faults.get("fail"):
                return faults.get("pause", 0), 0
            faults["fail"] -= 1
            return faults.get("pause", 0), faults.get("status", 500)

    def _answered(self, environ: dict[str, Any], asked: str, status: int, sent: int) -> None:
        span = environ.get("HTTP_RANGE", "")
        with self._lock:
            self._requests.append((environ["REQUEST_METHOD"], asked, span, status, sent))


def main() -> None:
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    moto = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, Faulty(moto), threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.port, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
