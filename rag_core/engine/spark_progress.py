"""Finished tasks of a Spark job while it runs: from our own driver's status tracker, or as Connect tells it."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from pyspark.sql import SparkSession

from rag_core.stages.common import Progress

_POLL_S: Final = 2.0


@contextmanager
def task_progress(session: SparkSession, table: str, on_progress: Progress) -> Iterator[None]:
    """Report finished tasks of what runs in the block, by any thread of the session."""
    told = f"Spark tasks of {table}"
    context = getattr(session, "_sc", None)
    with _told_by_connect(session, told, on_progress) if context is None else _polled(context, told, on_progress):
        yield


@contextmanager
def _told_by_connect(session: Any, what: str, on_progress: Progress) -> Iterator[None]:
    def tell(stages: Iterable[Any] | None, **_: Any) -> None:
        stages = list(stages or ())
        if total := sum(stage.num_tasks for stage in stages):
            on_progress(what, sum(stage.num_completed_tasks for stage in stages), total)

    session.registerProgressHandler(tell)
    try:
        yield
    finally:
        session.removeProgressHandler(tell)


@contextmanager
def _polled(context: Any, what: str, on_progress: Progress) -> Iterator[None]:
    tracker, stop = context.statusTracker(), threading.Event()

    def poll() -> None:
        while not stop.wait(_POLL_S):
            infos = [tracker.getStageInfo(stage) for stage in tracker.getActiveStageIds()]
            total = sum(info.numTasks for info in infos if info is not None)
            if total:
                on_progress(what, sum(i.numCompletedTasks for i in infos if i is not None), total)

    thread = threading.Thread(target=poll, name="spark-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
