"""The pod of an embedding job, as the dictionary that the Kubernetes API takes. Knows neither Dagster nor the API.

What is in it is of configuration and job alone: `rag embedding-pod` prints what a run would create.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from rag_core import ids
from rag_core.config import EmbeddingConfig
from rag_core.config_kubernetes import KubernetesConfig, VolumeSource
from rag_core.embedding.launch import worker_env
from rag_core.embedding.model import MODEL_FOLDER_ENV
from rag_core.embedding.pod_patch import patched
from rag_core.errors import ConfigError
from rag_core.tables.store import Store

WORKER: Final = "worker"
"""Name of the container that embeds; an init container `model` may come before it."""
FETCH: Final = "model"

STORE_LABEL: Final = "rag-assets/store"
"""Digest of the store: pods of other stores in the same namespace are none of ours."""
WORK_LABEL: Final = "rag-assets/work"
"""Digest of store, model and partitions: by it a pod is found again that another process started."""
MANIFEST_ANNOTATION: Final = "rag-assets/manifest"
MESSAGES_ANNOTATION: Final = "rag-assets/messages"
"""Where the worker leaves its messages in the store's bucket; missing where they are read from its log."""

_MODELS: Final = "/models"
_SCRATCH: Final = "/tmp"  # an emptyDir of the pod
_LABEL_CHARS: Final = 63
_NAMED: Final = 8  # partitions named in an annotation of a long list


@dataclass(frozen=True)
class PodJob:
    """What a pod is made for.

    Attributes:
        store: Where its manifest is, and its vectors go.
        manifest: Address of the manifest.
        model_fingerprint: Of the model.
        partition_keys: Partitions whose texts are embedded.
        run_id: Dagster's run.
        job_name: Dagster's job.
        env: Variables of Dagster Pipes.
        messages: Prefix of the worker's messages in the store's bucket; empty: they go to its log.
    """

    store: Store
    manifest: str
    model_fingerprint: str
    partition_keys: Sequence[str]
    run_id: str
    job_name: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    messages: str = ""

    @property
    def store_digest(self) -> str:
        """Value of `STORE_LABEL`."""
        return ids.digest(self.store.root)[:16]

    @property
    def work(self) -> str:
        """Value of `WORK_LABEL`: the same for every try of every run to embed these partitions."""
        return ids.digest(self.store.root, self.model_fingerprint, *sorted(self.partition_keys))[:16]


def build_pod(embedding: EmbeddingConfig, job: PodJob, name: str) -> dict[str, Any]:
    """Return the pod, in the API's own spelling.

    Args:
        embedding: With `kubernetes`.
        job: What it is for.
        name: Of the pod, unique in the namespace.

    Raises:
        ConfigError: A pod cannot see the store, or the patch does not fit.
    """
    config = embedding.kubernetes
    if config is None:
        raise ConfigError("embedding.kubernetes: not configured; set its image to run embedding jobs as pods")
    volumes = {"scratch": {"emptyDir": {}}, **_store_volume(config, job.store), **_model_volume(config)}
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": config.deadline_s,
        "automountServiceAccountToken": False,  # the worker never asks the cluster for anything
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": config.user_id,
            "runAsGroup": config.user_id,
            "fsGroup": config.user_id,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(embedding, config, job)],
        "volumes": [{"name": volume, **source} for volume, source in volumes.items()],
    }
    if config.model.copy_from:
        spec["initContainers"] = [_fetcher(embedding, config, job)]
    optional = {
        "serviceAccountName": config.service_account,
        "priorityClassName": config.priority_class,
        "nodeSelector": dict(config.node_selector),
        "tolerations": [one.model_dump(exclude_none=True) for one in config.tolerations],
        "imagePullSecrets": [{"name": secret} for secret in config.image_pull_secrets],
    }
    spec |= {key: value for key, value in optional.items() if value}
    metadata = {"name": name, "labels": _labels(config, job), "annotations": _annotations(config, job)}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    return patched(pod, config.patch)


def label_value(text: str) -> str:
    """Make a valid label value of any text; one that must be cut keeps a digest, so that two stay different.

    Source: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set
    """
    value = re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-_.")
    if len(value) > _LABEL_CHARS:
        value = f"{value[: _LABEL_CHARS - 9].rstrip('-_.')}-{ids.digest(text)[:8]}"
    return value


def _labels(config: KubernetesConfig, job: PodJob) -> dict[str, str]:
    partitions = sorted(job.partition_keys)
    more = f"-and-{len(partitions) - 1}-more" if len(partitions) > 1 else ""
    labels = {
        "app.kubernetes.io/name": "rag-embedding",
        "app.kubernetes.io/component": "embedding-worker",
        "app.kubernetes.io/part-of": "rag-assets",
        "dagster/run-id": label_value(job.run_id),
        "dagster/job": label_value(job.job_name),
        "rag-assets/partition": label_value((partitions[0] if partitions else "") + more),
        STORE_LABEL: job.store_digest,
        WORK_LABEL: job.work,
    }
    return {**config.labels, **{name: value for name, value in labels.items() if value}}


