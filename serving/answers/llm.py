"""The language model: any endpoint that speaks OpenAI's chat protocol, asked to stream, and every way it can fail."""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from rag_core.config_serving import LlmConfig
from rag_core.errors import ConfigError
from serving.answers.budget import TokenBudget, estimated_tokens
from serving.answers.llm_errors import LlmError, after_first_word, cause_of, llm_error
from serving.observability.metrics import Metrics

if TYPE_CHECKING:
    from openai import AsyncStream

_LOGGER: Final = logging.getLogger("rag.serving.llm")
_NO_KEY: Final = "none"  # the client insists on a key; endpoints without authentication ignore it
_FIRST_WAIT_S: Final = 0.25
_USAGE_S: Final = 2.0  # how long the counts of tokens are waited for after the last word
_CHARS_PER_TOKEN: Final = 32  # an answer that is longer than its tokens can be comes from no language model


@dataclass
class Usage:
    """What an answer took; filled in while it is written. Estimated where the endpoint does not say.

    Attributes:
        prompt_tokens: Read.
        completion_tokens: Written.
        is_cut: Whether the answer ended because it had grown too long.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    is_cut: bool = False


class Llm:
    """A client of the endpoint; made once, used by all requests of an event loop.

    Raises:
        ConfigError: The address cannot be used.
    """

    def __init__(self, config: LlmConfig, metrics: Metrics) -> None:
        from openai import AsyncOpenAI, OpenAIError

        self._config = config
        self._metrics = metrics
        self._budget = TokenBudget(config.tokens_per_day)
        key = config.api_key.get_secret_value() if config.api_key else ""
        try:
            self._client = AsyncOpenAI(
                base_url=config.base_url, api_key=key or _NO_KEY, timeout=config.timeout_s, max_retries=0
            )
        except (OpenAIError, ValueError) as error:
            raise ConfigError(f"serving.llm.base_url: {config.base_url!r} cannot be used: {error}") from error

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def write(
        self, messages: Sequence[dict[str, str]], usage: Usage, *, max_tokens: int | None, temperature: float | None
    ) -> AsyncGenerator[str, None]:
        """Have an answer written, and yield it piece by piece. Closing the generator ends the request.

        Args:
            messages: Of the conversation.
            usage: Filled in.
            max_tokens: Bound of the answer, within the configured one; None: that.
            temperature: None: as configured.

        Raises:
            LlmError: After `Usage` was filled in with what is known.
        """
        longest = min(max_tokens or self._config.max_tokens, self._config.max_tokens)
        asked = sum(estimated_tokens(message["content"]) for message in messages)
        if not self._budget.reserve(asked + longest):
            self._metrics.llm_errors.labels("budget").inc()
            _LOGGER.warning("the language model is not asked: today's budget of %s tokens is spent", self._budget.most)
            raise LlmError("budget")
        written = 0
        try:
            request = {
                "messages": list(messages),
                "max_tokens": longest,
                "temperature": self._config.temperature if temperature is None else temperature,
            }
            async with aclosing(self._pieces(request, usage, most_chars=longest * _CHARS_PER_TOKEN)) as pieces:
                async for piece in pieces:
                    written += estimated_tokens(piece)
                    yield piece
        except LlmError as error:
            self._metrics.llm_errors.labels(error.reason).inc()
            _LOGGER.warning("the language model failed (%s): %s", error.reason, cause_of(error))
            raise
        finally:
            usage.prompt_tokens = usage.prompt_tokens or (asked if written else 0)
            usage.completion_tokens = usage.completion_tokens or written
            self._budget.settle(asked + longest, usage.prompt_tokens + usage.completion_tokens)
            self._metrics.llm_tokens.labels("prompt").inc(usage.prompt_tokens)
            self._metrics.llm_tokens.labels("completion").inc(usage.completion_tokens)

    async def _pieces(self, request: dict[str, Any], usage: Usage, *, most_chars: int) -> AsyncGenerator[str, None]:
        clock = asyncio.get_running_loop().time
        began = clock()
        ends, first_by = began + self._config.timeout_s, began + self._config.first_token_s
        stream, piece = await self._begun(request, usage, min(ends, first_by))
        try:
            self._metrics.first_token_seconds.observe(clock() - began)
            chars, finish = 0, piece.finish
            while True:
                chars += len(piece.text)
                if chars > most_chars:
                    raise LlmError("garbage")
                if piece.text:
                    yield piece.text
                finish = piece.finish or finish
                # What comes after the last word are counts, which are not worth a long wait nor an error.
                try:
                    async with asyncio.timeout_at(min(ends, clock() + _USAGE_S) if finish else ends):
                        following = await _next(stream, usage)
                except (TimeoutError, LlmError) as error:
                    if finish:
                        break
                    raise after_first_word(error) from error
                if following is None:
                    break
                piece = following
            if not finish:
                raise LlmError("broken_off")
            usage.is_cut = finish != "stop"
        finally:
            await stream.close()

    async def _begun(
        self, request: dict[str, Any], usage: Usage, first_by: float
    ) -> tuple["AsyncStream[Any]", "_Piece"]:
        """Send the request until an answer begins, some times; return its stream and its first words."""
        clock = asyncio.get_running_loop().time
        for attempt in range(self._config.max_retries + 1):
            try:
                async with asyncio.timeout_at(first_by):
                    return await self._first(request, usage)
            except TimeoutError as error:
                raise LlmError("timeout") from error
            except LlmError as error:
                wait_s = error.wait_s if error.wait_s is not None else _back_off(attempt)
                if not error.may_pass or attempt == self._config.max_retries or clock() + wait_s >= first_by:
                    raise
            await asyncio.sleep(wait_s)
        raise AssertionError("the last try returns or raises")

    async def _first(self, request: dict[str, Any], usage: Usage) -> tuple["AsyncStream[Any]", "_Piece"]:
        from openai import APIError

        try:
            stream = await self._client.chat.completions.create(
                model=self._config.model, stream=True, stream_options={"include_usage": True}, **request
            )
        except (APIError, ValueError) as error:
            raise llm_error(error) from error
        try:
            while (piece := await _next(stream, usage)) is not None:
                if piece.text.strip():
                    return stream, piece
                if piece.finish == "content_filter":
                    raise LlmError("refused")
            raise LlmError("garbage")
        except BaseException:
            await stream.close()
            raise


@dataclass(frozen=True, slots=True)
class _Piece:
    """Some words, perhaps none, and why the answer ends here, if it does."""

    text: str
    finish: str


async def _next(stream: "AsyncStream[Any]", usage: Usage) -> _Piece | None:
    """Read on; None when the stream is over.

    Raises:
        LlmError: It broke, or is not what the protocol says.
    """
    from openai import APIError

    try:
        chunk = await anext(stream, None)
        if chunk is None:
            return None
        # The client does not validate what it reads: a field may be missing, or anything.
        if chunk.usage is not None:
            usage.prompt_tokens = max(0, int(chunk.usage.prompt_tokens or 0))
            usage.completion_tokens = max(0, int(chunk.usage.completion_tokens or 0))
        if not chunk.choices:
            return _Piece("", "")
        choice = chunk.choices[0]
        text = (
            choice.delta.content if choice.delta is not None else None
        )  # calls of tools are not read: none is offered
        return _Piece("" if text is None else "".join([text]), str(choice.finish_reason or ""))  # TypeError: no text
    except (APIError, ValueError, TypeError, AttributeError, LookupError) as error:
        raise llm_error(error) from error


def _back_off(attempt: int) -> float:
    longest = _FIRST_WAIT_S * 2**attempt
    return random.uniform(longest / 2, longest)
