"""Files that nobody needs are removed, and no others; upkeep of tables removes what no version names."""

import os
import time
from datetime import UTC, datetime
from pathlib import Path

from rag_core.config import RagConfig
from rag_core.retention.leftovers import clear_leftovers
from rag_core.tables.delta import SCHEMAS, ensure_table
from rag_core.tables.log import append_rows
from rag_core.tables.maintenance import maintain
from rag_core.tables.store import Store
from tests.unit.test_retention import config_of, row_of

DAY_S = 86_400


def _file(root: Path, path: str, *, days: float) -> Path:
    """Write a file as if it had been written some days ago."""
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("content")
    then = time.time() - days * DAY_S
    os.utime(file, (then, then))
    return file


def _clear(root: Path, config: RagConfig, *alive: str) -> set[str]:
    found = clear_leftovers(Store(str(root)), config, now=datetime.now(UTC), alive=alive)
    return {path for one in found for path in one.paths}


def test_only_work_of_dead_runs_goes(tmp_path: Path) -> None:
    for path, days in {
        "work/embedding/dead/items.parquet": 8,
        "work/embedding/alive/items.parquet": 8,
        "work/embedding/recent/items.parquet": 6,
        "work/spark/dead/input.parquet": 30,
        "work/index/rag_1/a__00": 100,
        "work/alerts.json": 100,
        "work/looks/a/snapshot": 100,
        "work/looks/gone/snapshot": 1,
        "work/looks/a/current.json.0a1b2c3d.part": 8,
        "work/looks/a/current.json.4e5f6a7b.part": 1,
    }.items():
        _file(tmp_path, path, days=days)
    removed = _clear(tmp_path, config_of(), "alive")
    cut_off = "work/looks/a/current.json.0a1b2c3d.part"
    assert removed == {"work/embedding/dead", "work/spark/dead", "work/looks/gone", cut_off}
    left = {str(path.relative_to(tmp_path)) for path in (tmp_path / "work").rglob("*") if path.is_file()}
    assert left == {
        "work/embedding/alive/items.parquet",
        "work/embedding/recent/items.parquet",
        "work/index/rag_1/a__00",
        "work/alerts.json",
        "work/looks/a/snapshot",
        "work/looks/a/current.json.4e5f6a7b.part",
    }
    assert _clear(tmp_path, config_of(), "alive") == set()


def test_pages_go_with_their_rows(tmp_path: Path) -> None:
    append_rows(Store(str(tmp_path)), "verdicts", [row_of(SCHEMAS["verdicts"], verdict_id="kept")])
    for name in ("kept.html", "kept.json", "gone.html", "gone.json", "latest.html", "latest.json"):
        _file(tmp_path, f"reports/publications/{name}", days=200)
    for path, days in {
        "a/d1.html": 100,
        "a/d1.json": 100,
        "a/d2.html": 1,
        "a/latest.html": 100,
        "old/d1.html": 100,
    }.items():
        _file(tmp_path, f"reports/sources/{path}", days=days)
    assert _clear(tmp_path, config_of()) == {
        "reports/publications/gone.html",
        "reports/publications/gone.json",
        "reports/sources/a/d1.html",
        "reports/sources/a/d1.json",
        "reports/sources/old",
    }


def test_files_that_were_staged_and_never_committed_go_after_a_week(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    ensure_table(store, "documents")
    old = _file(tmp_path, "tables/documents/partition_key=a__00/part-1.parquet", days=8)
    new = _file(tmp_path, "tables/documents/partition_key=a__00/part-2.parquet", days=6)
    ensure_table(store, "documents").create_checkpoint()  # what is older than a checkpoint was overlooked
    done = {one.table: one.vacuumed for one in maintain(store)}
    assert done["documents"] == 1
    assert not old.exists()
    assert new.exists()


def test_many_small_appends_become_one_file(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    for number in range(5):
        append_rows(store, "alerts", [row_of(SCHEMAS["alerts"], alert_id=str(number))])
    done = {one.table: (one.files_before, one.files_after) for one in maintain(store)}
    assert done == {"alerts": (5, 1)}
    assert ensure_table(store, "alerts").to_pyarrow_dataset().count_rows() == 5
