"""What the state of an embedding pod means: it waits, works, is done, or failed, and of which class the failure is.

Pure: takes the pod and its events as the Kubernetes API gives them.
Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from rag_core.config_kubernetes import KubernetesConfig
from rag_core.embedding.pod import WORKER

Phase = Literal["waiting", "running", "succeeded", "failed"]

EXIT_PERMANENT: Final = 2
"""Exit code of the worker for what another try cannot help; all others may pass."""
OOM_KILLED: Final = "OOMKilled"

# Reasons of a waiting container that no waiting mends.
_HOPELESS: Final = frozenset({"InvalidImageName", "ErrImageNeverPull"})
# Those that something else may mend within `refused_s`: a registry, a secret that is just being made.
_REFUSED: Final[Mapping[str, str]] = {
    "ErrImagePull": "correct embedding.kubernetes.image, or image_pull_secrets",
    "ImagePullBackOff": "correct embedding.kubernetes.image, or image_pull_secrets",
    "RegistryUnavailable": "look at the registry",
    "CreateContainerConfigError": "create the secret or ConfigMap, or correct env_from_secrets",
    "CreateContainerError": "look at the pod's volumes and security context",
    "RunContainerError": "look whether the image has the worker's Python",
    "CrashLoopBackOff": "look at its log",
}
# Exit codes of a container that could not run its command at all.
_NOT_STARTED: Final = frozenset({126, 127, 128})
_MISSING_COMMAND: Final = frozenset({"StartError", "ContainerCannotRun"})
# Why a pod that runs is being deleted. Source: https://kubernetes.io/docs/concepts/workloads/pods/disruptions/
_DISRUPTIONS: Final[Mapping[str, str]] = {
    "PreemptionByScheduler": "it was preempted by a pod of higher priority",
    "DeletionByTaintManager": "its node is lost, or was tainted",
    "EvictionByEvictionAPI": "it was evicted through the API, as by a drain of its node",
    "DeletionByPodGC": "its node is gone",
    "TerminationByKubelet": "its node stopped it, for want of resources or to shut down",
}


@dataclass(frozen=True)
class PodState:
    """What is known of a pod.

    Attributes:
        phase: Whether there is anything to wait for.
        reason: One word, as Kubernetes has it where it has one.
        message: A sentence about it, without its log.
        permanent: Of a failure: whether another try cannot help.
        node: Where it is; empty while it has no node.
        container: Whose log tells more; empty where there is none.
        last_words: The end of the container's output as the pod's status keeps it.
    """

    phase: Phase
    reason: str = ""
    message: str = ""
    permanent: bool = False
    node: str = ""
    container: str = ""
    last_words: str = ""


def pod_state(  # noqa: PLR0911 - a table, in the order in which its lines count
    pod: Mapping[str, Any] | None,
    config: KubernetesConfig,
    *,
    waited_s: float = 0.0,
    events: Sequence[Mapping[str, Any]] = (),
) -> PodState:
    """Say how a pod is.

    Args:
        pod: As the API gives it; None if it is not there any more.
        config: How long is waited for what.
        waited_s: How long whoever asks has seen it waiting; times of the API's clock may be off.
        events: Of the pod, for the reason why it does not start.
    """
    if pod is None:
        return PodState("failed", "Deleted", "it was deleted by somebody else")
    status = pod.get("status", {})
    node = pod.get("spec", {}).get("nodeName", "")
    worker = _container(status.get("containerStatuses"), WORKER)
    ended = worker.get("state", {}).get("terminated")
    # The worker's own end counts, not that of the pod: a sidecar that was injected may stay.
    if (ended or {}).get("exitCode") == 0 or status.get("phase") == "Succeeded":
        return PodState("succeeded", node=node, container=WORKER)
    if ended is not None or status.get("phase") == "Failed":
        return _failed(status, ended, node, config)
    if pod["metadata"].get("deletionTimestamp") is not None:
        return PodState("failed", *_disruption(status), node=node, container=WORKER)
    if status.get("phase") == "Unknown":
        return PodState("failed", "NodeLost", "its node does not answer", node=node)
    if "running" in worker.get("state", {}):
        return PodState("running", node=node, container=WORKER)
    return _waiting(status, config, events, waited_s, node)


def _failed(
    status: Mapping[str, Any], ended: Mapping[str, Any] | None, node: str, config: KubernetesConfig
) -> PodState:
    container = WORKER
    if ended is None:
        before = [one for one in status.get("initContainerStatuses") or [] if _exit_code(one)]
        container, ended = (before[0]["name"], before[0]["state"]["terminated"]) if before else (WORKER, None)
    reason, why, permanent = _why(status, ended, container, config)
    words = (ended or {}).get("message", "")
    shown = container if ended is not None else ""
    return PodState("failed", reason, why, permanent=permanent, node=node, container=shown, last_words=words)


def _why(
    status: Mapping[str, Any], ended: Mapping[str, Any] | None, container: str, config: KubernetesConfig
) -> tuple[str, str, bool]:
    """Return reason, message and whether another try cannot help, of a pod that failed."""
    of_pod, said = status.get("reason", ""), status.get("message", "")
    if of_pod == "DeadlineExceeded":
        why = f"it ran longer than embedding.kubernetes.deadline_s, {config.deadline_s} s; the next try goes on"
        return of_pod, why, False
    if of_pod:  # Evicted, Preempting, NodeShutdown, NodeLost, UnexpectedAdmissionError, OutOfcpu ...
        return of_pod, said or "no message", False
    code, reason = int((ended or {}).get("exitCode", -1)), (ended or {}).get("reason") or "Error"
    if reason == OOM_KILLED:
        limit = config.limits.get("memory", "none")
        why = f"container {container} took more memory than its limit, {limit}; raise embedding.kubernetes.limits"
        return reason, why, False
    if ended is None or _disruption_of(status):
        return *_disruption(status), False
    if reason in _MISSING_COMMAND or code in _NOT_STARTED:
        why = f"container {container} could not run its command; does the image {config.image} have the worker?"
        return reason, why, True
    return reason, f"container {container} ended with exit code {code}", code == EXIT_PERMANENT


def _waiting(
    status: Mapping[str, Any],
    config: KubernetesConfig,
    events: Sequence[Mapping[str, Any]],
    waited_s: float,
    node: str,
) -> PodState:
    before = status.get("initContainerStatuses") or []
    if any("running" in one.get("state", {}) for one in before):
        return PodState("running", "Init", "it copies its model", node=node)
    for one in [*before, *(status.get("containerStatuses") or [])]:
        waiting = one.get("state", {}).get("waiting") or {}
        reason, said = waiting.get("reason", ""), waiting.get("message", "")
        if reason in _HOPELESS or (reason in _REFUSED and waited_s >= config.refused_s):
            advice = _REFUSED.get(reason, "correct embedding.kubernetes.image")
            return PodState("failed", reason, f"{said or one['image']}; {advice}", permanent=True, node=node)
        if reason in _REFUSED:
            return PodState("waiting", reason, said, node=node)
    unplaced: Mapping[str, Any] = next(
        (c for c in status.get("conditions") or [] if c["type"] == "PodScheduled" and c["status"] == "False"), {}
    )
    reason = unplaced.get("reason") or "Pending"
    said = unplaced.get("message") or _last_event(events) or "it has not started yet"
    if waited_s < config.pending_s:
        return PodState("waiting", reason, said, node=node)
    why = f"it did not start within embedding.kubernetes.pending_s, {config.pending_s:g} s: {said}"
    return PodState("failed", reason, why, node=node)


def _disruption_of(status: Mapping[str, Any]) -> Mapping[str, Any]:
    conditions = status.get("conditions") or []
    return next((c for c in conditions if c["type"] == "DisruptionTarget" and c["status"] == "True"), {})


def _disruption(status: Mapping[str, Any]) -> tuple[str, str]:
    """Return reason and message of a pod that is being deleted."""
    found = _disruption_of(status)
    reason = found.get("reason") or "Deleted"
    said = found.get("message", "")
    why = _DISRUPTIONS.get(reason, "it is being deleted by somebody else")
    return reason, f"{why}: {said}" if said else why


def _container(statuses: Sequence[Mapping[str, Any]] | None, name: str) -> Mapping[str, Any]:
    return next((one for one in statuses or [] if one["name"] == name), {})


def _exit_code(status: Mapping[str, Any]) -> int | None:
    code = (status.get("state", {}).get("terminated") or {}).get("exitCode")
    return None if code is None else int(code)


def _last_event(events: Sequence[Mapping[str, Any]]) -> str:
    warnings = [event for event in events if event.get("type") == "Warning"]
    return f"{warnings[-1].get('reason', '')}: {warnings[-1].get('message', '')}" if warnings else ""
