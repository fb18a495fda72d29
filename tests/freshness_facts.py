"""Rows of `source_changes` and `passes` for tests, and random ones: what happens to two sources in two hours."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from rag_core.schemas import PASSES, SOURCE_CHANGES

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
SOURCES = ("handbook", "wiki")


def at(seconds: float) -> datetime:
    """Return a time so long after START."""
    return START + timedelta(seconds=seconds)


def change(number: int, changed: float, seen: float | None = None, **values: Any) -> dict[str, Any]:
    """Return a change of `handbook__00`, seen at once unless told otherwise; times are seconds after START."""
    seen = changed if seen is None else seen
    return {
        "change_id": f"change {number}", "source": "handbook", "partition_key": "handbook__00",
        "object_id": f"{number:032x}", "object_key": f"{number}.md", "kind": "changed", "changed_at": at(changed),
        "basis": "source", "not_before": None, "seen_at": at(seen), "look": 1, "counted": True, **values,
    }  # fmt: skip


def passed(listed: float, verified: float | None, **values: Any) -> dict[str, Any]:
    """Return a pass over `handbook__00`; without a time of verification it failed."""
    ok = verified is not None
    return {
        "pass_id": f"pass {listed} {verified}", "run_id": "run", "partition_key": "handbook__00", "source": "handbook",
        "reason": "change", "listed_at": at(listed), "verified_at": at(verified) if verified is not None else None,
        "outcome": "ok" if ok else "failed", "stage": "" if ok else "chunks", "failure": "" if ok else "transient",
        "message": "", "objects": 1, "seconds": 1.0, "finished_at": at(listed + 1 if verified is None else verified),
        **values,
    }  # fmt: skip


def changes_table(rows: list[dict[str, Any]]) -> pa.Table:
    """Return rows of `source_changes`."""
    return pa.Table.from_pylist(rows, schema=SOURCE_CHANGES)


def passes_table(rows: list[dict[str, Any]]) -> pa.Table:
    """Return rows of `passes`."""
    return pa.Table.from_pylist(rows, schema=PASSES)


# Whole minutes make ties and edges of windows likely; single microseconds are on either side of them.
_TIMES = st.one_of(
    st.integers(0, 120).map(lambda minutes: minutes * 60.0),
    st.floats(0, 7_200, allow_nan=False).map(lambda seconds: round(seconds, 6)),
    st.tuples(st.integers(0, 120), st.sampled_from((-1e-6, 1e-6))).map(lambda pair: max(pair[0] * 60 + pair[1], 0.0)),
)
_PARTITIONS = st.sampled_from([(source, f"{source}__{bucket:02d}") for source in SOURCES for bucket in range(3)])


@st.composite
def change_rows(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Changes of two sources: times of the future, none at all, repeated rows, rows that are not counted."""
    rows = []
    for number in range(draw(st.integers(0, 40))):
        source, partition = draw(_PARTITIONS)
        before, seen = sorted((draw(_TIMES), draw(_TIMES)))
        changed = draw(st.one_of(st.floats(before, seen), st.sampled_from((before, seen)), _TIMES))
        row = change(
            number, changed, seen, source=source, partition_key=partition, counted=draw(st.integers(0, 4)) > 0,
            not_before=draw(st.sampled_from((at(before), None))),
        )  # fmt: skip
        rows += [row] * draw(st.sampled_from((1, 1, 1, 2)))
    return draw(st.permutations(rows))


@st.composite
def pass_rows(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Passes that ended well or not, for whatever reason, overlapping, repeated, in any order."""
    rows = []
    for _ in range(draw(st.integers(0, 25))):
        source, partition = draw(_PARTITIONS)
        listed = draw(_TIMES)
        outcome = draw(st.sampled_from(("ok", "ok", "ok", "failed", "held", "crashed")))
        verified = listed + draw(st.floats(0, 3_600)) if outcome == "ok" else None
        reason = draw(st.sampled_from(("change", "backfill", "reconcile", "manual")))
        row = passed(listed, verified, source=source, partition_key=partition, outcome=outcome, reason=reason)
        rows += [row] * draw(st.sampled_from((1, 1, 2)))
    return draw(st.permutations(rows))


def busy_source(seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Many changes of one source and a pass for most; how often one is late changes in the middle of the time."""
    randomly = random.Random(seed)
    changes, passes = [], []
    late_before, late_after = randomly.choice((0.0, 0.1, 0.5)), randomly.choice((0.0, 0.1, 0.5, 1.0))
    for number in range(randomly.choice((9, 10, 11, 80))):
        second = randomly.choice((randomly.uniform(0, 7_200), 60.0 * randomly.randint(0, 120)))
        late = randomly.random() < (late_before if second < 4_000 else late_after)
        partition = f"handbook__{number:02d}"
        changes.append(change(number, second, partition_key=partition))
        if not late or randomly.random() < 0.5:
            wait = randomly.uniform(1, 1_500) if late else randomly.uniform(0, 60)
            passes.append(passed(second, second + wait, partition_key=partition))
    return changes, passes


NOWS = st.one_of(_TIMES.map(lambda seconds: at(seconds + 600)), st.integers(100, 160).map(lambda n: at(n * 60.0)))
