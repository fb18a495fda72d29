"""What the Kubernetes stand-in knows: objects by kind, nodes, secrets, rights, and the failures that a test plays."""

import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import kubernetes_validate

Object = dict[str, Any]
GPU = "nvidia.com/gpu"

_SCHEMA_VERSION = "1.31"


class ApiError(Exception):
    """An answer that is an error, as the API server words it."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason = code, reason

    def body(self) -> Object:
        """Return the `Status` object of the answer."""
        status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        return {**status, "message": str(self), "reason": self.reason, "code": self.code}


@dataclass
class Node:
    """A node: what pods select it by, and how much of what is counted whole it has."""

    name: str = "node-1"
    labels: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, int] = field(default_factory=lambda: {GPU: 2})


@dataclass
class ApiFault:
    """Spoils requests: `drop` closes the connection unanswered, `lost_answer` does so after the request was done."""

    method: str = "*"
    path: str = ""  # a part of it
    how: Literal["drop", "lost_answer"] | int = 503
    times: int | None = 1
    message: str = "the server is currently unable to handle the request"


@dataclass
class PodFault:
    """What befalls pods that are made from now on.

    Attributes:
        command: Run instead of the containers' own, such as a program that reports success and did nothing.
        waiting: Reason with which the container never starts, such as ErrImagePull.
        message: Its message.
        is_log_cut: Whether the log ends before the last line, and cannot be read twice.
        times: For how many pods.
    """

    command: list[str] | None = None
    waiting: str = ""
    message: str = ""
    is_log_cut: bool = False
    times: int = 1


class Cluster:
    """The state; safe to use from several threads. Objects that it gives are copies."""

    def __init__(self, nodes: Iterable[Node] = (Node(),), image_env: Mapping[str, str] | None = None) -> None:
        self.lock = threading.RLock()
        self.nodes = list(nodes)
        self.image_env = dict(image_env or {})
        self.images: set[str] | None = None  # None: every image can be pulled
        self.secrets: dict[tuple[str, str], dict[str, str]] = {}
        self.config_maps: dict[tuple[str, str], dict[str, str]] = {}
        self.denied: set[tuple[str, str]] = set()  # (verb, resource), such as ("create", "pods")
        self.api_faults: list[ApiFault] = []
        self.pod_faults: list[PodFault] = []
        self.on_created: dict[str, Callable[[Object], None]] = {}
        self.on_deleting: dict[str, Callable[[Object, float], None]] = {}
        self._objects: dict[tuple[str, str, str], Object] = {}
        self._version = 0

    def create(self, resource: str, namespace: str, body: Object, *, dry_run: bool = False) -> Object:
        """Store a new object, after checking it against the published schema; `dry_run` checks only."""
        body = deepcopy(body)
        kind = {"pods": ("v1", "Pod"), "jobs": ("batch/v1", "Job"), "events": ("v1", "Event")}[resource]
        body = {"apiVersion": kind[0], "kind": kind[1], **body}
        try:
            kubernetes_validate.validate(body, _SCHEMA_VERSION, strict=True)
        except kubernetes_validate.ValidationError as error:
            place = ".".join(str(part) for part in error.path)
            raise ApiError(422, "Invalid", f'{kind[1]} "{_name(body)}" is invalid: {place}: {error.message}') from error
        metadata = body.setdefault("metadata", {})
        with self.lock:
            if "name" not in metadata:
                metadata["name"] = f"{metadata.get('generateName', '')}{uuid.uuid4().hex[:5]}"
            key = (resource, namespace, metadata["name"])
            if key in self._objects:
                raise ApiError(409, "AlreadyExists", f'{resource} "{metadata["name"]}" already exists')
            if dry_run:
                return body
            metadata |= {"namespace": namespace, "uid": str(uuid.uuid4()), "creationTimestamp": now()}
            self._objects[key] = body
            self._touch(body)
            if resource in self.on_created:
                self.on_created[resource](deepcopy(body))
            return deepcopy(body)

    def get(self, resource: str, namespace: str, name: str) -> Object:
        """Return an object; ApiError 404 without."""
        with self.lock:
            return deepcopy(self._get(resource, namespace, name))

    def find(self, resource: str, namespace: str | None = None, labels: str = "", fields: str = "") -> list[Object]:
        """List objects by selectors, as the API takes them."""
        with self.lock:
            found = [
                body for (kind, where, _), body in self._objects.items()
                if kind == resource and namespace in (None, where)
                and _matches(body["metadata"].get("labels") or {}, labels)
                and _matches({name: _field(body, name) for name in _names(fields)}, fields)
            ]  # fmt: skip
            return deepcopy(found)

    def update(self, resource: str, namespace: str, name: str, change: Callable[[Object], None]) -> Object | None:
        """Change an object in place; None if it is gone by now."""
        with self.lock:
            body = self._objects.get((resource, namespace, name))
            if body is None:
                return None
            change(body)
            self._touch(body)
            return deepcopy(body)

    def delete(self, resource: str, namespace: str, name: str, grace_s: float | None = None) -> Object:
        """Begin to delete an object, as a client asks; one that runs is told so and gone when it has ended."""
        with self.lock:
            body = self._get(resource, namespace, name)
            body["metadata"].setdefault("deletionTimestamp", now())
            self._touch(body)
            if resource in self.on_deleting:
                spec = body.get("spec", {})
                default = spec.get("terminationGracePeriodSeconds", 30)
                self.on_deleting[resource](deepcopy(body), default if grace_s is None else grace_s)
            else:
                self.remove(resource, namespace, name)
            return deepcopy(body)

    def remove(self, resource: str, namespace: str, name: str) -> None:
        """Take an object away at once."""
        with self.lock:
            self._objects.pop((resource, namespace, name), None)

    def event(self, about: Object, kind: str, reason: str, message: str) -> None:
        """Record an event about an object."""
        metadata = about["metadata"]
        name = f"{metadata['name']}.{uuid.uuid4().hex[:12]}"
        involved = {"kind": about["kind"], "name": metadata["name"], "namespace": metadata["namespace"]}
        body = {
            "metadata": {"name": name}, "involvedObject": {**involved, "uid": metadata["uid"]}, "type": kind,
            "reason": reason, "message": message, "firstTimestamp": now(), "lastTimestamp": now(), "count": 1,
        }  # fmt: skip
        self.create("events", metadata["namespace"], body)

    def fault_of(self, method: str, path: str) -> ApiFault | None:
        """Take the fault that is to befall a request."""
        with self.lock:
            for fault in self.api_faults:
                if fault.method in ("*", method) and fault.path in path and fault.times != 0:
                    fault.times = None if fault.times is None else fault.times - 1
                    return fault
        return None

    def pod_fault(self) -> PodFault:
        """Take the fault that is to befall the next pod."""
        with self.lock:
            for fault in self.pod_faults:
                if fault.times > 0:
                    fault.times -= 1
                    return fault
        return PodFault()

    def wait_for(self, is_true: Callable[["Cluster"], Any], timeout_s: float = 60.0) -> Any:
        """Wait until a condition about the cluster holds, and return what it gave."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if found := is_true(self):
                return found
            time.sleep(0.05)
        raise TimeoutError(f"not so within {timeout_s:.0f} s; pods: {self.find('pods')}")

    def _get(self, resource: str, namespace: str, name: str) -> Object:
        body = self._objects.get((resource, namespace, name))
        if body is None:
            raise ApiError(404, "NotFound", f'{resource} "{name}" not found')
        return body

    def _touch(self, body: Object) -> None:
        self._version += 1
        body["metadata"]["resourceVersion"] = str(self._version)


def now() -> str:
    """Return the time as the API writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _name(body: Object) -> str:
    return str(body.get("metadata", {}).get("name", ""))


def _names(selector: str) -> list[str]:
    return [part.replace("!=", "=").replace("==", "=").partition("=")[0] for part in selector.split(",") if part]


def _field(body: Object, dotted: str) -> str:
    found: Any = body
    for part in dotted.split("."):
        found = found.get(part, "") if isinstance(found, dict) else ""
    return str(found)


def _matches(values: Mapping[str, str], selector: str) -> bool:
    for part in filter(None, selector.split(",")):
        if "!=" in part:
            name, _, value = part.partition("!=")
            ok = values.get(name) != value
        elif "=" in part:
            name, _, value = part.replace("==", "=").partition("=")
            ok = values.get(name) == value
        elif part.startswith("!"):
            ok = part[1:] not in values
        elif " " in part:
            raise ApiError(400, "BadRequest", f"the stand-in has no set selectors: {part}")
        else:
            ok = part in values
        if not ok:
            return False
    return True
