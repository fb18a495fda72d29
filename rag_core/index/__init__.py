"""The Milvus collection: what the backend can do, how it is reached, kept true to the chunks, and published."""
