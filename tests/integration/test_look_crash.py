"""Looks whose process is killed, and looks of several processes at once: nothing is lost, nothing is recorded twice."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.looking import LONG_AGO, Looking, kinds, object_id

pytestmark = pytest.mark.slow

SOURCE = {"include": ["*.md"]}
"""Not the `.part` files, which are whole for a moment before they are renamed."""

LOOK = """
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from rag_core.freshness.observation import observe
from tests.looking import Looking
looking, until = Looking(Path(sys.argv[1]), source=json.loads(sys.argv[3])), Path(sys.argv[2])
while True:
    observe(looking.store, looking.config, "handbook", now=datetime.now(UTC))
    if until.exists():
        break
"""


def start(looking: Looking, until: Path, **environment: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", LOOK, str(looking.folder), str(until), json.dumps(looking.source)]
    return subprocess.Popen(command, env={**os.environ, **environment})


def put(looking: Looking, name: str, text: str) -> None:
    path = looking.root / name
    part = path.with_suffix(".part")
    part.write_text(text)
    os.utime(part, (LONG_AGO.timestamp(),) * 2)
    part.rename(path)


@pytest.fixture
def looking(tmp_path: Path) -> Looking:
    made = Looking(tmp_path, source=SOURCE)
    made.root.mkdir()
    for name in ("a.md", "b.md", "c.md"):
        put(made, name, "x")
    made.look()
    return made


@pytest.mark.parametrize(
    ("place", "is_decided"),
    [
        ("look.before_pending", False),
        ("look.before_append", True),
        ("look.before_pointer", True),
        ("look.before_cleaning", True),
    ],
)
def test_a_look_that_is_killed(looking: Looking, place: str, is_decided: bool) -> None:
    put(looking, "a.md", "longer")
    put(looking, "d.md", "new")
    (looking.root / "b.md").unlink()
    assert start(looking, looking.root, RAG_CRASH_AT=place).wait(60) == -9
    put(looking, "c.md", "longer")
    (looking.root / "d.md").unlink()
    seen = looking.look()
    after = {object_id("c.md"): "changed", object_id("d.md"): "deleted"}
    both = {object_id("a.md"): "changed", object_id("b.md"): "deleted", object_id("c.md"): "changed"}
    assert kinds(seen) == (after if is_decided else both)
    assert looking.replayed() == {object_id("a.md"), object_id("c.md")}
    assert looking.look().changes.num_rows == 0
    rows = looking.rows()
    assert len(rows) == 3 + (5 if is_decided else 3)
    assert len({row["change_id"] for row in rows}) == len(rows)
    left = {path.name for path in (looking.folder / "store" / "work" / "looks" / "handbook").iterdir()}
    assert left == {"current.json", f"state-{seen.look}.npz"}


def test_looks_of_several_processes_at_once(looking: Looking) -> None:
    stop = looking.folder / "stop"
    processes = [start(looking, stop) for _ in range(3)]
    try:
        changed, deadline = Counter[str](), time.monotonic() + 60
        for number in range(1, 16):
            put(looking, "a.md", "x" * (number + 1))
            put(looking, f"new{number}.md", "x")
            changed["a.md"] += 1
            while len(looking.rows()) < 3 + 2 * number:  # each change is seen by one of them, before there is another
                assert time.monotonic() < deadline, looking.rows()
    finally:
        stop.touch()
        codes = [process.wait(60) for process in processes]
    assert codes == [0, 0, 0]
    rows = looking.rows()
    found = Counter((row["object_id"], row["kind"]) for row in rows)
    assert found[object_id("a.md"), "changed"] == changed["a.md"]
    assert {count for (_, kind), count in found.items() if kind == "new"} == {1}
    assert looking.replayed() == {object_id(path.name) for path in looking.root.glob("*.md")}
