"""A reverse proxy before an S3 server, on real sockets, that counts requests and spoils those that a test picks.

It also keeps writes with a condition apart: moto looks at `If-None-Match` first and writes afterwards, which two
requests can both get past. S3 itself does both in one step.
"""

import http.client
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final, Literal
from urllib.parse import parse_qs, unquote, urlsplit

Fault = Literal[
    "500", "503", "403", "409", "expired", "silence", "torn_request", "torn_answer", "lost_answer", "refused"
]

_SILENCE_S: Final = 30.0
_HOP: Final = frozenset({"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade"})
_REFUSALS: Final = {
    "500": (500, "InternalError", "We encountered an internal error. Please try again."),
    "503": (503, "SlowDown", "Please reduce your request rate."),
    "403": (403, "AccessDenied", "Access Denied"),
    "409": (
        409,
        "ConditionalRequestConflict",
        "The conditional request cannot succeed due to a conflicting operation.",
    ),
    "expired": (400, "ExpiredToken", "The provided token has expired."),
}


@dataclass(frozen=True)
class Asked:
    """A request: method, decoded path without the leading slash (bucket/key), query, body, headers in lower case.

    `client_port` is the port of the connection at the side that asks.
    """

    method: str
    path: str
    query: dict[str, list[str]]
    body: bytes
    headers: dict[str, str]
    client_port: int

    @property
    def kind(self) -> str:
        """What S3 calls it, roughly: PutObject, ListObjects, UploadPart and so on."""
        _, _, key = self.path.partition("/")
        if not key:
            names = {"GET": "ListObjects", "POST": "DeleteObjects", "HEAD": "HeadBucket", "PUT": "CreateBucket"}
            return names.get(self.method, self.method)
        if "uploads" in self.query:
            return "CreateMultipartUpload"
        if "uploadId" in self.query:
            names = {"PUT": "UploadPart", "POST": "CompleteMultipartUpload", "DELETE": "AbortMultipartUpload"}
            return names.get(self.method, self.method)
        if self.method == "PUT" and "x-amz-copy-source" in self.headers:
            return "CopyObject"
        return {"GET": "GetObject", "PUT": "PutObject", "HEAD": "HeadObject", "DELETE": "DeleteObject"}[self.method]

    @property
    def is_commit(self) -> bool:
        """Whether it would make a version of a Delta table."""
        return self.kind == "PutObject" and "/_delta_log/" in self.path and self.path.endswith(".json")


@dataclass
class Rule:
    """Spoils requests that match, so many times.

    Attributes:
        matches: Which.
        fault: How; `lost_answer` is done and not answered, `torn_answer` answered by half, `torn_request` read by half.
        times: How many; None for ever.
        done: How many there were.
    """

    matches: Callable[[Asked], bool]
    fault: Fault
    times: int | None = 1
    done: int = 0


@dataclass
class S3Proxy:
    """The proxy of a test: what was asked, and what to spoil."""

    url: str
    asked: list[Asked] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)
    before: Callable[[Asked], None] = lambda _: None
    ignores_conditions: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)
    stopped: threading.Event = field(default_factory=threading.Event)

    def spoil(self, fault: Fault, matches: Callable[[Asked], bool], times: int | None = 1) -> Rule:
        """Add a rule and return it: its `done` tells what it did."""
        rule = Rule(matches, fault, times)
        self.rules.append(rule)
        return rule

    def counts(self) -> Counter[str]:
        """Count requests by kind."""
        with self.lock:
            return Counter(one.kind for one in self.asked)

    def reset(self) -> None:
        """Forget rules and requests."""
        with self.lock:
            self.asked.clear()
            self.rules.clear()
            self.before = lambda _: None

    def take(self, asked: Asked) -> Fault | None:
        """Note a request, and say how to spoil it."""
        with self.lock:
            self.asked.append(asked)
            for rule in self.rules:
                if (rule.times is None or rule.done < rule.times) and rule.matches(asked):
                    rule.done += 1
                    return rule.fault
        return None


@contextmanager
def s3_proxy(backend: str) -> Iterator[S3Proxy]:
    """Start the proxy on a free port, before the server at `backend`."""
    target = urlsplit(backend)
    conditional = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            if self.headers.get("Expect", "").lower() == "100-continue":
                self.send_response_only(100)
                self.end_headers()
            parts = urlsplit(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            query = parse_qs(parts.query, keep_blank_values=True)
            path = unquote(parts.path).lstrip("/")
            asked = Asked(self.command, path, query, b"", headers, self.client_address[1])
            fault = proxy.take(asked)
            if fault == "torn_request":
                self.rfile.read(length // 2)
                self._reset()
                return
            body = self._chunked() if "chunked" in headers.get("transfer-encoding", "") else self.rfile.read(length)
            if fault == "refused":
                self._reset()
            elif fault == "silence":
                proxy.stopped.wait(_SILENCE_S)
                self._reset()
            elif fault in _REFUSALS:
                self._refuse(*_REFUSALS[fault])
            else:
                self._pass_on(replace(asked, body=body), fault)

        do_PUT = do_POST = do_DELETE = do_HEAD = do_GET  # noqa: N815 - named by the library

        def _pass_on(self, asked: Asked, fault: Fault | None) -> None:
            proxy.before(asked)
            if {"if-none-match", "if-match"} & asked.headers.keys() and asked.method in {"PUT", "POST"}:
                with conditional:
                    status, headers, content = self._fetch(asked)
            else:
                status, headers, content = self._fetch(asked)
            if fault == "lost_answer":
                self._reset()
                return
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() not in _HOP and (name.lower() != "content-length" or self.command == "HEAD"):
                    self.send_header(name, value)
            if self.command != "HEAD":
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "HEAD":
                return
            if fault == "torn_answer":
                self.wfile.write(content[: len(content) // 2])
                self.wfile.flush()
                self._reset()
                return
            self.wfile.write(content)

        def _fetch(self, asked: Asked) -> tuple[int, list[tuple[str, str]], bytes]:
            connection = http.client.HTTPConnection(target.hostname or "", target.port, timeout=60)
            try:
                headers = {k: v for k, v in asked.headers.items() if k not in _HOP | {"expect", "content-length"}}
                connection.putrequest(asked.method, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in headers.items():
                    if proxy.ignores_conditions and name in {"if-none-match", "if-match"}:
                        continue
                    connection.putheader(name, value)
                connection.putheader("Content-Length", str(len(asked.body)))
                connection.endheaders(asked.body)
                answer = connection.getresponse()
                return answer.status, answer.getheaders(), answer.read()
            finally:
                connection.close()

        def _refuse(self, status: int, code: str, message: str) -> None:
            body = (
                f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{message}</Message>'
                "<RequestId>0</RequestId></Error>"
            ).encode()
            self.send_response_only(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def _chunked(self) -> bytes:
            found = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                found += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return found

        def _reset(self) -> None:
            """End the connection the hard way, as a machine that fails does."""
            self.close_connection = True
            with suppress(OSError):
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.shutdown(socket.SHUT_RDWR)
                self.connection.close()

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *_: object) -> None:
            """Say nothing of clients that went away: tests make them."""

    server = Server(("127.0.0.1", 0), Handler)
    proxy = S3Proxy(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.stopped.set()
        server.shutdown()
        server.server_close()
        thread.join()
