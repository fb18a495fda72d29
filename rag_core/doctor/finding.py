"""What was looked at, and how it was found."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: What.
        status: `ok`; `warn`: works, but less well or not in every case; `fail`: something configured cannot work.
        detail: What was found.
        remedy: What to do; empty where nothing is to be done.
    """

    name: str
    status: Status
    detail: str
    remedy: str = ""
