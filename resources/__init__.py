"""One external system per module: a ConfigurableResource and what opens it; nothing is opened at import."""
