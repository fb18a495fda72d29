"""The command line and environment with which a launcher (local subprocess, Kubernetes) starts the worker."""

import sys

from rag_core.config import EmbeddingConfig


def worker_command(manifest_path: str, *, die_with_parent: bool = True) -> list[str]:
    """Return the worker's command line.

    Args:
        manifest_path: What `write_manifest` returned.
        die_with_parent: For a subprocess on the same machine, started by the thread that waits for it.
    """
    command = [sys.executable, "-m", "rag_core.embedding.worker", "--manifest", manifest_path]
    return [*command, "--die-with-parent"] if die_with_parent else command


def worker_env(config: EmbeddingConfig) -> dict[str, str]:
    """Return the variables to add to the worker's environment; holds the endpoint's key where one is configured."""
    env = {
        "PYTHONUNBUFFERED": "1",
        "TOKENIZERS_PARALLELISM": "true",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        # Threads that spin while they wait starve each other once other processes want the cores as well: on two
        # cores at a load of about 4, embedding was 2.5 to 6 times faster in three runs when they slept instead.
        "OMP_WAIT_POLICY": "passive",
    }
    if not config.allow_download:
        env |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    if config.api_key is not None:
        env["RAG_EMBEDDING__API_KEY"] = config.api_key.get_secret_value()
    return env
