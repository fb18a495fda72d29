"""The orchestrator's end of Dagster Pipes with a pod: messages come by S3, or by its log if the store is a folder."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any, Final

import dagster as dg
from dagster_aws.pipes import PipesS3MessageReader
from dagster_k8s.pipes import PipesK8sPodLogsMessageReader
from dagster_pipes import PipesBlobStoreMessageWriter

from rag_core.aws import client
from rag_core.embedding.pipes import INTERVAL_S, S3_SETTINGS
from rag_core.embedding.pod import WORKER
from rag_core.embedding.pod_status import pod_state
from rag_core.stages.common import Progress
from rag_core.tables.s3_access import endpoint
from rag_core.tables.store import Store
from resources.kubernetes_pods import PodApi

_DRAIN_S: Final = 30.0  # for the end of a log, after its pod
_GONE_S: Final = 3.0  # for it to notice that it is over
_RECONNECT_S: Final = 1.0


def telling_progress(handler: Any, on_progress: Progress) -> Any:
    """Have a handler's progress messages go to a callback as they arrive; Dagster gives custom messages at the end."""
    handle = handler.handle_message

    def look(message: Any) -> None:
        payload = message["params"].get("payload") if message["method"] == "report_custom_message" else None
        if isinstance(payload, dict) and "progress" in payload:
            on_progress("tokens embedded", *payload["progress"])
        handle(message)

    handler.handle_message = look
    return handler


class S3Messages(PipesS3MessageReader):
    """Messages in the store's bucket, under a prefix that a later try can be told: it may take over the pod."""

    def __init__(self, store: Store, prefix: str, on_progress: Progress) -> None:
        self._store, self.prefix, self._on_progress = store, prefix, on_progress
        bucket = store.root.removeprefix("s3://").partition("/")[0]
        super().__init__(interval=INTERVAL_S, bucket=bucket, client=client(endpoint(store.s3)))

    @contextmanager
    def get_params(self) -> Iterator[Mapping[str, Any]]:
        """Give the worker bucket and prefix, and how that S3 is reached."""
        yield {
            "bucket": self.bucket,
            "key_prefix": self.prefix,
            S3_SETTINGS: self._store.s3.model_dump(mode="json", exclude_defaults=True),
            PipesBlobStoreMessageWriter.INCLUDE_STDIO_IN_MESSAGES_KEY: False,
        }

    @contextmanager
    def read_messages(self, handler: Any) -> Iterator[Any]:
        """Read messages, as the base class does, and look at each."""
        with super().read_messages(telling_progress(handler, self._on_progress)) as params:
            yield params

    def follow(self, context: dg.OpExecutionContext, api: PodApi, name: str) -> None:
        """Nothing to begin: the messages are looked for already."""

    def finish(self) -> None:
        """Nothing to end."""


class LogMessages(PipesK8sPodLogsMessageReader):
    """Messages among the lines of the pod's log."""

    def __init__(self, on_progress: Progress) -> None:
        self._on_progress = on_progress
        self._thread: threading.Thread | None = None
        self._is_over = threading.Event()

    @contextmanager
    def read_messages(self, handler: Any) -> Iterator[Any]:
        """Read messages, as the base class does, and look at each."""
        with super().read_messages(telling_progress(handler, self._on_progress)) as params:
            try:
                yield params
            finally:
                self._is_over.set()  # from here on there is nobody to tell
                if self._thread is not None:
                    self._thread.join(_GONE_S)

    def follow(self, context: dg.OpExecutionContext, api: PodApi, name: str) -> None:
        """Begin to read the log, beside whoever watches the pod: a log that is stuck must not hide that it failed."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._read, args=(context, api, name), daemon=True)
            self._thread.start()

    def finish(self) -> None:
        """Wait for what the log still holds, while the pod is still there."""
        if self._thread is not None:
            self._thread.join(_DRAIN_S)

    def _read(self, context: dg.OpExecutionContext, api: PodApi, name: str) -> None:
        core: Any = SimpleNamespace(read_namespaced_pod_log=partial(self._lines, api))
        try:
            self.consume_pod_logs(context, core, name, api.namespace)
        except Exception as error:  # noqa: BLE001 - the log is for people; whether the job is done, the store says
            if not self._is_over.is_set():
                context.log.warning(f"the log of embedding pod {name} cannot be read any further: {error}")

    def _lines(self, api: PodApi, pod: str, namespace: str, **options: Any) -> Iterator[bytes]:
        try:
            # Named: a pod with an injected sidecar has no log of its own.
            for piece in api.core.read_namespaced_pod_log(pod, namespace, container=WORKER, **options):
                if self._is_over.is_set():
                    return
                yield piece
            if pod_state(api.read(pod), api.config).phase != "running":
                return
            why: Exception = ConnectionError(f"the log of pod {pod} ended before the pod")
        except Exception as error:  # noqa: BLE001 - as in _read
            why = error
        # Raised again, the reader asks anew, a few times; where it is over, nobody may be told of it any more.
        if not self._is_over.wait(_RECONNECT_S):
            raise why
