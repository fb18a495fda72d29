"""Embedding jobs as pods: start one or take over one that is there, watch it, and believe the store, not the pod.

`PipesK8sClient` with its own way to run: each try of the client of dagster-k8s makes a pod of another name, waits a day
for one that never starts, and takes an exit code of zero for the work.
"""

import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

import dagster as dg
from dagster_k8s import PipesK8sClient

from rag_core.config import EmbeddingConfig
from rag_core.embedding.job import missing_count, verify_manifest
from rag_core.embedding.manifest import WorkManifest, read_manifest
from rag_core.embedding.pod import MESSAGES_ANNOTATION, STORE_LABEL, WORK_LABEL, PodJob, build_pod
from rag_core.embedding.pod_status import OOM_KILLED, PodState, pod_state
from rag_core.embedding.reports import report_of
from rag_core.errors import PermanentError, RagError, TransientError
from rag_core.stages.common import Progress
from rag_core.tables.store import Store
from resources.kubernetes_pods import ApiUnreachableError, PodApi
from resources.pod_messages import LogMessages, S3Messages

_LAST_LINES: Final = 20
_DELETE_S: Final = 20.0
_SWEEP_S: Final = 600.0  # the process that watched a pod has had this long to read its end
_LOST: Final = frozenset({"DeletionByTaintManager", "DeletionByPodGC", "NodeLost"})
_PIPES_LINE: Final = '{"__dagster_pipes_version"'


