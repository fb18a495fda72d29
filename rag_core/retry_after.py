"""How long an endpoint asks to be left alone, by the headers of its answer."""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that `retry-after-ms` or either form of `Retry-After` asks for; None without, or unreadable.

    Args:
        headers: By lower-case name, or of a mapping that does not mind.
    """
    value = headers.get("retry-after-ms")
    if value is not None and value.replace(".", "", 1).isdigit():
        return float(value) / 1000
    value = headers.get("retry-after")
    if value is None:
        return None
    if value.replace(".", "", 1).isdigit():
        return float(value)
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (until - datetime.now(UTC)).total_seconds())
