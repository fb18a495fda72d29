"""Every way in which a language model can fail, by the one word that answers and metrics have for it."""

from typing import Final, Literal

from rag_core.retry_after import retry_after_s

Reason = Literal["timeout", "unavailable", "rate_limited", "refused", "garbage", "broken_off", "budget"]
_RETRIED: Final = frozenset({"unavailable", "rate_limited"})


class LlmError(Exception):
    """The language model gave no answer, or no more of it.

    Attributes:
        reason: Why, as `AnswerResult.degraded` says it.
    """

    def __init__(self, reason: Reason, *, wait_s: float | None = None, final: bool = False) -> None:
        super().__init__(reason)
        self.reason: Reason = reason
        self.wait_s = wait_s
        self.may_pass = reason in _RETRIED and not final


def llm_error(error: Exception) -> LlmError:
    """Say what an error of the client, or of reading what it read, means."""
    from openai import APIConnectionError, APIError, APIResponseValidationError, APIStatusError, APITimeoutError

    if isinstance(error, APIStatusError):
        return _refusal(error.status_code, error.code, retry_after_s(error.response.headers))
    if isinstance(error, APITimeoutError):
        return LlmError("timeout")
    if isinstance(error, APIError) and not isinstance(error, APIResponseValidationError):
        # Without a status: the connection failed, or the stream holds an error, which another try would meet again.
        return LlmError("unavailable", final=not isinstance(error, APIConnectionError))
    return LlmError("garbage")


def _refusal(status: int, code: str | None, wait_s: float | None) -> LlmError:
    if status == 429:
        # `insufficient_quota` is sent as 429 too, but waiting does not pay the bill.
        return LlmError("rate_limited", wait_s=wait_s, final=code == "insufficient_quota")
    return LlmError("unavailable", wait_s=wait_s) if status >= 500 or status == 408 else LlmError("refused")


def after_first_word(error: Exception) -> LlmError:
    """Say of a failure that it came after the first word."""
    if isinstance(error, TimeoutError):
        return LlmError("timeout")
    if isinstance(error, LlmError) and error.reason == "unavailable":
        return LlmError("broken_off")
    return error if isinstance(error, LlmError) else LlmError("garbage")


def cause_of(error: LlmError) -> str:
    """Describe a failure for the log, without the endpoint's own message: it may repeat what it was sent."""
    cause = error.__cause__
    status = getattr(cause, "status_code", None)
    return " ".join(
        [type(cause).__name__ if cause else "no error of the client", *([f"HTTP {status}"] if status else [])]
    )
