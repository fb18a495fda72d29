"""The example corpus: every file has a licence, judgements point at files, and it stays small."""

import re
from pathlib import Path

import pytest

from rag_core.evaluation.beir import load_qrels, load_queries

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CORPUS = EXAMPLES / "corpus"
KEYS = sorted(path.relative_to(CORPUS).as_posix() for path in CORPUS.rglob("*") if path.is_file())
ALLOWED = {"CC0-1.0", "Apache-2.0", "MIT (Microsoft)", "MIT (IBM)", "PostgreSQL", "public domain", "PDDL-1.0"}


def test_each_file_has_exactly_one_licence_line_and_the_licence_allows_redistribution() -> None:
    lines = re.findall(r"^\| `([^`]+)` \| ([^|]+) \| ([^|]+) \|$", (EXAMPLES / "LICENSES.md").read_text("utf-8"), re.M)
    assert [path for path, _, _ in lines] == KEYS
    for path, licence, source in lines:
        named = {part.strip().removeprefix("attachment ") for part in licence.split(";")}
        assert named <= ALLOWED, path
        assert source.strip(), path


def test_it_is_small_and_has_many_formats() -> None:
    sizes = [(CORPUS / key).stat().st_size for key in KEYS]
    assert 25 <= len(KEYS) <= 45
    assert max(sizes) < 700 * 1024
    assert sum(sizes) < 3 * 1024 * 1024
    suffixes = {Path(key).suffix for key in KEYS}
    assert suffixes >= {".md", ".html", ".pdf", ".docx", ".xlsx", ".csv", ".pptx", ".eml", ".txt"}


def test_judgements_refer_to_questions_and_files() -> None:
    questions, qrels = load_queries(EXAMPLES / "questions.jsonl"), load_qrels(EXAMPLES / "qrels.tsv")
    assert set(questions) == set(qrels)
    assert {key for judged in qrels.values() for key in judged} <= set(KEYS)
    assert all(max(judged.values()) == 2 for judged in qrels.values())
    assert {score for judged in qrels.values() for score in judged.values()} == {1, 2}


def test_the_protected_document_is_not_judged_and_needs_its_password() -> None:
    from kreuzberg import extract_file_sync
    from kreuzberg.exceptions import ParsingError

    key = "finance/password-protected.pdf"
    assert all(key not in judged for judged in load_qrels(EXAMPLES / "qrels.tsv").values())
    with pytest.raises(ParsingError, match="password"):
        extract_file_sync(str(CORPUS / key))


def test_the_readme_question_is_a_labelled_one() -> None:
    question = re.search(r"\*\*(.+\?)\*\*", (EXAMPLES / "README.md").read_text("utf-8"))
    assert question is not None
    assert question[1] in load_queries(EXAMPLES / "questions.jsonl").values()
