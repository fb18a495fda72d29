"""What a scrape gets while groups work, fail, hang and recover."""

import threading
import time
from collections.abc import Callable
from datetime import datetime

import pytest
from prometheus_client import CollectorRegistry, Gauge

from rag_core.monitoring.exporter import Exporter


class Group:
    """A group with one gauge, which does what it is told."""

    def __init__(self, name: str, update: Callable[[], float]) -> None:
        self.name = name
        self.registry = CollectorRegistry()
        self._gauge = Gauge(f"rag_{name}", "Of a test.", registry=self.registry)
        self._update = update

    def update(self, now: datetime) -> None:
        self._gauge.set(self._update())


def broken() -> float:
    raise OSError("the store is gone")


def one_by_one(answers: list[Callable[[], float]]) -> Callable[[], float]:
    """Do what is next at each call."""

    def update() -> float:
        return answers.pop(0)()

    return update


def values(exporter: Exporter) -> dict[str, float]:
    """Scrape; names with the group where there is one."""
    return {
        "/".join([sample.name, *sample.labels.values()]): sample.value
        for metric in exporter.collect()
        for sample in metric.samples
    }


def test_a_group_that_fails_takes_no_other_with_it() -> None:
    exporter = Exporter([Group("well", lambda: 7), Group("ill", broken)], refresh_s=1, stale_after_s=60)
    exporter.refresh()
    scraped = values(exporter)
    assert scraped["rag_well"] == 7
    assert "rag_ill" not in scraped
    assert scraped["rag_exporter_group_up/well"] == 1
    assert scraped["rag_exporter_group_up/ill"] == 0
    assert scraped["rag_exporter_group_errors_total/ill"] == 1
    assert scraped["rag_exporter_group_last_success_timestamp_seconds/ill"] == 0
    assert exporter.failing == ("ill",)


def test_what_was_seen_last_stays_for_a_while_and_is_left_out_then(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [lambda: 3.0, broken, lambda: 4.0]
    exporter = Exporter([Group("one", one_by_one(answers))], refresh_s=1, stale_after_s=60)
    exporter.refresh()
    exporter.refresh()
    assert values(exporter)["rag_one"] == 3, "an error does not undo what was seen"
    assert values(exporter)["rag_exporter_group_up/one"] == 0
    later = time.time() + 61
    monkeypatch.setattr("rag_core.monitoring.exporter.time.time", lambda: later)
    assert "rag_one" not in values(exporter), "what is not known any more must not look as if it were"
    exporter.refresh()
    assert values(exporter)["rag_one"] == 4
    assert values(exporter)["rag_exporter_group_up/one"] == 1


def test_a_group_that_hangs_holds_up_neither_scrapes_nor_others() -> None:
    let_go, looked = threading.Event(), threading.Event()

    def hangs() -> float:
        let_go.wait(60)
        return 1.0

    def works() -> float:
        looked.set()
        return 2.0

    exporter = Exporter([Group("hangs", hangs), Group("works", works)], refresh_s=0.01, stale_after_s=60)
    exporter.start()
    try:
        assert looked.wait(30)
        while "rag_works" not in (scraped := values(exporter)):
            time.sleep(0.01)
        assert scraped["rag_exporter_group_up/hangs"] == 0
    finally:
        let_go.set()
        exporter.stop()


def test_a_look_is_repeated_until_the_end() -> None:
    count = 0
    often = threading.Event()

    def counts() -> float:
        nonlocal count
        count += 1
        if count == 3:
            often.set()
        return count

    exporter = Exporter([Group("one", counts)], refresh_s=0.001, stale_after_s=60)
    exporter.start()
    assert often.wait(30)
    exporter.stop()
    seen = count
    time.sleep(0.05)
    assert count == seen


def test_a_failure_is_logged_once_and_again_after_it_worked(caplog: pytest.LogCaptureFixture) -> None:
    answers = [broken, broken, lambda: 1.0, broken]
    exporter = Exporter([Group("one", one_by_one(answers))], refresh_s=1, stale_after_s=60)
    for _ in range(4):
        exporter.refresh()
    assert [record.message for record in caplog.records] == [
        "the metrics of the group one cannot be brought up to date"
    ] * 2
