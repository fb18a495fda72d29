"""What the service refuses, and how it says so: one shape, that of OpenAI's API, which its clients understand.

{"error": {"message": "...", "type": "rate_limit_error", "param": null, "code": "too_many_requests"}}
"""

from dataclasses import dataclass, field
from typing import Any, Final

_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


@dataclass
class ApiError(Exception):
    """An answer that is not a success. Raise it anywhere below a route.

    Attributes:
        status: HTTP status.
        code: What went wrong, for programs: lower case with underscores, such as `index_unavailable`.
        message: What went wrong and what to do, for people; holds no text of documents and no secret.
        param: The parameter that is at fault, if one is.
        retry_after_s: When to come back; becomes `Retry-After`, whole seconds, at least 1.
        headers: Further headers, such as `WWW-Authenticate`.
    """

    status: int
    code: str
    message: str
    param: str | None = None
    retry_after_s: float | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return status, code and message."""
        return f"{self.status} {self.code}: {self.message}"

    def body(self) -> dict[str, Any]:
        """Return the body of the answer."""
        kind = _TYPES.get(self.status, "api_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def all_headers(self) -> dict[str, str]:
        """Return the headers of the answer."""
        if self.retry_after_s is None:
            return dict(self.headers)
        return {**self.headers, "Retry-After": str(max(1, round(self.retry_after_s + 0.5)))}


def index_unavailable(retry_after_s: float, why: str = "the index cannot be reached") -> ApiError:
    """Make the error of a search that Milvus does not answer."""
    return ApiError(503, "index_unavailable", f"{why}; try again later", retry_after_s=retry_after_s)
