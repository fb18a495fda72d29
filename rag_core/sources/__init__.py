"""Where documents come from: listing, reading and diffing of objects; no parsing."""
