"""`rag embedding-pod`: the pod that a run would create to embed partitions, without creating it."""

from dataclasses import replace
from typing import Annotated

import typer
import yaml

from rag_assets.cli.output import ERRORS, print_text
from rag_assets.packed import PACKED_JOB
from rag_core.config_loader import load_config
from rag_core.embedding.manifest import manifest_address
from rag_core.embedding.model import resolve_model
from rag_core.embedding.pod import PodJob, build_pod
from rag_core.errors import ConfigError
from rag_core.partitions import keys_by_source
from rag_core.tables.store import Store

_RUN_ID = "00000000-0000-0000-0000-000000000000"
_PIPES = {"DAGSTER_PIPES_CONTEXT": "(of the run)", "DAGSTER_PIPES_MESSAGES": "(of the run)"}


def embedding_pod(
    partition: Annotated[list[str], typer.Argument(help="Partition keys, such as handbook__03; a pod is for all.")],
    ask_server: Annotated[
        bool, typer.Option("--ask-server", help="Also ask the API whether it would take the pod; nothing is created.")
    ] = False,
) -> None:
    """Print the pod that would embed partitions, as YAML; what only a run knows is a placeholder."""
    config = load_config().config
    if config.embedding.kubernetes is None:
        raise ConfigError("embedding.kubernetes: not configured, embedding runs on this machine; set its image")
    try:
        keys_by_source(config, partition)
    except KeyError as error:
        raise ConfigError(error.args[0]) from None
    store = Store.of(config.store)
    fingerprint = resolve_model(config.embedding).fingerprint
    job = PodJob(store, manifest_address(store, _RUN_ID), fingerprint, tuple(partition), _RUN_ID, PACKED_JOB, _PIPES)
    if not store.is_local:
        inside = store.root.removeprefix("s3://").partition("/")[2].strip("/")
        job = replace(job, messages=f"{inside}/work/embedding/{_RUN_ID}/messages/(name)".lstrip("/"))
    pod = build_pod(config.embedding, job, f"rag-embedding-{job.work[:8]}-000000")
    typer.echo(yaml.safe_dump(pod, sort_keys=False, allow_unicode=True, width=120), nl=False)
    if ask_server:
        from resources.kubernetes_pods import PodApi

        api = PodApi(config.embedding.kubernetes)
        api.create(pod, dry_run=True)
        print_text(ERRORS, f"{api.host} would take it in namespace {api.namespace}")
