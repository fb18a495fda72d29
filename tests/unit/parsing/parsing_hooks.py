"""Stand-ins for `parse_object` that misbehave; the parser process loads them by dotted name."""

import os
import signal
import time
from dataclasses import replace

from rag_core.parsing.model import ParsedDocument
from rag_core.parsing.parse import ParseSettings, parse_object
from rag_core.sources.base import SourceObject

HOARD: list[bytes] = []


def misbehave(data: bytes, item: SourceObject, settings: ParseSettings) -> list[ParsedDocument]:
    """Do what the object's text says, or parse it."""
    words = data.decode(errors="replace").split()
    match words[:1]:
        case ["sleep"]:
            time.sleep(60)
        case ["exit"]:
            os._exit(3)
        case ["segfault"]:
            os.kill(os.getpid(), signal.SIGSEGV)
        case ["kill"]:
            os.kill(os.getpid(), signal.SIGKILL)
        case ["hog"]:
            while True:
                HOARD.append(b"x" * 16_000_000)
        case ["keep"]:
            HOARD.append(b"x" * 120_000_000)
        case ["print"]:
            os.write(1, b"noise on standard output\n")
        case ["pid"]:
            document = parse_object(data, item, settings)[0]
            return [replace(document, text=f"{os.getpid()} {os.getppid()}")]
    return parse_object(data, item, settings)
