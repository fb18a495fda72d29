"""Questions put to the published collection: filters, dense, BM25 and hybrid search, exact search as a yardstick."""
