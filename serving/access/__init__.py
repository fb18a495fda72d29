"""Who calls: API keys, tokens of an identity provider, and what a caller may see."""
