"""The embedding worker, as a Dagster Pipes job: a process that stays, or one for each job, or a pod on Kubernetes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.errors import DagsterPipesExecutionError  # what Pipes raises; not exported by 1.13
from pydantic import Field

from rag_core.embedding import resident
from rag_core.embedding.launch import worker_command, worker_env
from rag_core.errors import ConfigError, PermanentError, RagError, TransientError
from rag_core.stages.common import Progress
from resources.platform import PlatformResource

if TYPE_CHECKING:
    from resources.embedding_pods import EmbeddingPods

# Exit code of the worker for a failure that another try cannot help.
_EXIT_PERMANENT = 2


class EmbeddingLauncherResource(dg.ConfigurableResource["EmbeddingLauncherResource"]):
    """Runs the worker on a manifest and waits for it."""

    platform: dg.ResourceDependency[PlatformResource]
    idle_at_most_s: float | None = Field(
        default=None,
        description="Bounds embedding.worker_idle_s; for a command that ends, after which no worker is to linger.",
    )

    def run(
        self,
        context: dg.AssetExecutionContext | dg.OpExecutionContext,
        manifest: str,
        on_progress: Progress,
        partition_keys: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Embed what the manifest lists, texts of these partitions.

        Returns:
            The worker's own report: tokens/s, padding share, precision, peak memory, ...

        Raises:
            PermanentError: Another try cannot help; the message says why.
            TransientError: It may; the texts that were finished are in the cache.
        """
        op_context = context.op_execution_context if isinstance(context, dg.AssetExecutionContext) else context
        if self.platform.config.embedding.kubernetes is not None:
            return self._pods().embed(op_context, manifest, partition_keys, on_progress)
        reader = _ProgressReader(on_progress)
        if resident.available(self.platform.config.embedding):
            messages = self._on_resident(op_context, manifest, reader)
        else:
            messages = self._in_process_of_its_own(op_context, manifest, reader)
        report: dict[str, Any] = {}
        for message in messages:
            report.update(message.get("embedding", {}))
        return report

    def _pods(self) -> "EmbeddingPods":
        try:
            from resources.embedding_pods import EmbeddingPods
        except ModuleNotFoundError as error:
            message = f"embedding.kubernetes needs more packages: pip install rag-assets[production] ({error})"
            raise ConfigError(message) from error
        return EmbeddingPods(self.platform.store, self.platform.config.embedding)

    def _on_resident(
        self, context: dg.OpExecutionContext, manifest: str, reader: dg.PipesMessageReader
    ) -> Sequence[Any]:
        config = self.platform.config.embedding
        idle_s = min(config.worker_idle_s, self.idle_at_most_s or config.worker_idle_s)
        with dg.open_pipes_session(
            context=context,
            context_injector=dg.PipesTempFileContextInjector(),
            message_reader=reader,
            extras={"manifest": manifest},
        ) as session:
            try:
                resident.embed(
                    self.platform.store, config, manifest, pipes=session.get_bootstrap_env_vars(), idle_s=idle_s
                )
            except RagError as error:
                raise type(error)(f"the embedding worker failed on {manifest}: {error}") from error
        return dg.PipesClientCompletedInvocation(session).get_custom_messages()

    def _in_process_of_its_own(
        self, context: dg.OpExecutionContext, manifest: str, reader: dg.PipesMessageReader
    ) -> Sequence[Any]:
        client = dg.PipesSubprocessClient(env=worker_env(self.platform.config.embedding), message_reader=reader)
        try:
            invocation = client.run(command=worker_command(manifest), context=context, extras={"manifest": manifest})
        except DagsterPipesExecutionError as error:
            message = f"the embedding worker failed on {manifest}: {error}; its output is in the run's stderr"
            permanent = str(error).endswith(f"code {_EXIT_PERMANENT}")
            raise (PermanentError if permanent else TransientError)(message) from error
        return invocation.get_custom_messages()


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
