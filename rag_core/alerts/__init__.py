"""Who is told when something is wrong, once, and again when it is well."""
