"""What each state of a pod means, on statuses as the API gives them."""

from typing import Any

import pytest

from rag_core.config_kubernetes import KubernetesConfig
from rag_core.embedding.pod_status import pod_state

CONFIG = KubernetesConfig(image="r/w:1", pending_s=600, refused_s=60)


def pod(status: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    named = {"name": "p", "creationTimestamp": "2026-03-01T12:00:00Z", **metadata}
    return {"metadata": named, "spec": {"nodeName": "node-7"}, "status": status}


def worker(**state: Any) -> list[dict[str, Any]]:
    return [{"name": "sidecar", "state": {"running": {}}}, {"name": "worker", "image": "r/w:1", "state": state}]


def waiting(reason: str, message: str = "m") -> dict[str, Any]:
    return {"phase": "Pending", "containerStatuses": worker(waiting={"reason": reason, "message": message})}


def ended(code: int, reason: str = "Error", **more: Any) -> dict[str, Any]:
    state = {"exitCode": code, "reason": reason, "message": "last words"}
    return {"phase": "Failed", "containerStatuses": worker(terminated=state), **more}


def disrupted(reason: str) -> dict[str, Any]:
    condition = {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": "why"}
    return {"phase": "Running", "containerStatuses": worker(running={}), "conditions": [condition]}


UNPLACED = {
    "phase": "Pending",
    "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"}
    ],
}


@pytest.mark.parametrize(
    ("status", "after_s", "phase", "reason", "permanent", "said"),
    [
        ({"phase": "Pending"}, 1, "waiting", "Pending", False, "not started"),
        (UNPLACED, 1, "waiting", "Unschedulable", False, "0/3 nodes"),
        (UNPLACED, 601, "failed", "Unschedulable", False, "pending_s, 600 s: 0/3 nodes are available"),
        (waiting("ContainerCreating"), 1, "waiting", "Pending", False, ""),
        (waiting("ImagePullBackOff", "not found"), 1, "waiting", "ImagePullBackOff", False, "not found"),
        (waiting("ImagePullBackOff", "not found"), 61, "failed", "ImagePullBackOff", True, "kubernetes.image"),
        (waiting("InvalidImageName"), 1, "failed", "InvalidImageName", True, "correct"),
        (waiting("CreateContainerConfigError", 'secret "s"'), 1, "waiting", "CreateContainerConfigError", False, ""),
        (waiting("CreateContainerConfigError", 'secret "s"'), 99, "failed", "CreateContainerConfigError", True, ""),
        ({"phase": "Running", "containerStatuses": worker(running={})}, 9999, "running", "", False, ""),
        ({"phase": "Running", "containerStatuses": worker(terminated={"exitCode": 0})}, 1, "succeeded", "", False, ""),
        (ended(2), 1, "failed", "Error", True, "exit code 2"),
        (ended(75), 1, "failed", "Error", False, "exit code 75"),
        (ended(137), 1, "failed", "Error", False, "exit code 137"),
        (ended(137, "OOMKilled"), 1, "failed", "OOMKilled", False, "limit, 8Gi"),
        (ended(128, "StartError"), 1, "failed", "StartError", True, "r/w:1"),
        (ended(127), 1, "failed", "Error", True, "have the worker"),
        (ended(137, reason="Evicted", phase="Failed") | {"reason": "Evicted", "message": "low on memory"},
         1, "failed", "Evicted", False, "low on memory"),
        ({"phase": "Failed", "reason": "DeadlineExceeded"}, 1, "failed", "DeadlineExceeded", False, "21600"),
        ({"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": "no device"},
         1, "failed", "UnexpectedAdmissionError", False, "no device"),
        ({"phase": "Unknown"}, 1, "failed", "NodeLost", False, "does not answer"),
        (ended(143) | {"conditions": disrupted("PreemptionByScheduler")["conditions"]},
         1, "failed", "PreemptionByScheduler", False, "higher priority: why"),
    ],
)  # fmt: skip
def test_states(status: dict[str, Any], after_s: int, phase: str, reason: str, permanent: bool, said: str) -> None:
    state = pod_state(pod(status), CONFIG, waited_s=after_s)
    assert (state.phase, state.reason or reason, state.permanent) == (phase, reason, permanent)
    assert said in state.message


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("DeletionByTaintManager", "node is lost"),
        ("EvictionByEvictionAPI", "drain"),
        ("PreemptionByScheduler", "priority"),
        ("SomethingNew", "somebody else: why"),
    ],
)
def test_a_pod_that_is_being_deleted_has_failed(reason: str, said: str) -> None:
    state = pod_state(pod(disrupted(reason), deletionTimestamp="2026-03-01T12:05:00Z"), CONFIG)
    assert (state.phase, state.reason, state.permanent, state.node) == ("failed", reason, False, "node-7")
    assert said in state.message


def test_a_pod_that_is_gone_was_deleted() -> None:
    assert (pod_state(None, CONFIG).reason, pod_state(None, CONFIG).permanent) == ("Deleted", False)


def test_work_that_was_done_before_the_deletion_counts() -> None:
    status = {"phase": "Running", "containerStatuses": worker(terminated={"exitCode": 0})}
    assert pod_state(pod(status, deletionTimestamp="2026-03-01T12:05:00Z"), CONFIG).phase == "succeeded"


def test_a_failed_step_before_the_worker_is_named_with_its_class() -> None:
    before = {"name": "model", "state": {"terminated": {"exitCode": 2, "reason": "Error", "message": "fingerprint"}}}
    status = {
        "phase": "Failed",
        "initContainerStatuses": [before],
        "containerStatuses": worker(waiting={"reason": "x"}),
    }
    state = pod_state(pod(status), CONFIG)
    assert (state.phase, state.permanent, state.container, state.last_words) == ("failed", True, "model", "fingerprint")


def test_copying_a_model_is_not_waiting_for_a_node() -> None:
    copying = {"phase": "Pending", "initContainerStatuses": [{"name": "model", "state": {"running": {}}}]}
    assert pod_state(pod(copying), CONFIG, waited_s=7200).phase == "running"


def test_events_say_why_a_pod_does_not_start() -> None:
    events = [{"type": "Normal", "message": "pulled"}, {"type": "Warning", "reason": "FailedMount", "message": "pvc"}]
    assert pod_state(pod({"phase": "Pending"}), CONFIG, events=events).message == "FailedMount: pvc"
