"""Tables of a store in S3, on real sockets: a commit is made once, whatever becomes of its answer."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from rag_core.config import EmbeddingConfig
from rag_core.config_store import S3Config
from rag_core.embedding.cache import TABLE as VECTORS
from rag_core.embedding.cache import VectorCache
from rag_core.embedding.manifest import ITEMS, read_manifest, remove_manifest, write_manifest
from rag_core.embedding.model import resolve_model
from rag_core.errors import PermanentError, StoreError, StoreRefusedError, TransientError
from rag_core.tables.change import TableChange, commit, stage
from rag_core.tables.delta import TableSlice, newest_version
from rag_core.tables.log import append_rows
from rag_core.tables.maintenance import maintain
from rag_core.tables.store import Store
from tests.integration.s3_store_helpers import BUCKET, PAGE, S3World
from tests.s3_proxy import Asked, Fault
from tests.unit.tables.test_change import KEYS, LANE, apply, content, rows
from tests.unit.tables.test_handles import TABLE as LOG
from tests.unit.tables.test_handles import row


def is_commit(asked: Asked) -> bool:
    return asked.is_commit


def expected(items: dict[str, tuple[str, int]]) -> set[tuple[str, str, str]]:
    return {(key, f"{doc}-{n}", str(payload)) for doc, (key, payload) in items.items() for n in range(2)}


def every_file_is_there(store: Store, table: str) -> bool:
    """Look that a table names no file that is gone, and count its rows by reading them."""
    opened = DeltaTable(store.table_uri(table), storage_options=store.storage_options)
    named = sum(opened.get_add_actions(flatten=True)["num_records"].to_pylist())
    return bool(opened.to_pyarrow_table().num_rows == named)


def test_a_commit_asks_that_its_version_is_not_there(s3: S3World) -> None:
    store = s3.store()
    apply(store, {"u": (KEYS[0], 1)}, set())
    commits = [asked for asked in s3.proxy.asked if asked.is_commit]
    assert [asked.headers["if-none-match"] for asked in commits] == ["*", "*"]
    assert content(store) == expected({"u": (KEYS[0], 1)})


@pytest.mark.parametrize("fault", ["500", "503", "409", "torn_request", "torn_answer", "lost_answer", "refused"])
@pytest.mark.parametrize("replaces", [False, True])
def test_a_commit_is_made_once(s3: S3World, fault: Fault, replaces: bool) -> None:
    store = s3.store()
    apply(store, {"u": (KEYS[0], 1), "v": (KEYS[1], 1)}, set())
    before = newest_version(store, "embeddings")
    rule = s3.proxy.spoil(fault, is_commit)
    changed = {"v": (KEYS[1], 2), "w": (KEYS[1], 3)} if replaces else {"w": (KEYS[1], 3)}
    result = apply(store, changed, {"v"} if replaces else set())
    assert rule.done == 1
    assert result.committed
    assert result.version == newest_version(store, "embeddings") == before + 1
    assert content(store) == expected({"u": (KEYS[0], 1), "v": (KEYS[1], 1), **changed})
    assert every_file_is_there(store, "embeddings")


@pytest.mark.parametrize("replaces", [False, True])
def test_a_commit_that_arrived_and_is_never_answered_is_known_to_be_made(s3: S3World, replaces: bool) -> None:
    store = s3.store()
    apply(store, {"v": (KEYS[1], 1)}, set())
    s3.proxy.spoil("lost_answer", is_commit, times=None)
    result = apply(store, {"v": (KEYS[1], 2)} if replaces else {"w": (KEYS[1], 2)}, {"v"} if replaces else set())
    assert result.committed
    wanted = {"v": (KEYS[1], 2)} if replaces else {"v": (KEYS[1], 1), "w": (KEYS[1], 2)}
    assert content(store) == expected(wanted)
    assert every_file_is_there(store, "embeddings")


def test_a_commit_of_which_nothing_is_known_keeps_its_files(s3: S3World) -> None:
    """The answer is lost and S3 is gone: what was staged may be part of the table, so it stays."""
    store = s3.store()
    apply(store, {"v": (KEYS[1], 1)}, set())
    is_cut = []

    def cut(asked: Asked) -> None:
        if asked.is_commit:
            is_cut.append(1)

    s3.proxy.before = cut
    s3.proxy.spoil("lost_answer", lambda asked: asked.is_commit or bool(is_cut), times=None)
    with pytest.raises(StoreError, match=r"table embeddings: whether a commit was made is not known"):
        apply(store, {"w": (KEYS[1], 2)}, set())
    s3.proxy.reset()
    assert content(store) == expected({"v": (KEYS[1], 1), "w": (KEYS[1], 2)})
    assert every_file_is_there(store, "embeddings")


def test_a_commit_that_never_arrives_is_a_transient_failure(s3: S3World) -> None:
    store = s3.store()
    apply(store, {"v": (KEYS[1], 1)}, set())
    s3.proxy.spoil("503", is_commit, times=None)
    with pytest.raises(StoreError, match=r"table embeddings in s3://.*: SlowDown: .* \(PUT .*json\)") as caught:
        apply(store, {"w": (KEYS[1], 2)}, set())
    assert not isinstance(caught.value, PermanentError)
    s3.proxy.reset()
    assert apply(store, {"w": (KEYS[1], 2)}, set()).committed
    assert content(store) == expected({"v": (KEYS[1], 1), "w": (KEYS[1], 2)})


def test_two_writers_of_the_same_version_and_partition(s3: S3World) -> None:
    """One is refused and nothing of the other is lost; what the first one staged is removed."""
    store = s3.store()
    stores = (store, Store(store.root, S3Config(endpoint_url=s3.url)))
    changes = [
        TableChange(
            TableSlice.newest(one, "embeddings", KEYS, lane=LANE),
            "doc_id",
            files=stage(one, "embeddings", rows({doc: (KEYS[0], 1)}), LANE),
        )
        for doc, one in zip("uv", stores, strict=True)
    ]
    met: list[Asked] = []

    def overtake(asked: Asked) -> None:
        if asked.is_commit and not met:
            met.append(asked)
            commit(changes[1], run_id="second")

    s3.proxy.before = overtake
    with pytest.raises(TransientError, match="another run changed one of the partitions") as caught:
        commit(changes[0], run_id="first")
    assert not isinstance(caught.value, StoreError)
    assert content(store) == expected({"v": (KEYS[0], 1)})
    files = [key for key in s3.keys(store, "tables/embeddings/") if key.endswith(".parquet")]
    assert len(files) == 1


def test_writers_of_many_partitions_at_once(s3: S3World) -> None:
    store = s3.store()
    newest_version(store, "embeddings")

    def write(number: int) -> None:
        key = f"a__{number:02}"
        base = TableSlice.newest(store, "embeddings", (key,), lane=LANE)
        files = stage(store, "embeddings", rows({f"d{number}": (key, number)}), LANE)
        commit(TableChange(base, "doc_id", files=files), run_id=str(number))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(6)))
    assert content(store) == expected({f"d{number}": (f"a__{number:02}", number) for number in range(6)})
    assert newest_version(store, "embeddings") == 6


@pytest.mark.parametrize("fault", ["lost_answer", "torn_request", "503", "409"])
def test_rows_of_a_log_are_appended_once(s3: S3World, fault: Fault) -> None:
    store = s3.store()
    append_rows(store, LOG, [row(1)])
    rule = s3.proxy.spoil(fault, is_commit)
    assert append_rows(store, LOG, [row(2)]) == 2
    assert rule.done == 1
    assert TableSlice.newest(store, LOG).count() == 2


def test_a_log_has_many_writers(s3: S3World) -> None:
    store = s3.store()
    newest_version(store, LOG)
    with ThreadPoolExecutor(5) as pool:
        list(pool.map(lambda number: append_rows(store, LOG, [row(number)]), range(10)))
    found = TableSlice.newest(store, LOG)
    assert (found.version, found.count()) == (10, 10)


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("fault", ["lost_answer", "torn_request", "500"])
def test_vectors_are_stored_once(s3: S3World, fault: Fault, is_first: bool) -> None:
    store = s3.store()
    cache = VectorCache(store)
    vectors = np.eye(2, dtype=np.float32)
    if not is_first:
        cache.append("m", ["0" * 32, "1" * 32], vectors)
    rule = s3.proxy.spoil(fault, is_commit)
    cache.append("m", ["2" * 32, "3" * 32], vectors)
    assert rule.done == 1
    names, found = VectorCache(store).lookup("m", ["3" * 32, "2" * 32])
    assert names == ["3" * 32, "2" * 32]
    assert np.array_equal(found, vectors[::-1])
    table = DeltaTable(store.table_uri(VECTORS), storage_options=store.storage_options)
    assert table.to_pyarrow_table().num_rows == (2 if is_first else 4)


def test_an_append_that_others_outrun_is_made_at_last(s3: S3World) -> None:
    store = s3.store()
    elsewhere = Store(store.root, S3Config(endpoint_url=s3.url))  # nothing that processes share is shared with it
    outrun: list[int] = []

    def overtake(asked: Asked) -> None:
        if asked.is_commit and len(outrun) < 3 and b'"mine"' in asked.body:
            outrun.append(1)
            append_rows(elsewhere, LOG, [row(100 + len(outrun))], run_id="other")

    newest_version(store, LOG)
    s3.proxy.before = overtake
    append_rows(store, LOG, [row(1)], run_id="mine")
    assert len(outrun) == 3
    assert TableSlice.newest(store, LOG).count() == 4


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        ("403", StoreRefusedError, r"table feedback in s3://.*: AccessDenied: Access Denied \(GET .*; allow what"),
        ("expired", StoreError, "ExpiredToken: .*valid credentials"),
        ("503", StoreError, "SlowDown"),
        ("500", StoreError, "InternalError"),
        ("silence", StoreError, "NoAnswer: .*the run can be repeated"),
        ("refused", StoreError, "NoAnswer: .*the run can be repeated"),
        ("torn_answer", StoreError, "NoAnswer: .*the run can be repeated"),
    ],
)
def test_what_an_operator_reads_of_a_table(s3: S3World, fault: Fault, kind: type, words: str) -> None:
    store = s3.store(request_timeout_s=1)
    s3.proxy.spoil(fault, lambda _asked: True, times=None)
    with pytest.raises(kind, match=words) as caught:
        TableSlice.newest(store, LOG)
    assert isinstance(caught.value, PermanentError) == (kind is StoreRefusedError)
    assert "\x1b" not in str(caught.value)


def test_no_bucket_and_no_credentials(s3: S3World, monkeypatch: pytest.MonkeyPatch) -> None:
    store = s3.store()
    with pytest.raises(StoreRefusedError, match=r"NoSuchBucket: .*correct store\.root, or create the bucket"):
        newest_version(Store("s3://nobodys-bucket/store", store.s3), LOG)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    with pytest.raises(StoreRefusedError, match="NoCredentials: none were found; give the process valid credentials"):
        newest_version(store, LOG)


@pytest.mark.parametrize("way", ["profile", "web identity"])
def test_credentials_are_found_as_awss_tools_find_them(
    s3: S3World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """A table and a work file are reached alike; which key signed is in the request."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    if way == "profile":
        (tmp_path / "credentials").write_text("[rag]\naws_access_key_id = FROMPROFILE\naws_secret_access_key = x\n")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
        monkeypatch.setenv("AWS_PROFILE", "rag")
    else:
        (tmp_path / "token").write_text("a token of the cluster")
        monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
        monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/rag")
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", s3.url)
    store = s3.store(tries=4 if way == "profile" else 5)  # a client of its own
    write_manifest(store, EmbeddingConfig(), resolve_model(EmbeddingConfig()), items(), "run")
    append_rows(store, LOG, [row(1)])
    keys = {asked.headers["authorization"].partition("Credential=")[2].split("/")[0] for asked in s3.proxy.asked}
    assert all(key == "FROMPROFILE" if way == "profile" else key.startswith("ASIA") for key in keys)
    assert keys


