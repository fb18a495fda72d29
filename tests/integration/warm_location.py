"""A small code location for the tests of the run launcher; they copy it into a folder of their own."""

import json
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import dagster as dg

VERSION = 1
AT_IMPORT = time.time()


def open_files() -> list[Path]:
    """Return what the descriptors of this process point to."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # that of the listing itself
            found.append(entry.readlink())
    return found


@dg.op(config_schema={"into": str})
def look_around(context: dg.OpExecutionContext) -> None:
    """Write what a run's process is like."""
    # What the zygote has brought; nothing of it is imported here.
    brought = [name for name in ("deltalake", "pymilvus", "great_expectations", "torch") if name in sys.modules]
    threadpoolctl = sys.modules["threadpoolctl"]
    blas = [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    seen = {
        "pid": os.getpid(),
        "session": os.getsid(0),
        "cwd": str(Path.cwd()),
        "variable": os.environ.get("OF_THE_LAUNCHER"),
        "quiet": os.environ.get("JE_ARROW_MALLOC_CONF"),
        "brought": brought,
        "blas_threads": blas,
        "version": VERSION,
        "at_import": AT_IMPORT,
        "numpy_random": float(sys.modules["numpy"].random.random()),
        "open_files": [str(link) for link in open_files()],
    }
    Path(context.op_config["into"]).write_text(json.dumps(seen))


@dg.job
def quick() -> None:
    """One small op."""
    look_around()


@dg.op(config_schema={"root": str, "milvus": str, "number": int})
def work_with_everything(context: dg.OpExecutionContext) -> None:
    """Use every native library whose threads a fork could have lost."""
    import deltalake
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.dataset as ds
    from pymilvus import MilvusClient
    from tokenizers import Tokenizer, models, pre_tokenizers

    number, root = context.op_config["number"], context.op_config["root"]
    rows = pa.table({"key": np.arange(200_000) % 97, "value": np.random.random(200_000), "of": [number] * 200_000})
    deltalake.write_deltalake(f"{root}/table", rows, mode="append", partition_by=["of"])
    deltalake.write_deltalake(f"{root}/own_{number}", rows)
    mine = ds.dataset(deltalake.DeltaTable(f"{root}/own_{number}").file_uris()).to_table(use_threads=True)
    sums = mine.group_by("key", use_threads=True).aggregate([("value", "sum")])
    assert pc.count(sums["key"]).as_py() == 97
    square = np.random.random((600, 600))
    assert np.linalg.matrix_rank(square @ square) > 500
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    assert len(tokenizer.encode_batch(["a b c a"] * 1_000)) == 1_000
    client = MilvusClient(context.op_config["milvus"], timeout=60)
    name = f"of_{number}"
    client.create_collection(name, dimension=8)
    client.upsert(name, [{"id": row, "vector": np.random.random(8).tolist()} for row in range(50)])
    assert len(client.query(name, filter="id >= 0", output_fields=["id"], consistency_level="Strong")) == 50
    client.drop_collection(name)
    client.close()
    context.log.info(f"done with {threading.active_count()} threads")


@dg.job
def real_work() -> None:
    """One op that uses every native library."""
    work_with_everything()


@dg.op(config_schema={"started": str, "release": str})
def wait_for_release(context: dg.OpExecutionContext) -> None:
    """Say that it runs, and run until a file is there."""
    Path(context.op_config["started"]).write_text(str(os.getpid()))
    while not Path(context.op_config["release"]).exists():
        time.sleep(0.02)


@dg.job
def patient() -> None:
    """Runs until it is released."""
    wait_for_release()


@dg.op(pool="milvus_writes", config_schema={"into": str})
def hold_the_pool(context: dg.OpExecutionContext) -> None:
    """Write from when to when it held its place."""
    begin = time.time()
    time.sleep(0.3)
    Path(context.op_config["into"]).write_text(json.dumps([begin, time.time()]))


@dg.job
def pooled() -> None:
    """One op of a pool."""
    hold_the_pool()


@dg.op(retry_policy=dg.RetryPolicy(max_retries=2))
def fail_once(context: dg.OpExecutionContext) -> None:
    """Fail at the first try."""
    if context.retry_number == 0:
        raise RuntimeError("the first try")


@dg.job
def retried() -> None:
    """Succeeds at its second try."""
    fail_once()


@dg.op
def kill_itself() -> None:
    """End as a process does that is out of memory."""
    os.kill(os.getpid(), signal.SIGKILL)


@dg.job
def killed() -> None:
    """Does not come to an end of its own."""
    kill_itself()


defs = dg.Definitions(jobs=[quick, real_work, patient, pooled, retried, killed], executor=dg.in_process_executor)
