"""What routes share: who calls, whether they may now, and how refusals are documented."""

from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer

from serving.api.models import ErrorAnswer
from serving.caller import Caller
from serving.runtime import Runtime

_BEARER = HTTPBearer(auto_error=False, description="API key, or token of the identity provider.")

_TEXTS: Final = {
    400: "What is asked for is not possible.",
    401: "No key or token, or one that is not valid.",
    404: "Not there, or not yours to see.",
    409: "The service is configured not to do that.",
    413: "The body is too large.",
    422: "The request is malformed; `param` names the field.",
    429: "Too many requests; see Retry-After.",
    503: "Overloaded, or the index does not answer; see Retry-After.",
}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Document the errors of a route."""
    return {status: {"model": ErrorAnswer, "description": _TEXTS[status]} for status in sorted(statuses)}


ALWAYS: Final = (401, 413, 422, 429, 503)
"""Errors that every route has which needs a caller."""


def runtime_of(request: Request) -> Runtime:
    """Return the service of the app."""
    runtime: Runtime = request.app.state.runtime
    return runtime


RuntimeNow = Annotated[Runtime, Depends(runtime_of)]


async def caller_of(
    request: Request, runtime: RuntimeNow, _documented: Annotated[Any, Security(_BEARER)] = None
) -> Caller:
    """Tell who calls; for the access log as well."""
    caller = await runtime.authenticator.authenticate(request.headers.get("authorization"))
    request.state.caller = caller.id
    return caller


async def admitted(runtime: RuntimeNow, caller: Annotated[Caller, Depends(caller_of)]) -> AsyncIterator[Caller]:
    """Let a caller in for the time of the request, the stream of its answer included."""
    async with runtime.admission.admit(caller):
        yield caller


CallerNow = Annotated[Caller, Depends(admitted)]
