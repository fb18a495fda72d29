"""Looks at this machine and its servers: what the configuration needs and does not find. Changes nothing."""
