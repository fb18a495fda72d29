"""The node of the Kubernetes stand-in: places pods, really runs their containers as processes, and reports on them."""

import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from tests import kubernetes_sandbox as sandbox
from tests.kubernetes_cluster import ApiError, Cluster, Node, Object, PodFault, now

_IMAGE_NAME = re.compile(r"[a-z0-9.:_/-]+(:[\w.-]+)?(@sha256:[0-9a-f]{64})?")
_UNITS = {"": 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "k": 1_000, "M": 1_000_000, "G": 1_000_000_000}


@dataclass
class _Log:
    """The lines of a container, each with the time at which it came."""

    lines: list[tuple[str, float, str]] = field(default_factory=list)
    is_over: bool = False


class Kubelet:
    """Runs every pod of a cluster in a thread of its own."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.logs: dict[tuple[str, str], _Log] = {}  # by uid of the pod and name of the container
        self.started: list[str] = []  # names of the pods of which a container ran, for tests
        self._runs: dict[str, _PodRun] = {}
        cluster.on_created["pods"] = self._take
        cluster.on_deleting["pods"] = self._end

    def stop(self) -> None:
        """Kill all that runs."""
        for run in list(self._runs.values()):
            run.kill()
        for run in list(self._runs.values()):
            run.thread.join(10)

    def kill(self, pod: str) -> None:
        """Kill the processes of a pod with SIGKILL, as from outside of Kubernetes."""
        self._run_of(pod).kill()

    def evict(self, pod: str, message: str = "The node was low on resource: memory.") -> None:
        """Evict a pod, as a node does that runs out of something."""
        self._run_of(pod).fail("Evicted", message)

    def disrupt(self, pod: str, reason: str = "PreemptionByScheduler", message: str = "preempting for a pod") -> None:
        """Preempt a pod, or drain its node: a condition says why, then it is deleted."""
        body = self._find(pod)
        self._run_of(pod).condition("DisruptionTarget", "True", reason, message)
        self.cluster.delete("pods", body["metadata"]["namespace"], pod)

    def lose_node(self, pod: str) -> None:
        """Let the node of a pod be gone: the pod is marked for deletion, but nobody is there to end it."""
        run = self._run_of(pod)
        run.is_lost = True
        run.kill()
        run.condition("Ready", "False", "NodeNotReady", "")
        run.condition(
            "DisruptionTarget", "True", "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint"
        )

        def change(body: Object) -> None:
            body["metadata"]["deletionTimestamp"] = now()

        self.cluster.update("pods", run.namespace, pod, change)

    def log(
        self, namespace: str, name: str, container: str = "", *, follow: bool = False, tail: int | None = None,
        since_s: float | None = None, timestamps: bool = False,
    ) -> Iterator[bytes]:  # fmt: skip
        """Yield a container's log as the API gives it; follows it until the container ends."""
        body = self.cluster.get("pods", namespace, name)
        names = [entry["name"] for kind in ("initContainers", "containers") for entry in body["spec"].get(kind, [])]
        if not container and len(names) > 1:
            raise ApiError(
                400, "BadRequest",
                f"a container name must be specified for pod {name}, choose one of: [{' '.join(names)}]",
            )  # fmt: skip
        container = container or names[0]
        found = self.logs.get((body["metadata"]["uid"], container))
        if found is None:
            why = f'container "{container}" in pod "{name}" is waiting to start: ContainerCreating'
            raise ApiError(400, "BadRequest", why)
        return self._lines(found, follow, tail, since_s, timestamps)

    def _lines(
        self, log: _Log, follow: bool, tail: int | None, since_s: float | None, timestamps: bool
    ) -> Iterator[bytes]:
        first = 0 if tail is None else max(0, len(log.lines) - tail)
        at = first
        while True:
            is_over = log.is_over
            while at < len(log.lines):
                stamp, when, line = log.lines[at]
                at += 1
                if since_s is None or when >= time.time() - since_s:
                    yield (f"{stamp} {line}\n" if timestamps else f"{line}\n").encode()
            if is_over or not follow:
                return
            time.sleep(0.05)

    def _take(self, body: Object) -> None:
        run = _PodRun(self, body, self.cluster.pod_fault())
        self._runs[body["metadata"]["uid"]] = run
        run.thread.start()

    def _end(self, body: Object, grace_s: float) -> None:
        run = self._runs.get(body["metadata"]["uid"])
        if run is None or grace_s == 0:
            if run is not None:
                run.kill()
            self.cluster.remove("pods", body["metadata"]["namespace"], body["metadata"]["name"])
        elif not run.is_lost:
            threading.Thread(target=run.end, args=(grace_s,), daemon=True).start()

    def _find(self, pod: str) -> Object:
        return next(body for body in self.cluster.find("pods") if body["metadata"]["name"] == pod)

    def _run_of(self, pod: str) -> "_PodRun":
        return self._runs[self._find(pod)["metadata"]["uid"]]


