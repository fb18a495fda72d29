"""What well-known model families expect before queries and passages, for models whose folder does not say it.

A model trained with prefixes loses several points of nDCG without them, and silently: nothing fails.
"""

import re
from typing import Final

_RETRIEVAL_EN: Final = "Represent this sentence for searching relevant passages: "
_RETRIEVAL_ZH: Final = "为这个句子生成表示以用于检索相关文章："
_INSTRUCT: Final = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: "

# (pattern on the lower-case model name, query prefix, passage prefix); the first match wins.
# Source: each family's model card on the Hugging Face hub.
FAMILIES: Final[tuple[tuple[re.Pattern[str], str, str], ...]] = (
    (re.compile(r"\be5-mistral|\be5-.*-instruct\b"), _INSTRUCT, ""),
    (re.compile(r"\be5-"), "query: ", "passage: "),
    (re.compile(r"\bbge-m3\b"), "", ""),
    (re.compile(r"\bbge-.*-zh\b"), _RETRIEVAL_ZH, ""),
    (re.compile(r"\bbge-.*-en\b"), _RETRIEVAL_EN, ""),
    (re.compile(r"\bnomic-embed-text\b|\bmodernbert-embed\b"), "search_query: ", "search_document: "),
    (re.compile(r"\bmxbai-embed-"), _RETRIEVAL_EN, ""),
    (re.compile(r"\bsnowflake-arctic-embed-.*v2"), "query: ", ""),
    (re.compile(r"\bsnowflake-arctic-embed-"), _RETRIEVAL_EN, ""),
)


def family_prefixes(model: str) -> tuple[str, str]:
    """Return (query prefix, passage prefix) of the family that a model's name belongs to; empty where none matches.

    Args:
        model: Hub name, endpoint name or folder; a hub cache folder such as `models--intfloat--e5-small-v2` works too.
    """
    name = model.lower().replace("--", "/").replace("_", "-")
    for pattern, query, passage in FAMILIES:
        if pattern.search(name):
            return query, passage
    return "", ""