def items() -> list[pa.RecordBatch]:
    return [pa.RecordBatch.from_pylist([{"text_hash": "0" * 32, "text": "t", "token_count": 1}], schema=ITEMS)]


def test_a_work_manifest_says_how_the_store_is_reached(s3: S3World) -> None:
    store = s3.store(server_side_encryption="AES256")
    spec = resolve_model(EmbeddingConfig())
    rule = s3.proxy.spoil("torn_request", lambda asked: asked.kind == "PutObject")
    address = write_manifest(store, EmbeddingConfig(api_key="secret-key"), spec, items(), "run")
    assert address is not None
    assert rule.done == 1
    found = read_manifest(address)
    assert found.store == store
    written = s3.client.get_object(
        Bucket=BUCKET, Key=f"{store.root[len(f's3://{BUCKET}/') :]}/work/embedding/run/manifest.json"
    )
    assert b"secret" not in written["Body"].read()
    assert "secret" not in address
    remove_manifest(store, "run")
    assert s3.keys(store) == []
    s3.proxy.spoil("403", lambda asked: asked.kind == "PutObject", times=None)
    with pytest.raises(StoreRefusedError, match="AccessDenied"):
        write_manifest(store, EmbeddingConfig(), spec, items(), "run")


def test_tables_are_encrypted_as_configured(s3: S3World) -> None:
    store = s3.store(server_side_encryption="aws:kms", kms_key_id="arn:aws:kms:us-east-1:1:key/k")
    apply(store, {"v": (KEYS[1], 1)}, set())
    apply(store, {"v": (KEYS[1], 2)}, {"v"})
    for key in s3.keys(store):
        head = s3.client.head_object(Bucket=BUCKET, Key=f"{store.root[len(f's3://{BUCKET}/') :]}/{key}")
        assert head["ServerSideEncryption"] == "aws:kms", key
        assert head["SSEKMSKeyId"] == "arn:aws:kms:us-east-1:1:key/k", key
        assert head["BucketKeyEnabled"], key


