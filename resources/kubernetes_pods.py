"""A small client of the Kubernetes API: pods, their logs and events. Retries what passes, and gives errors a class."""

import json
import os
import random
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

import kubernetes
import urllib3
from dagster_k8s.utils import detect_current_namespace

from rag_core.config_kubernetes import KubernetesConfig
from rag_core.errors import ConfigError, PermanentError, RagError, TransientError

T = TypeVar("T")

_TIMEOUT_S: Final = (5.0, 30.0)  # to connect, and between two pieces of an answer
_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 10.0
_UNAUTHORIZED_S: Final = 10.0  # a token that is just being renewed is refused as well
_UNAUTHORIZED: Final = 401
_FORBIDDEN: Final = 403
_NOT_FOUND: Final = 404
_CONFLICT: Final = 409
_PASSING: Final = frozenset({408, 429, 500, 502, 503, 504})


class ApiUnreachableError(TransientError):
    """The API does not answer; what runs in the cluster goes on without being watched."""


class PodApi:
    """Pods of one namespace, as dictionaries in the API's own spelling."""

    def __init__(self, config: KubernetesConfig) -> None:
        self.config = config
        client = _client(config)
        self.host = str(client.configuration.host)
        self.core = kubernetes.client.CoreV1Api(client)
        self.namespace = config.namespace or _namespace(config)

    def create(self, pod: dict[str, Any], *, dry_run: bool = False) -> None:
        """Create a pod; one that is there already, under this name that nobody else has, is a request that got through.

        Raises:
            PermanentError: The API refuses the pod, or lets us make none.
            TransientError: The namespace's quota is used up; or as `read`.
        """
        ask = {"dry_run": "All"} if dry_run else {}
        made = self._ask("create", "pods", lambda: self._call(self.core.create_namespaced_pod, body=pod, **ask))
        if made is None:
            raise PermanentError(f"there is no namespace {self.namespace} at {self.host}; create it")

    def read(self, name: str) -> dict[str, Any] | None:
        """Return a pod; None if there is none.

        Raises:
            PermanentError: We may not; the message names the right that is missing.
            ApiUnreachableError: No answer for `unreachable_s`.
        """
        return self._ask("get", "pods", lambda: self._call(self.core.read_namespaced_pod, name))

    def find(self, labels: dict[str, str]) -> list[dict[str, Any]]:
        """List the pods that have all these labels; errors as `read`."""
        selector = ",".join(f"{name}={value}" for name, value in labels.items())
        found = self._ask("list", "pods", lambda: self._call(self.core.list_namespaced_pod, label_selector=selector))
        return list((found or {}).get("items", []))

    def events(self, name: str) -> list[dict[str, Any]]:
        """List what the cluster says of a pod; nothing where we may not read it."""
        selector = f"involvedObject.name={name}"
        try:
            found = self._ask(
                "list", "events", lambda: self._call(self.core.list_namespaced_event, field_selector=selector), 0.0
            )
        except (PermanentError, TransientError):
            return []
        return list((found or {}).get("items", []))

    def last_lines(self, name: str, container: str, count: int) -> list[str]:
        """Return the end of a container's log; empty where it cannot be had."""
        try:
            response = self.core.read_namespaced_pod_log(
                name, self.namespace, container=container, tail_lines=count, _preload_content=False,
                _request_timeout=_TIMEOUT_S,
            )  # fmt: skip
            return [str(line) for line in response.data.decode(errors="replace").splitlines()]
        except (kubernetes.client.ApiException, urllib3.exceptions.HTTPError, OSError):
            return []

    def delete(self, name: str, *, grace_s: int | None = None, patience_s: float | None = None) -> None:
        """Delete a pod; one that is gone is fine. Errors as `read`."""
        ask = {} if grace_s is None else {"grace_period_seconds": grace_s}
        self._ask("delete", "pods", lambda: self._call(self.core.delete_namespaced_pod, name, **ask), patience_s)

    def _call(self, method: Callable[..., Any], *arguments: Any, **options: Any) -> dict[str, Any]:
        response = method(
            *arguments, namespace=self.namespace, _preload_content=False, _request_timeout=_TIMEOUT_S, **options
        )
        result: dict[str, Any] = json.loads(response.data)
        return result

    def _ask(self, verb: str, resource: str, call: Callable[[], T], patience_s: float | None = None) -> T | None:
        """Do a request, again while it fails in a way that passes; None if what it is about does not exist."""
        patience_s = self.config.unreachable_s if patience_s is None else patience_s
        began, pause_s = time.monotonic(), _FIRST_PAUSE_S
        while True:
            try:
                return call()
            except kubernetes.client.ApiException as error:
                if error.status == _NOT_FOUND:
                    return None
                if error.status == _CONFLICT and verb == "create":
                    return {}  # type: ignore[return-value]  # our own request of before, whose answer was lost
                is_last = time.monotonic() - began + pause_s > min(patience_s, _UNAUTHORIZED_S)
                refused = self._refused(error, f"{verb} {resource}", is_last=is_last)
                if refused is not None:
                    raise refused from error
                said = _message(error)
                trouble: Exception = error
            except (urllib3.exceptions.HTTPError, OSError) as error:
                said = f"{type(error).__name__}: {error}"
                trouble = error
            if time.monotonic() - began + pause_s > patience_s:
                raise ApiUnreachableError(
                    f"the Kubernetes API at {self.host} did not answer for {time.monotonic() - began:.0f} s: {said}"
                ) from trouble
            time.sleep(pause_s * random.uniform(0.7, 1.3))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _refused(self, error: Any, what: str, *, is_last: bool) -> RagError | None:
        """Return what a refusal means; None for one that may pass, as a token does that is not renewed yet."""
        said = _message(error)
        if error.status == _FORBIDDEN and "exceeded quota" in said:
            return TransientError(f"{said}; wait for other pods, or raise the namespace's quota")
        if error.status == _FORBIDDEN:
            return PermanentError(
                f"this run may not {what} in namespace {self.namespace}: {said}; allow it in the Role of its service "
                "account (docs/gpu-jobs.md lists what it needs)"
            )
        if error.status == _UNAUTHORIZED:
            if not is_last:
                return None
            return PermanentError(
                f"the Kubernetes API at {self.host} does not accept our credentials: {said}; renew the token or "
                "kubeconfig (embedding.kubernetes.kubeconfig)"
            )
        if error.status in _PASSING:
            return None
        return PermanentError(f"the Kubernetes API refuses to {what}: {said}")


