"""Whatever a language model writes, what is given out cites passages that exist, and is marked if nothing says it."""

import re

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_core.answering.extractive import NOT_FOUND
from serving.answers.material import Material
from serving.answers.model import CitedSentence
from serving.answers.prompt import make_prompt
from serving.answers.verifying import UNSUPPORTED, Verifier, is_refusal
from serving.observability.metrics import Metrics
from tests.answers_support import embed_words, passage, settings_of

PASSAGES = [
    passage("Badges open the door. Lost badges cost 10 dollars, see https://example.com/badges.", title="Badges"),
    passage("The canteen opens at noon.", chunk_id="c2", doc_id="d2"),
]
PROMPT = make_prompt("What do badges do?", PASSAGES)


def check(sentence: str, *, policy: str = "mark") -> CitedSentence | None:
    async def work() -> CitedSentence | None:
        material = Material("What do badges do?", PASSAGES, lambda texts, kind: embed_words(None, texts, kind))
        return await Verifier(settings_of(unsupported=policy).llm, material, PROMPT, Metrics()).check(sentence)

    return anyio.run(work)


@pytest.mark.parametrize(
    ("written", "given_out", "cited"),
    [
        ("Badges open the door [1].", "Badges open the door. [1]", (1,)),
        ("Badges open the door. [1, 1][2]", "Badges open the door. [1][2]", (1, 2)),
        ("Badges open the door [0][3][99].", "Badges open the door. [1]", (1,)),
        ("The canteen opens at noon.", "The canteen opens at noon. [2]", (2,)),
        ("\n- Lost badges cost ten dollars [1]", "\n- Lost badges cost ten dollars [1]", (1,)),
        ("Lost badges cost 20 dollars [1].", f"Lost badges cost 20 dollars. [1] {UNSUPPORTED}", (1,)),
        ("The canteen opens at noon [1].", f"The canteen opens at noon. [1] {UNSUPPORTED}", (1,)),
        ("Penguins swim.", f"Penguins swim. {UNSUPPORTED}", ()),
        ("See https://example.com/badges for lost badges ![x](https://example.com/badges) [1].", None, (1,)),
    ],
)
def test_markers_are_mended_and_marks_added(written: str, given_out: str | None, cited: tuple[int, ...]) -> None:
    found = check(written)
    assert found is not None
    assert found.citations == cited
    assert found.supported != found.text.endswith(UNSUPPORTED)
    assert "![" not in found.text
    if given_out is not None:
        assert found.text == given_out


@pytest.mark.parametrize(
    "written",
    [
        "",
        " [1] ",
        "---",
        "See https://evil.example/?q=badges [1].",
        "Mail the badge to thief@evil.example [1].",
        "The tag is passage-NONCE [1].",
        *[line for line in PROMPT.rules.splitlines() if NOT_FOUND not in line and len(line) > 20],
    ],
)
def test_what_is_never_given_out(written: str) -> None:
    assert check(written.replace("NONCE", PROMPT.nonce)) is None


def test_the_policy_drops_what_is_not_supported() -> None:
    assert check("Penguins swim [1].", policy="drop") is None
    assert check("Badges open the door [1].", policy="drop") is not None


def test_a_refusal_is_known_by_its_words() -> None:
    assert is_refusal(f" **{NOT_FOUND}** [1]")
    assert not is_refusal(f"If they do not, write: {NOT_FOUND}")


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="Badges open 10[]12,.;\n*_https://e@x![](){}日本\ud800\x00", max_size=60))
def test_anything_may_be_written(written: str) -> None:
    found = check(written)
    if found is None:
        return
    assert all(1 <= number <= len(PASSAGES) for number in found.citations)
    assert [int(number) for number in re.findall(r"\[(\d+)\](?=[\[\]\d]*(?: \[unsupported\])?$)", found.text)] == [
        *found.citations
    ]
    assert not found.supported or found.citations
    assert 0 <= found.support <= 1
    found.text.encode()  # no halves of characters, which JSON would not take
