"""Both files of Dagster are ones that it takes, name what is there, and make Jobs that are valid."""

import shutil
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from dagster._config import process_config
from dagster._config.field import resolve_to_config_type
from dagster._core.instance.config import dagster_instance_config
from dagster._core.storage.dagster_run import DagsterRun
from dagster_aws.s3 import S3ComputeLogManager
from dagster_k8s import K8sRunLauncher
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.job import construct_dagster_k8s_job
from kubernetes.client import ApiClient, V1Job

from rag_assets.instance import pool_limits
from rag_core.config import RagConfig
from tests.unit.deploy.files import DEPLOY, VERSIONS, of_kind, pods, read

FOLDER = DEPLOY / "dagster"
SHAPES = ("cluster", "machine")
ENVIRONMENT = {
    "DAGSTER_POSTGRES_URL": "postgresql+psycopg2://dagster:secret@postgres:5432/dagster",
    "DAGSTER_LOGS_BUCKET": "rag-dagster",
    "POD_NAMESPACE": "rag",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


def settings(shape: str) -> dict[str, Any]:
    found: dict[str, Any] = read(FOLDER / f"{shape}.yaml")
    return found


@pytest.mark.parametrize("shape", SHAPES)
def test_dagster_takes_it(shape: str, tmp_path: Path) -> None:
    shutil.copy(FOLDER / f"{shape}.yaml", tmp_path / "dagster.yaml")
    found, _ = dagster_instance_config(str(tmp_path))
    assert found["storage"]["postgres"]["postgres_url"] == {"env": "DAGSTER_POSTGRES_URL"}


@pytest.mark.parametrize("shape", SHAPES)
def test_an_unknown_key_is_refused(shape: str, tmp_path: Path) -> None:
    text = (FOLDER / f"{shape}.yaml").read_text(encoding="utf-8")
    (tmp_path / "dagster.yaml").write_text(text + "run_monitorin: {enabled: true}\n", encoding="utf-8")
    with pytest.raises(Exception, match="run_monitorin"):
        dagster_instance_config(str(tmp_path))


def taken(cls: Any, config: dict[str, Any]) -> dict[str, Any]:
    """Have a class's own type of configuration check what it is given, variables put in."""
    done = process_config(resolve_to_config_type(cls.config_type()), config)
    assert done.success, [error.message for error in done.errors or ()]
    value: dict[str, Any] = done.value
    return value


def test_logs_of_runs_go_to_the_bucket() -> None:
    found = taken(S3ComputeLogManager, settings("cluster")["compute_logs"]["config"])
    assert found["bucket"] == "rag-dagster"
    written = [
        mount["mountPath"] for mount in pods("small")["rag-dagster-code"]["spec"]["containers"][0]["volumeMounts"]
    ]
    assert any(found["local_dir"].startswith(f"{folder}/") for folder in written)


@pytest.mark.parametrize("shape", SHAPES)
def test_pools_and_backfills_are_those_of_the_code(shape: str) -> None:
    """Each pool has its limit from `rag pools`; no run may take every place."""
    found = settings(shape)["concurrency"]
    config = RagConfig.model_validate(
        {"store": {"root": "/s"}, "sources": [{"name": "a", "kind": "files", "root": "/a"}]}
    )
    assert set(pool_limits(config)) == {"embedding", "milvus_writes"}
    assert found["pools"] == {"default_limit": 1, "granularity": "op"}
    for limit in found["runs"]["tag_concurrency_limits"]:
        assert limit["limit"] < found["runs"]["max_concurrent_runs"]
    assert {limit["key"] for limit in found["runs"]["tag_concurrency_limits"]} == {"rag/reason", "dagster/backfill"}


KUBECONFIG = """\
apiVersion: v1
kind: Config
current-context: none
clusters: [{name: none, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: none, user: {}}]
contexts: [{name: none, context: {cluster: none, user: none}}]
"""


@pytest.fixture
def job(tmp_path: Path) -> dict[str, Any]:
    """Build the Job that the launcher would create for a run, by dagster-k8s's own functions."""
    (tmp_path / "kubeconfig").write_text(KUBECONFIG)
    config = taken(K8sRunLauncher, settings("cluster")["run_launcher"]["config"])
    here = {"load_incluster_config": False, "kubeconfig_file": str(tmp_path / "kubeconfig")}
    launcher = K8sRunLauncher(**{**config, **here})
    run = DagsterRun(job_name="scan_sources", run_id="0" * 32)
    context = K8sContainerContext.create_for_run(run, launcher, include_run_tags=False)
    job_config = context.get_k8s_job_config("registry.example/rag-app:0.1.0", launcher)
    made = construct_dagster_k8s_job(
        job_config=job_config,
        args=["dagster", "api", "execute_run", "{}"],
        job_name="dagster-run-0",
        user_defined_k8s_config=context.run_k8s_config,
        pod_name="dagster-run-0",
        component="run_worker",
        labels={"dagster/job": "scan_sources"},
    )
    assert isinstance(made, V1Job)
    found: dict[str, Any] = ApiClient().sanitize_for_serialization(made)
    return found


def test_a_run_is_a_job_that_kubernetes_takes(job: dict[str, Any]) -> None:
    for version in VERSIONS:
        kubernetes_validate.validate(job, version, strict=True)
    assert job["spec"]["ttlSecondsAfterFinished"] == 86400
    pod = job["spec"]["template"]
    assert pod["metadata"]["labels"]["app.kubernetes.io/name"] == "rag-run"  # what network policies are about
    spec, (container,) = pod["spec"], pod["spec"]["containers"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["resources"]["limits"] == {"memory": "6Gi"}


def test_a_run_finds_what_it_names(job: dict[str, Any]) -> None:
    pod = job["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert pod["serviceAccountName"] in of_kind("small", "ServiceAccount")
    maps = {volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume}
    maps |= {source["configMapRef"]["name"] for source in container["envFrom"] if "configMapRef" in source}
    assert maps == {"rag-dagster", "rag-config", "rag-environment"} <= of_kind("small", "ConfigMap").keys()
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert "/opt/dagster/dagster_home/dagster.yaml" in mounts  # Dagster's launcher leaves that to us
    assert {"/etc/rag", "/tmp", "/var/lib/rag", "/opt/dagster/dagster_home"} <= mounts
    assert {mount["name"] for mount in container["volumeMounts"]} <= {volume["name"] for volume in pod["volumes"]}
    # rag-store is only there where the cluster's identities cannot be used.
    optional = {
        source["secretRef"]["name"]: source["secretRef"].get("optional")
        for source in container["envFrom"]
        if "secretRef" in source
    }
    assert optional == {"rag-postgres": None, "rag-secrets": None, "rag-store": True}


def test_tags_of_a_run_may_ask_for_room_and_for_nothing_else() -> None:
    allowed = settings("cluster")["run_launcher"]["config"]["only_allow_user_defined_k8s_config_fields"]
    assert allowed == {"container_config": {"resources": True}, "pod_spec_config": {"node_selector": True}}
