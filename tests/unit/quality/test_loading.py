"""Declarations: the shipped files, what a folder of one's own changes, and what wrong lines are told."""

from pathlib import Path

import pytest

from rag_core.errors import ConfigError
from rag_core.quality.declared import KEYS
from rag_core.quality.kinds import KINDS, AcceptedRange, RowCount, Unique
from rag_core.quality.loading import load_declarations
from rag_core.tables.delta import SCHEMAS
from tests.unit.quality.tables import config_of


def load(folder: Path, text: str, name: str = "own.yml"):
    (folder / name).write_text(text)
    return load_declarations(config_of(folder, tests=folder))


def message(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as error:
        load(folder, text)
    return str(error.value).replace(str(folder), "")


def test_shipped_files_describe_every_column_of_the_schemas(tmp_path: Path) -> None:
    declared = load_declarations(config_of(tmp_path))
    assert set(declared) == set(KEYS)
    for name, table in declared.items():
        described = {field.name: field.metadata[b"description"].decode() for field in SCHEMAS[name]}
        assert table.columns == described
        assert table.description
        assert [test.name for test in table.tests if test.blocking] or name == "retrieval_eval"


def test_shipped_files_use_every_kind_that_needs_no_threshold_of_ones_own(tmp_path: Path) -> None:
    used = {test.kind for table in load_declarations(config_of(tmp_path)).values() for test in table.tests}
    assert used == set(KINDS)


def test_own_test_is_added_and_settings_of_the_same_name_are_changed(tmp_path: Path) -> None:
    before = load_declarations(config_of(tmp_path))["chunks"]
    table = load(
        tmp_path,
        "table: chunks\n"
        "columns:\n"
        "  - name: text\n"
        "    tests:\n"
        "      - accepted_range: {name: not_tiny, of: length, min: 20, severity: warn}\n"
        "tests:\n"
        "  - row_count: {max_drop: 0.2, sources: {wiki: {enabled: false, max: 9}}}\n"
        "  - unique: {columns: [doc_id, char_start]}\n",
    )["chunks"]
    assert {test.name for test in table.tests} - {test.name for test in before.tests} == {
        "not_tiny",
        "unique__doc_id__char_start",
    }
    assert isinstance(table.test("not_tiny").settings, AcceptedRange)
    assert isinstance(table.test("unique__doc_id__char_start").settings, Unique)
    changed = table.test("row_count")
    assert isinstance(changed.settings, RowCount)
    assert (changed.settings.max_drop, changed.settings.min_rows, changed.settings.blocking) == (0.2, 50, True)
    assert changed.of_source("handbook").enabled
    assert not changed.of_source("wiki").enabled
    assert changed.of_source("wiki").max == 9
    assert changed.place.endswith("own.yml:7")
    assert table.description == before.description


def test_names_of_files_do_not_matter_and_later_files_win(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("table: chunks\ntests: [{row_count: {max_drop: 0.1}}]\n")
    table = load(tmp_path, "table: chunks\ntests: [{row_count: {max_drop: 0.3}}]\n", "b.yaml")["chunks"]
    # .yml files come before .yaml files, each in the order of their names
    assert table.test("row_count").settings.max_drop == 0.3


COLUMN = "table: chunks\ncolumns:\n  - name: "
TEST = "table: chunks\ntests:\n  - "
WRONG = [
    ("tests: []\n", ":1: table: expected the table that the file describes; known here: documents, chunks"),
    ("table: chunk\n", ":1: table = 'chunk': expected the table that the file describes; did you mean chunks?"),
    ("table: chunks\ncolums: []\n", ":2: colums: unknown key; did you mean columns?"),
    (COLUMN + "txt\n", ":3: columns.0.name = 'txt': chunks has no such column; did you mean text"),
    (TEST + "row_cout\n", "tests.0.row_cout: unknown kind of test; did you mean row_count?"),
    (TEST + "row_count: {maxdrop: 1}\n", ":3: row_count.maxdrop = 1: unknown setting of row_count"),
    (TEST + "row_count:\n      max_drop: 2\n", ":4: row_count.max_drop = 2: expected at most 1"),
    (TEST + "row_count: {severity: bad}\n", "expected one of 'warn' or 'error'"),
    (TEST + "row_count: {severity: warn}\n", "a blocking test has severity error"),
    (TEST + "not_null\n", "not_null is a test of a column"),
    (COLUMN + "doc_id\n    tests: [row_count]\n", "row_count is a test of the table"),
    (COLUMN + "text\n    tests: [unique]\n", "text is not held in memory; use text.length"),
    (COLUMN + "doc_id\n    tests: [unit_norm]\n", "doc_id of chunks has no measure norm"),
    (COLUMN + "doc_id\n    tests:\n      - relationships: documnts.doc_id\n", "did you mean documents"),
    (COLUMN + "page\n    tests: [accepted_range]\n", "min, max or both"),
    (COLUMN + "page\n    tests: [accepted_range: {severity: warn}]\n", "min, max or both"),
    (TEST + "expression: {name: x, that: char_ende > 0}\n", ":3: x.that: chunks has no column char_ende"),
    (TEST + "expression: {name: x, that: __import__('os')}\n", "x.that = \"__import__('os')\": expected:"),
    (TEST + "row_count: {sources: {wikki: {max: 1}}}\n", "no such source; did you mean wiki?"),
    (TEST + "row_count: {sources: {wiki: {maxx: 1}}}\n", "row_count.sources.wiki.maxx = 1: unknown setting"),
    (TEST + "a: 1\n    b: 2\n", "expected one test"),
    ("table: chunks\ntable: chunks\n", ":2: table: repeated; first on line 1"),
    ("table: [\n", "not valid YAML"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), WRONG)
def test_wrong_line_is_told_with_place_and_what_is_allowed(tmp_path: Path, text: str, expected: str) -> None:
    found = message(tmp_path, text)
    assert "/own.yml:" in found
    assert expected in found


def test_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"quality\.tests: no such folder"):
        load_declarations(config_of(tmp_path, tests=tmp_path / "absent"))
