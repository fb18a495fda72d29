"""What Great Expectations returned for the last runs, kept as JSON files for its Data Docs."""

import re
from collections.abc import Mapping
from typing import Any

import orjson
import pyarrow.fs as pafs

from rag_core import ids
from rag_core.tables.files import write_file
from rag_core.tables.store import Store

_FOLDER = "work/validations"
_KEPT_RUNS = 20
_PART = "~"  # before the part of a batch in a file's name; `_safe` leaves none in the batch's
_OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY


def save(store: Store, run_id: str, name: str, document: dict[str, Any]) -> None:
    """Keep the validation of a batch; `name` is `table__lane__partition`, or `table__partition` without lanes.

    A run tests a batch in parts: the blocking tests between the stages, the others at its end. Each part is a file.
    """
    part = ids.digest(*sorted(map(_expectation, document["results"])))[:8]
    path = f"{_FOLDER}/{_safe(run_id)}/{_safe(name)}{_PART}{part}.json"
    write_file(store, path, orjson.dumps(document, default=str, option=_OPTIONS))


def load(store: Store, run_id: str) -> dict[str, dict[str, Any]]:
    """Return the validations of a run by name: arguments of `ExpectationSuiteValidationResult`."""
    filesystem, root = _folder(store)
    selector = pafs.FileSelector(f"{root}/{_safe(run_id)}", allow_not_found=True)
    documents: dict[str, dict[str, Any]] = {}
    for info in sorted(filesystem.get_file_info(selector), key=lambda info: (info.mtime_ns or 0, info.path)):
        if not info.base_name.endswith(".json"):
            continue  # being written, or cut off
        with filesystem.open_input_stream(info.path) as source:
            document = orjson.loads(source.read())
        name = info.base_name.removesuffix(".json").rpartition(_PART)[0]
        documents[name] = _joined(documents[name], document) if name in documents else document
    return dict(sorted(documents.items()))


def _joined(earlier: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    """Put two parts of a validation together; of the same test the later result counts."""
    results = list({_expectation(one): one for one in [*earlier["results"], *later["results"]]}.values())
    passed = sum(bool(one["success"]) for one in results)
    statistics = {
        "evaluated_expectations": len(results),
        "successful_expectations": passed,
        "unsuccessful_expectations": len(results) - passed,
        "success_percent": 100.0 * passed / len(results) if results else None,
    }
    return {**later, "results": results, "success": passed == len(results), "statistics": statistics}


def _expectation(result: Mapping[str, Any]) -> str:
    """Return what is the same whenever the batch is tested: the name of the test, if it has one."""
    config = result["expectation_config"]
    return str((config.get("meta") or {}).get("test") or [config["type"], config["kwargs"].get("column")])


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
    return filesystem, f"{root}/{_FOLDER}"


def _safe(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name)