def test_a_versioned_bucket_and_a_log_of_more_than_a_page(s3: S3World) -> None:
    """Old versions of objects and marks of deletion are not seen; a log is listed by pages."""
    s3.client.create_bucket(Bucket="versioned")
    s3.client.put_bucket_versioning(Bucket="versioned", VersioningConfiguration={"Status": "Enabled"})
    store = Store("s3://versioned/store", s3.store(request_timeout_s=30).s3)
    newest_version(store, LOG)
    for number in range(PAGE // 2 + 4):  # two objects for each
        append_rows(store, LOG, [row(number)])
    assert TableSlice.newest(store, LOG).count() == PAGE // 2 + 4
    apply(store, {"v": (KEYS[1], 1)}, set())
    apply(store, {"v": (KEYS[1], 2)}, {"v"})
    assert content(store) == expected({"v": (KEYS[1], 2)})
    (staged,) = stage(store, "embeddings", rows({"x": (KEYS[0], 1)}), LANE)
    done = {one.table: one for one in maintain(store, ("embeddings", LOG))}
    assert done[LOG].files_after < done[LOG].files_before
    assert TableSlice.newest(store, LOG).count() == PAGE // 2 + 4
    assert content(store) == expected({"v": (KEYS[1], 2)})
    assert staged.path in {key.partition("embeddings/")[2] for key in _keys(s3, "versioned")}  # a week is kept
    marks = s3.client.list_object_versions(Bucket="versioned")
    assert marks.get("DeleteMarkers")  # of files that were staged and read
    assert not [one for one in marks["Versions"] if one["Key"].endswith(".json") and not one["IsLatest"]
                and "_delta_log" in one["Key"]]  # fmt: skip


def _keys(s3: S3World, bucket: str) -> list[str]:
    pages = s3.client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return [one["Key"] for page in pages for one in page.get("Contents", [])]
