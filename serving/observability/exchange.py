"""One request and its answer on the wire: how far they are, headers that every answer has, and the limit of a body."""

from typing import Final

import orjson
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import Message, Receive, Scope, Send

from serving.errors import ApiError
from serving.observability.request_ids import request_id_of

_SECURITY: Final = {
    # The page loads its own script and style and nothing else; nobody may frame it. Answers of the API load nothing.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class BodyTooLargeError(Exception):
    """More of a body came than is read. Whatever the app makes of it, the answer is 413."""


class Exchange:
    """Stands between the server and the app for one request.

    Attributes:
        request_id: Its ID, which is in the answer as well.
        status: Status of the answer; 0 before it began.
        finished: Whether the last byte of the answer was sent.
        is_abandoned: Whether the client went away before that.
        is_too_large: Whether the body was larger than is read.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, *, body_bytes: int) -> None:
        self.headers = Headers(scope=scope)
        self.request_id = request_id_of(self.headers.get("x-request-id"))
        self.status = 0
        self.finished = False
        self.is_abandoned = False
        self.is_too_large = self._announced() > body_bytes
        self._receive, self._send = receive, send
        self._body_bytes = body_bytes
        self._received = 0
        self._is_refused = False
        self._no_store = scope["path"].startswith("/v1/")

    async def receive(self) -> Message:
        """Pass on what the client sends.

        Raises:
            BodyTooLargeError: It sent too much.
        """
        if self.is_too_large:
            raise BodyTooLargeError
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self.finished:
            self.is_abandoned = True
        self._received += len(message.get("body", b""))
        if self._received > self._body_bytes:
            self.is_too_large = True
            raise BodyTooLargeError
        return message

    async def send(self, message: Message) -> None:
        """Pass on what the app answers; a refusal instead, if the app could not read the body."""
        if self.is_too_large and not self.status:
            await self.refuse(self.too_large())
        if not self._is_refused:
            await self._pass_on(message)

    async def refuse(self, error: ApiError) -> None:
        """Answer with an error; what the app answers from now on goes nowhere."""
        self._is_refused = True
        body = orjson.dumps(error.body())
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **error.all_headers()}
        raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await self._pass_on({"type": "http.response.start", "status": error.status, "headers": raw})
        await self._pass_on({"type": "http.response.body", "body": body})

    def too_large(self) -> ApiError:
        """Make the refusal of a body that is too large."""
        return ApiError(413, "body_too_large", f"the body is too large: at most {self._body_bytes:,} bytes are read")

    async def _pass_on(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(raw=list(message.get("headers", ())))
            headers.update(_SECURITY)
            headers["X-Request-Id"] = self.request_id
            if self._no_store:
                headers.setdefault("Cache-Control", "no-store")
            message = {**message, "headers": headers.raw}
        try:
            await self._send(message)
        except OSError:  # how servers of ASGI 2.4 say that the client is gone
            self.is_abandoned = True
            raise
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.finished = True

    def _announced(self) -> int:
        length = self.headers.get("content-length", "")
        return int(length) if length.isascii() and length.isdigit() and len(length) < 20 else 0
