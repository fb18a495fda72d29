"""The manifests are what Kubernetes' published schemas ask for, and hang together; so does what is rendered of them."""

import re
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import jsonschema
import kubernetes_validate
import pytest
import yaml

from deploy.k8s import render
from rag_core.config import RagConfig
from rag_core.config_loader import load_config
from tests.unit.deploy import crds
from tests.unit.deploy.files import DEPLOY, K8S, VERSIONS, Manifest, manifests, of_kind, pods

SIZES = render.OVERLAYS
# Who makes these is told in docs/deploy.md; examples/external-secrets.yaml makes them from a vault.
SECRETS = {"rag-postgres", "rag-secrets", "rag-store", "rag-serving-keys"}


def config(size: str, tmp_path: Path) -> RagConfig:
    """Load the rag.yaml that is in a rendered stack."""
    path = tmp_path / "rag.yaml"
    path.write_text(of_kind(size, "ConfigMap")["rag-config"]["data"]["rag.yaml"], encoding="utf-8")
    return load_config(path).config


@pytest.mark.slow
def test_what_is_rendered_is_current() -> None:
    assert render.differing() == [], "run python -m deploy.k8s.render"


def problems(manifest: Manifest, version: str) -> list[str]:
    """Check one manifest against its published schema, or a custom resource against the part of it that is used."""
    kind = (manifest["apiVersion"], manifest["kind"])
    if kind in crds.SPECS:
        found = jsonschema.Draft202012Validator(crds.SPECS[kind]).iter_errors(manifest["spec"])
        return [f"{kind}: {error.json_path}: {error.message}" for error in found]
    try:
        kubernetes_validate.validate(manifest, version, strict=True)
    except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
        return [f"{kind} {manifest['metadata']['name']}: {error.message}"]
    return []


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "path",
    [
        *(render.RENDERED / f"{size}.yaml" for size in SIZES),
        *sorted(path for folder in ("base", "milvus", "monitoring", "examples")
                for path in (K8S / folder).glob("*.yaml")
                if path.name not in {"kustomization.yaml", "workspace.yaml"}),
    ],
    ids=lambda path: path.relative_to(K8S).as_posix() if isinstance(path, Path) else str(path),
)  # fmt: skip
def test_every_manifest_is_what_its_schema_asks_for(path: Path, version: str) -> None:
    found = list(manifests(path))
    assert found
    assert [problem for one in found for problem in problems(one, version)] == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda one: one["spec"].update(replica=2), "'replica' was unexpected"),
        (lambda one: one["spec"].update(replicas="two"), "'two' is not of type"),
        (lambda one: one.update(kind="Deploymint"), "Deploymint"),
    ],
)
def test_a_mistake_is_found(change: Any, words: str) -> None:
    manifest = next(one for one in manifests(K8S / "base" / "serving.yaml") if one["kind"] == "Deployment")
    change(manifest)
    assert words in " ".join(problems(manifest, VERSIONS[-1]))


def test_a_mistake_in_a_custom_resource_is_found() -> None:
    milvus = next(one for one in manifests(K8S / "milvus" / "milvus.yaml") if one["kind"] == "Milvus")
    milvus["spec"]["components"]["rootCoord"] = {"replicas": 1}  # 2.6 has none
    assert "rootCoord" in " ".join(problems(milvus, VERSIONS[-1]))


@pytest.mark.parametrize("size", SIZES)
def test_pods_are_confined_and_say_what_they_need(size: str) -> None:
    for name, pod in pods(size).items():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True, name
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert "/tmp" in [mount["mountPath"] for mount in container["volumeMounts"]], name
            if name != "rag-spark-executor":  # its figures are Spark's to set
                assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), name
                assert "cpu" not in container["resources"]["limits"], name  # it only slows a pod on an idle node
                assert "startupProbe" in container, name


