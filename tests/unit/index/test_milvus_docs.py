"""docs/milvus.md says of versions what the program believes of them."""

import re
from pathlib import Path

import pytest

from rag_core.index.capabilities import Version, capabilities, local_capabilities

PAGE = (Path(__file__).parents[3] / "docs" / "milvus.md").read_text(encoding="utf-8")
LINES = re.findall(r"^\| (2\.\d+\.\d+) \| ([^|]*)\| ([^|]*)\|", PAGE, re.MULTILINE)
NOT_OURS = {"BINARY_VECTOR", "INT8_VECTOR"}  # vector types that no collection of ours has


def version(text: str) -> Version:
    major, minor, patch = map(int, text.split("."))
    return major, minor, patch


def test_all_versions_are_there() -> None:
    assert [line[0] for line in LINES] == ["2.3.0", "2.4.0", "2.5.0", "2.6.0"]


@pytest.mark.parametrize("number", range(4))
def test_a_line_and_those_above_are_what_a_version_has(number: int) -> None:
    told = LINES[: number + 1]
    has = capabilities("cluster", version(told[-1][0]))
    assert set(re.findall(r"\w+", " ".join(line[1] for line in told))) == has.index_types
    assert set(re.findall(r"\w+", " ".join(line[2] for line in told))) == has.vector_types - NOT_OURS


def test_what_lite_has() -> None:
    sentence = re.search(r"Milvus Lite has (.*?) and\s+nothing", PAGE, re.DOTALL)
    assert sentence is not None
    lite = local_capabilities()
    assert set(re.findall(r"[A-Z][A-Z0-9_]{3,}", sentence[1])) == lite.index_types | lite.vector_types


def test_every_index_type_that_is_recommended_exists() -> None:
    section = PAGE.split("## Which index")[1].split("\n## ")[0]
    named = re.findall(r"^\| ([A-Z][^|]*)\|", section, re.MULTILINE)
    assert named
    newest = capabilities("cluster", (2, 6, 0))
    assert {one for cell in named for one in re.findall(r"\w+", cell)} <= newest.index_types
