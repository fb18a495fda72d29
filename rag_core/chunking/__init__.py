"""Documents' text into chunks: pure functions from text to spans, and from document batches to chunk batches.

`chunker.make_chunker` is the way in; `rows.chunk_batches` is what the chunks stage and Spark run.
"""