@pytest.mark.parametrize("size", SIZES)
def test_what_is_named_is_there(size: str) -> None:
    accounts, maps = of_kind(size, "ServiceAccount"), of_kind(size, "ConfigMap")
    for name, pod in pods(size).items():
        spec = pod["spec"]
        assert spec.get("serviceAccountName", "rag-spark") in accounts, name
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        text = yaml.safe_dump(spec)
        named = {a or b for a, b in re.findall(r"secretName: (\S+)|secretRef:\n\s+name: (\S+)", text)}
        assert named <= SECRETS, name
        assert set(re.findall(r"configMap:\n\s+name: (\S+)", text)) <= maps.keys(), name
        for container in spec["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes.keys(), name
    made = {one["metadata"]["name"] for one in manifests(K8S / "examples" / "external-secrets.yaml")}
    assert made == SECRETS
    for binding in of_kind(size, "RoleBinding").values():
        assert binding["roleRef"]["name"] in of_kind(size, "Role")
        assert {subject["name"] for subject in binding["subjects"]} <= accounts.keys()


@pytest.mark.parametrize("size", SIZES)
def test_secrets_go_to_those_that_need_them(size: str) -> None:
    for name, pod in pods(size).items():
        text = yaml.safe_dump(pod)
        assert ("rag-postgres" in text) == (name.startswith("rag-dagster") or name == "rag-exporter"), name
        assert ("rag-serving-keys" in text) == (name == "rag-serving"), name
        assert ("rag-secrets" in text) == (not name.startswith("rag-spark")), name


def matching(size: str, labels: dict[str, str]) -> list[Manifest]:
    return [pod for pod in pods(size).values() if labels.items() <= pod["metadata"]["labels"].items()]


@pytest.mark.parametrize("size", SIZES)
def test_services_lead_to_ports_of_pods(size: str) -> None:
    for name, service in of_kind(size, "Service").items():
        (pod,) = matching(size, service["spec"]["selector"])
        ports = {port["name"]: port["containerPort"] for one in pod["spec"]["containers"] for port in one["ports"]}
        for port in service["spec"]["ports"]:
            assert ports[port["targetPort"]] == port["port"], name


@pytest.mark.parametrize("size", SIZES)
def test_policies_are_about_pods_that_there_are_and_ports_that_they_have(size: str) -> None:
    others = {"rag-embedding", "rag-run"}  # pods that are made later, by runs and by Dagster
    known = {pod["metadata"]["labels"]["app.kubernetes.io/name"] for pod in pods(size).values()} | others
    for name, policy in of_kind(size, "NetworkPolicy").items():
        labels = policy["spec"]["podSelector"]["matchLabels"]
        found = matching(size, labels)
        assert found or labels in (
            {"app.kubernetes.io/name": "rag-embedding"}, {"app.kubernetes.io/instance": "rag-milvus"}
        ), name  # fmt: skip
        sources = re.findall(r"app.kubernetes.io/name: (\S+)|- (rag-\S+)", yaml.safe_dump(policy["spec"]["ingress"])
                             if "ingress" in policy["spec"] else "")  # fmt: skip
        assert {a or b for a, b in sources} <= known, name
        if name != "rag-milvus" and found:
            ports = {port["containerPort"] for one in found[0]["spec"]["containers"] for port in one.get("ports", ())}
            asked = {port["port"] for rule in policy["spec"].get("ingress", ()) for port in rule.get("ports", ())}
            assert asked <= ports, name


@pytest.mark.parametrize("size", SIZES)
def test_a_disruption_leaves_some_and_scaling_has_its_target(size: str) -> None:
    deployments = of_kind(size, "Deployment")
    for scaler in of_kind(size, "HorizontalPodAutoscaler", "ScaledObject").values():
        assert scaler["spec"]["scaleTargetRef"]["name"] in deployments
        low = scaler["spec"].get("minReplicas") or scaler["spec"].get("minReplicaCount")
        assert deployments[scaler["spec"]["scaleTargetRef"]["name"]]["spec"]["replicas"] == low
    budget = of_kind(size, "PodDisruptionBudget")["rag-serving"]["spec"]
    (pod,) = matching(size, budget["selector"]["matchLabels"])
    assert pod["spec"]["terminationGracePeriodSeconds"] >= 20 + 5  # serving.drain_s, and the pause before it
    assert {name for name, one in deployments.items() if one["spec"]["strategy"]["type"] == "Recreate"} == {
        "rag-dagster-daemon", "rag-exporter", "rag-spark"
    }  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
def test_monitors_find_their_ports_and_the_jobs_are_those_of_the_dashboards(size: str) -> None:
    services = of_kind(size, "Service")
    for name, monitor in of_kind(size, "ServiceMonitor").items():
        assert monitor["spec"]["jobLabel"] == "app.kubernetes.io/name"
        service = services[name]
        assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        assert service["metadata"]["labels"]["app.kubernetes.io/name"] == name
        ports = {port["name"] for port in service["spec"]["ports"]}
        assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} <= ports
    dashboards = "".join(path.read_text() for path in (DEPLOY / "monitoring" / "dashboards").glob("*.json"))
    jobs = set(re.findall(r'job=\\"([a-z-]+)\\"', dashboards))
    assert {"rag-serving", "rag-exporter"} <= jobs
    assert {"rag-serving", "rag-exporter"} == of_kind(size, "ServiceMonitor").keys()


