"""How a table's partitions are handed from one asset to the next."""
