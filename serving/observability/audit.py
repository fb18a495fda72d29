"""Who read what: one line for each answer that named or showed documents, by IDs alone."""

import logging
from collections.abc import Sequence
from typing import Final

from serving.caller import Caller

_AUDIT: Final = logging.getLogger("rag.audit")


class AuditLog:
    """Writes to the logger `rag.audit`, whose lines can be kept apart from the others by their `logger`."""

    def record(self, event: str, caller: Caller, request_id: str, **ids: str | int | Sequence[str] | None) -> None:
        """Note what a caller was given.

        Args:
            event: What was asked for, such as `search`.
            caller: Who asked.
            request_id: The request, as in the access log.
            ids: What the answer was made of or is about; IDs and versions, never texts.
        """
        _AUDIT.info(event, extra={"caller": caller.id, "request_id": request_id, **ids})
