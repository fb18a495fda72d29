"""Searches of another process run without pause while the index is rebuilt, refused and rolled back."""

from pathlib import Path

import pytest

from benchmarks.blue_green import measure
from tests.integration.blue_green_helpers import Records, text_of

pytestmark = [pytest.mark.milvus, pytest.mark.slow]


def test_no_search_fails_or_mixes_two_indexes(tmp_path: Path) -> None:
    records = Records(tmp_path / "docs.jsonl", 40)
    questions = [text_of(number).split(". ")[number % 3] for number in range(12)]
    few = {"samples": 10, "known_items": 30, "max_latency_ratio": 50}
    outcome = measure(tmp_path / "bench", records.path, questions, evaluation=few, pause_s=2.0)
    assert sum(phase.searches for phase in outcome.phases) > 100
    assert [phase.failures for phase in outcome.phases] == [0] * len(outcome.phases)
    assert outcome.mixtures == []
    first, second = outcome.served[:2]
    assert outcome.served == [first, second, first]
    assert (outcome.accepted.passed, outcome.accepted.collection, outcome.accepted.against) == (True, second, first)
    assert (outcome.refused.passed, outcome.refused.against) == (False, second)
    assert any("dense on known_item queries" in reason for reason in outcome.refused.reasons)
