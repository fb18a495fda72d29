"""Files appear when they are complete; what S3 says is read as what it means."""

from pathlib import Path

import pytest
from deltalake.exceptions import CommitFailedError, DeltaError

from rag_core.config_store import S3Config, StoreConfig
from rag_core.errors import PermanentError, StoreError, StoreRefusedError
from rag_core.tables.files import open_sink, read_file, remove_file, remove_folder, write_file, writing
from rag_core.tables.s3_access import encryption, storage_options
from rag_core.tables.store import Store
from rag_core.tables.store_errors import errors_about

S3 = Store("s3://lake/store")


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_file_is_seen_when_it_is_complete(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    write_file(store, "a/b", b"before")
    with writing(store, "a/b") as sink:
        sink.write(b"af")
        sink.write(memoryview(b"ter"))
        assert sink.tell() == 5
        assert read_file(store, "a/b") == b"before"
    assert read_file(store, "a/b") == b"after"
    with pytest.raises(ZeroDivisionError), writing(store, "a/b") as sink:
        sink.write(b"half")
        1 / 0  # noqa: B018
    assert read_file(store, "a/b") == b"after"
    sink = open_sink(store, "c")
    sink.write(b"x")
    del sink  # forgotten, as by a process that goes on after an error
    assert files(tmp_path) == ["a/b"]


def test_what_is_not_there_is_removed_without_a_complaint(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    remove_file(store, "a")
    remove_folder(store, "b")
    assert read_file(store, "a") is None


def test_storage_options_hold_no_secret_and_say_how_to_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-secret")
    config = S3Config(endpoint_url="http://minio:9000", server_side_encryption="aws:kms", kms_key_id="k", tries=3)
    options = storage_options(config)
    assert "the-secret" not in str(options)
    assert options["aws_conditional_put"] == "etag"
    assert (options["allow_http"], options["max_retries"]) == ("true", "2")
    assert options["aws_sse_kms_key_id"] == encryption(config)["SSEKMSKeyId"] == "k"
    assert not any("lock" in name.lower() or "unsafe" in name.lower() for name in options)
    assert storage_options(S3Config(endpoint_url="https://minio:9000"))["allow_http"] == "false"
    assert encryption(S3Config()) == {}


@pytest.mark.parametrize("value", [{"kms_key_id": "k"}, {"server_side_encryption": "AES256", "kms_key_id": "k"}])
def test_a_key_goes_with_its_kind_of_encryption(value: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="kms_key_id goes with server_side_encryption: aws:kms"):
        StoreConfig.model_validate({"root": "s3://a/b", "s3": value})


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        (
            "Kernel error -> Generic S3 error\n \x1b[31m↳\x1b[0m Error performing GET http://h:1/lake/t/_delta_log/x "
            "in 2ms - Server returned non-2xx status code\n  \x1b[31m↳\x1b[0m 403 Forbidden\n   <?xml?><Error>"
            "<Code>AccessDenied</Code><Message>Access Denied</Message></Error>",
            StoreRefusedError,
            "table t in s3://lake/store: AccessDenied: Access Denied (GET /lake/t/_delta_log/x); allow what docs/s3.md "
            "lists on the bucket and below its prefix, and on the KMS key if there is one",
        ),
        (
            "Generic S3 error: Error performing PUT http://h:1/lake/t in 200ms, after 2 retries - Server returned "
            "non-2xx status code: 503 Service Unavailable: <Code>SlowDown</Code><Message>Reduce.</Message>",
            StoreError,
            "table t in s3://lake/store: SlowDown: Reduce (PUT /lake/t); the run can be repeated",
        ),
        (
            "Generic S3 error: Error performing PUT http://h:1/lake/t in 2s - HTTP error: operation timed out",
            StoreError,
            "table t in s3://lake/store: NoAnswer: HTTP error: operation timed out (PUT /lake/t); the run can be "
            "repeated",
        ),
    ],
)
def test_words_of_delta_rs_become_ours(text: str, kind: type[StoreError], said: str) -> None:
    for error in (OSError(text), DeltaError(text)):
        with pytest.raises(StoreError) as caught, errors_about(S3, "table t"):
            raise error
        assert type(caught.value) is kind
        assert isinstance(caught.value, PermanentError) == (kind is StoreRefusedError)
        assert str(caught.value) == said


def test_errors_that_are_not_of_s3_stay(tmp_path: Path) -> None:
    for store, error in (
        (S3, CommitFailedError("Generic S3 error")),
        (S3, DeltaError("the predicate is wrong")),
        (S3, FileNotFoundError("credentials")),
        (Store(str(tmp_path)), OSError("No space left on device")),
    ):
        with pytest.raises(type(error)) as caught, errors_about(store, "table t"):
            raise error
        assert caught.value is error
