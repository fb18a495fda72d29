"""Reads the declared tests: the shipped files, then the user's folder, whose tests are added or change those before.

A file describes one table. A test is written `kind`, `kind: value` or `kind: {setting: value}`, under a column or under
the table. A test with the name of an earlier one changes the settings that it gives and keeps the rest.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from rag_core.config import RagConfig
from rag_core.config_keys import Path as KeyPath
from rag_core.config_problems import Problem, config_error, nearest, shown
from rag_core.config_yaml import YamlDocument, YamlError, read_yaml
from rag_core.quality.checking import problems_of_settings, problems_of_test
from rag_core.quality.declared import KEYS, DeclaredTable, DeclaredTest
from rag_core.quality.kinds import KINDS, Declared
from rag_core.tables.delta import SCHEMAS

SHIPPED: Final = Path(__file__).resolve().parents[2] / "dbt_like_checks"

_TABLE_KEYS = ("table", "description", "columns", "tests")
_COLUMN_KEYS = ("name", "description", "tests")


@dataclass
class _RawTest:
    """A test as it was written, before its settings are checked; lines by path inside its settings."""

    kind: str
    columns: tuple[str, ...]
    settings: dict[str, Any]
    lines: dict[KeyPath, str]


@dataclass
class _RawTable:
    description: str = ""
    columns: dict[str, str] = field(default_factory=dict)
    tests: dict[str, _RawTest] = field(default_factory=dict)


def load_declarations(config: RagConfig) -> dict[str, DeclaredTable]:
    """Return the tables with their tests, the shipped ones changed by the user's folder.

    Raises:
        ConfigError: Something is wrong; the message lists every problem with file, line, key and what is allowed.
    """
    files = [*sorted(SHIPPED.glob("*.yml"))]
    if config.quality.tests is not None:
        folder = config.quality.tests
        if not folder.is_dir():
            raise config_error("rag.yaml", [Problem("rag.yaml", "quality.tests", f"no such folder: {folder}")])
        files += sorted([*folder.glob("*.yml"), *folder.glob("*.yaml")])
    stamps = tuple((path, path.stat().st_mtime_ns) for path in files)
    return _load(stamps, tuple(source.name for source in config.sources))


@functools.lru_cache(maxsize=8)
def _load(files: tuple[tuple[Path, int], ...], sources: tuple[str, ...]) -> dict[str, DeclaredTable]:
    problems: list[Problem] = []
    tables: dict[str, _RawTable] = {}
    for path, _ in files:
        _File(path, tables, problems).read()
    declared = {
        name: DeclaredTable(name, raw.description, raw.columns, tuple(_tests(name, raw, sources, problems)))
        for name, raw in tables.items()
    }
    if problems:
        raise config_error("declared tests", problems)
    return declared


def _tests(table: str, raw: _RawTable, sources: tuple[str, ...], problems: list[Problem]) -> Iterator[DeclaredTest]:
    for name, test in raw.tests.items():
        place = test.lines[()]
        try:
            settings: Declared = KINDS[test.kind].model_validate(test.settings)
        except ValidationError as error:
            problems += problems_of_settings(error, KINDS[test.kind], name, test.lines)
            continue
        declared = DeclaredTest(table, name, test.columns, settings, place)
        found = list(problems_of_test(declared, test.lines, sources))
        problems += found
        if not found:
            yield declared


class _File:
    """One file: checks its structure and adds its tests to the tables."""

    def __init__(self, path: Path, tables: dict[str, _RawTable], problems: list[Problem]) -> None:
        self._path = path
        self._tables = tables
        self._problems = problems
        self._document = YamlDocument()

    def read(self) -> None:
        """Read the file; what is wrong is added to the problems."""
        try:
            self._document = read_yaml(self._path)
        except YamlError as error:
            self._problems.append(Problem(f"{self._path}:{error.line}", "", str(error)))
            return
        for path, line, first in self._document.repeated:
            self._problems.append(Problem(f"{self._path}:{line}", str(path[-1]), f"repeated; first on line {first}"))
        data = self._document.data
        self._only(data, _TABLE_KEYS, ())
        table = data.get("table")
        if table not in KEYS:
            known = nearest(str(table), KEYS) if table else f"; known here: {', '.join(KEYS)}"
            self._wrong(("table",), f"expected the table that the file describes{known}", table)
            return
        raw = self._tables.setdefault(table, _RawTable())
        raw.description = " ".join(str(data.get("description", raw.description)).split())
        for number, entry in self._listed(data, "columns", ()):
            self._column(table, raw, entry, ("columns", number))
        for number, entry in self._listed(data, "tests", ()):
            self._test(raw, (), entry, ("tests", number))

    def _column(self, table: str, raw: _RawTable, entry: Any, path: KeyPath) -> None:
        if not isinstance(entry, dict) or "name" not in entry:
            self._wrong(path, "expected `name: COLUMN` with `description` and `tests`", entry)
            return
        self._only(entry, _COLUMN_KEYS, path)
        name, names = str(entry["name"]), SCHEMAS[table].names
        if name not in names:
            self._wrong((*path, "name"), f"{table} has no such column{nearest(name, names)}", name)
            return
        raw.columns[name] = str(entry.get("description", raw.columns.get(name, "")))
        for number, test in self._listed(entry, "tests", path):
            self._test(raw, (name,), test, (*path, "tests", number))

    def _test(self, raw: _RawTable, columns: tuple[str, ...], entry: Any, path: KeyPath) -> None:
        if isinstance(entry, str):
            entry = {entry: None}
        if not isinstance(entry, dict) or len(entry) != 1:
            self._wrong(path, "expected one test: `not_null`, `accepted_range: {min: 0}`", entry)
            return
        ((kind, value),) = entry.items()
        if kind not in KINDS:
            self._wrong((*path, kind), f"unknown kind of test{nearest(kind, KINDS)}")
            return
        settings = self._settings(kind, value, (*path, kind))
        if settings is None:
            return
        together = settings.get("columns")
        about = tuple(map(str, together)) if isinstance(together, list) else columns
        name = str(settings.get("name") or "__".join([kind, *about]))
        lines = self._lines_below((*path, kind), path)
        lines |= {(key,): lines[()] for key in settings if (key,) not in lines}  # a value without its setting's name
        if earlier := raw.tests.get(name):
            if earlier.kind != kind:
                self._wrong((*path, kind), f"the name {name} is taken by a test of kind {earlier.kind}")
                return
            settings, lines = {**earlier.settings, **settings}, {**earlier.lines, **lines}
        raw.tests[name] = _RawTest(kind, about, settings, lines)

    def _settings(self, kind: str, value: Any, path: KeyPath) -> dict[str, Any] | None:
        if value is None:
            return {}
        if isinstance(value, dict):
            return value
        if KINDS[kind].shorthand is None:
            self._wrong(path, f"expected settings, such as `{kind}: {{severity: warn}}`", value)
            return None
        return {str(KINDS[kind].shorthand): value}

    def _lines_below(self, path: KeyPath, test: KeyPath) -> dict[KeyPath, str]:
        lines = self._document.lines
        below = {key[len(path) :]: f"{self._path}:{line}" for key, line in lines.items() if key[: len(path)] == path}
        return {(): f"{self._path}:{lines[test]}", **below}

    def _listed(self, data: dict[str, Any], key: str, path: KeyPath) -> Iterator[tuple[int, Any]]:
        value = data.get(key) or []
        if not isinstance(value, list):
            self._wrong((*path, key), "expected a list (lines that begin with `- `)")
            return
        yield from enumerate(value)

    def _only(self, data: dict[str, Any], known: tuple[str, ...], path: KeyPath) -> None:
        for key in data:
            if key not in known:
                self._wrong((*path, key), f"unknown key{nearest(key, known)}")

    def _wrong(self, path: KeyPath, expected: str, value: Any = None) -> None:
        line = next(
            (self._document.lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in self._document.lines), 1
        )
        dotted = ".".join(str(part) for part in path)
        text = "" if value is None or isinstance(value, dict) else shown(value)
        self._problems.append(Problem(f"{self._path}:{line}", dotted, expected, text))
