"""Jobs of the embedding launcher on the Kubernetes stand-in, in a Dagster run, and what an operator sees of them."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import yaml

from rag_assets.materialize import failures_by_class
from rag_core import ids
from rag_core.embedding.cache import VectorCache
from rag_core.embedding.launch import worker_config
from rag_core.embedding.manifest import ITEMS, read_manifest, write_manifest
from rag_core.embedding.model import resolve_model
from resources.embedding import EmbeddingLauncherResource
from resources.platform import PlatformResource
from tests.kubernetes_api import Cluster, KubernetesApi, kubernetes_api, write_kubeconfig
from tests.kubernetes_sandbox import has_sandbox

TEXTS = [f"text number {n} about wings and lift" for n in range(12)]
NAMESPACE = "rag"
KEYS = ("docs__00",)


@dataclass
class Ran:
    """How a run with one embedding job ended."""

    report: dict[str, Any] | None = None
    error: BaseException | None = None
    progress: list[tuple[Any, ...]] = field(default_factory=list)
    log: str = ""

    @property
    def said(self) -> str:
        """What the operator is told of the failure."""
        return f"{type(self.error).__name__}: {self.error}"


@dataclass
class Pods:
    """A cluster, and a platform in a folder whose embedding jobs go there."""

    api: KubernetesApi
    root: Path

    @property
    def cluster(self) -> Cluster:
        return self.api.cluster

    def configure(
        self, *, embedding: dict[str, Any] | None = None, source: Path | None = None, **kubernetes: Any
    ) -> PlatformResource:
        """Write rag.yaml. Pods have no GPU and may not wait long."""
        data = self.root / "data"
        for folder in (self.root, data):
            folder.mkdir(exist_ok=True)
            folder.chmod(0o777)  # a pod's user is not ours
        settings = {
            "image": "rag/worker:1",
            "kubeconfig": str(write_kubeconfig(self.root / "kubeconfig", self.api.url, NAMESPACE)),
            "gpus": 0, "requests": {}, "limits": {}, "poll_s": 0.05, "unreachable_s": 5, "refused_s": 0.4,
            "store_volume": {"host_path": str(data)}, "patch": {"spec": {"terminationGracePeriodSeconds": 1}},
            **kubernetes,
        }  # fmt: skip
        content = {
            "store": {"root": str(data)},
            "sources": [{"name": "docs", "kind": "files", "root": str(source or self.root)}],
            "embedding": {"device": "cpu", "precision": "fp32", **(embedding or {}), "kubernetes": settings},
        }
        path = self.root / "rag.yaml"
        path.write_text(yaml.safe_dump(content))
        return PlatformResource(config_path=str(path))

    def pods(self) -> list[dict[str, Any]]:
        """What is left in the namespace."""
        return self.cluster.find("pods", NAMESPACE)

    def asked(self, method: str) -> int:
        """How many requests of a method there were to the collection of pods."""
        return len([1 for how, path in self.api.requests if how == method and path.endswith("/pods")])

    def when_running(self, act: Callable[[str], None]) -> None:
        """Do something to the next pod as soon as its container runs, beside the test."""

        def wait() -> None:
            def running(cluster: Cluster) -> str | None:
                found = [pod for pod in cluster.find("pods") if pod.get("status", {}).get("phase") == "Running"]
                return found[0]["metadata"]["name"] if found else None

            act(self.cluster.wait_for(running, 300.0))

        threading.Thread(target=wait, daemon=True).start()

    def when_looked_at(self, act: Callable[[], Any]) -> None:
        """Do something as soon as somebody watches a pod from now on, beside the test."""
        before = len(self.api.requests)

        def wait() -> None:
            self.cluster.wait_for(
                lambda _: [path for how, path in self.api.requests[before:] if how == "GET" and "/pods/rag-" in path]
            )
            act()

        threading.Thread(target=wait, daemon=True).start()

    def logged(self, line: str) -> bool:
        """Whether a container has written a line."""
        return any(line == found for log in self.api.kubelet.logs.values() for _, _, found in log.lines)


@contextmanager
def pods_world(root: Path) -> Iterator[Pods]:
    """Run the API, with files that a pod's user may write to."""
    mask = os.umask(0)
    try:
        with kubernetes_api() as api:
            yield Pods(api, root)
    finally:
        os.umask(mask)


def user_id() -> int:
    """Return who pods run as: somebody else than the tests, where that can be."""
    return 10_001 if has_sandbox() else max(1, os.getuid())


def manifest_of(platform: PlatformResource, texts: list[str] = TEXTS, run_id: str = "run") -> str:
    """Write a manifest as the stage does."""
    config = worker_config(platform.config.embedding)
    columns = [[ids.text_hash(text) for text in texts], texts, [len(text.split()) for text in texts]]
    batch = pa.record_batch([pa.array(c, f.type) for c, f in zip(columns, ITEMS, strict=True)], schema=ITEMS)
    address = write_manifest(platform.store, config, resolve_model(config), [batch], run_id)
    assert address is not None
    return address


def put_vectors(address: str, texts: list[str] = TEXTS, dim: int = 384) -> None:
    """Do a worker's work without its model."""
    manifest = read_manifest(address)
    vectors = np.random.default_rng(0).normal(size=(len(texts), dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    VectorCache(manifest.store).append(manifest.model_fingerprint, [ids.text_hash(text) for text in texts], vectors)


def embed(platform: PlatformResource, address: str, *, tries: int = 1) -> Ran:
    """Run one embedding job inside a Dagster run, which tries it again as a stage would."""
    ran = Ran()
    launcher = EmbeddingLauncherResource(platform=platform)

    @dg.op(retry_policy=dg.RetryPolicy(max_retries=tries - 1))
    def embed_texts(context: dg.OpExecutionContext) -> None:
        try:
            with failures_by_class():
                ran.report = launcher.run(context, address, lambda *told: ran.progress.append(told), KEYS)
            ran.error = None
        except BaseException as error:
            ran.error = error.__cause__ if isinstance(error, dg.Failure) else error
            raise

    @dg.job(executor_def=dg.in_process_executor)
    def build_partitions() -> None:
        embed_texts()

    with dg.DagsterInstance.ephemeral() as instance:
        result = build_partitions.execute_in_process(instance=instance, raise_on_error=False)
        events = instance.all_logs(result.run_id)
    ran.log = "\n".join(event.user_message for event in events)
    return ran
