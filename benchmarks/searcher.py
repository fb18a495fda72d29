"""Searches at a steady rate in a process of its own, and what they answered: the load of `benchmarks.blue_green`.

`python -m benchmarks.searcher QUESTIONS ANSWERS STOP` asks the questions of a JSON list in turn, mode after mode, and
appends one JSON line for each to the file ANSWERS, until the file STOP exists.
"""

import json
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

from rag_core.config_loader import load_config
from rag_core.retrieval.retriever import Retriever, open_retriever

MODES = ("dense", "bm25", "hybrid")
PER_SECOND = 10.0
TOP_K = 10
_THREADS = 2  # a retriever answers one question after the other; one slow answer must not hold up the next


@dataclass(frozen=True)
class Answer:
    """One question and what came back.

    Attributes:
        asked_at: When it was sent, seconds since 1970.
        ms: How long it took.
        question: Position in the list of questions.
        mode: dense, bm25 or hybrid.
        before: Collection that was served just before.
        after: And just after; the answer is of one of the two, and of one only.
        chunk_ids: What was found, best first.
        error: Why it failed; empty if it did not.
    """

    asked_at: float
    ms: float
    question: int
    mode: str
    before: str
    after: str
    chunk_ids: tuple[str, ...]
    error: str

    @classmethod
    def read(cls, path: Path) -> "list[Answer]":
        """Read the answers that were written so far, in the order of asking."""
        rows: list[dict[str, Any]] = [json.loads(line) for line in path.read_text().splitlines()]
        answers = [cls(**{**row, "chunk_ids": tuple(row["chunk_ids"])}) for row in rows]
        return sorted(answers, key=lambda one: one.asked_at)


def main() -> None:
    """Ask until told to stop."""
    questions_path, answers_path, stop_path = map(Path, sys.argv[1:])
    questions: list[str] = json.loads(questions_path.read_text())
    turns, lock, begun = count(), threading.Lock(), time.time()

    def ask_in_turn() -> None:
        with open_retriever(load_config().config) as retriever, answers_path.open("a", buffering=1) as out:
            for mode in MODES:  # the model is loaded and the first connection made before anything is measured
                retriever.search(questions[0], mode=mode)
            for turn in _until(stop_path, turns, lock):
                _wait_until(begun + turn / PER_SECOND)
                answer = _ask(retriever, questions, turn)
                with lock:
                    out.write(json.dumps(asdict(answer)) + "\n")

    threads = [threading.Thread(target=ask_in_turn) for _ in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _until(stop: Path, turns: Iterator[int], lock: threading.Lock) -> Iterator[int]:
    while not stop.exists():
        with lock:
            turn = next(turns)
        yield turn


def _wait_until(when: float) -> None:
    time.sleep(max(0.0, when - time.time()))


def _ask(retriever: Retriever, questions: list[str], turn: int) -> Answer:
    number, mode = turn // len(MODES) % len(questions), MODES[turn % len(MODES)]
    before = after = error = ""
    found: tuple[str, ...] = ()
    began, asked_at = time.perf_counter(), time.time()
    try:
        before = retriever.manifest.collection
        began = time.perf_counter()
        hits = retriever.search(questions[number], mode=mode, top_k=TOP_K)
        ms = (time.perf_counter() - began) * 1_000
        after = retriever.manifest.collection
        found = tuple(hit.chunk_id for hit in hits)
    except Exception as caught:  # noqa: BLE001 - whatever a user would have seen is a failure to be counted
        ms, error = (time.perf_counter() - began) * 1_000, f"{type(caught).__name__}: {caught}"
    return Answer(asked_at, ms, number, mode, before, after, found, error)


if __name__ == "__main__":
    main()
