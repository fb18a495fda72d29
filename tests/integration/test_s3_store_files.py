"""Files of a store in S3, on real sockets: whole or not at all, whatever the network does; and who holds a lease."""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rag_core.backup.copying import copy
from rag_core.errors import PermanentError, StoreError, StoreRefusedError, TransientError
from rag_core.tables import locks
from rag_core.tables.change import StagingWriter
from rag_core.tables.delta import row_schema
from rag_core.tables.files import list_folder, read_file, remove_file, remove_folder, write_file, writing
from rag_core.tables.locks import exclusive
from rag_core.tables.s3_writing import PART_BYTES
from rag_core.tables.store import Store
from tests.integration.s3_store_helpers import BUCKET, PAGE, S3World
from tests.s3_proxy import Fault

PASSING: list[Fault] = ["500", "503", "silence", "torn_request", "lost_answer", "refused"]


def test_files_are_written_read_listed_and_removed(s3: S3World) -> None:
    store = s3.store()
    for path in ("a/b.txt", "a/c/d.txt", "ab.txt"):
        write_file(store, path, path.encode())
    write_file(store, "a/empty", b"")
    assert read_file(store, "a/b.txt") == b"a/b.txt"
    assert read_file(store, "a/empty") == b""
    assert read_file(store, "a") is None
    assert read_file(store, "a/x") is None
    assert sorted(info.base_name for info in list_folder(store, "a")) == ["b.txt", "c", "empty"]
    assert len(list_folder(store, "a", recursive=True)) == 3
    assert list_folder(store, "nothing") == []
    remove_file(store, "a/b.txt")
    remove_file(store, "a/b.txt")
    remove_folder(store, "a")
    remove_folder(store, "a")
    assert s3.keys(store) == ["ab.txt"]
    assert s3.proxy.counts()["PutObject"] == 4  # a small file is one request, and a folder none


def test_parquet_is_read_in_parts(s3: S3World) -> None:
    store = s3.store()
    table = pa.table({"number": range(400_000), "text": [f"text {n}" for n in range(400_000)]})
    with writing(store, "t.parquet") as sink:
        pq.write_table(table, sink, row_group_size=50_000)
    filesystem, root = store.filesystem()
    assert pq.read_table(f"{root}/t.parquet", filesystem=filesystem).equals(table)
    column = pq.read_table(f"{root}/t.parquet", filesystem=filesystem, columns=["number"], filters=[("number", "<", 9)])
    assert column["number"].to_pylist() == list(range(9))


@pytest.mark.parametrize("fault", PASSING)
def test_what_passes_is_tried_again(s3: S3World, fault: Fault) -> None:
    store = s3.store(request_timeout_s=1)
    put = s3.proxy.spoil(fault, lambda asked: asked.kind == "PutObject")
    write_file(store, "a", b"content")
    get = s3.proxy.spoil(fault, lambda asked: asked.kind == "GetObject")
    assert read_file(store, "a") == b"content"
    look = s3.proxy.spoil(fault, lambda asked: asked.kind == "ListObjects")
    assert [info.base_name for info in list_folder(store, "")] == ["a"]
    assert (put.done, get.done, look.done) == (1, 1, 1)


def test_an_answer_that_breaks_off_is_asked_for_again(s3: S3World) -> None:
    store = s3.store()
    write_file(store, "a", b"content" * 1_000)
    rule = s3.proxy.spoil("torn_answer", lambda asked: asked.kind == "GetObject", times=2)
    assert read_file(store, "a") == b"content" * 1_000
    assert rule.done == 2


def test_what_does_not_pass_ends_as_a_transient_failure(s3: S3World) -> None:
    store = s3.store()
    for fault in ("503", "lost_answer", "torn_request"):
        s3.proxy.reset()
        s3.proxy.spoil(fault, lambda _asked: True, times=None)
        with pytest.raises(StoreError, match=rf"{store.root}/a: \w+: .*; the run can be repeated") as caught:
            read_file(store, "a")
        assert not isinstance(caught.value, PermanentError)
        assert s3.proxy.counts()["GetObject"] == 3  # as many as `tries`


