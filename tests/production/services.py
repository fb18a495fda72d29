"""The services of the production shape, each as a process of this machine, on ports that are free."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import psycopg2
import pyspark

from rag_core.index.lite_files import locked
from tests.ports import free_port, is_free
from tests.redis_server import running_redis

START_S = 120.0
_STOP_S = 20.0
_MILVUS_TURN_S = 1_800.0
AWS = {"AWS_ACCESS_KEY_ID": "demo", "AWS_SECRET_ACCESS_KEY": "demo-secret", "AWS_DEFAULT_REGION": "us-east-1"}
"""Credentials for the S3 server; any will do there."""

BIN = Path(sys.executable).parent


class NotThereError(Exception):
    """A service did not start; the message ends with its last lines."""


@contextmanager
def process(
    name: str,
    command: Sequence[str],
    folder: Path,
    is_ready: Callable[[], bool],
    env: Mapping[str, str] | None = None,
    stop: signal.Signals = signal.SIGTERM,
    log: Path | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program with all that it starts, until the block ends; its output is in `FOLDER/NAME.log`.

    `log` is a file of its own that says why it does not start, where its output does not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    output = folder / f"{name}.log"
    with output.open("wb") as sink:
        child = subprocess.Popen(
            command, env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL, stdout=sink,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + START_S
        while not is_ready():
            if child.poll() is not None or time.monotonic() > deadline:
                ended = child.poll()
                what = f"does not answer after {START_S:.0f} s" if ended is None else f"ended with {ended}"
                raise NotThereError(f"{name} {what}: {' '.join(command)}{_tail(output)}{_tail(log)}")
            time.sleep(0.2)
        yield child
    finally:
        _end(child, stop)


def _end(child: subprocess.Popen[bytes], how: signal.Signals) -> None:
    if child.poll() is None:
        child.send_signal(how)
        with suppress(subprocess.TimeoutExpired):
            child.wait(_STOP_S)
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)  # what it left behind
    child.wait()


def _tail(log: Path | None) -> str:
    if log is None or not log.exists():
        return ""
    return "\n".join(["", f"{log}:", *log.read_text(errors="replace").splitlines()[-20:]])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def s3_client(url: str) -> Any:
    """Return a client of the S3 server."""
    return boto3.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id=AWS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=AWS["AWS_SECRET_ACCESS_KEY"],
        region_name=AWS["AWS_DEFAULT_REGION"],
    )


@contextmanager
def s3_server(folder: Path, buckets: Sequence[str]) -> Iterator[str]:
    """Run moto's S3 server with empty buckets; gives its address."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with process("s3", [str(BIN / "moto_server"), "-H", "127.0.0.1", "-p", str(port)], folder, lambda: _listens(port)):
        client = s3_client(url)
        for bucket in buckets:
            client.create_bucket(Bucket=bucket)
        yield url


def upload(url: str, bucket: str, prefix: str, folder: Path) -> int:
    """Put all files of a folder below a prefix, and return how many there were."""
    client = s3_client(url)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in files:
        client.put_object(Bucket=bucket, Key=prefix + path.relative_to(folder).as_posix(), Body=path.read_bytes())
    return len(files)


@contextmanager
def spark_connect(
    folder: Path, *, master: str = "local[2]", env: Mapping[str, str] | None = None, port: int = 0
) -> Iterator[str]:
    """Run the Spark Connect server that the package `pyspark` carries; gives its address, sc://..."""
    port = port or free_port()
    submit = Path(pyspark.__file__).parent / "bin" / "spark-submit"
    settings = {
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.connect.grpc.binding.port": str(port),
        "spark.driver.memory": "1g",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.execution.arrow.maxRecordsPerBatch": "256",
    }
    conf = [part for name, value in settings.items() for part in ("--conf", f"{name}={value}")]
    name = "org.apache.spark.sql.connect.service.SparkConnectServer"
    command = [str(submit), "--class", name, "--master", master, *conf, "spark-internal"]
    with process("spark", command, folder, lambda: _listens(port), {"PYSPARK_PYTHON": sys.executable, **(env or {})}):
        yield f"sc://127.0.0.1:{port}"


@contextmanager
def spark_standalone(folder: Path, workers: int = 2) -> Iterator[str]:
    """Run a Spark master and workers of one core each, every one a process; gives the master's address, spark://..."""
    port = free_port()
    run = str(Path(pyspark.__file__).parent / "bin" / "spark-class")
    deploy = "org.apache.spark.deploy"
    env = {"PYSPARK_PYTHON": sys.executable, "SPARK_NO_DAEMONIZE": "1", "SPARK_DAEMON_MEMORY": "256m"}
    master = [run, f"{deploy}.master.Master", "--host", "127.0.0.1", "--port", str(port), "--webui-port", "0"]
    with ExitStack() as stack:
        stack.enter_context(process("spark-master", master, folder, lambda: _listens(port), env))
        for number in range(workers):
            own, work = free_port(), folder / f"spark-worker-{number}"
            where = [f"spark://127.0.0.1:{port}", "--host", "127.0.0.1", "--port", str(own), "--webui-port", "0"]
            size = ["--cores", "1", "--memory", "1g", "--work-dir", str(work)]
            worker = [run, f"{deploy}.worker.Worker", *where, *size]
            stack.enter_context(process(work.name, worker, folder, partial(_listens, own), env))
        yield f"spark://127.0.0.1:{port}"


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """Run Redis; gives its address."""
    with running_redis(folder) as server:
        yield server.url.get_secret_value()


