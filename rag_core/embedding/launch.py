"""The command line and environment with which a launcher (local subprocess, Kubernetes) starts the worker."""

import os
import sys
from pathlib import Path

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


def worker_config(config: EmbeddingConfig) -> EmbeddingConfig:
    """Return what the worker is told in its manifest: without the key, and without what only its launcher needs.

    A pod with GPUs works on them: it must not fall back to its CPUs, for hours, when it finds none.
    """
    pod = config.kubernetes
    processes = config.processes or (pod.gpus if pod and pod.gpus > 1 else None)
    on_gpu = pod is not None and pod.gpus > 0 and config.device == "auto"
    device = "cuda" if on_gpu and config.backend == "sentence-transformers" else config.device
    return config.model_copy(update={"api_key": None, "kubernetes": None, "processes": processes, "device": device})


def worker_slots(config: EmbeddingConfig) -> int:
    """Return how many embedding jobs run at once on this machine: `embedding.workers`, else one for each GPU."""
    return config.workers or max(1, len(visible_gpus(config)))


def device_env(config: EmbeddingConfig, slot: int) -> dict[str, str]:
    """Return the variables that give a worker a GPU of its own, where there are several."""
    gpus = visible_gpus(config)
    return {"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} if len(gpus) > 1 else {}


def visible_gpus(config: EmbeddingConfig) -> list[str]:
    """List the GPUs that a model may use, without torch, whose import takes seconds."""
    if config.device == "cpu" or config.backend == "openai":
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name.strip() not in ("", "-1")]
    return [str(number) for number in range(len(list(Path("/dev").glob("nvidia[0-9]*"))))]