class _PodRun:
    """The life of one pod."""

    def __init__(self, kubelet: Kubelet, body: Object, fault: PodFault) -> None:
        self.kubelet, self.cluster, self.body, self.fault = kubelet, kubelet.cluster, body, fault
        self.namespace, self.name = body["metadata"]["namespace"], body["metadata"]["name"]
        self.uid = body["metadata"]["uid"]
        self.is_lost = False
        self.why: tuple[str, str] | None = None  # status.reason and message of a pod that is failed from outside
        self._is_ending = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._is_killed = False
        self._folder = sandbox.scratch()
        self.thread = threading.Thread(target=self._live, daemon=True, name=f"pod {self.name}")

    def condition(self, kind: str, status: str, reason: str, message: str) -> None:
        """Set a condition of the pod."""

        def change(body: Object) -> None:
            conditions = body["status"].setdefault("conditions", [])
            conditions[:] = [entry for entry in conditions if entry["type"] != kind]
            conditions.append(
                {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": now()}
            )

        self._update(change)

    def kill(self) -> None:
        """Kill the container's processes."""
        self._is_ending.set()
        self._signal(signal.SIGKILL)

    def fail(self, reason: str, message: str) -> None:
        """Fail the pod from outside."""
        self.why = (reason, message)
        self.kill()

    def end(self, grace_s: float) -> None:
        """Ask the container to end, kill it after a while, and take the pod away."""
        self._is_ending.set()
        self._signal(signal.SIGTERM)
        self.thread.join(grace_s)
        self._signal(signal.SIGKILL)
        self.thread.join(10)
        self.cluster.remove("pods", self.namespace, self.name)

    def _live(self) -> None:
        try:
            self._status(phase="Pending", startTime=now(), conditions=[])
            if not self._place():
                return
            spec = self.body["spec"]
            for kind, containers in (("initContainerStatuses", spec.get("initContainers", [])),
                                     ("containerStatuses", spec["containers"])):  # fmt: skip
                for container in containers:
                    code = self._run(container, kind)
                    if code is None:
                        return
                    if code != 0:
                        self._finish("Failed")
                        return
            self._finish("Succeeded")
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _place(self) -> bool:
        """Wait for a node; False if the pod is deleted before."""
        is_told = False
        while not self._is_ending.is_set():
            with self.cluster.lock:
                node, why = self._node()
                if node is not None:
                    name = node.name
                    self._update(lambda body, name=name: body["spec"].update(nodeName=name))
                    self.condition("PodScheduled", "True", "", "")
                    return True
            if not is_told:
                self.condition("PodScheduled", "False", "Unschedulable", why)
                self.cluster.event(self.body, "Warning", "FailedScheduling", why)
                is_told = True
            self._is_ending.wait(0.1)
        return False

    def _node(self) -> tuple[Node | None, str]:
        selector = self.body["spec"].get("nodeSelector") or {}
        wanted = _counted(self.body)
        reasons = []
        for node in self.cluster.nodes:
            used = [_counted(pod) for pod in self.cluster.find("pods")
                    if pod["spec"].get("nodeName") == node.name and not _is_over(pod)]  # fmt: skip
            short = [name for name, count in wanted.items()
                     if sum(pod.get(name, 0) for pod in used) + count > node.resources.get(name, 0)]  # fmt: skip
            if any(node.labels.get(name) != value for name, value in selector.items()):
                reasons.append("1 node(s) didn't match Pod's node affinity/selector")
            elif short:
                reasons.append(f"1 Insufficient {short[0]}")
            else:
                return node, ""
        return None, f"0/{len(self.cluster.nodes)} nodes are available: {', '.join(reasons) or 'no nodes'}."

    def _run(self, container: Object, kind: str) -> int | None:
        """Run one container and return its exit code; None if the pod ended otherwise."""
        waiting = self._refusal(container)
        if waiting:
            self._report(container, kind, {"waiting": {"reason": waiting[0], "message": waiting[1]}})
            self.cluster.event(self.body, "Warning", "Failed", f"Error: {waiting[1]}")
            if waiting[0] == "ErrImagePull":
                self._is_ending.wait(0.3)
                back_off = {"reason": "ImagePullBackOff", "message": f"Back-off pulling image {container['image']}"}
                self._report(container, kind, {"waiting": back_off})
            self._is_ending.wait()
            return None if self.why is None else self._finish("Failed")
        log = self.kubelet.logs[(self.uid, container["name"])] = _Log()
        started = now()
        argv = self.fault.command or [*container.get("command", []), *container.get("args", [])]
        try:
            self._process = self._spawn(container, argv)
        except OSError as error:
            log.is_over = True
            self._report(container, kind, _terminated(128, "StartError", str(error), started))
            return 128
        if kind == "containerStatuses":
            self.kubelet.started.append(self.name)
        self._report(container, kind, {"running": {"startedAt": started}})
        self._status(phase="Running" if kind == "containerStatuses" else "Pending")
        reader = threading.Thread(target=self._read, args=(self._process, log), daemon=True)
        reader.start()
        reason = self._watch(container)
        reader.join(10)
        log.is_over = True
        if self.is_lost:
            return None
        code = self._process.returncode
        code = 137 if self._is_killed else 128 - code if code < 0 else code
        self._report(container, kind, _terminated(code, reason or ("Completed" if code == 0 else "Error"), "", started))
        return code or (1 if self.why else 0)

    def _refusal(self, container: Object) -> tuple[str, str] | None:
        image = container["image"]
        if self.fault.waiting:
            return self.fault.waiting, self.fault.message
        if not _IMAGE_NAME.fullmatch(image):
            return "InvalidImageName", f'Failed to apply default image tag "{image}": invalid reference format'
        if self.cluster.images is not None and image not in self.cluster.images:
            return "ErrImagePull", f'failed to pull and unpack image "{image}": {image}: not found'
        try:
            self._environment(container)
        except LookupError as error:
            return "CreateContainerConfigError", str(error.args[0])
        return None

    def _environment(self, container: Object) -> dict[str, str]:
        env = {**sandbox.IMAGE_ENV, **self.cluster.image_env, "HOSTNAME": self.name}
        for entry in container.get("envFrom", []):
            for kind, known in (("secretRef", self.cluster.secrets), ("configMapRef", self.cluster.config_maps)):
                if kind in entry:
                    env |= self._values(known, kind[:-3], entry[kind])
        for entry in container.get("env", []):
            source = entry.get("valueFrom", {})
            if "secretKeyRef" in source:
                env |= {entry["name"]: self._value(self.cluster.secrets, "secret", source["secretKeyRef"])}
            elif "configMapKeyRef" in source:
                env |= {entry["name"]: self._value(self.cluster.config_maps, "configmap", source["configMapKeyRef"])}
            elif "fieldRef" in source:
                names = {"metadata.name": self.name, "metadata.uid": self.uid, "metadata.namespace": self.namespace}
                env[entry["name"]] = names.get(source["fieldRef"]["fieldPath"], "")
            else:
                env[entry["name"]] = entry.get("value", "")
        return env

    def _values(self, known: dict[tuple[str, str], dict[str, str]], kind: str, ref: Object) -> dict[str, str]:
        if (self.namespace, ref["name"]) in known:
            return known[self.namespace, ref["name"]]
        if ref.get("optional"):
            return {}
        raise LookupError(f'{kind.lower()} "{ref["name"]}" not found')

    def _value(self, known: dict[tuple[str, str], dict[str, str]], kind: str, ref: Object) -> str:
        values = self._values(known, kind, ref)
        if ref["key"] not in values and not ref.get("optional"):
            raise LookupError(f"couldn't find key {ref['key']} in {kind} {self.namespace}/{ref['name']}")
        return values.get(ref["key"], "")

    def _spawn(self, container: Object, argv: list[str]) -> subprocess.Popen[bytes]:
        if not argv:
            raise OSError("no command specified")
        env = self._environment(container)
        security = {**(self.body["spec"].get("securityContext") or {}), **(container.get("securityContext") or {})}
        mounts = self._mounts(container)
        if sandbox.has_sandbox():
            if not (Path(argv[0]).is_absolute() or shutil.which(argv[0], path=env["PATH"])):
                raise OSError(f'exec: "{argv[0]}": executable file not found in $PATH')
            folder = self._folder / container["name"]
            argv = sandbox.sandboxed(argv, folder, mounts, security)
        elif missing := [path for path in mounts if not Path(path).is_dir()]:
            raise OSError(f"without a sandbox, {missing[0]} cannot be mounted")
        return subprocess.Popen(
            argv, env=env, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip

    def _mounts(self, container: Object) -> dict[str, tuple[Path, bool]]:
        volumes = {volume["name"]: volume for volume in self.body["spec"].get("volumes", [])}
        found = {}
        for mount in container.get("volumeMounts", []):
            volume = volumes[mount["name"]]
            if "hostPath" in volume:
                source = Path(volume["hostPath"]["path"])
            else:  # emptyDir, or a claim of which nothing is known here
                source = self._folder / "volumes" / mount["name"]
                source.mkdir(parents=True, exist_ok=True)
                source.chmod(0o1777)
            found[mount["mountPath"]] = (source, bool(mount.get("readOnly")))
        return found

    def _read(self, process: subprocess.Popen[bytes], log: _Log) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(b"unshare: "):  # of the sandbox, about the signal that ended it
                continue
            stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
            log.lines.append((stamp, time.time(), line.decode(errors="replace").rstrip("\n")))
        if self.fault.is_log_cut:
            del log.lines[-1:]

    def _watch(self, container: Object) -> str:
        """Wait for the process, within its memory and the pod's time; say why it was killed."""
        assert self._process is not None
        limit = _bytes((container.get("resources") or {}).get("limits", {}).get("memory", "0"))
        deadline_s = self.body["spec"].get("activeDeadlineSeconds")
        started = time.monotonic()
        reason = ""
        while self._process.poll() is None:
            if limit and _resident(self._process.pid) > limit:
                reason = "OOMKilled"
                self._signal(signal.SIGKILL)
            if deadline_s is not None and time.monotonic() - started > deadline_s and self.why is None:
                self.fail("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
            time.sleep(0.05)
        return reason

    def _signal(self, number: int) -> None:
        """Signal the container's first process, and with SIGKILL all that it started."""
        if self._process is None or self._process.poll() is not None:
            return
        self._is_killed = number == signal.SIGKILL
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            outer = psutil.Process(self._process.pid)
            inner = outer.children() if sandbox.has_sandbox() else [outer]
            for process in [*inner, *(outer.children(recursive=True) if number == signal.SIGKILL else [])]:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(number)

    def _report(self, container: Object, kind: str, state: Object) -> None:
        status = {
            "name": container["name"], "image": container["image"], "imageID": "", "restartCount": 0,
            "ready": "running" in state, "started": "waiting" not in state, "state": state, "lastState": {},
        }  # fmt: skip

        def change(body: Object) -> None:
            entries = body["status"].setdefault(kind, [])
            entries[:] = [*(entry for entry in entries if entry["name"] != container["name"]), status]

        self._update(change)

    def _finish(self, phase: str) -> None:
        if self.why is not None:
            self._status(phase="Failed", reason=self.why[0], message=self.why[1])
        elif not self.is_lost:
            self._status(phase=phase)

    def _status(self, **values: Any) -> None:
        self._update(lambda body: body.setdefault("status", {}).update(values))

    def _update(self, change: Any) -> None:
        def same(body: Object) -> None:
            if body["metadata"]["uid"] == self.uid:
                body.setdefault("status", {"phase": "Pending"})
                change(body)

        self.cluster.update("pods", self.namespace, self.name, same)


def _terminated(code: int, reason: str, message: str, started: str) -> Object:
    state = {"exitCode": code, "reason": reason, "startedAt": started, "finishedAt": now()}
    return {"terminated": {**state, **({"message": message} if message else {})}}


def _is_over(pod: Object) -> bool:
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def _counted(pod: Object) -> dict[str, int]:
    """Sum up what a pod asks for that is counted whole, such as GPUs."""
    found: dict[str, int] = {}
    for container in pod["spec"]["containers"]:
        for name, value in ((container.get("resources") or {}).get("limits") or {}).items():
            if "/" in name:
                found[name] = found.get(name, 0) + int(value)
    return found


def _bytes(quantity: str) -> int:
    number, unit = re.fullmatch(r"([\d.]+)([A-Za-z]*)", str(quantity)).groups()  # type: ignore[union-attr]
    return int(float(number) * _UNITS[unit])


def _resident(pid: int) -> int:
    total = 0
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for one in [process, *process.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                total += one.memory_info().rss
    return total
