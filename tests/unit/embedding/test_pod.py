"""The pod of an embedding job: valid for the API, restricted, without secrets, and as the configuration says."""

from typing import Any

import kubernetes_validate
import pytest
import yaml
from pydantic import ValidationError

from rag_core.config import EmbeddingConfig
from rag_core.embedding.launch import worker_config
from rag_core.embedding.pod import WORK_LABEL, PodJob, build_pod, label_value
from rag_core.errors import ConfigError
from rag_core.tables.store import Store

S3 = Store("s3://lake/rag")
RUN = "2f0b0b9e-6c1e-4c5c-8f3a-0d7c9be31f2a"
SMALLEST: dict[str, Any] = {"image": "registry.example/rag-worker:1.2"}
FULL: dict[str, Any] = {
    **SMALLEST,
    "namespace": "rag",
    "image_pull_secrets": ["registry"],
    "gpus": 2,
    "requests": {"cpu": 4, "memory": "16Gi"},
    "limits": {"memory": "24Gi"},
    "node_selector": {"cloud.google.com/gke-accelerator": "nvidia-l4"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "priority_class": "rag-batch",
    "service_account": "rag-embedding",
    "model": {"copy_from": "s3://lake/models/bge", "size_limit": "2Gi"},
    "env": {"NCCL_DEBUG": "WARN"},
    "env_from_secrets": ["rag-embedding"],
    "env_from_config_maps": ["rag-proxy"],
    "labels": {"team": "search"},
    "annotations": {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"},
}


def job(*partitions: str, store: Store = S3, **more: Any) -> PodJob:
    return PodJob(
        store, store.uri("work/embedding/r/manifest.json"), "f" * 32, partitions, RUN, "build_partitions", **more
    )


def pod_of(settings: dict[str, Any], the_job: PodJob | None = None, **embedding: Any) -> dict[str, Any]:
    config = EmbeddingConfig(kubernetes=settings, **embedding)
    return build_pod(config, the_job or job("handbook__00"), "rag-embedding-x")


def env_of(pod: dict[str, Any], container: int = 0) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in pod["spec"]["containers"][container]["env"]}


@pytest.mark.parametrize("settings", [SMALLEST, FULL, {**FULL, "model": {"claim": "models"}}, {**SMALLEST, "gpus": 0}])
@pytest.mark.parametrize("version", ["1.25", "1.31", "1.33"])
def test_the_api_takes_it(settings: dict[str, Any], version: str) -> None:
    # As it goes over the wire: no tuples, no objects of ours.
    pod = yaml.safe_load(yaml.safe_dump(pod_of(settings)))
    kubernetes_validate.validate(pod, version, strict=True)


@pytest.mark.parametrize("settings", [SMALLEST, FULL])
def test_it_meets_the_restricted_pod_security_standard(settings: dict[str, Any]) -> None:
    spec = pod_of(settings)["spec"]
    assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    assert not [volume for volume in spec["volumes"] if "hostPath" in volume]


def test_gpus_are_asked_for_as_requests_and_limits_alike() -> None:
    resources = pod_of(FULL)["spec"]["containers"][0]["resources"]
    assert resources["requests"] == {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": "2"}
    assert resources["limits"] == {"memory": "24Gi", "nvidia.com/gpu": "2"}
    assert "nvidia.com/gpu" not in str(pod_of({**SMALLEST, "gpus": 0}))
    assert "amd.com/gpu" in str(pod_of({**SMALLEST, "gpu_resource": "amd.com/gpu"}))


def test_no_secret_is_in_it() -> None:
    pod = pod_of(FULL, api_key="sk-secret", backend="openai", base_url="http://models", dim=8, model="m")
    assert "sk-secret" not in yaml.safe_dump(pod)
    assert {"secretRef": {"name": "rag-embedding"}} in pod["spec"]["containers"][0]["envFrom"]


def test_the_model_is_never_downloaded_by_chance() -> None:
    env = env_of(pod_of(SMALLEST))
    assert (env["HF_HUB_OFFLINE"], env["TRANSFORMERS_OFFLINE"], env["HOME"]) == ("1", "1", "/tmp")
    assert "HF_HUB_OFFLINE" not in env_of(pod_of(SMALLEST, allow_download=True))


@pytest.mark.parametrize(
    ("model", "variables", "is_mounted"),
    [
        ({}, {}, False),
        ({"folder": "/opt/model"}, {"RAG_MODEL_FOLDER": "/opt/model"}, False),
        ({"claim": "models", "folder": "bge"}, {"RAG_MODEL_FOLDER": "/models/bge"}, True),
        ({"host_path": "/var/hf"}, {"HF_HOME": "/models"}, True),
        ({"copy_from": "s3://lake/m"}, {"RAG_MODEL_FOLDER": "/models/model"}, True),
    ],
)
def test_where_the_model_is(model: dict[str, str], variables: dict[str, str], is_mounted: bool) -> None:
    pod = pod_of({**SMALLEST, "model": model})
    env = env_of(pod)
    assert {name: env[name] for name in ("RAG_MODEL_FOLDER", "HF_HOME") if name in env} == variables
    mounts = [mount for mount in pod["spec"]["containers"][0]["volumeMounts"] if mount["mountPath"] == "/models"]
    assert [mount["readOnly"] for mount in mounts] == [True] * is_mounted
    assert ("initContainers" in pod["spec"]) == ("copy_from" in model)


def test_a_store_that_is_a_folder_needs_a_volume() -> None:
    local = job("a__0", store=Store("/srv/store"))
    with pytest.raises(ConfigError, match=r"store_volume: the store /srv/store is a folder, which a pod does not see"):
        pod_of(SMALLEST, local)
    pod = pod_of({**SMALLEST, "store_volume": {"claim": "rag"}}, local)
    assert {"name": "store", "mountPath": "/srv/store"} in pod["spec"]["containers"][0]["volumeMounts"]


def test_labels_find_the_same_work_and_no_other() -> None:
    one, same = pod_of(FULL, job("b__1", "a__0")), pod_of(SMALLEST, job("a__0", "b__1", env={"X": "1"}))
    labels = one["metadata"]["labels"]
    assert labels[WORK_LABEL] == same["metadata"]["labels"][WORK_LABEL]
    assert labels["rag-assets/partition"] == "a__0-and-1-more"
    assert (labels["dagster/run-id"], labels["team"]) == (RUN, "search")
    others = [job("a__0"), job("a__0", "b__1", store=Store("s3://lake/other"))]
    assert len({labels[WORK_LABEL], *(pod_of(FULL, other)["metadata"]["labels"][WORK_LABEL] for other in others)}) == 3
    assert one["metadata"]["annotations"]["rag-assets/partitions"] == "a__0, b__1"


@pytest.mark.parametrize("text", ["", "handbook__03", "__x__", "Ünïcode/and spaces", "a" * 200, "-.-"])
def test_any_text_becomes_a_valid_label(text: str) -> None:
    metadata = {"name": "x", "labels": {"a": label_value(text)}}
    value = label_value(text)
    assert len(value) <= 63 and (not value or (value[0].isalnum() and value[-1].isalnum()))
    spec = {"containers": [{"name": "x", "image": "x"}]}
    kubernetes_validate.validate({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}, "1.31")


def test_long_labels_stay_different() -> None:
    assert label_value("a" * 100) != label_value("a" * 101)


def test_a_patch_is_merged_by_name() -> None:
    patch = {
        "metadata": {"labels": {"team": None}},
        "spec": {
            "hostNetwork": True,
            "containers": [
                {"name": "worker", "env": [{"name": "HOME", "value": "/scratch"}]},
                {"name": "side", "image": "s:1"},
            ],
            "volumes": [{"name": "scratch", "emptyDir": {"medium": "Memory"}}],
            "tolerations": [],
        },
    }  # fmt: skip
    pod = pod_of({**FULL, "patch": patch})
    kubernetes_validate.validate(pod, "1.31", strict=True)
    assert [container["name"] for container in pod["spec"]["containers"]] == ["worker", "side"]
    assert env_of(pod)["HOME"] == "/scratch" and env_of(pod)["TMPDIR"] == "/tmp"
    assert {"name": "scratch", "emptyDir": {"medium": "Memory"}} in pod["spec"]["volumes"]
    assert "team" not in pod["metadata"]["labels"] and pod["spec"]["tolerations"] == []


@pytest.mark.parametrize(
    ("patch", "expected"),
    [
        ({"spec": {"containers": {}}}, "patch.spec.containers: expected a list"),
        ({"spec": {"containers": [{"image": "x"}]}}, r"containers\[0\]: expected a mapping with `name`"),
        ({"metadata": []}, "patch.metadata: expected a mapping"),
    ],
)
def test_a_patch_that_does_not_fit_is_refused(patch: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        pod_of({**SMALLEST, "patch": patch})


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": {"claim": "a", "host_path": "/b"}},
        {"model": {"copy_from": "http://x"}},
        {"store_volume": {}},
        {"user_id": 0},
        {"gpus": -1},
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        EmbeddingConfig(kubernetes={**SMALLEST, **wrong})


def test_a_worker_of_a_pod_with_gpus_uses_all_and_never_its_cpus() -> None:
    told = worker_config(EmbeddingConfig(kubernetes={**SMALLEST, "gpus": 4}, api_key="k"))
    assert (told.processes, told.device, told.kubernetes, told.api_key) == (4, "cuda", None, None)
    assert worker_config(EmbeddingConfig(kubernetes={**SMALLEST, "gpus": 0})).device == "auto"
    assert worker_config(EmbeddingConfig()) == EmbeddingConfig()
