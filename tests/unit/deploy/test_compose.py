"""The compose stack is valid, hangs together, and its configuration is one that the project takes."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from rag_core.config_loader import load_config
from tests.unit.deploy.files import DEPLOY, read, run

COMPOSE = DEPLOY / "compose"
STACK: dict[str, Any] = read(COMPOSE / "compose.yaml")
SERVICES: dict[str, Any] = STACK["services"]
TEXT = (COMPOSE / "compose.yaml").read_text(encoding="utf-8")


@pytest.mark.slow
def test_it_is_what_the_compose_specification_asks_for() -> None:
    done = run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", "deploy/compose/compose.yaml")
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_all_yaml_of_deploy_passes_its_lint() -> None:
    done = run("yamllint", "--strict", "-c", "deploy/.yamllint.yaml", "deploy")
    assert done.returncode == 0, done.stdout


def test_what_is_waited_for_says_when_it_is_ready() -> None:
    for name, service in SERVICES.items():
        for needed, how in service.get("depends_on", {}).items():
            assert needed in SERVICES, (name, needed)
            if how["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[needed], (name, needed)


def test_every_variable_is_in_the_example_and_none_has_a_default() -> None:
    used = set(re.findall(r"(?<!\$)\$\{(\w+)", TEXT))
    example = (COMPOSE / "env.example").read_text(encoding="utf-8")
    assert used == set(re.findall(r"^(\w+)=", example, re.MULTILINE))
    assert re.findall(r"(?<!\$)\$\{\w+\}", TEXT) == []  # one that is not set is an error, not an empty password
    secrets = [line.partition("=") for line in example.splitlines() if line and not line.startswith("#")]
    assert {name for name, _, value in secrets if value} == {"STORE_USER"}


def test_files_that_are_mounted_are_there() -> None:
    mounted = [config["file"] for config in STACK["configs"].values()]
    mounted += [
        volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", ())
        if volume.startswith(".")
    ]  # fmt: skip
    assert len(mounted) >= 8
    for name in mounted:
        assert (COMPOSE / name).exists(), name
    declared = set(STACK["volumes"]) | {name.split(":")[0] for name in mounted}
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            assert volume.split(":")[0] in declared, volume


def test_only_loopback_is_listened_on() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert len(ports) == 5
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_milvus_is_a_cluster_of_2_6() -> None:
    """2.6 has these roles and no others: coordinators and index nodes of their own are refused by the program."""
    milvus = {name: service for name, service in SERVICES.items() if name.startswith("milvus-")}
    assert {name: service["command"] for name, service in milvus.items()} == {
        f"milvus-{role}": ["milvus", "run", role]
        for role in ("mixcoord", "streamingnode", "datanode", "querynode", "proxy")
    }
    assert len({service["image"] for service in milvus.values()}) == 1
    assert all(service["image"].startswith("milvusdb/milvus:v2.6.") for service in milvus.values())
    environment = SERVICES["milvus-proxy"]["environment"]
    assert environment["ETCD_ENDPOINTS"].split(":")[0] in SERVICES
    assert environment["MINIO_ADDRESS"].split(":")[0] in SERVICES
    assert environment["MQ_TYPE"] == "woodpecker"
    buckets = " ".join(SERVICES["buckets"]["command"])
    assert f"here/{environment['MINIO_BUCKET_NAME']} " in buckets


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAG_INDEX__TOKEN", "RAG_SERVING__CACHE__REDIS_URL"):
        monkeypatch.setenv(name, str(SERVICES["serving"]["environment"][name]))


@pytest.mark.usefixtures("environment")
def test_its_configuration_names_its_services() -> None:
    config = load_config(COMPOSE / "rag.yaml").config
    secret = config.serving.cache.redis_url
    assert secret is not None
    addresses = [
        config.store.s3.endpoint_url, config.sources[0].model_dump()["endpoint_url"], config.spark.remote,
        config.index.uri, secret.get_secret_value(), config.serving.observability.otlp_endpoint,
        SERVICES["serving"]["environment"]["DAGSTER_POSTGRES_URL"],
    ]  # fmt: skip
    hosts = {urlsplit(re.sub(r"\$\{[^}]*\}", "x", str(address))).hostname for address in addresses}
    assert hosts == {"minio", "spark", "milvus-proxy", "redis", "otel-collector", "postgres"}
    assert hosts <= SERVICES.keys()
    buckets = " ".join(SERVICES["buckets"]["command"])
    for bucket in (urlsplit(config.store.root).netloc, config.sources[0].model_dump()["bucket"]):
        assert f"here/{bucket} " in buckets


def test_who_is_scraped_and_loaded_is_a_service() -> None:
    prometheus = read(DEPLOY / "monitoring" / "prometheus.yml")
    targets = {
        target.split(":")[0] for job in prometheus["scrape_configs"] for each in job["static_configs"]
        for target in each["targets"]
    }  # fmt: skip
    assert targets - {"localhost"} <= SERVICES.keys()
    assert {name for name in SERVICES if name.startswith("milvus-")} <= targets
    (location,) = read(COMPOSE / "workspace.yaml")["load_from"]
    server = SERVICES[location["grpc_server"]["host"]]
    assert str(location["grpc_server"]["port"]) in server["command"]


@pytest.mark.parametrize("name", ["dagster-code", "dagster-webserver", "dagster-daemon", "serving", "exporter"])
def test_what_works_on_the_store_is_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    target = service["build"]["target"]
    dockerfile = Path(COMPOSE, service["build"]["context"], service["build"]["dockerfile"]).read_text(encoding="utf-8")
    assert f" AS {target}\n" in dockerfile
