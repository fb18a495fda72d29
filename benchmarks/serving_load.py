"""The users of `benchmarks.serving`, for Locust: each asks one question after the other, without a pause.

BENCH_QUESTIONS names a JSON list; BENCH_BODY is a JSON object that each request has besides its question. Popular
questions come more often: their ranks follow Zipf's law with exponent 1, in an order drawn with a fixed seed.
"""

import itertools
import json
import os
import random
from pathlib import Path

from locust import FastHttpUser, constant, task

_QUESTIONS = json.loads(Path(os.environ["BENCH_QUESTIONS"]).read_text())
_BODY = json.loads(os.environ["BENCH_BODY"])
_ORDER = random.Random(7).sample(_QUESTIONS, len(_QUESTIONS))
_WEIGHTS = list(itertools.accumulate(1 / rank for rank in range(1, len(_ORDER) + 1)))
_SEEDS = itertools.count()


class Asker(FastHttpUser):
    """Somebody who asks."""

    wait_time = constant(0)

    def on_start(self) -> None:
        """Draw by a seed of one's own, the same in each run."""
        self._random = random.Random(next(_SEEDS))

    @task
    def search(self) -> None:
        """Ask one question; an answer without hits is a failure."""
        (question,) = self._random.choices(_ORDER, cum_weights=_WEIGHTS)
        with self.client.post("/v1/search", json={"question": question, **_BODY}, catch_response=True) as answer:
            if answer.status_code != 200:
                answer.failure(f"status {answer.status_code}")
            elif not answer.json()["hits"]:
                answer.failure("no hits")
