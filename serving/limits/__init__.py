"""How much may be asked: rates, concurrency, admission."""