@pytest.mark.parametrize(
    ("fault", "words"), [("403", r"AccessDenied: Access Denied; allow what docs/s3.md lists"), ("gone", "NoSuchBucket")]
)
def test_what_is_refused_for_good_is_not_tried_again(s3: S3World, fault: str, words: str) -> None:
    store = s3.store()
    if fault == "gone":
        store = Store("s3://nobodys-bucket/store", store.s3)
    else:
        s3.proxy.spoil("403", lambda _asked: True, times=None)
    for action in (lambda: write_file(store, "a", b""), lambda: read_file(store, "a"), lambda: list_folder(store, "")):
        with pytest.raises(StoreRefusedError, match=words) as caught:
            action()
        assert isinstance(caught.value, PermanentError)
    assert s3.proxy.counts().total() == 3


def test_an_expired_token_passes(s3: S3World) -> None:
    s3.proxy.spoil("expired", lambda _asked: True, times=None)
    with pytest.raises(StoreError, match=r"ExpiredToken: .*valid credentials") as caught:
        read_file(s3.store(), "a")
    assert not isinstance(caught.value, PermanentError)


def test_a_file_that_fails_half_way_is_not_seen_and_leaves_no_upload(s3: S3World) -> None:
    store = s3.store()
    write_file(store, "a", b"before")
    with pytest.raises(ZeroDivisionError), writing(store, "a") as sink:
        sink.write(bytes(PART_BYTES + 1))
        assert s3.uploads()
        1 / 0  # noqa: B018
    assert read_file(store, "a") == b"before"
    s3.proxy.spoil("500", lambda asked: asked.kind == "UploadPart", times=None)
    with pytest.raises(StoreError):
        write_file(store, "a", bytes(PART_BYTES + 1))
    s3.proxy.reset()
    sink = None
    with pytest.raises(StoreError), writing(store, "a") as sink:
        sink.write(bytes(PART_BYTES + 1))
        s3.proxy.spoil("503", lambda asked: asked.kind == "CompleteMultipartUpload", times=None)
    assert read_file(store, "a") == b"before"
    assert s3.uploads() == []


