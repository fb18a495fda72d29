"""Labelled queries in BEIR's layout: `queries.jsonl` and `qrels.tsv`. Reading and checking only, no measuring.

Source: Thakur et al. 2021, "BEIR", and the file layout of https://github.com/beir-cellar/beir.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from rag_core.errors import PermanentError

Qrels = dict[str, dict[str, int]]
"""Query id to document id to relevance; 0 and below are judged not relevant."""

_HEADER: Final = ("query-id", "corpus-id", "score")


class LabelledQueryError(PermanentError):
    """A queries or qrels file is not as expected; the message names file, line, what was found and expected."""


def load_queries(path: Path) -> dict[str, str]:
    """Read queries, one JSON object a line with `_id` and `text`; other keys are ignored, blank lines skipped.

    Returns:
        Query id to text, in file order.

    Raises:
        LabelledQueryError: The file cannot be read, holds no query, or a line is not such an object or repeats an id.
    """
    queries: dict[str, str] = {}
    for number, line in _lines(path):
        query_id, text = _query(path, number, line)
        if query_id in queries:
            raise LabelledQueryError(f"{path}:{number}: query {query_id!r} occurs twice; expected unique _id values")
        queries[query_id] = text
    if not queries:
        raise LabelledQueryError(f"{path}: no queries; expected one JSON object a line with _id and text")
    return queries


def load_qrels(path: Path) -> Qrels:
    """Read relevance judgements, tab-separated: query-id, corpus-id, score; with or without that header.

    Returns:
        Query id to document id to score, in file order.

    Raises:
        LabelledQueryError: The file cannot be read, holds no judgement, or a line has not three fields, a score that
            is no integer, or judges a pair again with another score.
    """
    qrels: Qrels = {}
    for position, (number, line) in enumerate(_lines(path)):
        fields = tuple(field.strip() for field in line.split("\t"))
        if position == 0 and fields == _HEADER:
            continue
        query_id, document_id, score = _judgement(path, number, fields)
        judged = qrels.setdefault(query_id, {})
        if judged.setdefault(document_id, score) != score:
            raise LabelledQueryError(
                f"{path}:{number}: query {query_id!r}, document {document_id!r} is judged twice: "
                f"{judged[document_id]} and {score}; keep one"
            )
    if not qrels:
        raise LabelledQueryError(f"{path}: no judgements; expected tab-separated query-id, corpus-id, score")
    return qrels


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line number (from 1) and text of each line that is not blank."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except OSError as error:
        raise LabelledQueryError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise LabelledQueryError(f"{path}: is not UTF-8 (byte {error.start}); save it as UTF-8") from error


def _query(path: Path, number: int, line: str) -> tuple[str, str]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise LabelledQueryError(f"{path}:{number}: not JSON ({error.msg}, column {error.colno})") from error
    if not isinstance(value, dict):
        raise LabelledQueryError(f"{path}:{number}: expected a JSON object with _id and text")
    query_id, text = value.get("_id"), value.get("text")
    if not isinstance(query_id, str) or not query_id.strip():
        raise LabelledQueryError(f"{path}:{number}: _id is {query_id!r}; expected a string that is not empty")
    if not isinstance(text, str) or not text.strip():
        raise LabelledQueryError(f"{path}:{number}: text of query {query_id!r} is {text!r}; expected a question")
    return query_id, text


def _judgement(path: Path, number: int, fields: tuple[str, ...]) -> tuple[str, str, int]:
    if len(fields) != len(_HEADER) or not all(fields):
        raise LabelledQueryError(
            f"{path}:{number}: {len(fields)} tab-separated fields {fields!r}; expected query-id, corpus-id, score"
        )
    query_id, document_id, score = fields
    try:
        return query_id, document_id, int(score)
    except ValueError as error:
        raise LabelledQueryError(f"{path}:{number}: score is {score!r}; expected an integer") from error
