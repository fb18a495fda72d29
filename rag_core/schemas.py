"""Arrow schemas of every stored table, declared once; the store, the checks, Spark and the documentation read them.

Offsets are in characters (Unicode code points) of the document's text; times are UTC; `*_hash` and `*_id` are the
digests of `rag_core.ids`. `partition_key` is the Dagster partition and the Delta partition column of each table.
`lane` is a further partition column where two indexes can need rows of their own: see `rag_core.generation`.
"""

from typing import Final

import pyarrow as pa

TIMESTAMP: Final = pa.timestamp("us", tz="UTC")


def _field(name: str, type_: pa.DataType, description: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, type_, nullable=nullable, metadata={"description": description})


DOCUMENTS: Final = pa.schema(
    [
        _field("partition_key", pa.string(), "source and hash bucket, such as handbook__07"),
        _field("doc_id", pa.string(), "key: digest of source, object key and member"),
        _field("source", pa.string(), "name of the source in the configuration"),
        _field("object_key", pa.string(), "key of the listed object inside its source"),
        _field("object_id", pa.string(), "doc_id of the object itself; documents of one object share it"),
        _field("member", pa.string(), "part inside the object (mail attachment); empty for the object itself"),
        _field(
            "external_id",
            pa.string(),
            "own id in the source: _id of a JSONL record, else the object's key",
            nullable=True,
        ),
        _field("uri", pa.string(), "where a person finds the document"),
        _field("title", pa.string(), "title, from metadata or the first heading", nullable=True),
        _field("mime", pa.string(), "media type, told from the content"),
        _field("language", pa.string(), "ISO 639-1 code of the main language, where it can be told", nullable=True),
        _field("text", pa.string(), "the text as Markdown; empty unless status is ok"),
        _field(
            "page_starts",
            pa.list_(pa.int32()),
            "offset in text where page 1, 2, ... starts; null where the format has no pages",
            nullable=True,
        ),
        _field("modified_at", TIMESTAMP, "when the source says the document was last changed", nullable=True),
        _field("size_bytes", pa.int64(), "size of the object or member"),
        _field("object_fingerprint", pa.string(), "etag, or size and mtime, at the last look"),
        _field("content_hash", pa.string(), "digest of the raw bytes"),
        _field("text_hash", pa.string(), "digest of text"),
        _field("principals", pa.list_(pa.string()), "who may read the document, sorted"),
        _field("access_label", pa.string(), "the set of principals as one scalar"),
        _field("status", pa.string(), "ok, empty or rejected"),
        _field("reason", pa.string(), "why it is empty or rejected, and what to do", nullable=True),
        _field("parser_fingerprint", pa.string(), "parser and its settings"),
        _field("doc_hash", pa.string(), "digest of all that later stages use of the document"),
        _field("ingested_at", TIMESTAMP, "when this row was written"),
    ]
)

CHUNKS: Final = pa.schema(
    [
        _field("lane", pa.string(), "default chunking that the rows are cut by; two while a new one is built"),
        _field("partition_key", pa.string(), "as in documents"),
        _field("chunk_id", pa.string(), "key: digest of partition, document, embedded text and occurrence"),
        _field("doc_id", pa.string(), "the document it is a part of"),
        _field("source", pa.string(), "as in documents"),
        _field("ordinal", pa.int32(), "position in the document, from 0"),
        _field("text", pa.string(), "exactly the document's text from char_start to char_end"),
        _field("context", pa.string(), "repeated before text when embedded (header of a split table); often empty"),
        _field("heading_path", pa.list_(pa.string()), "headings above the chunk, outermost first"),
        _field("char_start", pa.int32(), "first character, inclusive"),
        _field("char_end", pa.int32(), "last character, exclusive"),
        _field("page", pa.int32(), "page on which the chunk starts, from 1", nullable=True),
        _field("token_count", pa.int32(), "tokens of context and text, special tokens excluded"),
        _field("text_hash", pa.string(), "digest of the embedded text (context and text)"),
        _field("external_id", pa.string(), "as in documents", nullable=True),
        _field("uri", pa.string(), "as in documents"),
        _field("title", pa.string(), "as in documents", nullable=True),
        _field("mime", pa.string(), "as in documents"),
        _field("language", pa.string(), "as in documents", nullable=True),
        _field("modified_at", TIMESTAMP, "as in documents", nullable=True),
        _field("access_label", pa.string(), "as in documents"),
        _field("doc_hash", pa.string(), "the document's doc_hash this chunk was cut from"),
        _field("chunker_fingerprint", pa.string(), "strategy, sizes and tokenizer"),
        _field("row_hash", pa.string(), "digest of all that the index stores of the chunk"),
    ]
)


