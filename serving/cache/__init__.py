"""Results and answers that are kept, in the process or in Redis."""
