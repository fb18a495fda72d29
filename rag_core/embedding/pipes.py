"""The worker's end of Dagster Pipes: messages go where the orchestrator asks for them, to the log or to S3."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from dagster_pipes import (
    PipesContext,
    PipesDefaultMessageWriter,
    PipesEnvVarParamsLoader,
    PipesMessageWriter,
    PipesS3MessageWriter,
    open_dagster_pipes,
)

from rag_core.aws import client
from rag_core.config_store import S3Config
from rag_core.tables.s3_access import endpoint

S3_SETTINGS: Final = "s3"
"""Parameter of the messages beside their bucket and prefix: how that S3 is reached, without secrets."""
INTERVAL_S: Final = 1
"""Seconds between two uploads, and between two looks for one: a bar that moves, at two small requests each."""


def under_pipes() -> bool:
    """Whether an orchestrator started this process."""
    return PipesEnvVarParamsLoader().is_dagster_pipes_process()  # type: ignore[no-untyped-call]


@contextmanager
def pipes_session() -> Iterator[PipesContext]:
    """Open the session that the environment describes.

    A worker whose messages cannot be written goes on: its vectors are in the store, which the orchestrator looks at.
    """
    params = PipesEnvVarParamsLoader().load_messages_params()  # type: ignore[no-untyped-call]
    with open_dagster_pipes(message_writer=_writer(params)) as pipes:
        yield pipes


def _writer(params: Mapping[str, Any]) -> PipesMessageWriter[Any]:
    if "bucket" not in params:
        return PipesDefaultMessageWriter()
    return PipesS3MessageWriter(
        client(endpoint(S3Config.model_validate(params.get(S3_SETTINGS, {})))), interval=INTERVAL_S
    )