def embeddings(dim: int | None = None) -> pa.Schema:
    """Return the schema of `embeddings`; without a dimension the vector is a variable list, as Delta stores it."""
    vector = pa.list_(pa.float32(), dim) if dim else pa.list_(pa.float32())
    return pa.schema(
        [
            _field("lane", pa.string(), "chunking and model of the rows; two while a new one is built"),
            _field("partition_key", pa.string(), "as in documents"),
            _field("chunk_id", pa.string(), "key: the chunk"),
            _field("doc_id", pa.string(), "the chunk's document"),
            _field("text_hash", pa.string(), "digest of the embedded text"),
            _field("model_fingerprint", pa.string(), "model, revision, pooling, normalisation, max length, prefix"),
            _field("vector", vector, "float32, unit length"),
        ]
    )


EMBEDDINGS: Final = embeddings()

INDEX_PARTITIONS: Final = pa.schema(
    [
        _field("partition_key", pa.string(), "as in documents"),
        _field("collection", pa.string(), "Milvus collection that holds the row; the lane of this table"),
        _field("chunk_id", pa.string(), "key, together with collection"),
        _field("doc_id", pa.string(), "the chunk's document"),
        _field("text_hash", pa.string(), "digest of the embedded text"),
        _field("row_hash", pa.string(), "digest of all that the index stores of the chunk"),
        _field("model_fingerprint", pa.string(), "model of the vector"),
        _field("indexed_at", TIMESTAMP, "when the row was verified as queryable"),
    ]
)

VECTORS: Final = pa.schema(
    [
        _field("model_fingerprint", pa.string(), "partition column"),
        _field("shard", pa.string(), "partition column: first hexadecimal digit of text_hash"),
        _field("text_hash", pa.string(), "key, together with model_fingerprint"),
        _field("vector", pa.list_(pa.float32()), "float32, unit length"),
    ]
)

PUBLISHED_INDEX: Final = pa.schema(
    [
        _field("collection", pa.string(), "key: Milvus collection"),
        _field("alias", pa.string(), "the name that queries use"),
        _field("published_at", TIMESTAMP, "when the alias was pointed here"),
        _field("model", pa.string(), "embedding model's name"),
        _field("model_fingerprint", pa.string(), "queries must be embedded by the same"),
        _field("dim", pa.int32(), "vector dimension"),
        _field("metric", pa.string(), "COSINE, IP or L2"),
        _field("index_type", pa.string(), "Milvus index type of the dense field"),
        _field("search_params", pa.string(), "JSON object passed to dense searches"),
        _field("documents", pa.int64(), "documents with status ok"),
        _field("chunks", pa.int64(), "rows in the collection"),
        _field("partitions", pa.int32(), "partitions in the collection"),
        _field("table_versions", pa.string(), "JSON object: Delta version of each table when published"),
        _field("settings", pa.string(), "JSON object: chunking, model and index, to restore the generation from"),
        _field("ann_recall_at_10", pa.float64(), "against exact search, at these search_params", nullable=True),
        _field("verdict", pa.string(), "published, or rolled back from which collection"),
    ]
)

TERM_STATISTICS: Final = pa.schema(
    [
        _field("lane", pa.string(), "lane of the chunks that were counted"),
        _field("term_id", pa.int64(), "key: dimension of the term in the sparse vectors"),
        _field("chunks_with_term", pa.int64(), "counted chunks in which the term occurs"),
        _field("chunks", pa.int64(), "chunks that were counted; the same in every row"),
        _field("population", pa.int64(), "chunks that there were; the same in every row"),
        _field("terms_fingerprint", pa.string(), "how terms are made; the same in every row"),
    ]
)

QUALITY_RESULTS: Final = pa.schema(
    [
        _field("result_id", pa.string(), "key: digest of run, table, lane, partition, content, suite, test and time"),
        _field("run_id", pa.string(), "Dagster run, or the command that tested"),
        _field("evaluated_at", TIMESTAMP, "when"),
        _field("table", pa.string(), "table that was tested"),
        _field("lane", pa.string(), "its lane; empty for tables without lanes"),
        _field("partition_key", pa.string(), "partition that was tested; * for all together"),
        _field("table_version", pa.int64(), "Delta version that was tested"),
        _field("content", pa.string(), "digest of the partition's files, and of those it is compared with"),
        _field("suite_fingerprint", pa.string(), "the declared tests of the table and their settings"),
        _field("test", pa.string(), "name of the test, such as unique__chunk_id"),
        _field("kind", pa.string(), "kind of the test, such as unique"),
        _field("column", pa.string(), "column or columns, comma-separated; empty for tests of the table"),
        _field("severity", pa.string(), "warn or error"),
        _field("blocking", pa.bool_(), "whether a failure holds the partition back from the stage behind"),
        _field("outcome", pa.string(), "pass, warn or error"),
        _field("value", pa.float64(), "what was measured", nullable=True),
        _field("threshold", pa.string(), "what was expected, in words"),
        _field("rows", pa.int64(), "rows that were tested"),
        _field("failing_rows", pa.int64(), "rows that fail; 0 for tests of the table as a whole"),
        _field("examples", pa.string(), "JSON list of failing keys and values, a few"),
        _field("profile", pa.string(), "JSON object: value -> share of rows, for tests of shares; else empty"),
        _field("description", pa.string(), "what the test says, as a sentence"),
    ]
)

