"""A small corpus whose documents admit different people, and its index."""

import json
from pathlib import Path
from typing import Any

from rag_core.access_keys import KeyEntry, hash_of, new_key
from tests.conftest import REPO
from tests.integration.pipeline_helpers import Platform

TOPICS = {
    "salary": "The salary review happens every April; raises above nine percent need the signature of Petra Vogel.",
    "incident": "A security incident must be reported within 45 minutes to the duty officer, by telephone.",
    "travel": "Train tickets are booked in second class; hotels may cost at most 140 euros a night.",
    "garden": "The roof garden is open from seven in the morning, and dogs are welcome on Fridays.",
    "backup": "Backups of the ledger run at midnight and are restored in a drill each quarter.",
    "merger": "Project Kestrel is the planned merger with Nordlicht AG; nobody outside the board may know of it.",
}
ADMITTED = {
    "salary": ["group:hr"],
    "incident": ["group:everyone"],
    "travel": ["group:everyone"],
    "garden": ["group:eng", "group:hr"],
    "backup": ["group:eng"],
    "merger": ["user:chair"],
}
KEYS = {name: new_key() for name in ("hr", "eng", "guest", "chair", "nobody")}
PRINCIPALS = {
    "hr": ("group:hr", "group:everyone"),
    "eng": ("group:eng", "group:everyone"),
    "guest": ("group:everyone",),
    "chair": ("user:chair", "group:everyone", "group:hr", "group:eng"),
    "nobody": (),
}


def may_see(name: str) -> set[str]:
    """Return the topics that the holder of a key may see."""
    return {topic for topic, admitted in ADMITTED.items() if set(admitted) & set(PRINCIPALS[name])}


def key_list() -> str:
    """Return the list of keys, as the service reads it from its environment."""
    entries = [KeyEntry(id=name, hash=hash_of(key), principals=PRINCIPALS[name]) for name, key in KEYS.items()]
    return json.dumps([entry.model_dump(mode="json") for entry in entries])


def record(topic: str, text: str | None = None) -> dict[str, Any]:
    """Return the record of a topic."""
    return {
        "_id": topic,
        "title": topic.title(),
        "text": text or TOPICS[topic],
        "changed": "2026-03-01T12:00:00Z",
        "admits": ADMITTED[topic],
    }


def write_records(path: Path, records: list[dict[str, Any]]) -> None:
    """Write a JSONL file as a whole."""
    part = path.with_suffix(".part")
    part.write_text("".join(json.dumps(one) + "\n" for one in records))
    part.replace(path)


def make_platform(root: Path, **settings: Any) -> Platform:
    """Index the topics, and the example corpus, which admits everyone."""
    root.mkdir(parents=True, exist_ok=True)
    write_records(root / "topics.jsonl", [record(topic) for topic in TOPICS])
    topics = {
        "name": "topics", "kind": "jsonl", "root": str(root / "topics.jsonl"),
        "modified_at_field": "changed", "principals_field": "admits",
    }  # fmt: skip
    handbook = {
        "name": "handbook", "kind": "files", "root": str(REPO / "examples" / "corpus"),
        "include": ["handbook/security-incidents.md", "handbook/work-schedules.md"], "principals": ["group:everyone"],
    }  # fmt: skip
    platform = Platform(root / "platform", [topics, handbook], settings)
    platform.run()
    return platform
