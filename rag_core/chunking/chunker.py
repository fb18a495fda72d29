"""From configuration to a chunker: the way into this package."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rag_core import ids
from rag_core.chunking.fixed import fixed_spans
from rag_core.chunking.markdown import markdown_spans
from rag_core.chunking.model import Chunk, Limits
from rag_core.chunking.prepared import Strategy, prepare
from rag_core.chunking.recursive import recursive_spans
from rag_core.chunking.semantic import EmbedSentences, SemanticSpans
from rag_core.chunking.tokens import TokenCounter
from rag_core.config import ChunkingConfig
from rag_core.errors import ConfigError

CHUNKER_VERSION: Final = 2  # moves whenever the same text and settings would give other chunks


@dataclass(frozen=True, slots=True)
class Chunker:
    """A strategy with its sizes and tokenizer. Not for use by several threads at once.

    Attributes:
        fingerprint: Equal for chunkers that cut every text alike.
    """

    strategy: Strategy
    counter: TokenCounter
    limits: Limits
    fingerprint: str

    def split(self, text: str) -> list[Chunk]:
        """Cut a text into chunks, in order.

        Each chunk's text is the document's at its span; no chunk, encoded alone with its context, has more than
        max_tokens, unless a single character has; without overlap the spans are disjoint, with it each ends behind
        the one before; together they hold every character that is not blank. A blank text has no chunks.
        """
        document = prepare(text, self.counter, self.limits)
        path = document.outline.path
        return [
            Chunk(i, span.start, span.end, text[span.start : span.end], span.context, path(*span[:2]), span.token_count)
            for i, span in enumerate(self.strategy(document))
        ]


def make_chunker(
    config: ChunkingConfig,
    tokenizer_path: Path | None = None,
    *,
    model_tokens: int | None = None,
    embed_sentences: EmbedSentences | None = None,
    model_fingerprint: str = "",
) -> Chunker:
    """Make the chunker of a configuration.

    Args:
        config: Strategy and sizes.
        tokenizer_path: The embedding model's tokenizer.json; the built-in model's by default.
        model_tokens: Tokens that the model reads of a passage, without special tokens and prefix; max_tokens and
            overlap_tokens are lowered to it. None: the configuration is trusted.
        embed_sentences: `semantic` only: from n sentences to (n, dim) float32 vectors.
        model_fingerprint: `semantic` only: identifies the model behind `embed_sentences`.

    Raises:
        ConfigError: The tokenizer cannot be read, or `semantic` has no embedder.
    """
    counter = TokenCounter(tokenizer_path)
    max_tokens = min(config.max_tokens, model_tokens or config.max_tokens)
    limits = Limits(max_tokens, min(config.overlap_tokens, max_tokens // 2))
    settings: dict[str, object] = {
        "version": CHUNKER_VERSION,
        "strategy": config.strategy,
        "max_tokens": limits.max_tokens,
        "overlap_tokens": limits.overlap_tokens,
        "tokenizer": counter.digest,
    }
    if config.strategy == "semantic":
        settings |= {"percentile": config.semantic_percentile, "model": model_fingerprint}
    return Chunker(_strategy(config, embed_sentences), counter, limits, ids.fingerprint(settings))


def _strategy(config: ChunkingConfig, embed_sentences: EmbedSentences | None) -> Strategy:
    if config.strategy == "semantic":
        if embed_sentences is None:
            raise ConfigError("chunking.strategy: semantic needs a local embedding model for its sentences")
        return SemanticSpans(embed_sentences, config.semantic_percentile)
    return {"fixed": fixed_spans, "recursive": recursive_spans, "markdown": markdown_spans}[config.strategy]