def _client(config: KubernetesConfig) -> kubernetes.client.ApiClient:
    # A configuration of its own: the library's default one is shared with whoever else talks to Kubernetes here.
    settings = kubernetes.client.Configuration()
    settings.retries = False  # ours know what may be repeated
    try:
        if config.kubeconfig is None and config.context is None and _in_cluster():
            kubernetes.config.load_incluster_config(client_configuration=settings)
        else:
            kubernetes.config.load_kube_config(config.kubeconfig, config.context, client_configuration=settings)
    except kubernetes.config.ConfigException as error:
        raise ConfigError(
            f"embedding.kubernetes: no way to the API: {error}; run in a cluster, or name a kubeconfig"
        ) from error
    return kubernetes.client.ApiClient(settings)


def _in_cluster() -> bool:
    return "KUBERNETES_SERVICE_HOST" in os.environ  # set in every container by its node


def _namespace(config: KubernetesConfig) -> str:
    if config.kubeconfig is None and config.context is None and (found := detect_current_namespace(None)):
        return found
    try:
        contexts, current = kubernetes.config.list_kube_config_contexts(config.kubeconfig)
    except kubernetes.config.ConfigException:
        return "default"
    chosen = next((one for one in contexts if one["name"] == config.context), current)
    return str(chosen["context"].get("namespace") or "default")


def _message(error: kubernetes.client.ApiException) -> str:
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return f"status {error.status} {error.reason}"
