"""Embedding jobs as pods: each way to fail with what the operator sees, and that no work is lost or done twice.

Most pods run a small program in place of the worker, for it is about pods here; `test_embedding_pods_worker` has the
worker itself.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster._core.errors import DagsterExecutionInterruptedError  # what a cancelled run raises; not exported
from typer.testing import CliRunner

from rag_assets.cli.app import app
from rag_core.errors import ConfigError, PermanentError, TransientError
from resources.kubernetes_pods import ApiUnreachableError
from tests.integration.pod_helpers import TEXTS, Pods, embed, manifest_of, pods_world, put_vectors, user_id
from tests.kubernetes_api import ApiFault, PodFault

pytestmark = pytest.mark.k8s

SLEEP = ["sleep", "60"]


def shell(script: str) -> list[str]:
    return ["sh", "-c", script]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Pods]:
    with pods_world(tmp_path) as pods:
        yield pods


def run(world: Pods, *, command: list[str] | None = None, tries: int = 1, **kubernetes: Any) -> Any:
    """Run one job whose pods run `command`."""
    platform = world.configure(user_id=user_id(), **kubernetes)
    world.cluster.pod_faults.append(PodFault(command=command or SLEEP, times=tries))
    return embed(platform, manifest_of(platform), tries=tries)


def test_a_pod_that_no_node_takes(world: Pods) -> None:
    ran = run(world, gpus=9, pending_s=1)
    assert isinstance(ran.error, TransientError) and not isinstance(ran.error, PermanentError)
    assert "Unschedulable: it did not start within embedding.kubernetes.pending_s" in ran.said
    assert "0/1 nodes are available: 1 Insufficient nvidia.com/gpu." in ran.said
    assert "is waiting: Unschedulable 0/1 nodes" in ran.log  # while it waited
    assert world.pods() == []


def test_an_image_that_cannot_be_pulled(world: Pods) -> None:
    world.cluster.images = {"rag/worker:2"}
    ran = run(world, command=None)
    assert isinstance(ran.error, PermanentError)
    assert "ImagePull" in ran.said and "rag/worker:1" in ran.said and "correct embedding.kubernetes.image" in ran.said
    assert world.pods() == []


def test_an_image_name_that_is_none(world: Pods) -> None:
    ran = run(world, image="Rag Worker", refused_s=60)
    assert isinstance(ran.error, PermanentError) and "InvalidImageName" in ran.said


def test_a_secret_that_is_missing(world: Pods) -> None:
    ran = run(world, env_from_secrets=["rag-s3"])
    assert isinstance(ran.error, PermanentError)
    assert 'CreateContainerConfigError: secret "rag-s3" not found; create the secret' in ran.said


def test_a_secret_becomes_variables_of_the_worker(world: Pods) -> None:
    platform = world.configure(user_id=user_id(), env_from_secrets=["rag-s3"], refused_s=30)
    world.cluster.secrets["rag", "rag-s3"] = {"KEY": "v"}
    address = manifest_of(platform)
    put_vectors(address)
    world.cluster.pod_faults.append(PodFault(command=shell('test "$KEY" = v')))
    assert embed(platform, address).error is None


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("evict", "Evicted: The node was low on resource: memory."),
        ("disrupt", "PreemptionByScheduler: it was preempted by a pod of higher priority"),
        ("lose_node", "DeletionByTaintManager: its node is lost"),
        ("kill", "exit code 137"),
        ("delete", "Deleted: it is being deleted by somebody else"),
        ("remove", "Deleted: it was deleted by somebody else"),
    ],
)
def test_a_pod_that_is_lost_while_it_works(world: Pods, what: str, said: str) -> None:
    def act(pod: str) -> None:
        world.cluster.wait_for(lambda _: world.logged("embedding 1 of 12"))
        if what == "delete":
            world.cluster.delete("pods", "rag", pod)
        elif what == "remove":
            world.cluster.remove("pods", "rag", pod)
        else:
            getattr(world.api.kubelet, what)(pod)

    world.when_running(act)
    ran = run(world, command=shell("trap '' TERM; echo embedding 1 of 12; sleep 60"))
    assert isinstance(ran.error, TransientError) and not isinstance(ran.error, PermanentError)
    assert said in ran.said and "embedding pod rag/rag-embedding-" in ran.said and "on node node-1 failed" in ran.said
    assert "0 of 12 texts were committed" in ran.said
    if what in ("evict", "kill"):
        assert "Its last lines:\nembedding 1 of 12" in ran.said
    world.cluster.wait_for(lambda cluster: cluster.find("pods") == [] or what in ("delete", "disrupt"))


def test_out_of_memory_may_pass_once_but_not_without_any_progress(world: Pods) -> None:
    hog = ["python", "-c", "import time; x = bytearray(300 << 20); time.sleep(30)"]
    ran = run(world, command=hog, tries=3, limits={"memory": "100Mi"})
    assert isinstance(ran.error, PermanentError)
    assert "OOMKilled: container worker took more memory than its limit, 100Mi" in ran.said
    assert len(world.api.kubelet.started) == 2


def test_out_of_memory_after_some_progress_is_tried_on(world: Pods) -> None:
    platform = world.configure(user_id=user_id(), limits={"memory": "100Mi"})
    address = manifest_of(platform)
    put_vectors(address, TEXTS[:5])
    hog = ["python", "-c", "import time; x = bytearray(300 << 20); time.sleep(30)"]
    world.cluster.pod_faults.append(PodFault(command=hog, times=2))
    ran = embed(platform, address, tries=2)
    assert not isinstance(ran.error, PermanentError) and "5 of 12 texts were committed and are kept" in ran.said


def test_a_pod_that_takes_too_long(world: Pods) -> None:
    ran = run(world, deadline_s=1)
    assert not isinstance(ran.error, PermanentError)
    assert "DeadlineExceeded: it ran longer than embedding.kubernetes.deadline_s, 1 s" in ran.said


@pytest.mark.parametrize(("code", "kind"), [(2, PermanentError), (75, TransientError), (1, TransientError)])
def test_the_workers_exit_code_decides_on_the_class(world: Pods, code: int, kind: type) -> None:
    ran = run(world, command=shell(f"echo first; echo the model is another one >&2; exit {code}"))
    assert type(ran.error) is kind
    assert f"exit code {code}" in ran.said and ran.said.endswith("Its last lines:\nfirst\nthe model is another one")


def test_an_image_without_the_worker(world: Pods) -> None:
    ran = run(world, command=["no-such-program"])
    assert isinstance(ran.error, PermanentError) and "does the image rag/worker:1 have the worker?" in ran.said


def test_success_is_not_believed_where_vectors_are_missing(world: Pods) -> None:
    platform = world.configure(user_id=user_id())
    address = manifest_of(platform)
    put_vectors(address, TEXTS[:-1])
    world.cluster.pod_faults.append(PodFault(command=["true"]))
    ran = embed(platform, address)
    assert type(ran.error) is TransientError
    assert "reported success, but its work is not done: 1 of 12 items have no finite unit vector" in ran.said


def test_success_is_not_believed_where_vectors_are_of_another_model(world: Pods) -> None:
    platform = world.configure(user_id=user_id())
    address = manifest_of(platform)
    put_vectors(address, dim=8)
    world.cluster.pod_faults.append(PodFault(command=["true"]))
    assert "12 of 12 items have no finite unit vector of 384 dimensions" in embed(platform, address).said


@pytest.mark.parametrize("how", ["silent", "cut", "forbidden", "failed"])
def test_lost_messages_do_not_lose_a_finished_job(world: Pods, how: str) -> None:
    platform = world.configure(user_id=user_id())
    address = manifest_of(platform)
    put_vectors(address)
    script = {"silent": "true", "failed": "exit 1"}.get(how, "echo some; echo last")
    world.cluster.pod_faults.append(PodFault(command=shell(script), is_log_cut=how == "cut"))
    if how == "forbidden":
        world.cluster.denied.add(("get", "pods/log"))
    ran = embed(platform, address)
    assert ran.error is None and ran.report == {}
    assert ("failed after its work was done (Error: container worker ended with exit code 1)" in ran.log) == (
        how == "failed"
    )
    assert world.pods() == []


def test_an_api_that_stumbles_is_asked_again(world: Pods) -> None:
    faults = [ApiFault(path="/pods", how=503), ApiFault("GET", "/pods/", "drop", 2), ApiFault("GET", "/pods/", 429)]
    platform = world.configure(user_id=user_id())
    address = manifest_of(platform)
    put_vectors(address)
    world.cluster.api_faults += faults
    world.cluster.pod_faults.append(PodFault(command=["true"]))
    assert embed(platform, address).error is None
    assert len(world.api.kubelet.started) == 1 and [fault.times for fault in faults] == [0, 0, 0]


def test_a_lost_answer_starts_no_second_pod(world: Pods) -> None:
    platform = world.configure(user_id=user_id())
    address = manifest_of(platform)
    put_vectors(address)
    world.cluster.api_faults.append(ApiFault("POST", "/pods", "lost_answer"))
    world.cluster.pod_faults.append(PodFault(command=["true"], times=2))
    assert embed(platform, address).error is None
    assert world.asked("POST") == 2 and len(world.api.kubelet.started) == 1


def test_a_pod_that_was_lost_sight_of_is_taken_over(world: Pods) -> None:
    platform = world.configure(user_id=user_id(), unreachable_s=0.5)
    address = manifest_of(platform)
    done = world.root / "data" / "done"
    world.cluster.pod_faults.append(PodFault(command=shell(f"until test -e {done}; do sleep 0.05; done"), times=2))
    blind = ApiFault(path="/", how="drop", times=None)
    world.when_running(lambda _: world.cluster.api_faults.append(blind))
    ran = embed(platform, address)
    assert isinstance(ran.error, ApiUnreachableError)
    assert "did not answer for" in ran.said and "may be at work; another try takes it over" in ran.said
    assert len(world.pods()) == 1  # it works on
    world.cluster.api_faults.clear()
    world.when_looked_at(lambda: (put_vectors(address), done.touch()))
    ran = embed(platform, address)
    assert ran.error is None
    assert "is there already and works on these partitions: it is taken over" in ran.log
    assert len(world.api.kubelet.started) == 1 and world.pods() == []


def test_a_pod_that_was_taken_over_and_did_not_do_all_is_followed_by_another(world: Pods) -> None:
    platform = world.configure(user_id=user_id(), unreachable_s=0.3)
    address = manifest_of(platform)
    done = world.root / "data" / "done"
    commands = [shell(f"until test -e {done}; do sleep 0.05; done; exit 75"), ["true"]]
    world.cluster.pod_faults += [PodFault(command=command) for command in commands]
    world.when_running(lambda _: world.cluster.api_faults.append(ApiFault(path="/", how="drop", times=None)))
    assert isinstance(embed(platform, address).error, ApiUnreachableError)
    world.cluster.api_faults.clear()
    world.when_looked_at(lambda: (put_vectors(address, TEXTS[:3]), done.touch()))
    ran = embed(platform, address)
    assert "Another pod goes on." in ran.log and "9 of 12 items have no" in ran.said
    assert len(world.api.kubelet.started) == 2


@pytest.mark.parametrize(("verb", "resource"), [("create", "pods"), ("list", "pods"), ("get", "pods")])
def test_a_right_that_is_missing_is_named(world: Pods, verb: str, resource: str) -> None:
    world.cluster.denied.add((verb, resource))
    ran = run(world)
    assert isinstance(ran.error, PermanentError)
    assert f"this run may not {verb} {resource} in namespace rag" in ran.said and "docs/gpu-jobs.md" in ran.said


def test_credentials_that_are_not_accepted(world: Pods) -> None:
    platform = world.configure(user_id=user_id(), unreachable_s=0.3)
    kubeconfig = world.root / "kubeconfig"
    kubeconfig.write_text(kubeconfig.read_text().replace("stand-in-token", "stale"))
    ran = embed(platform, manifest_of(platform))
    assert isinstance(ran.error, PermanentError) and "does not accept our credentials: Unauthorized" in ran.said


def test_a_pod_that_the_api_refuses(world: Pods) -> None:
    ran = run(world, patch={"spec": {"dnsPolicy": 7}})
    assert isinstance(ran.error, PermanentError)
    assert "the Kubernetes API refuses to create pods" in ran.said and "spec.dnsPolicy" in ran.said


def test_a_quota_that_is_used_up_may_pass(world: Pods) -> None:
    why = 'pods "rag-embedding-x" is forbidden: exceeded quota: gpus, requested: 1, used: 4, limited: 4'
    world.cluster.api_faults.append(ApiFault("POST", "/pods", 403, message=why))
    ran = run(world)
    assert type(ran.error) is TransientError and "exceeded quota: gpus" in ran.said


def test_the_pod_is_printed_and_the_api_asked_without_making_one(world: Pods, monkeypatch: pytest.MonkeyPatch) -> None:
    platform = world.configure(user_id=user_id())
    monkeypatch.setenv("RAG_CONFIG", platform.config_path)
    done = CliRunner().invoke(app, ["embedding-pod", "docs__00", "docs__01", "--ask-server"])
    assert done.exit_code == 0, done.output
    assert yaml.safe_load(done.stdout)["metadata"]["labels"]["rag-assets/partition"] == "docs__00-and-1-more"
    assert "would take it in namespace rag" in done.stderr and world.pods() == []
    wrong = CliRunner().invoke(app, ["embedding-pod", "nothing__00"])
    assert isinstance(wrong.exception, ConfigError)


def test_a_cancelled_run_deletes_its_pod(world: Pods) -> None:
    world.when_running(lambda _: os.kill(os.getpid(), signal.SIGINT))
    ran = run(world)
    assert isinstance(ran.error, DagsterExecutionInterruptedError)
    world.cluster.wait_for(lambda cluster: cluster.find("pods") == [], 40)


def test_a_failed_pod_is_kept_for_a_look_at_it(world: Pods) -> None:
    run(world, command=shell("exit 1"), keep_failed_s=600)
    assert [pod["status"]["phase"] for pod in world.pods()] == ["Failed"]
    ran = run(world, command=shell("exit 2"))  # the kept one is not taken for one at work
    assert "exit code 2" in ran.said and len(world.pods()) == 1


def test_pods_that_ended_long_ago_are_removed(world: Pods) -> None:
    run(world, command=shell("exit 1"), keep_failed_s=0.001)
    [old] = world.pods()
    made = "2020-01-01T00:00:00Z"

    def age(body: dict[str, Any]) -> None:
        for status in body["status"]["containerStatuses"]:
            status["state"]["terminated"]["finishedAt"] = made

    world.cluster.update("pods", "rag", old["metadata"]["name"], age)
    run(world, command=shell("exit 1"))
    assert world.pods() == []
