"""The embedding worker, started as a Dagster Pipes job: a subprocess here, a GPU pod in production."""

from typing import Any

import dagster as dg

from rag_core.embedding.launch import worker_command, worker_env
from rag_core.errors import PermanentError, TransientError
from resources.platform import PlatformResource

# Exit codes of the worker that tell the class of its failure (os.EX_TEMPFAIL is 75).
_EXIT_PERMANENT = 2


class EmbeddingLauncherResource(dg.ConfigurableResource):
    """Runs the worker on a manifest and waits for it."""

    platform: dg.ResourceDependency[PlatformResource]

    def run(self, context: dg.AssetExecutionContext, manifest: str) -> dict[str, Any]:
        """Embed what the manifest lists.

        Returns:
            The worker's own report: tokens/s, padding share, precision, peak memory, ...

        Raises:
            PermanentError: Another try cannot help; the worker's last line says why.
            TransientError: It may; the texts that were finished are in the cache.
        """
        client = dg.PipesSubprocessClient(env=worker_env(self.platform.config.embedding))
        try:
            invocation = client.run(
                command=worker_command(manifest), context=context.op_execution_context, extras={"manifest": manifest}
            )
        except dg.DagsterPipesExecutionError as error:
            message = f"the embedding worker failed on {manifest}: {error}; its output is in the run's stderr"
            raise (PermanentError if f"exit code {_EXIT_PERMANENT}" in str(error) else TransientError)(message) from error
        report: dict[str, Any] = {}
        for message in invocation.get_custom_messages():
            if isinstance(message, dict):
                report.update(message)
        return report
