"""A small Kubernetes API server on real HTTP, for tests and the demonstration: core/v1 pods, their logs and events.

`python -m tests.kubernetes_api --port N --kubeconfig FILE` runs one as a process. Pods are checked against the
published schema, and their containers really run (`tests.kubernetes_kubelet`). Other resources are added as routes.
"""

import argparse
import json
import os
import re
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import yaml

from tests.kubernetes_cluster import ApiError, ApiFault, Cluster, Node, Object, PodFault
from tests.kubernetes_kubelet import Kubelet

__all__ = ["ApiFault", "Cluster", "KubernetesApi", "Node", "PodFault", "kubernetes_api", "write_kubeconfig"]

TOKEN = "stand-in-token"
_USER = "system:serviceaccount:rag:rag-run"


@dataclass(frozen=True)
class Request:
    """What a client asks: the named groups of the path, the query, and the body."""

    method: str
    parts: Mapping[str, str]
    query: Mapping[str, str]
    body: Any


Answer = tuple[int, Object] | Iterator[bytes]
Handler = Callable[["KubernetesApi", Request], Answer]


@dataclass(frozen=True)
class Route:
    """A path of the API: what is done to which resource, as rights name it, and by whom."""

    method: str
    path: re.Pattern[str]
    verb: str
    resource: str
    handle: Handler


def route(method: str, path: str, verb: str, resource: str, handle: Handler) -> Route:
    """Make a route; `{name}` in the path stands for one part of it."""
    pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path)
    return Route(method, re.compile(pattern), verb, resource, handle)


class KubernetesApi:
    """The server, its cluster and the kubelet."""

    def __init__(self, cluster: Cluster | None = None, port: int = 0, extra: Iterable[Route] = ()) -> None:
        self.cluster = cluster or Cluster()
        self.kubelet = Kubelet(self.cluster)
        self.routes = [*ROUTES, *extra]
        self.requests: list[tuple[str, str]] = []  # method and path, in order
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """The server's address."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """End all pods and stop."""
        self.kubelet.stop()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method: str, path: str, query: Mapping[str, str], body: Any) -> Answer:
        """Do what a request asks; ApiError says why not."""
        for entry in self.routes:
            found = entry.path.fullmatch(path)
            if entry.method == method and found:
                self._authorize(entry, found.groupdict().get("namespace", ""))
                return entry.handle(self, Request(method, found.groupdict(), query, body))
        raise ApiError(404, "NotFound", f"the server could not find the requested resource: {method} {path}")

    def _authorize(self, entry: Route, namespace: str) -> None:
        if (entry.verb, entry.resource) in self.cluster.denied:
            raise ApiError(
                403, "Forbidden",
                f'{entry.resource.replace("/", " ")} is forbidden: User "{_USER}" cannot {entry.verb} resource '
                f'"{entry.resource}" in API group "" in the namespace "{namespace}"',
            )  # fmt: skip


@contextmanager
def kubernetes_api(cluster: Cluster | None = None, extra: Iterable[Route] = ()) -> Iterator[KubernetesApi]:
    """Run a server on a free port for the block."""
    api = KubernetesApi(cluster, extra=extra)
    api.start()
    try:
        yield api
    finally:
        api.stop()


def write_kubeconfig(path: Path, url: str, namespace: str = "rag", token: str = TOKEN) -> Path:
    """Write a kubeconfig file for a server at `url`, with a context named `stand-in`."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "stand-in", "cluster": {"server": url}}],
        "users": [{"name": "rag", "user": {"token": token}}],
        "contexts": [{"name": "stand-in", "context": {"cluster": "stand-in", "user": "rag", "namespace": namespace}}],
        "current-context": "stand-in",
    }
    path.write_text(yaml.safe_dump(content))
    return path


def _create_pod(api: KubernetesApi, request: Request) -> Answer:
    dry_run = request.query.get("dryRun") == "All"
    return 201, api.cluster.create("pods", request.parts["namespace"], request.body, dry_run=dry_run)


def _read_pod(api: KubernetesApi, request: Request) -> Answer:
    return 200, api.cluster.get("pods", request.parts["namespace"], request.parts["name"])


def _delete_pod(api: KubernetesApi, request: Request) -> Answer:
    grace = request.query.get("gracePeriodSeconds", (request.body or {}).get("gracePeriodSeconds"))
    where = request.parts["namespace"], request.parts["name"]
    return 200, api.cluster.delete("pods", *where, grace_s=None if grace is None else float(grace))


