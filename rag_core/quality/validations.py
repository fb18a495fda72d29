"""What Great Expectations returned for the last runs, kept as JSON files for its Data Docs."""

import re
from typing import Any

import orjson
import pyarrow.fs as pafs

from rag_core.tables.store import Store

_KEPT_RUNS = 20


def save(store: Store, run_id: str, name: str, document: dict[str, Any]) -> None:
    """Keep the validation of a batch; `name` is `table__lane__partition`, or `table__partition` without lanes."""
    filesystem, root = _folder(store)
    folder = f"{root}/{_safe(run_id)}"
    filesystem.create_dir(folder, recursive=True)
    with filesystem.open_output_stream(f"{folder}/{_safe(name)}.json") as sink:
        sink.write(orjson.dumps(document, default=str, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY))


def load(store: Store, run_id: str) -> dict[str, dict[str, Any]]:
    """Return the validations of a run by name: arguments of `ExpectationSuiteValidationResult`."""
    filesystem, root = _folder(store)
    selector = pafs.FileSelector(f"{root}/{_safe(run_id)}", allow_not_found=True)
    documents = {}
    for info in sorted(filesystem.get_file_info(selector), key=lambda info: info.path):
        with filesystem.open_input_stream(info.path) as source:
            documents[info.base_name.removesuffix(".json")] = orjson.loads(source.read())
    return documents


def prune(store: Store) -> None:
    """Remove the validations of all but the last runs."""
    filesystem, root = _folder(store)
    runs = [
        info
        for info in filesystem.get_file_info(pafs.FileSelector(root, allow_not_found=True))
        if info.type == pafs.FileType.Directory
    ]
    if len(runs) > _KEPT_RUNS:
        times = {info.path: _newest(filesystem, info.path) for info in runs}
        for path in sorted(times, key=lambda path: times[path])[:-_KEPT_RUNS]:
            filesystem.delete_dir(path)


def _newest(filesystem: pafs.FileSystem, folder: str) -> int:
    return max((info.mtime_ns or 0 for info in filesystem.get_file_info(pafs.FileSelector(folder))), default=0)


def _folder(store: Store) -> tuple[pafs.FileSystem, str]:
    filesystem, root = store.filesystem()
    return filesystem, f"{root}/work/validations"


def _safe(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name)
