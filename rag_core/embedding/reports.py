"""What a job measured, in the store beside its manifest: messages may be lost on their way, this is not."""

import json
from collections.abc import Mapping
from typing import Any

from rag_core.embedding.manifest import WorkManifest
from rag_core.tables.files import read_file, write_file


def write_report(manifest: WorkManifest, measured: Mapping[str, Any]) -> None:
    """Keep what was measured of a manifest's job."""
    write_file(manifest.store, _path(manifest), json.dumps(measured).encode())


def report_of(manifest: WorkManifest) -> dict[str, Any]:
    """Return what was measured of a manifest's job; empty where its worker did not come to say."""
    data = read_file(manifest.store, _path(manifest))
    report: dict[str, Any] = json.loads(data) if data else {}
    return report


def _path(manifest: WorkManifest) -> str:
    return f"{manifest.items.rpartition('/')[0]}/report.json"