@contextmanager
def postgres(folder: Path, database: str = "dagster") -> Iterator[str]:
    """Run Postgres with an empty database; gives its address. It refuses to run as root, and is another user then.

    Its data is in a folder of its own, which that user can reach whatever becomes of `folder`'s parents (pytest closes
    its temporary folders to others whenever a session begins); `folder` has a link to it.
    """
    port, user = free_port(), _as_postgres()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="postgres-", ignore_cleanup_errors=True) as own:
        data = Path(own)
        (folder / "postgres").unlink(missing_ok=True)
        (folder / "postgres").symlink_to(data)
        if user:
            shutil.chown(data, "postgres", "postgres")
        initialise = [str(postgres_program("initdb")), "-D", own, "-U", "dagster", "--auth=trust", "--no-sync"]
        subprocess.run([*user, *initialise], check=True, capture_output=True)

        def answers() -> bool:
            try:
                psycopg2.connect(host="127.0.0.1", port=port, user="dagster", dbname="postgres").close()
            except psycopg2.OperationalError:
                return False
            return True

        options = ["-p", str(port), "-h", "127.0.0.1", "-k", own]
        command = [*user, str(postgres_program("postgres")), "-D", own, *options]
        with process("postgres", command, folder, answers, stop=signal.SIGINT):
            connection = psycopg2.connect(host="127.0.0.1", port=port, user="dagster", dbname="postgres")
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(f'CREATE DATABASE "{database}"')
            connection.close()
            yield f"postgresql+psycopg2://dagster@127.0.0.1:{port}/{database}"


def postgres_program(name: str) -> Path:
    """Return one of Postgres' programs, of the newest version that is installed."""
    return max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name)) / name


def _as_postgres() -> list[str]:
    """Return what runs a program as a user that Postgres takes."""
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []


@contextmanager
def postgres_restarted(folder: Path) -> Iterator[None]:
    """Kill the Postgres of a folder in the middle of whatever it does; it is there again after the block, recovered."""
    data = (folder / "postgres").resolve()
    port = (data / "postmaster.pid").read_text().splitlines()[3]
    control = [*_as_postgres(), str(postgres_program("pg_ctl")), "-D", str(data), "-w", "-l", str(data / "again.log")]
    subprocess.run([*control, "stop", "-m", "immediate"], check=True, capture_output=True)
    try:
        yield
    finally:
        options = f"-p {port} -h 127.0.0.1 -k {data}"
        subprocess.run([*control, "start", "-o", options], check=True, capture_output=True)


@contextmanager
def milvus(
    folder: Path, *options: str, port: int = 0, scheme: str = "http", login: Mapping[str, Any] | None = None
) -> Iterator[str]:
    """Run the standalone server of the package `milvus`; gives its address.

    Only one runs at a time on this machine, as two do not start side by side: the others wait for their turn.

    Args:
        folder: Where its data is, of an earlier start too.
        options: Those of `milvus-server`.
        port: Where it listens; 0: anywhere.
        scheme: https where the options make it speak TLS.
        login: What pymilvus needs to be let in.
    """
    port = port or free_port()
    uri = f"{scheme}://127.0.0.1:{port}"

    def answers() -> bool:
        if not _listens(port):
            return False
        from pymilvus import MilvusClient
        from pymilvus.exceptions import MilvusException

        try:
            # A channel of its own: a shared one may be of a server that was there before.
            client = MilvusClient(uri, timeout=5, dedicated=True, **(login or {}))
            client.list_collections()
            client.close()
        except MilvusException:
            return False
        return True

    # The port that it has for its root coordinator is one that Linux gives to connections: it panics where one has it.
    ports = ["--proxy-port", str(port), "--root-coord-port", str(free_port())]
    command = [str(BIN / "milvus-server"), "--data", str(folder / "milvus"), *ports, *options]
    log = folder / "milvus" / "logs" / "milvus-stderr.log"  # the program itself says nothing of a server that ended
    with locked(Path(tempfile.gettempdir(), "milvus-standalone.lock"), timeout_s=_MILVUS_TURN_S):
        deadline = time.monotonic() + START_S
        while not is_free(port):  # it would take the next one, and not say so
            if time.monotonic() > deadline:
                raise NotThereError(f"milvus: port {port} is still taken after {START_S:.0f} s")
            time.sleep(0.2)
        with process("milvus", command, folder, answers, stop=signal.SIGINT, log=log):
            yield uri


@contextmanager
def kubernetes(folder: Path) -> Iterator[str]:
    """Run the stand-in of a Kubernetes API that the tests have; gives a kubeconfig that reaches it."""
    port, kubeconfig = free_port(), folder / "kubeconfig"
    command = [sys.executable, "-m", "tests.kubernetes_api", "--port", str(port), "--kubeconfig", str(kubeconfig)]
    command += ["--secret", "rag-s3"]
    with process("kubernetes", command, folder, lambda: _listens(port) and kubeconfig.exists(), AWS):
        yield str(kubeconfig)