def _list(resource: str, kind: str) -> Handler:
    def handle(api: KubernetesApi, request: Request) -> Answer:
        if request.query.get("watch") in ("1", "true", "True"):
            raise ApiError(405, "MethodNotAllowed", "the stand-in has no watches")
        selectors = request.query.get("labelSelector", ""), request.query.get("fieldSelector", "")
        items = api.cluster.find(resource, request.parts.get("namespace"), *selectors)
        return 200, {"kind": kind, "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items}

    return handle


def _pod_log(api: KubernetesApi, request: Request) -> Answer:
    query = request.query
    return api.kubelet.log(
        request.parts["namespace"], request.parts["name"], query.get("container", ""),
        follow=query.get("follow") in ("1", "true", "True"),
        timestamps=query.get("timestamps") in ("1", "true", "True"),
        tail=int(query["tailLines"]) if "tailLines" in query else None,
        since_s=float(query["sinceSeconds"]) if "sinceSeconds" in query else None,
    )  # fmt: skip


def _version(_api: KubernetesApi, _request: Request) -> Answer:
    return 200, {"major": "1", "minor": "31", "gitVersion": "v1.31.0-stand-in"}


_PODS = "/api/v1/namespaces/{namespace}/pods"
ROUTES = [
    route("GET", "/version/?", "get", "version", _version),
    route("POST", _PODS, "create", "pods", _create_pod),
    route("GET", _PODS, "list", "pods", _list("pods", "PodList")),
    route("GET", "/api/v1/pods", "list", "pods", _list("pods", "PodList")),
    route("GET", _PODS + "/{name}", "get", "pods", _read_pod),
    route("GET", _PODS + "/{name}/status", "get", "pods/status", _read_pod),
    route("DELETE", _PODS + "/{name}", "delete", "pods", _delete_pod),
    route("GET", _PODS + "/{name}/log", "get", "pods/log", _pod_log),
    route("GET", "/api/v1/namespaces/{namespace}/events", "list", "events", _list("events", "EventList")),
]


def _handler(api: KubernetesApi) -> type[BaseHTTPRequestHandler]:
    class OneRequest(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._serve("GET")

        def do_POST(self) -> None:
            self._serve("POST")

        def do_PATCH(self) -> None:
            self._serve("PATCH")

        def do_DELETE(self) -> None:
            self._serve("DELETE")

        def log_message(self, *_: Any) -> None:
            pass

        def _serve(self, method: str) -> None:
            parts = urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            raw = self.rfile.read(length) if length else b""
            api.requests.append((method, parts.path))
            fault = api.cluster.fault_of(method, parts.path)
            if fault is not None and fault.how == "drop":
                self.close_connection = True
                return
            try:
                if fault is not None and isinstance(fault.how, int):
                    raise ApiError(fault.how, "InternalError", fault.message)
                if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    raise ApiError(401, "Unauthorized", "Unauthorized")
                answer = api.answer(method, parts.path, dict(parse_qsl(parts.query)), json.loads(raw or "null"))
            except ApiError as error:
                answer = (error.code, error.body())
            if fault is not None and fault.how == "lost_answer":
                self.close_connection = True
                return
            with suppress(BrokenPipeError, ConnectionResetError):
                if isinstance(answer, tuple):
                    self._whole(*answer)
                else:
                    self._stream(answer)

        def _whole(self, code: int, body: Object) -> None:
            data = json.dumps(body).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _stream(self, chunks: Iterator[bytes]) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for chunk in chunks:
                self.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")

    return OneRequest


def main() -> None:
    """Run a server until it is told to end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--kubeconfig", type=Path, help="write a kubeconfig for it here, once it listens")
    parser.add_argument("--namespace", default="rag")
    parser.add_argument("--gpus", type=int, default=2, help="GPUs that its node pretends to have")
    parser.add_argument("--secret", help="name of a secret that holds the AWS_ and RAG_ variables of this process")
    arguments = parser.parse_args()
    api = KubernetesApi(Cluster([Node(resources={"nvidia.com/gpu": arguments.gpus})]), arguments.port)
    if arguments.secret:
        kept = {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "RAG_"))}
        api.cluster.secrets[arguments.namespace, arguments.secret] = kept
    api.start()
    if arguments.kubeconfig is not None:
        write_kubeconfig(arguments.kubeconfig, api.url, arguments.namespace)
    print(api.url, flush=True)  # noqa: T201 - the address is what it is started for
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    ended.wait()
    api.stop()


if __name__ == "__main__":
    main()
