"""Serves the reports of a store over HTTP: a browser follows no link from the Dagster UI to a local file or to S3."""

import posixpath
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from rag_core.reports.pages import FOLDER, read_bytes
from rag_core.tables.store import Store


def page_url(path: str, base_url: str) -> str:
    """Return the address of a page (`ReportPage.path`) on a server of reports."""
    return f"{base_url.rstrip('/')}/{path.removeprefix(f'{FOLDER}/')}"


def report_server(store: Store, *, port: int, host: str = "127.0.0.1") -> ThreadingHTTPServer:
    """Make a server of the pages under `reports/`, and of nothing else; `serve_forever` starts it.

    It reads the store for each request, so that it works for S3 as well, and shows what is written while it runs.

    Raises:
        OSError: The port is taken.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = posixpath.normpath(unquote(urlsplit(self.path).path)).lstrip("/")
            path = "index.html" if path in ("", ".") else path
            allowed = path.endswith(".html") and ".." not in path.split("/") and "\\" not in path
            content = read_bytes(store, f"{FOLDER}/{path}") if allowed else None
            if content is None:
                self.send_error(HTTPStatus.NOT_FOUND, "no such report")
                return
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cache-Control", "no-cache")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass  # one line for each request helps nobody here

    return ThreadingHTTPServer((host, port), Handler)