QUALITY_FAILURES: Final = pa.schema(
    [
        _field("result_id", pa.string(), "the result that the row belongs to"),
        _field("evaluated_at", TIMESTAMP, "when"),
        _field("table", pa.string(), "table that was tested"),
        _field("partition_key", pa.string(), "partition"),
        _field("test", pa.string(), "name of the test"),
        _field("key", pa.string(), "the row's own key: doc_id, chunk_id or query_id"),
        _field("value", pa.string(), "the value that fails, as text, cut to 500 characters"),
    ]
)

VERDICTS: Final = pa.schema(
    [
        _field("verdict_id", pa.string(), "key: digest of collection, ledger and settings that were judged"),
        _field("collection", pa.string(), "collection that was judged"),
        _field("against", pa.string(), "served collection it was compared with; empty for the first"),
        _field("judged_at", TIMESTAMP, "when"),
        _field("run_id", pa.string(), "Dagster run"),
        _field("passed", pa.bool_(), "whether it may be published"),
        _field("reasons", pa.string(), "JSON list: what it fails, as sentences; empty if passed"),
        _field("search_params", pa.string(), "JSON object: cheapest that meet the recall floor"),
        _field("measures", pa.string(), "JSON object: ann, relevance, comparison, as rag_core.evaluation writes them"),
        _field("table_versions", pa.string(), "JSON object: Delta version of each table that was judged"),
        _field("chunks", pa.int64(), "rows in the collection"),
        _field("report", pa.string(), "report page, relative to the store; empty if none was written"),
    ]
)

DELETIONS: Final = pa.schema(
    [
        _field("receipt_id", pa.string(), "key: digest of document, collection and absence_seen_at"),
        _field("doc_id", pa.string(), "the document that was removed"),
        _field("partition_key", pa.string(), "its partition"),
        _field("collection", pa.string(), "collection that its rows were removed from"),
        _field("uri", pa.string(), "where a person found the document; empty if it cannot be told any more"),
        _field("external_id", pa.string(), "as in documents", nullable=True),
        _field("reason", pa.string(), "gone, empty, rejected (that is what became of it) or source_removed"),
        _field("absence_seen_at", TIMESTAMP, "when documents first lacked it, or had it with another status than ok"),
        _field("removed_at", TIMESTAMP, "when its rows had been removed from the collection"),
        _field("rows_removed", pa.int64(), "its rows, by the ledger"),
        _field("unfindable_by_id", pa.bool_(), "no partition has a row of its chunk ids or of its doc_id"),
        _field("unfindable_by_text", pa.bool_(), "its own text finds nothing of it; null: not searched", nullable=True),
        _field("unfindable_by_vector", pa.bool_(), "its own vectors find nothing; null: not searched", nullable=True),
        _field("chunks_searched", pa.int32(), "chunks whose texts and vectors were searched for"),
        _field("verified_at", TIMESTAMP, "when it was verified"),
        _field("caches_told_at", TIMESTAMP, "when caches of answers were told; null: there were none", nullable=True),
        _field("run_id", pa.string(), "Dagster run, or the command that removed it"),
    ]
)

RETRIEVAL_EVAL: Final = pa.schema(
    [
        _field("query_id", pa.string(), "key, together with query_set, mode, collection and evaluated_at"),
        _field("query_set", pa.string(), "labelled, or known_item for generated queries"),
        _field("source", pa.string(), "source that was searched"),
        _field("mode", pa.string(), "dense, bm25 or hybrid"),
        _field("collection", pa.string(), "collection that was searched"),
        _field("evaluated_at", TIMESTAMP, "when"),
        _field("ndcg_at_10", pa.float64(), "normalised discounted cumulative gain, linear gain"),
        _field("recall_at_10", pa.float64(), "share of relevant documents among the first 10"),
        _field("recall_at_100", pa.float64(), "share of relevant documents among the first 100"),
        _field("mrr", pa.float64(), "reciprocal rank of the first relevant document"),
    ]
)