class EmbeddingPods(PipesK8sClient):
    """Runs the worker on a manifest in a pod."""

    def __init__(self, store: Store, embedding: EmbeddingConfig) -> None:
        assert embedding.kubernetes is not None
        super().__init__(poll_interval=embedding.kubernetes.poll_s)
        self._store, self._embedding, self._config = store, embedding, embedding.kubernetes
        self._api = PodApi(embedding.kubernetes)

    def embed(
        self, context: dg.OpExecutionContext, address: str, partition_keys: Sequence[str], on_progress: Progress
    ) -> dict[str, Any]:
        """Embed what a manifest lists; returns once all of it is in the cache.

        A pod that a process left behind which is gone by now, or that lost the API for too long, is taken over: it is
        found by the digest of its work.

        Returns:
            The worker's report, from the store.

        Raises:
            PermanentError: Another try cannot help; the message says why.
            TransientError: It may; texts that were committed are in the cache.
        """
        manifest = read_manifest(address)
        job = PodJob(self._store, address, manifest.model_fingerprint, partition_keys, context.run_id, context.job_name)
        self._sweep(job)
        left = self._left_behind(job)
        if left is not None:
            name = left["metadata"]["name"]
            context.log.info(f"embedding pod {name} is there already and works on these partitions: it is taken over")
            try:
                self._run(context, job, manifest, on_progress, left)
            except ApiUnreachableError:
                raise
            except RagError as error:
                context.log.warning(f"{error}\nAnother pod goes on.")
            if missing_count(manifest) == 0:
                verify_manifest(manifest)
                return report_of(manifest)
        return self._run(context, job, manifest, on_progress, None)

    def _run(
        self,
        context: dg.OpExecutionContext,
        job: PodJob,
        manifest: WorkManifest,
        on_progress: Progress,
        left: dict[str, Any] | None,
    ) -> dict[str, Any]:
        name = left["metadata"]["name"] if left else f"rag-embedding-{job.work[:8]}-{uuid.uuid4().hex[:6]}"
        reader = self._reader(job, manifest, name, left, on_progress)
        state: PodState | None = None
        is_watched = True
        with dg.open_pipes_session(
            context=context,
            context_injector=self.context_injector,
            message_reader=reader,
            extras={"manifest": job.manifest},
        ) as session:
            try:
                if left is None:
                    self._create(context, job, name, reader, session.get_bootstrap_env_vars())
                state = self._watch(context, name, reader)
                lines = self._last_lines(name, state) if state.phase == "failed" else []
            except ApiUnreachableError as error:
                is_watched = False
                raise ApiUnreachableError(
                    f"{error}. Embedding pod {name} may be at work; another try takes it over"
                ) from error
            finally:
                if is_watched:
                    self._clear_away(context, name, state)
        self._judge(context, manifest, name, state, lines)
        return report_of(manifest) if left is None else {}

    def _create(
        self,
        context: dg.OpExecutionContext,
        job: PodJob,
        name: str,
        reader: S3Messages | LogMessages,
        pipes: Mapping[str, str],
    ) -> None:
        messages = reader.prefix if isinstance(reader, S3Messages) else ""
        self._api.create(build_pod(self._embedding, replace(job, env=pipes, messages=messages), name))
        context.log.info(f"embedding pod {self._api.namespace}/{name}: {self._config.image}, {self._config.gpus} GPUs")

    def _reader(
        self, job: PodJob, manifest: WorkManifest, name: str, left: dict[str, Any] | None, on_progress: Progress
    ) -> S3Messages | LogMessages:
        if job.store.is_local:
            return LogMessages(on_progress)
        prefix = ((left or {}).get("metadata", {}).get("annotations") or {}).get(MESSAGES_ANNOTATION)
        if prefix is None:
            inside = job.store.root.removeprefix("s3://").partition("/")[2].strip("/")
            folder = manifest.items.rpartition("/")[0]  # removed with the manifest
            prefix = f"{inside}/{folder}/messages/{name}".lstrip("/")
        return S3Messages(job.store, prefix, on_progress)

    def _watch(self, context: dg.OpExecutionContext, name: str, reader: S3Messages | LogMessages) -> PodState:
        """Wait until the pod has ended, or will not start."""
        told: tuple[str, str] = ("", "")
        waiting_since, node = time.monotonic(), ""
        while True:
            pod = self._api.read(name)
            waited_s = time.monotonic() - waiting_since
            state = pod_state(pod, self._config, waited_s=waited_s)
            if state.reason == "Pending":
                state = pod_state(pod, self._config, waited_s=waited_s, events=self._api.events(name))
            state = replace(state, node=state.node or node)  # of a pod that is gone, the last that was known
            node = state.node
            if state.phase == "running":
                waiting_since = time.monotonic()
            if (state.phase == "running" and state.container) or state.phase == "succeeded":
                reader.follow(context, self._api, name)
            if state.phase in ("succeeded", "failed"):
                if pod is not None:
                    reader.finish()
                return state
            if (state.phase, state.reason) != told:
                told = (state.phase, state.reason)
                where = f" on node {state.node}" if state.node else ""
                context.log.info(
                    f"embedding pod {name} is {state.phase}{where}: {state.reason} {state.message}".strip(" :")
                )
            time.sleep(self._config.poll_s)

    def _judge(
        self,
        context: dg.OpExecutionContext,
        manifest: WorkManifest,
        name: str,
        state: PodState | None,
        lines: list[str],
    ) -> None:
        """Compare the store with the manifest, whatever the pod said."""
        assert state is not None
        where = f"embedding pod {self._api.namespace}/{name}" + (f" on node {state.node}" if state.node else "")
        if state.phase == "succeeded":
            try:
                verify_manifest(manifest)
            except TransientError as error:
                raise TransientError(f"{where} reported success, but its work is not done: {error}") from error
            return
        left = missing_count(manifest)
        if left == 0 and not state.permanent:
            verify_manifest(manifest)
            context.log.warning(f"{where} failed after its work was done ({state.reason}: {state.message})")
            return
        done = manifest.item_count - left
        # Memory that a second try of the same work does not suffice for either will not suffice for a third.
        permanent = state.permanent or (state.reason == OOM_KILLED and done == 0 and context.retry_number > 0)
        kept = f"{done:,} of {manifest.item_count:,} texts were committed and are kept"
        end = "\n".join(lines) or state.last_words.strip()
        said = f"Its last lines:\n{end}" if end else "It has no log."
        text = f"{where} failed: {state.reason}: {state.message.rstrip('.')}. {kept}. {said}"
        raise (PermanentError if permanent else TransientError)(text)

    def _last_lines(self, name: str, state: PodState) -> list[str]:
        if not state.container:
            return []
        lines = self._api.last_lines(name, state.container, 3 * _LAST_LINES)
        return [line for line in lines if not line.startswith(_PIPES_LINE)][-_LAST_LINES:]

    def _left_behind(self, job: PodJob) -> dict[str, Any] | None:
        """Find a pod that works on the same, and is not about to go."""
        for pod in self._api.find({WORK_LABEL: job.work}):
            if pod_state(pod, self._config).phase in ("waiting", "running"):
                return pod
        return None

    def _clear_away(self, context: dg.OpExecutionContext, name: str, state: PodState | None) -> None:
        if state is not None and state.phase == "failed" and self._config.keep_failed_s and state.reason not in _LOST:
            context.log.info(f"pod {name} is kept for {self._config.keep_failed_s:.0f} s; kubectl logs {name}")
            return
        # A node that is gone cannot confirm that the pod has ended: its object would stay for ever.
        grace_s = 0 if state is not None and state.reason in _LOST else None
        try:
            self._api.delete(name, grace_s=grace_s, patience_s=_DELETE_S)
        except RagError as error:
            context.log.warning(f"embedding pod {name} was not deleted, the next job of this store does it: {error}")

    def _sweep(self, job: PodJob) -> None:
        """Delete pods of this store that ended long ago, and that nobody deleted."""
        for pod in self._api.find({STORE_LABEL: job.store_digest}):
            if pod_state(pod, self._config).phase in ("succeeded", "failed") and _age_s(pod) > (
                _SWEEP_S + self._config.keep_failed_s
            ):
                with suppress(RagError):
                    self._api.delete(pod["metadata"]["name"], patience_s=_DELETE_S)


def _age_s(pod: dict[str, Any]) -> float:
    """Seconds since a pod's containers ended; since it was made, where none ever ran."""
    ends = [
        (one.get("state", {}).get("terminated") or {}).get("finishedAt")
        for one in pod.get("status", {}).get("containerStatuses") or []
    ]
    text = max(filter(None, ends), default=pod["metadata"].get("creationTimestamp"))
    return (datetime.now(UTC) - datetime.fromisoformat(text)).total_seconds() if text else 0.0