def _annotations(config: KubernetesConfig, job: PodJob) -> dict[str, str]:
    partitions = sorted(job.partition_keys)
    listed = ", ".join(partitions[:_NAMED]) + (", ..." if len(partitions) > _NAMED else "")
    own = {
        "rag-assets/partitions": listed,
        "rag-assets/partition-count": str(len(partitions)),
        "rag-assets/model": job.model_fingerprint,
        "rag-assets/store": job.store.root,
        MANIFEST_ANNOTATION: job.manifest,
    }
    return {**config.annotations, **own, **({MESSAGES_ANNOTATION: job.messages} if job.messages else {})}


def _container(embedding: EmbeddingConfig, config: KubernetesConfig, job: PodJob) -> dict[str, Any]:
    command = ["python", "-m", "rag_core.embedding.worker", "--manifest", job.manifest, "--report"]
    gpus = {config.gpu_resource: str(config.gpus)} if config.gpus else {}
    return {
        "name": WORKER,
        **_common(embedding, config, job),
        "command": command,
        "resources": {"requests": {**config.requests, **gpus}, "limits": {**config.limits, **gpus}},
        "volumeMounts": _mounts(config, job.store, is_model_read_only=True),
    }


def _fetcher(embedding: EmbeddingConfig, config: KubernetesConfig, job: PodJob) -> dict[str, Any]:
    """Return the container that copies the model, and fails unless it is the one that the manifest asks for."""
    # fmt: off
    command = ["python", "-m", "rag_core.embedding.fetch_model", "--manifest", job.manifest,
               "--from", config.model.copy_from, "--to", _model_folder(config)]
    # fmt: on
    small = {name: value for name, value in config.requests.items() if name != "ephemeral-storage"}
    return {
        "name": FETCH,
        **_common(embedding, config, job),
        "command": command,
        "resources": {"requests": small, "limits": {**config.limits}},
        "volumeMounts": _mounts(config, job.store, is_model_read_only=False),
    }


def _common(embedding: EmbeddingConfig, config: KubernetesConfig, job: PodJob) -> dict[str, Any]:
    refs = [{"secretRef": {"name": name}} for name in config.env_from_secrets]
    refs += [{"configMapRef": {"name": name}} for name in config.env_from_config_maps]
    return {
        "image": config.image,
        "imagePullPolicy": config.image_pull_policy,
        "env": [{"name": name, "value": value} for name, value in _environment(embedding, config, job).items()],
        **({"envFrom": refs} if refs else {}),
        # The end of its output stays with the pod's status, also where the node cannot be asked for the log any more.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }


def _environment(embedding: EmbeddingConfig, config: KubernetesConfig, job: PodJob) -> dict[str, str]:
    env = worker_env(embedding.model_copy(update={"api_key": None}))  # a pod's text can be read by many; see secrets
    # The root is read-only: all that libraries like to write goes to the scratch volume.
    env |= {"HOME": _SCRATCH, "TMPDIR": _SCRATCH, "PYTHONDONTWRITEBYTECODE": "1"}
    has_volume = any((config.model.claim, config.model.host_path, config.model.copy_from))
    if folder := _model_folder(config):
        env[MODEL_FOLDER_ENV] = folder
    elif has_volume:
        env["HF_HOME"] = _MODELS
    return {**env, **config.env, **job.env}


def _model_folder(config: KubernetesConfig) -> str:
    model = config.model
    if model.copy_from:
        return f"{_MODELS}/{model.folder or 'model'}"
    if model.folder is None:
        return ""
    return f"{_MODELS}/{model.folder}" if model.claim or model.host_path else model.folder


def _model_volume(config: KubernetesConfig) -> dict[str, Any]:
    model = config.model
    if model.copy_from:
        return {"model": {"emptyDir": {"sizeLimit": model.size_limit}}}
    if model.claim or model.host_path:
        source = _volume(VolumeSource(claim=model.claim, host_path=model.host_path))
        if model.claim:
            source["persistentVolumeClaim"]["readOnly"] = True
        return {"model": source}
    return {}


def _store_volume(config: KubernetesConfig, store: Store) -> dict[str, Any]:
    if not store.is_local:
        return {}
    if config.store_volume is None:
        raise ConfigError(
            f"embedding.kubernetes.store_volume: the store {store.root} is a folder, which a pod does not see; name a "
            "claim or host_path that holds it, or keep the store in S3 (store.root: s3://bucket/prefix)"
        )
    return {"store": _volume(config.store_volume)}


def _volume(source: VolumeSource) -> dict[str, Any]:
    if source.claim is not None:
        return {"persistentVolumeClaim": {"claimName": source.claim}}
    return {"hostPath": {"path": source.host_path, "type": "Directory"}}


def _mounts(config: KubernetesConfig, store: Store, *, is_model_read_only: bool) -> list[dict[str, Any]]:
    mounts: list[dict[str, Any]] = [{"name": "scratch", "mountPath": _SCRATCH}]
    if store.is_local:
        mounts.append({"name": "store", "mountPath": store.root})
    if _model_volume(config):
        mounts.append({"name": "model", "mountPath": _MODELS, **({"readOnly": True} if is_model_read_only else {})})
    return mounts