@pytest.mark.parametrize("size", SIZES)
def test_images_are_said_in_one_place(size: str) -> None:
    deployments = of_kind(size, "Deployment")
    images = {name: one["spec"]["template"]["spec"]["containers"][0] for name, one in deployments.items()}
    env = {
        name: {one["name"]: one.get("value") for one in container.get("env", ())} for name, container in images.items()
    }
    assert env["rag-dagster-code"]["DAGSTER_CURRENT_IMAGE"] == images["rag-dagster-code"]["image"]
    assert env["rag-spark"]["SPARK_IMAGE"] == images["rag-spark"]["image"]
    assert all(container["image"].startswith("registry.example/") for container in images.values())
    versions = {container["image"].rpartition(":")[2] for container in images.values()}
    assert len(versions) == 1


@pytest.mark.parametrize("size", SIZES)
def test_the_configuration_is_one_that_the_project_takes(size: str, tmp_path: Path) -> None:
    found = config(size, tmp_path)
    services = of_kind(size, "Service").keys()
    spark = urlsplit(cast("str", found.spark.remote))
    assert spark.hostname in services
    milvus = urlsplit(str(found.index.uri)).hostname
    assert milvus == f"{next(iter(of_kind(size, 'Milvus')))}-milvus"  # as the operator names its service
    kubernetes = found.embedding.kubernetes
    assert kubernetes is not None
    accounts = of_kind(size, "ServiceAccount")
    assert kubernetes.service_account in accounts
    assert kubernetes.priority_class in of_kind(size, "PriorityClass")
    image = of_kind(size, "Deployment")["rag-dagster-code"]["spec"]["template"]["spec"]["containers"][0]["image"]
    assert kubernetes.image.rpartition(":")[2] == image.rpartition(":")[2]  # one version of the project
    mounts = pods(size)["rag-serving"]["spec"]["containers"][0]["volumeMounts"]
    keys = found.serving.access.keys_file
    assert keys is not None
    assert str(keys.parent) in {mount["mountPath"] for mount in mounts}


@pytest.mark.parametrize("size", SIZES)
def test_runs_may_do_what_they_do_and_no_more(size: str) -> None:
    """What the embedding stage asks of the API: see resources/kubernetes_pods.py, and docs/gpu-jobs.md."""
    rules = {
        resource: sorted(rule["verbs"])
        for rule in of_kind(size, "Role")["rag-run"]["rules"] for resource in rule["resources"]
    }  # fmt: skip
    assert rules == {"pods": ["create", "delete", "get", "list"], "pods/log": ["get"], "events": ["list"]}


@pytest.mark.parametrize("size", SIZES)
def test_sparks_driver_is_found_where_its_executors_look(size: str) -> None:
    data = of_kind(size, "ConfigMap")["rag-spark"]["data"]
    settings = dict(re.split(r"\s+", line, maxsplit=1) for line in data["spark.conf"].splitlines()
                    if line and not line.startswith("#"))  # fmt: skip
    service = of_kind(size, "Service")[settings["spark.driver.host"]]["spec"]
    ports = {port["name"]: str(port["port"]) for port in service["ports"]}
    assert ports == {
        "driver": settings["spark.driver.port"], "blocks": settings["spark.driver.blockManager.port"]
    }  # fmt: skip
    assert settings["spark.kubernetes.authenticate.executor.serviceAccountName"] in of_kind(size, "ServiceAccount")
    folder, _, name = settings["spark.kubernetes.executor.podTemplateFile"].rpartition("/")
    assert name in data
    assert folder in {mount["mountPath"] for mount in pods(size)["rag-spark"]["spec"]["containers"][0]["volumeMounts"]}
    assert problems(yaml.safe_load(data[name]) | {"metadata": {"name": "executor"}}, VERSIONS[-1]) == []
