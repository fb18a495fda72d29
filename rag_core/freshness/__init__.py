"""How fresh the index is: what changed in the sources, what was brought up to date, and what was promised."""
