"""Known-item queries: which sentences serve, that they are unique, and that they stay the same."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from hypothesis import given
from hypothesis import strategies as st

from rag_core import ids
from rag_core.evaluation.known_item import is_telling, known_items, sentences
from rag_core.schemas import DOCUMENTS
from rag_core.tables.delta import TableSlice, ensure_table
from rag_core.tables.store import Store

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "corpus"
GOOD = "Travellers submit their receipts to the finance office within five days of returning."


def store_with(folder: Path, texts: dict[str, str], *, source: str = "handbook", status: str = "ok") -> Store:
    store = Store(str(folder))
    add(store, texts, source=source, status=status)
    return store


def add(store: Store, texts: dict[str, str], *, source: str = "handbook", status: str = "ok") -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    made = [
        {
            "partition_key": f"{source}__00", "doc_id": ids.doc_id(source, key), "source": source, "object_key": key,
            "object_id": ids.doc_id(source, key), "member": "", "external_id": key, "uri": f"file:///{key}",
            "mime": "text/markdown", "text": text, "size_bytes": len(text), "object_fingerprint": "f",
            "content_hash": "c", "text_hash": ids.text_hash(text), "principals": ["all"],
            "access_label": ids.access_label(["all"]), "status": status, "parser_fingerprint": "p",
            "doc_hash": ids.text_hash(text), "ingested_at": now,
        }
        for key, text in texts.items()
    ]  # fmt: skip
    write_deltalake(ensure_table(store, "documents"), pa.Table.from_pylist(made, schema=DOCUMENTS), mode="append")


def generate(store: Store, count: int = 50, **options: object) -> dict[str, str]:
    """Return the questions by doc_id."""
    items = known_items(TableSlice.newest(store, "documents"), count, **options)  # type: ignore[arg-type]
    assert len({item.doc_id for item in items}) == len(items)
    assert all(item.query_id == ids.digest(item.doc_id, item.question) for item in items)
    return {item.doc_id: item.question for item in items}


@pytest.mark.parametrize(
    ("sentence", "telling"),
    [
        (GOOD, True),
        ("旅费报销单必须在返回后五个工作日内提交给财务办公室。", True),
        ("Too short to be told apart.", False),
        ("Navigation without any end of a sentence in it at all", False),
        ("See https://example.org/travel for the rules on travel that hold in every office.", False),
        ("This website uses cookies so that you get the best experience of all our pages.", False),
        ("Copyright 2026 by the authors of this handbook, who keep all of their rights.", False),
        ("x = 1.25 * (3 + 4) / 2.5e-3, y = 17, z = 0.25, k = 12, l = 0.5, m = 99 kg.", False),
        ("it was then agreed) that the office would pay for the travel of every guest.", False),
        ("word " * 80 + "end.", False),
    ],
)
def test_sentences_that_serve(sentence: str, telling: bool) -> None:
    assert is_telling(sentence) is telling


def test_headings_code_tables_and_questions_do_not_serve() -> None:
    text = (
        f"# The travellers submit their receipts to the finance office soon.\n\n{GOOD} **Bold words** are "
        "[linked](http://x.org/) in this second sentence of the text.\n\n"
        "```\nthe code submits the receipts of travellers to the office here.\n```\n\n"
        "| who | what |\n| --- | --- |\n| the travellers of all offices | submit their receipts to the office. |\n\n"
        "Why do all the travellers submit their receipts to the finance office?\n"
    )
    assert list(sentences(text)) == [
        (GOOD, GOOD),
        (
            "Bold words are linked in this second sentence of the text.",
            "**Bold words** are [linked](http://x.org/) in this second sentence of the text.",
        ),
    ]


@given(st.text(max_size=300))
def test_any_text_is_harmless(text: str) -> None:
    for plain, raw in sentences(text):
        assert raw in text
        assert is_telling(plain)


def test_sentences_of_several_documents_are_left_out(tmp_path: Path) -> None:
    own = "The second office keeps its own list of receipts in a drawer of the desk."
    texts = {
        "a.md": GOOD,
        "b.md": f"Something before it. {GOOD.upper()}\n\n{own}",  # the same but for case
        "c.md": f"Broken over lines.\n\n{GOOD.replace(' ', chr(10), 3)}",
        "copy1.md": f"Of two whole copies of a text none is asked for. {own.replace('second', 'third')}",
    }
    texts["copy2.md"] = texts["copy1.md"]
    store = store_with(tmp_path, texts)
    assert generate(store) == {ids.doc_id("handbook", "b.md"): own}


def test_rejected_documents_have_no_questions(tmp_path: Path) -> None:
    assert generate(store_with(tmp_path, {"a.md": GOOD}, status="rejected")) == {}
    assert generate(store_with(tmp_path, {"b.md": GOOD})) == {ids.doc_id("handbook", "b.md"): GOOD}


def test_sources_are_chosen_but_uniqueness_is_over_all(tmp_path: Path) -> None:
    other = "Visitors of the archive leave their bags in the lockers beside the entrance."
    store = store_with(tmp_path, {"a.md": f"{GOOD} {other}", "b.md": GOOD})
    add(store, {"x.md": other}, source="archive")
    assert generate(store, sources=["archive"]) == {}
    assert generate(store, sources=[]) == {}
    assert generate(store, count=0) == {}


@pytest.fixture(scope="module")
def example_texts() -> dict[str, str]:
    files = sorted(EXAMPLES.rglob("*.md"))
    assert len(files) > 4
    return {path.relative_to(EXAMPLES).as_posix(): path.read_text(encoding="utf-8") for path in files}


def test_examples_give_the_same_sensible_questions_in_any_order(tmp_path: Path, example_texts: dict[str, str]) -> None:
    first = generate(store_with(tmp_path / "a", example_texts))
    backwards = dict(reversed(example_texts.items()))
    assert generate(store_with(tmp_path / "b", backwards)) == first
    assert set(first) == {ids.doc_id("handbook", key) for key in example_texts}
    for key, text in example_texts.items():
        question = first[ids.doc_id("handbook", key)]
        assert set(question.rstrip(".").split()[1:-1]) & set(text.split())
        assert not question.startswith(("#", "|", "-", "*"))
    few = generate(store_with(tmp_path / "c", example_texts), count=2)
    assert few.items() <= first.items()


def test_other_documents_leave_a_question_as_it_is(tmp_path: Path, example_texts: dict[str, str]) -> None:
    first = generate(store_with(tmp_path / "a", example_texts))
    key = next(iter(example_texts))
    changed = {**example_texts, key: "Wholly other text that says nothing of what it said before it was changed."}
    second = generate(store_with(tmp_path / "b", {**changed, "new.md": GOOD}))
    name = ids.doc_id("handbook", key)
    unchanged = {doc_id: question for doc_id, question in first.items() if doc_id != name}
    assert unchanged.items() <= second.items()
    assert second[name] != first[name]
