"""Reading queries and qrels: what is accepted, and that every refusal names file and line."""

from pathlib import Path

import pytest

from rag_core.evaluation.beir import LabelledQueryError, load_qrels, load_queries


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_queries_in_file_order_ignoring_metadata_and_blank_lines(tmp_path: Path) -> None:
    path = _write(
        tmp_path / "q.jsonl", '\ufeff{"_id": "b", "text": "second?", "metadata": {}}\n\n{"_id":"a","text":"x"}'
    )
    assert list(load_queries(path).items()) == [("b", "second?"), ("a", "x")]


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ('{"_id": "1", "text": "x"}\nnot json', 2, "not JSON"),
        ("[1]", 1, "expected a JSON object"),
        ('{"text": "x"}', 1, "_id is None"),
        ('{"_id": 1, "text": "x"}', 1, "_id is 1"),
        ('{"_id": "1", "text": " "}', 1, "expected a question"),
        ('{"_id": "1", "text": "x"}\n\n{"_id": "1", "text": "y"}', 3, "occurs twice"),
    ],
)
def test_a_bad_query_names_file_and_line(tmp_path: Path, text: str, line: int, expected: str) -> None:
    path = _write(tmp_path / "q.jsonl", text)
    with pytest.raises(LabelledQueryError) as error:
        load_queries(path)
    assert f"{path}:{line}: " in str(error.value)
    assert expected in str(error.value)


def test_qrels_with_and_without_header(tmp_path: Path) -> None:
    body = "q1\thandbook/a b.md\t2\nq1\tc\t0\r\nq2\tc\t-1\n"
    expected = {"q1": {"handbook/a b.md": 2, "c": 0}, "q2": {"c": -1}}
    assert load_qrels(_write(tmp_path / "a.tsv", "query-id\tcorpus-id\tscore\n" + body)) == expected
    assert load_qrels(_write(tmp_path / "b.tsv", body)) == expected


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("q d 1", 1, "expected query-id, corpus-id, score"),
        ("q\t0\td\t1", 1, "4 tab-separated fields"),
        ("q\td\t1\nq\t\t1", 2, "expected query-id, corpus-id, score"),
        ("q\td\t0.5", 1, "expected an integer"),
        ("q\td\t1\nq\td\t1\nq\td\t2", 3, "judged twice: 1 and 2"),
    ],
)
def test_a_bad_judgement_names_file_and_line(tmp_path: Path, text: str, line: int, expected: str) -> None:
    path = _write(tmp_path / "qrels.tsv", text)
    with pytest.raises(LabelledQueryError) as error:
        load_qrels(path)
    assert f"{path}:{line}: " in str(error.value)
    assert expected in str(error.value)


@pytest.mark.parametrize("load", [load_queries, load_qrels])
def test_missing_empty_and_undecodable_files(tmp_path: Path, load: object) -> None:
    assert callable(load)
    with pytest.raises(LabelledQueryError, match="cannot be read"):
        load(tmp_path / "absent")
    with pytest.raises(LabelledQueryError, match="expected"):
        load(_write(tmp_path / "empty", "\n"))
    (tmp_path / "latin").write_bytes(b"caf\xe9\t1\t1\n")
    with pytest.raises(LabelledQueryError, match="not UTF-8"):
        load(tmp_path / "latin")


@pytest.mark.corpora
def test_cranfield(corpora: Path) -> None:
    queries = load_queries(corpora / "cranfield" / "queries.jsonl")
    qrels = load_qrels(corpora / "cranfield" / "qrels.tsv")
    assert len(queries) == 225
    assert set(queries) == set(qrels)
    assert sum(map(len, qrels.values())) == 1837
