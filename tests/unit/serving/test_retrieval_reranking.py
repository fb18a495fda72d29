"""A cross-encoder, tiny and real, decides the order; one that fails decides nothing."""

from pathlib import Path

import pytest
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

from rag_core.config import RagConfig
from serving.retrieval.reranking import Reranker

pytestmark = pytest.mark.anyio
_WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "valve", "pump", "opens", "garden", "dog"]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cross-encoder")
    (folder / "vocab.txt").write_text("\n".join(_WORDS))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    shape = BertConfig(
        vocab_size=len(_WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        num_labels=1, max_position_embeddings=64,
    )  # fmt: skip
    BertForSequenceClassification(shape).save_pretrained(folder)
    return folder


def config_with(model: str | None) -> RagConfig:
    source = {"name": "docs", "kind": "files", "root": "docs"}
    retrieval = {"rerank_model": model}
    return RagConfig.model_validate(
        {"store": {"root": "data"}, "sources": [source], "serving": {"retrieval": retrieval}}
    )


async def test_scores_are_the_model_s(model: Path) -> None:
    from sentence_transformers import CrossEncoder

    reranker = Reranker(config_with(str(model)))
    texts = ["valve opens", "garden dog", "pump"]
    wanted = CrossEncoder(str(model)).predict([("valve", text) for text in texts])
    assert await reranker.scores("valve", texts) == pytest.approx(wanted.tolist(), abs=1e-5)
    assert await reranker.scores("valve", []) is None
    await reranker.close()


async def test_a_model_that_is_not_there_scores_nothing_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reranker = Reranker(config_with(str(tmp_path / "none")))
    assert await reranker.scores("the question", ["the passage"]) is None
    assert "reranking failed" in caplog.text
    assert "the question" not in caplog.text
    await reranker.close()


async def test_none_is_configured() -> None:
    reranker = Reranker(config_with(None))
    assert not reranker.is_configured
    assert await reranker.scores("valve", ["pump"]) is None
