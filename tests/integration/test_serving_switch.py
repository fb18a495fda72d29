"""Publications and changes under steady traffic: no request fails, mixes two indexes, or is older than promised."""

import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from rag_core.stages.publication import latest_manifest
from tests.integration.pipeline_helpers import Platform
from tests.integration.serving_corpus import write_records
from tests.integration.serving_helpers import Served, served, wait_for

pytestmark = [pytest.mark.milvus, pytest.mark.slow]

DOCUMENTS = 220
CHANGED = 200
PER_SECOND = 20.0
_MODES = ("dense", "bm25", "hybrid")


_LAST = "This is all there is to say of it."


def records(edition: str, changed: int) -> list[dict[str, Any]]:
    """Documents that are one chunk by default, and several where chunks are smaller; the first ones of an edition."""
    return [
        {
            "_id": f"d{number:03d}",
            "text": f"Valve {number} belongs to edition {edition if number < changed else 'old'}. "
            + " ".join(f"Step {step} of valve {number} is done by hand." for step in range(6))
            + f" {_LAST}",
        }
        for number in range(DOCUMENTS)
    ]


@dataclass
class Traffic:
    """Asks at a steady rate until stopped, questions that repeat, so that caches are asked as well."""

    service: Served
    answers: list[tuple[float, float, int, dict[str, Any]]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._turn = iter(range(10**9))
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._threads = [threading.Thread(target=self._ask) for _ in range(4)]

    def __enter__(self) -> "Traffic":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        with self.service.client() as client:
            while not self._stop.is_set():
                with self._lock:
                    turn = next(self._turn)
                self._stop.wait(max(0.0, self._began + turn / PER_SECOND - time.monotonic()))
                number = turn % 40
                body = {"question": f"Valve {number * 5} edition", "mode": _MODES[turn % 3], "top_k": 5}
                asked = time.time()
                try:
                    answer = client.post("/v1/search", json=body)
                except httpx.HTTPError as error:
                    self.failures.append(repr(error))
                    continue
                if answer.status_code != 200:
                    self.failures.append(answer.text)
                else:
                    self.answers.append((asked, time.time(), number * 5, answer.json()))


def test_under_traffic(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_records(tmp_path / "valves.jsonl", records("old", 0))
    source = {"name": "valves", "kind": "jsonl", "root": str(tmp_path / "valves.jsonl")}
    platform = Platform(tmp_path / "platform", [source], {"publication": {"keep_collections": 1}})
    platform.run()
    try:
        limits = {"requests_per_minute": 1_000_000}
        with served(platform, {"limits": limits}) as service, Traffic(service) as traffic:
            wait_for(lambda: len(traffic.answers) > 40)
            write_records(tmp_path / "valves.jsonl", records("new", CHANGED))
            platform.run()
            verified = time.time()
            wait_for(lambda: traffic.answers[-1][0] > verified + 3)
            blue = service.runtime.parts.holder
            with blue.use() as snapshot:
                before = snapshot.index.collection
            _publish_another(platform)
            wait_for(lambda: traffic.answers[-1][3]["index"]["collection"] != before, 60)
            switched = time.time()
            wait_for(lambda: traffic.answers[-1][0] > switched + 2)
        assert not traffic.failures
        _check_none_is_older_than_promised(traffic, platform, verified)
        _check_none_is_mixed(traffic, before)
        served_by = Counter(answer["index"]["collection"] for *_, answer in traffic.answers)
        assert len(served_by) == 2
        with capsys.disabled():
            what = f"{len(traffic.answers)} requests over {CHANGED} changes and a publication, {PER_SECOND:g} a second"
            print(f"\n{what}: 0 failed, 0 mixed, 0 stale beyond the promise; {[*served_by.values()]} by collection")  # noqa: T201
    finally:
        platform.stop()


def _publish_another(platform: Platform) -> None:
    """Publish a second collection: the same documents, cut otherwise."""
    settings = yaml.safe_load(platform.config_path.read_text())
    settings["chunking"] = {"max_tokens": 48, "overlap_tokens": 0}
    platform.config_path.write_text(yaml.safe_dump(settings))
    platform.run(rebuild=True)
    manifest = latest_manifest(platform.store)
    assert manifest is not None
    assert json.loads(manifest.settings)["chunking"]["max_tokens"] == 48


def _check_none_is_older_than_promised(traffic: Traffic, platform: Platform, verified: float) -> None:
    """What was asked a look after a change was verified shows the change."""
    promised = platform.config.serving.cache.look_s + 1.0  # a look takes its time on a busy machine
    late = [one for one in traffic.answers if one[0] > verified + promised]
    assert len(late) > 20
    for _, _, _, answer in late:
        for hit in answer["hits"]:
            edition = "new" if int(hit["external_id"][1:]) < CHANGED else "old"
            assert "edition" not in hit["text"] or f"edition {edition}" in hit["text"], hit["external_id"]


def _check_none_is_mixed(traffic: Traffic, before: str) -> None:
    """Every hit is of the collection that its answer names: whole documents in the first, parts in the second."""
    for _, _, _, answer in traffic.answers:
        whole = {"edition" in hit["text"] and _LAST in hit["text"] for hit in answer["hits"]}
        assert whole == {answer["index"]["collection"] == before}
