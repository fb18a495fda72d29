"""The embedding worker, started as a Dagster Pipes job: a subprocess here, a GPU pod in production."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterPipesExecutionError  # what Pipes raises; not exported by 1.13

from rag_core.embedding.launch import worker_command, worker_env
from rag_core.errors import PermanentError, TransientError
from rag_core.stages.common import Progress
from resources.platform import PlatformResource

# Exit code of the worker for a failure that another try cannot help.
_EXIT_PERMANENT = 2


class EmbeddingLauncherResource(dg.ConfigurableResource["EmbeddingLauncherResource"]):
    """Runs the worker on a manifest and waits for it."""

    platform: dg.ResourceDependency[PlatformResource]

    def run(self, context: dg.OpExecutionContext, manifest: str, on_progress: Progress) -> dict[str, Any]:
        """Embed what the manifest lists.

        Returns:
            The worker's own report: tokens/s, padding share, precision, peak memory, ...

        Raises:
            PermanentError: Another try cannot help; the worker's last line says why.
            TransientError: It may; the texts that were finished are in the cache.
        """
        client = dg.PipesSubprocessClient(
            env=worker_env(self.platform.config.embedding), message_reader=_ProgressReader(on_progress)
        )
        try:
            invocation = client.run(
                command=worker_command(manifest), context=context, extras={"manifest": manifest}
            )
        except DagsterPipesExecutionError as error:
            message = f"the embedding worker failed on {manifest}: {error}; its output is in the run's stderr"
            permanent = str(error).endswith(f"code {_EXIT_PERMANENT}")
            raise (PermanentError if permanent else TransientError)(message) from error
        report: dict[str, Any] = {}
        for message in invocation.get_custom_messages():
            report.update(message.get("embedding", {}))
        return report


class _ProgressReader(dg.PipesTempFileMessageReader):
    """Hands the worker's progress to a callback as it arrives; Dagster gives custom messages only at the end."""

    def __init__(self, on_progress: Progress) -> None:
        super().__init__()
        self._on_progress = on_progress

    @contextmanager
    def read_messages(self, handler: Any) -> Iterator[Any]:
        """Read messages, as the base class does, and look at each."""
        handle = handler.handle_message

        def look(message: Any) -> None:
            payload = message["params"].get("payload") if message["method"] == "report_custom_message" else None
            if isinstance(payload, dict) and "progress" in payload:
                self._on_progress("tokens embedded", *payload["progress"])
            handle(message)

        handler.handle_message = look
        with super().read_messages(handler) as params:
            yield params