SOURCE_CHANGES: Final = pa.schema(
    [
        _field("change_id", pa.string(), "key: digest of source, object, look and what it changed to"),
        _field("source", pa.string(), "name of the source in the configuration"),
        _field("partition_key", pa.string(), "partition of the object"),
        _field("object_id", pa.string(), "doc_id of the object itself"),
        _field("object_key", pa.string(), "key of the object; empty where it is not known any more", nullable=True),
        _field("kind", pa.string(), "new, changed or deleted"),
        _field("changed_at", TIMESTAMP, "when the source changed it, never before `not_before` nor after `seen_at`"),
        _field("basis", pa.string(), "where changed_at is from: source, event, or bound (the look before, at worst)"),
        _field(
            "not_before",
            TIMESTAMP,
            "start of the last look that did not show the change; null: there was none",
            nullable=True,
        ),
        _field("seen_at", TIMESTAMP, "end of the first listing that showed it: one that begins later shows it too"),
        _field("look", pa.int64(), "number of that look at the source"),
        _field(
            "counted", pa.bool_(), "whether the objective counts it: not the first look at a source, nor a backfill"
        ),
    ]
)

PASSES: Final = pa.schema(
    [
        _field("pass_id", pa.string(), "key: digest of run, partition and try"),
        _field("run_id", pa.string(), "Dagster run"),
        _field("partition_key", pa.string(), "the partition that was brought up to date, or failed"),
        _field("source", pa.string(), "its source"),
        _field("reason", pa.string(), "why it ran: change, backfill, reconcile or manual"),
        _field("listed_at", TIMESTAMP, "start of the listing of the source: changes seen until then are covered"),
        _field("verified_at", TIMESTAMP, "when all of it was verified as searchable; null unless ok", nullable=True),
        _field("outcome", pa.string(), "ok, failed, held (blocking checks) or crashed (the run's process ended)"),
        _field("stage", pa.string(), "the stage that failed or was held back; empty if ok"),
        _field("failure", pa.string(), "permanent or transient; empty if ok"),
        _field("message", pa.string(), "what failed, and what to do; empty if ok"),
        _field("objects", pa.int64(), "objects that were new, changed or deleted"),
        _field("seconds", pa.float64(), "wall-clock time of the run until then"),
        _field("finished_at", TIMESTAMP, "when this was written"),
    ]
)

ALERTS: Final = pa.schema(
    [
        _field("alert_id", pa.string(), "key: digest of alert_key and when it began"),
        _field("alert_key", pa.string(), "what is wrong with what, such as stuck_partition/handbook__03"),
        _field("kind", pa.string(), "the kind of it; docs/operations.md has an entry for each"),
        _field("severity", pa.string(), "warning or critical"),
        _field("state", pa.string(), "firing, repeated or resolved"),
        _field("at", TIMESTAMP, "when this was told"),
        _field("since", TIMESTAMP, "when it began"),
        _field("title", pa.string(), "one line"),
        _field("body", pa.string(), "what was seen, and what to do"),
        _field("link", pa.string(), "page of the run, asset or report; may be empty"),
    ]
)

ANSWERS: Final = pa.schema(
    [
        _field("answer_id", pa.string(), "key: of the answer, as the service gave it out"),
        _field("asked_at", TIMESTAMP, "when"),
        _field("caller", pa.string(), "who asked; only they can read it again"),
        _field("question", pa.string(), "what was asked"),
        _field("text", pa.string(), "the answer, with its markers"),
        _field("kind", pa.string(), "generated, extractive or not_found"),
        _field("degraded", pa.string(), "why no language model wrote it, although one is configured; else empty"),
        _field("model", pa.string(), "language model; empty if none wrote it"),
        _field("collection", pa.string(), "collection that was searched"),
        _field("index_version", pa.string(), "version of what was searched"),
        _field("embedding_model", pa.string(), "fingerprint of the embedding model"),
        _field("sentences", pa.string(), "JSON list: each sentence with its citations and support"),
        _field("citations", pa.string(), "JSON list: chunk, text hash, span, document and Dagster run of each"),
        _field("prompt_tokens", pa.int64(), "tokens that the model read"),
        _field("completion_tokens", pa.int64(), "tokens that the model wrote"),
        _field("seconds", pa.float64(), "from the request to the last word"),
    ]
)

FEEDBACK: Final = pa.schema(
    [
        _field("feedback_id", pa.string(), "key"),
        _field("answer_id", pa.string(), "the answer it is about"),
        _field("given_at", TIMESTAMP, "when"),
        _field("caller", pa.string(), "who gave it"),
        _field("rating", pa.string(), "up or down"),
        _field("comment", pa.string(), "in their words; may be empty"),
        _field("chunk_ids", pa.list_(pa.string()), "cited chunks it is about; empty: the answer as a whole"),
    ]
)

ASKED: Final = pa.schema(
    [
        _field("query_key", pa.string(), "digest of the normalised question and its mode"),
        _field("question", pa.string(), "the normalised question"),
        _field("mode", pa.string(), "dense, bm25 or hybrid"),
        _field("asked", pa.int64(), "how often, in this row's time"),
        _field("until", TIMESTAMP, "end of the time that is counted"),
    ]
)
