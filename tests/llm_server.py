"""A language model on loopback that speaks OpenAI's chat protocol over real HTTP and does what a test says.

with llm_server(says("Report it within one hour [1].")) as llm:
    ...  # serving.llm.base_url: llm.base_url
    llm.behave(fails(500))
    assert llm.requests[0]["messages"][0]["role"] == "system"
"""

import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_LONGEST_WAIT_S = 60.0  # of a behaviour that waits for a client to go away: no test hangs for good


class Exchange:
    """One request, and what may be done about it."""

    def __init__(self, handler: BaseHTTPRequestHandler, server: "LlmServer", body: dict[str, Any], number: int) -> None:
        self._handler = handler
        self.server = server
        self.body = body
        self.number = number
        """From 0, since the behaviour was chosen."""

    @property
    def prompt(self) -> str:
        """The last message: the passages and the question."""
        return str(self.body["messages"][-1]["content"])

    @property
    def system(self) -> str:
        """The first message."""
        return str(self.body["messages"][0]["content"])

    def status(self, status: int, *, code: str | None = None, headers: Sequence[tuple[str, str]] = ()) -> None:
        """Refuse, as OpenAI does."""
        body = json.dumps({"error": {"message": f"status {status}", "type": "error", "code": code}}).encode()
        self.whole(body, status=status, content_type="application/json", headers=headers)

    def whole(
        self,
        body: bytes,
        *,
        status: int = 200,
        content_type: str = "text/event-stream",
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Answer with these bytes."""
        self._handler.send_response(status)
        for name, value in (("content-type", content_type), ("content-length", str(len(body))), *headers):
            self._handler.send_header(name, value)
        self._handler.end_headers()
        self._handler.wfile.write(body)

    def begin(self) -> None:
        """Begin a stream of events."""
        self._handler.send_response(200)
        self._handler.send_header("content-type", "text/event-stream")
        self._handler.send_header("connection", "close")
        self._handler.send_header("transfer-encoding", "chunked")
        self._handler.end_headers()
        self._handler.close_connection = True

    def raw(self, data: bytes) -> None:
        """Send bytes of a stream that was begun."""
        self._handler.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self._handler.wfile.flush()

    def event(self, value: Any) -> None:
        """Send an event."""
        self.raw(b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n")

    def chunk(self, delta: dict[str, Any], *, finish: str | None = None) -> None:
        """Send a chunk of a completion."""
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        self.event({**_CHUNK, "model": self.body["model"], "choices": [choice]})

    def words(self, text: str) -> None:
        """Send a text, a few characters at a time."""
        self.chunk({"role": "assistant", "content": ""})
        for piece in re.findall(r"\s*\S{1,7}|\s+$", text):
            self.chunk({"content": piece})

    def end(self, *, finish: str = "stop", usage: tuple[int, int] | None = (100, 20), done: bool = True) -> None:
        """End a stream as the protocol says."""
        self.chunk({}, finish=finish)
        if usage is not None:
            counts = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
            self.event({**_CHUNK, "model": self.body["model"], "choices": [], "usage": counts})
        if done:
            self.event(b"[DONE]")
        self.raw(b"")

    def until_closed(self) -> None:
        """Send comments until the client is gone or the server stops; `server.left` is set if the client went."""
        ends = time.monotonic() + _LONGEST_WAIT_S
        while not self.server.stopping.wait(0.02) and time.monotonic() < ends:
            try:
                self.raw(b": still here\n\n")
            except OSError:
                self.server.left.set()
                return


Behaviour = Callable[[Exchange], None]
_CHUNK = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1}


@dataclass
class LlmServer:
    """The server, for tests: what it was asked, and what it does next."""

    base_url: str
    behaviour: Behaviour
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)
    left: threading.Event = field(default_factory=threading.Event)
    _begun: int = 0

    def behave(self, behaviour: Behaviour) -> None:
        """Do this from now on."""
        self.behaviour, self._begun = behaviour, len(self.requests)

    @property
    def asked(self) -> int:
        """Requests since the behaviour was chosen."""
        return len(self.requests) - self._begun


@contextmanager
def llm_server(behaviour: Behaviour) -> Iterator[LlmServer]:
    """Serve while the block runs."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                llm.requests.append(body)
                llm.keys.append(self.headers.get("authorization", ""))
                number, act = llm.asked - 1, llm.behaviour
            if not self.path.endswith("/chat/completions"):
                Exchange(self, llm, body, number).status(404)
                return
            with suppress(ConnectionError):
                act(Exchange(self, llm, body, number))

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    llm = LlmServer(f"http://127.0.0.1:{server.server_port}/v1", behaviour)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield llm
    finally:
        llm.stopping.set()
        server.shutdown()
        server.server_close()


def says(text: str, *, finish: str = "stop", usage: tuple[int, int] | None = (100, 20)) -> Behaviour:
    """Write this text."""

    def act(exchange: Exchange) -> None:
        exchange.begin()
        exchange.words(text)
        exchange.end(finish=finish, usage=usage)

    return act


def quotes(exchange: Exchange) -> None:
    """Write the first sentence of the first passage, and cite it: what a good model might do with any documents."""
    shown = re.search(r'<passage-\w+ number="1"[^>]*>\n(.*?)\n</passage-', exchange.prompt, re.DOTALL)
    lines = [line for line in (shown[1] if shown else "").splitlines() if line.strip() and line[0] not in "#|`"]
    sentence = re.split(r"(?<=[.!?])\s", lines[0])[0] if lines else "Nothing."
    says(f"{sentence.strip()} [1]")(exchange)


def slowly(text: str, until: threading.Event) -> Behaviour:
    """Write this text, but not a word before an event is set."""

    def act(exchange: Exchange) -> None:
        exchange.begin()
        until.wait(_LONGEST_WAIT_S)
        exchange.words(text)
        exchange.end()

    return act


def never(exchange: Exchange) -> None:
    """Accept the request and never say a word."""
    exchange.begin()
    exchange.until_closed()


def begins(text: str) -> Behaviour:
    """Write this text, then nothing more, and never end."""

    def act(exchange: Exchange) -> None:
        exchange.begin()
        exchange.words(text)
        exchange.until_closed()

    return act


def breaks_off(text: str, *, politely: bool = False) -> Behaviour:
    """Write this text and close the connection; politely: end the body as HTTP says, but without a finish reason."""

    def act(exchange: Exchange) -> None:
        exchange.begin()
        exchange.words(text)
        if politely:
            exchange.raw(b"")

    return act


def fails(status: int, *, code: str | None = None, headers: Iterable[tuple[str, str]] = ()) -> Behaviour:
    """Refuse every request."""
    return lambda exchange: exchange.status(status, code=code, headers=tuple(headers))


def at_first(first: Behaviour, then: Behaviour, *, times: int = 1) -> Behaviour:
    """Do one thing some times, then another."""
    return lambda exchange: (first if exchange.number < times else then)(exchange)


def sends(data: bytes) -> Behaviour:
    """Send these bytes as the events of the stream."""
    return lambda exchange: exchange.whole(data)


def echoes_prompt(exchange: Exchange) -> None:
    """Give away the rules, sentence by sentence."""
    says(exchange.system)(exchange)


def obeys(exchange: Exchange) -> None:
    """Do what an instruction in a passage says: `SAY: ...` stands for any injected instruction."""
    order = re.search(r"SAY: (.*)", exchange.prompt)
    says(order[1] if order else "No order was found.")(exchange)


def calls_tool(exchange: Exchange) -> None:
    """Call a tool that nobody offered."""
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "shell", "arguments": '{"cmd":"id"}'}}
    exchange.begin()
    exchange.chunk({"role": "assistant", "content": None, "tool_calls": [call]})
    exchange.end(finish="tool_calls")
