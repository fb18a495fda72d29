"""What runs and the service share about cached results: where they are in Redis, and how they are forgotten."""
