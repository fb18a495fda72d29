"""Types of `rag.yaml` that say how an embedding job becomes a pod on Kubernetes."""

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from rag_core.config_base import Section


class Toleration(Section):
    """A taint of nodes that the pod does not mind, in Kubernetes' own words."""

    key: str | None = Field(default=None, description="Of the taint; none: all.")
    operator: Literal["Equal", "Exists"] = Field(default="Equal", description="How `value` is compared.")
    value: str | None = Field(default=None, description="Of the taint.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="Of the taint; none: all."
    )


class VolumeSource(Section):
    """What is mounted: a claim or a folder of the node."""

    claim: str | None = Field(default=None, description="A PersistentVolumeClaim of the namespace.")
    host_path: str | None = Field(default=None, description="A folder of the node.")

    @model_validator(mode="after")
    def _one(self) -> "VolumeSource":
        if (self.claim is None) == (self.host_path is None):
            raise ValueError("one of claim and host_path")
        return self


class ModelSource(Section):
    """Where a pod has its model from: nothing set, the image holds it."""

    claim: str | None = Field(default=None, description="A PersistentVolumeClaim that holds it; mounted read-only.")
    host_path: str | None = Field(default=None, description="A folder of the node that holds it; mounted read-only.")
    copy_from: str | None = Field(
        default=None, description="s3://bucket/folder of the model, copied into the pod before the worker starts."
    )
    folder: str | None = Field(
        default=None,
        description="The model's folder: in the volume, or in the image where no volume is named. None: the volume is "
        "a Hugging Face cache.",
    )
    size_limit: str = Field(default="20Gi", description="With `copy_from`: most that the copy may take on the node.")

    @model_validator(mode="after")
    def _one(self) -> "ModelSource":
        if sum(value is not None for value in (self.claim, self.host_path, self.copy_from)) > 1:
            raise ValueError("at most one of claim, host_path and copy_from")
        if self.copy_from is not None and not self.copy_from.startswith("s3://"):
            raise ValueError("copy_from: s3://bucket/folder")
        return self


class KubernetesConfig(Section):
    """Embedding jobs as pods. With an `image`, they run on Kubernetes; without this section, on this machine."""

    image: str = Field(description="Image with this project's worker, such as registry/rag-worker:1.2.")
    namespace: str | None = Field(
        default=None, description="Default: that of the pod this runs in, or of the kubeconfig's context."
    )
    kubeconfig: str | None = Field(
        default=None,
        description="File that says how the API is reached. Default: in a cluster its service account, else as kubectl "
        "finds it. A relative path is relative to the file.",
    )
    context: str | None = Field(default=None, description="Context of the kubeconfig; default: its current one.")
    image_pull_policy: Literal["IfNotPresent", "Always", "Never"] = Field(
        default="IfNotPresent", description="When the image is pulled."
    )
    image_pull_secrets: tuple[str, ...] = Field(default=(), description="Names of secrets of a private registry.")
    gpus: int = Field(
        default=1, ge=0, description="GPUs of a pod; all are used, one process each. 0: the pod works on CPUs."
    )
    gpu_resource: str = Field(default="nvidia.com/gpu", description="What the cluster calls a GPU.")
    requests: dict[str, str] = Field(
        default={"cpu": "2", "memory": "6Gi", "ephemeral-storage": "5Gi"},
        description="What a pod is given at least.",
    )
    limits: dict[str, str] = Field(
        default={"memory": "8Gi", "ephemeral-storage": "10Gi"},
        description="What it may take at most. No `cpu` by default: a limit only slows a pod down on an idle node.",
    )
    node_selector: dict[str, str] = Field(default_factory=dict, description="Labels that its node must have.")
    tolerations: tuple[Toleration, ...] = Field(default=(), description="Taints that it does not mind.")
    priority_class: str | None = Field(default=None, description="PriorityClass.")
    service_account: str | None = Field(
        default=None, description="Its identity towards S3 (IRSA, workload identity); it gets no token of the cluster."
    )
    model: ModelSource = Field(default_factory=ModelSource, description="Where the model is.")
    store_volume: VolumeSource | None = Field(
        default=None, description="What holds a store that is a folder; mounted at the same path."
    )
    env: dict[str, str] = Field(default_factory=dict, description="Further variables; no secrets.")
    env_from_secrets: tuple[str, ...] = Field(
        default=(), description="Secrets whose keys become variables: AWS_*, RAG_EMBEDDING__API_KEY."
    )
    env_from_config_maps: tuple[str, ...] = Field(default=(), description="ConfigMaps whose keys become variables.")
    user_id: int = Field(default=10_001, ge=1, description="User and group of the worker; never root.")
    labels: dict[str, str] = Field(default_factory=dict, description="Further labels.")
    annotations: dict[str, str] = Field(default_factory=dict, description="Further annotations.")
    patch: dict[str, Any] = Field(
        default_factory=dict,
        description="Merged into the pod at the end, as `kubectl patch` would: {spec: {hostNetwork: true}}. Entries of "
        "lists are matched by name, null removes.",
    )
    pending_s: float = Field(
        default=900.0, gt=0, description="How long a pod may wait for a node, for its image and to start."
    )
    refused_s: float = Field(
        default=120.0,
        ge=0,
        description="How long an image that cannot be pulled, or a secret that is missing, is waited for.",
    )
    deadline_s: int = Field(default=21_600, gt=0, description="How long a pod may run (activeDeadlineSeconds).")
    unreachable_s: float = Field(
        default=300.0, ge=0, description="How long an API server that does not answer is asked again."
    )
    poll_s: float = Field(default=2.0, gt=0, description="How often a pod is looked at.")
    keep_failed_s: float = Field(
        default=0.0, ge=0, description="A failed pod is kept this long for a look at it; then the next job removes it."
    )

    @field_validator("requests", "limits", "node_selector", "env", "labels", "annotations", mode="before")
    @classmethod
    def _as_kubernetes_writes_them(cls, value: Any) -> Any:
        """Take `cpu: 4` and `true` as the text that they are in a pod."""
        if not isinstance(value, dict):
            return value
        return {key: str(item).lower() if isinstance(item, bool | int | float) else item for key, item in value.items()}
