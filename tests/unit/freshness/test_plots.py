import io
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from rag_core.config_freshness import Objective
from rag_core.freshness.latency import latencies
from rag_core.freshness.plots import history_svg, history_webp
from tests.freshness_facts import at, change, changes_table, passed, passes_table

DAY = 86_400.0


def rows_of(count: int, *, every: float, latency: float = 12, now: float, **values: Any) -> pa.Table:
    """Return latencies of so many changes one after the other, the newest just before `now`."""
    seconds = [now - every * (count - number) for number in range(count)]
    changes = [change(number, second, **values) for number, second in enumerate(seconds)]
    return latencies(
        changes_table(changes), passes_table([passed(second, second + latency) for second in seconds]), now=at(now)
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "every", "latency", "ranges"),
    [(0, 1, 1, 1), (1, 60, 1, 1), (100, 6, 0, 1), (3_000, 800, 20, 2), (700, 30, 900, 1)],
)
def test_any_number_of_changes_is_drawn(count: int, every: float, latency: float, ranges: int) -> None:
    now = 40 * DAY
    rows = rows_of(count, every=every, latency=latency, now=now)
    svg = history_svg(rows, Objective(), now=at(now)).decode()
    assert svg.count("last 6 hours") == ranges - 1
    assert "error budget" in svg
    assert "99 % of changes within 300 s" in svg


@pytest.mark.slow
def test_the_picture_is_small_and_the_same_for_the_same_rows() -> None:
    now = 40 * DAY
    rows = rows_of(3_000, every=800, now=now)
    picture = history_webp(rows, Objective(), now=at(now))
    assert picture == history_webp(rows, Objective(), now=at(now))
    assert len(picture) < 10_000
    assert Image.open(io.BytesIO(picture)).size[0] > 600


def test_the_hard_limit_is_shown_where_the_data_is_old() -> None:
    waiting = latencies(changes_table([change(1, 0)]), passes_table([]), now=at(3_000))
    assert "at most 3600 s old" in history_svg(waiting, Objective(), now=at(3_000)).decode()
    assert "at most" not in history_svg(waiting, Objective(hard_limit_s=90_000), now=at(3_000)).decode()


def test_what_is_not_counted_is_not_drawn() -> None:
    now = 40 * DAY
    load = rows_of(50, every=60, latency=4_000, now=now, counted=False)
    assert history_svg(load, Objective(), now=at(now)) == history_svg(load.slice(0, 0), Objective(), now=at(now))
