"""Growth of the cost per chunk, verdicts, and the one document that is changed."""

import math
from typing import Any

import pytest

from benchmarks.memory import MIB
from benchmarks.pipeline_report import cost_ms, growth, marginal_ms, summarise
from benchmarks.workspace import Workspace, with_sentence


def test_growth_is_relative_to_the_smallest_size() -> None:
    assert growth([(1_000, 10.0), (4_000, 44.0), (16_000, 240.0)]) == pytest.approx([1.0, 1.1, 1.5])


def test_marginal_cost_leaves_fixed_cost_out() -> None:
    fixed, per_chunk = 20.0, 0.005
    sizes = [(chunks, fixed + per_chunk * chunks) for chunks in (1_000, 4_000, 16_000)]
    first, *others = marginal_ms(sizes)
    assert first is None
    assert others == pytest.approx([5.0, 5.0])
    assert growth(sizes)[-1] < 1


def test_cost_without_chunks_is_not_a_number() -> None:
    assert math.isnan(cost_ms(3.0, 0))


@pytest.mark.parametrize(
    ("seconds", "rss_mib", "good"), [(40.0, 1_000, True), (52.0, 1_000, False), (40.0, 3_072, False)]
)
def test_verdict_needs_both_limits(seconds: float, rss_mib: int, good: bool) -> None:
    def size(chunks: int, seconds: float, rss: int) -> dict[str, Any]:
        return {"chunks": chunks, "seconds": seconds, "memory": {"pipeline": {"rss_bytes": rss}}}

    report = summarise([size(1_000, 10.0, 300 * MIB), size(4_000, seconds, rss_mib * MIB)], 1.3, 3_072)
    assert report["within_limits"] is good
    assert report["peak_rss_bytes"] == {"pipeline": [300 * MIB, rss_mib * MIB]}


def test_sentence_goes_after_the_first_heading() -> None:
    changed = with_sentence(b"<body><p>Next</p><h1>Retention</h1><p>Kept for a year.</p></body>")
    assert changed.startswith(b"<body><p>Next</p><h1>Retention</h1><p>The retention of this page")
    assert changed.endswith(b"</p><p>Kept for a year.</p></body>")
    assert with_sentence(b"plain text").startswith(b"plain text\n\nThe retention")


def test_changed_document_leaves_the_linked_original(tmp_path: Any) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "a.html").write_text("<p>One.</p>")
    workspace = Workspace.create(tmp_path / "work", [corpus / "a.html"], corpus, {"buckets": 2})
    page = workspace.change_one()
    assert page.read_bytes() != (corpus / "a.html").read_bytes() == b"<p>One.</p>"
    assert "buckets: 2" in workspace.config.read_text()