@pytest.mark.parametrize("kind", ["CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"])
@pytest.mark.parametrize("fault", ["500", "torn_request", "lost_answer"])
def test_a_large_file_survives(s3: S3World, kind: str, fault: Fault) -> None:
    store, data = s3.store(), bytes(range(256)) * (PART_BYTES // 256) + b"end"
    rule = s3.proxy.spoil(fault, lambda asked: asked.kind == kind)
    write_file(store, "large", data)
    assert rule.done == 1
    assert read_file(store, "large") == data
    for upload in s3.uploads():  # of the first of two beginnings nobody knows: the lifecycle rule removes it
        assert (kind, fault) == ("CreateMultipartUpload", "lost_answer"), upload
        listed = s3.client.list_multipart_uploads(Bucket=BUCKET)["Uploads"]
        for one in listed:
            s3.client.abort_multipart_upload(Bucket=BUCKET, Key=one["Key"], UploadId=one["UploadId"])


def test_staged_files_that_fail_are_removed(s3: S3World) -> None:
    store = s3.store()
    batch = pa.RecordBatch.from_pylist(
        [
            {"partition_key": key, "chunk_id": "c", "doc_id": "d", "text_hash": "t", "model_fingerprint": "m"}
            | {"vector": [1.0]}
            for key in ("a__00", "a__01")
        ],
        schema=row_schema("embeddings"),
    )
    with pytest.raises(ZeroDivisionError), StagingWriter(store, "embeddings", "lane") as writer:
        writer.write(batch)
        1 / 0  # noqa: B018
    assert s3.keys(store) == []
    with StagingWriter(store, "embeddings", "lane") as writer:
        writer.write(batch)
    (one, other) = writer.close()
    assert sorted(s3.keys(store)) == sorted(f"tables/embeddings/{file.path}" for file in (one, other))


def test_a_copy_of_what_breaks_off_is_no_copy(s3: S3World, tmp_path: Path) -> None:
    """A backup names files by their content: half of one must not have its name."""
    store, target = s3.store(), s3.store()
    write_file(store, "data", bytes(3 * 1024 * 1024))
    s3.proxy.spoil("500", lambda asked: "bytes=1048576" in asked.headers.get("range", ""), times=None)
    for place in (target, Store(str(tmp_path))):
        with pytest.raises(StoreError):
            copy(store, "data", place, "blobs/x")
    assert s3.keys(target) == []
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_listings_and_deletions_of_more_than_a_page(s3: S3World) -> None:
    store = s3.store()
    root = store.root.removeprefix(f"s3://{BUCKET}/")
    client = s3.client
    for number in range(PAGE + 10):
        client.put_object(Bucket=BUCKET, Key=f"{root}/many/{number:05}", Body=b"x")
    assert len(list_folder(store, "many")) == PAGE + 10
    assert s3.proxy.counts()["ListObjects"] == 2
    remove_folder(store, "many")
    assert s3.keys(store) == []


@pytest.mark.parametrize("encryption", ["AES256", "aws:kms"])
def test_objects_are_encrypted_as_configured(s3: S3World, encryption: str) -> None:
    key = {"kms_key_id": "arn:aws:kms:us-east-1:1:key/k"} if encryption == "aws:kms" else {}
    store = s3.store(server_side_encryption=encryption, **key)
    write_file(store, "small", b"x")
    write_file(store, "large", bytes(PART_BYTES + 1))
    filesystem, root = store.filesystem()
    filesystem.copy_file(f"{root}/small", f"{root}/copy")
    with exclusive(store, "a", timeout_s=1):
        pass
    for name in s3.keys(store):
        head = s3.client.head_object(Bucket=BUCKET, Key=f"{store.root.removeprefix(f's3://{BUCKET}/')}/{name}")
        assert head["ServerSideEncryption"] == encryption, name
        assert head.get("SSEKMSKeyId") == key.get("kms_key_id"), name
    assert len(s3.keys(store)) == 4


def test_one_of_many_holds_a_lease(s3: S3World) -> None:
    store, inside, most = s3.store(), 0, 0
    lock = threading.Lock()

    def work(_number: int) -> None:
        nonlocal inside, most
        with exclusive(store, "name", timeout_s=60):
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(0.02)
            with lock:
                inside -= 1

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert most == 1


def test_a_lease_is_waited_for_and_given_back(s3: S3World) -> None:
    store = s3.store()
    with (
        exclusive(store, "name", timeout_s=0),
        pytest.raises(TransientError, match=r"work/locks/name\.json: held by process \d+ of"),
        exclusive(store, "name", timeout_s=0),
    ):
        pass
    with exclusive(store, "name", timeout_s=0) as held:
        held.check()


@pytest.mark.parametrize("fault", ["lost_answer", "torn_request", "503", "409"])
def test_a_lease_is_taken_though_the_answer_was_lost(s3: S3World, fault: Fault) -> None:
    store = s3.store()
    for _ in range(2):  # when there was none, and when one was given back
        rule = s3.proxy.spoil(fault, lambda asked: asked.kind == "PutObject")
        with exclusive(store, "name", timeout_s=5) as held:
            held.check()
        assert rule.done == 1


def test_the_lease_of_a_killed_process_ends_and_that_of_a_living_one_does_not(
    s3: S3World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "LEASE_S", 3.0)
    monkeypatch.setattr(locks, "_RENEW_S", 0.5)
    store = s3.store()
    program = (
        "import sys, time\nfrom rag_core.config_store import S3Config\nfrom rag_core.tables.store import Store\n"
        "from rag_core.tables.locks import exclusive\n"
        f"with exclusive(Store({store.root!r}, S3Config.model_validate_json(sys.argv[1])), 'name', timeout_s=0):\n"
        "    print('held', flush=True)\n    time.sleep(60)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, store.s3.model_dump_json()], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    child.kill()
    child.wait()
    with exclusive(store, "name", timeout_s=15) as held:  # so long after it was last written
        with pytest.raises(TransientError), exclusive(store, "name", timeout_s=5):
            pass  # it is written again and again meanwhile
        held.check()


def test_who_lost_a_lease_is_told(s3: S3World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "LEASE_S", 1.0)
    store = s3.store()
    with exclusive(store, "name", timeout_s=0) as mine:
        time.sleep(2.5)  # as a machine that sleeps: it is not written in time
        with exclusive(store, "name", timeout_s=5) as other:
            other.check()
            with pytest.raises(TransientError, match="the lease was lost"):
                mine.check()
