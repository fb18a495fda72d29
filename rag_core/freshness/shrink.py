"""When so much of a source is gone that it is taken for a source that is not there: nothing is deleted then."""

from rag_core.config import S3Source, SourceConfig
from rag_core.config_freshness import FreshnessConfig


def check_shrink(known: int, gone: int, config: FreshnessConfig) -> str | None:
    """Say why it is implausible that so many objects vanished at once; None if it is plausible.

    Args:
        known: Objects of the source that are known.
        gone: Those of them that are no longer listed; new objects do not make up for them.
        config: What is plausible: `shrink_from` and `max_shrink`.
    """
    if gone <= config.shrink_from or gone <= config.max_shrink * known:
        return None
    return (
        f"{gone:,} of {known:,} known objects are no longer listed, and at most {config.max_shrink:.0%} may vanish at "
        f"once (freshness.max_shrink)"
    )


def shrink_message(source: SourceConfig, known: int, gone: int, config: FreshnessConfig) -> str | None:
    """Say the same of a source, with where it is and what to do; None if it is plausible."""
    reason = check_shrink(known, gone, config)
    if reason is None:
        return None
    return (
        f"source {source.name!r}: {reason}. Nothing was deleted. See that {place_of(source)} is mounted and complete, "
        f"and whether root, include and exclude in rag.yaml are what they should be. If the objects are meant to be "
        f"gone: rag run --source {source.name} --accept-deletions"
    )


def place_of(source: SourceConfig) -> str:
    """Return where a source is, for people: its folder or file, or its bucket and prefix."""
    return f"s3://{source.bucket}/{source.prefix}" if isinstance(source, S3Source) else str(source.root)
