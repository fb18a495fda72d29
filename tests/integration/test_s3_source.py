"""Listing and reading against a real HTTP server that speaks S3's protocol."""

import pickle
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rag_core import aws as aws_module
from rag_core.config import S3Source
from rag_core.config_loader import load_config
from rag_core.doctor.finding import Finding
from rag_core.doctor.run import run_doctor
from rag_core.errors import ObjectGoneError, PermanentError, SourceError, SourceRefusedError
from rag_core.sources.base import SourceObject
from rag_core.sources.factory import open_source
from rag_core.sources.s3 import S3Objects
from tests.integration.pipeline_helpers import Platform, search_json
from tests.integration.s3_helpers import REGION, Aws, aws_server, bucket_name


@pytest.fixture(scope="module")
def aws() -> Iterator[Aws]:
    with aws_server() as server:
        yield server


@pytest.fixture
def bucket(aws: Aws, request: pytest.FixtureRequest) -> str:
    name = bucket_name(request.node.name)
    aws.bucket(name)
    return name


def listed(source: S3Source) -> dict[str, SourceObject]:
    items = list(open_source(source).list())
    found = {item.key: item for item in items}
    assert len(found) == len(items)
    return found


def test_objects_below_the_prefix_and_no_others(aws: Aws, bucket: str) -> None:
    ours = ["docs/a.md", "docs/deep/b.md", "docs/", "docs/deep/", "docs/.hidden", "docs/d.tmp"]
    keys = [*ours, "docs-old/c.md", "other.md"]
    aws.put(bucket, dict.fromkeys(keys, "text"))
    for prefix in ("docs", "docs/"):
        found = listed(aws.source(bucket, prefix, exclude=["**/.*", "**/*.tmp"]))
        assert sorted(found) == ["a.md", "deep/b.md"]
    item = found["deep/b.md"]
    assert item.uri == f"s3://{bucket}/docs/deep/b.md"
    assert item.size_bytes == 4
    assert item.fingerprint == "4-1cb251ec0d568de6a929b520c4aed8d1"  # the MD5 of `text`, without quotes
    assert item.modified_at is not None
    assert item.modified_at.tzinfo is UTC
    assert datetime.now(UTC) - item.modified_at < timedelta(minutes=5)
    assert open_source(aws.source(bucket, "docs")).read(item) == b"text"
    assert "docs-old/c.md" in listed(aws.source(bucket))


def test_strange_keys_are_listed_and_read(aws: Aws, bucket: str) -> None:
    keys = [
        "a b+c.md", "100%.md", "%41%2B.md", "ä/日本語.md", "a//b.md", "/lead.md", "q?x=1&y#z.md", "\x01.md", "tab\t.md",
        "\u00e9.md", "e\u0301.md", "<tag>&amp;'\".md", "x/../y.md", "x/./y.md", "~tilde*.md", "back\\slash.md",
        "emoji🎈.md",
    ]  # fmt: skip
    aws.put(bucket, {f"docs/{key}": key for key in keys})
    source = aws.source(bucket, "docs", exclude=[])  # `x/../y.md` lies in a hidden folder
    found = listed(source)
    assert sorted(found) == sorted(keys)
    reader = open_source(source)
    for key, item in found.items():
        assert reader.read(item) == key.encode()
        assert isinstance(reader, S3Objects)
        assert reader.look(key) == item
    assert reader.look("emoji") is None


def test_a_listing_of_many_pages_goes_on_in_another_process(aws: Aws, bucket: str) -> None:
    keys = [f"{number:05}.md" for number in range(2_350)]
    aws.fill(bucket, keys)
    assert sorted(listed(aws.source(bucket))) == keys
    source = S3Objects.of(aws.source(bucket, include=["*[02468].md"]))
    pages: list[list[str]] = []
    position = None
    while True:
        items, position = pickle.loads(pickle.dumps(source)).list_page(position)
        pages.append([item.key for item in items])
        if position is None:
            break
        aws.put(bucket, {"00000-late.md": "x"})  # before the position: neither lost nor doubled what is behind it
    assert [len(page) for page in pages] == [500, 500, 175]
    assert [key for page in pages for key in page] == keys[::2]


def test_a_page_may_end_with_the_last_key(aws: Aws, bucket: str) -> None:
    aws.fill(bucket, (f"{number:04}" for number in range(1_000)))
    assert len(listed(aws.source(bucket))) == 1_000


def test_what_is_missing_is_never_an_empty_listing(aws: Aws, bucket: str) -> None:
    assert listed(aws.source(bucket)) == {}
    with pytest.raises(SourceError, match=rf"'lake': s3://{bucket}/docs/ holds nothing") as empty:
        listed(aws.source(bucket, "docs"))
    assert not isinstance(empty.value, PermanentError)
    aws.put(bucket, {"docs/": b""})
    assert listed(aws.source(bucket, "docs")) == {}
    with pytest.raises(SourceRefusedError, match=r"'lake': s3://not-there/: NoSuchBucket: .*; correct `bucket`"):
        listed(aws.source("not-there"))


def test_reading_is_bounded_and_tells_what_is_gone(aws: Aws, bucket: str) -> None:
    aws.put(bucket, {"a.md": "text"})
    item = listed(aws.source(bucket))["a.md"]
    assert open_source(aws.source(bucket, max_bytes=4)).read(item) == b"text"
    with pytest.raises(SourceError, match=r"a\.md is larger than max_bytes \(3\)"):
        open_source(aws.source(bucket, max_bytes=3)).read(item)
    aws.client("s3").delete_object(Bucket=bucket, Key="a.md")
    with pytest.raises(ObjectGoneError, match=r"a\.md is gone"):
        open_source(aws.source(bucket)).read(item)
    with pytest.raises(SourceRefusedError, match="NoSuchBucket"):
        open_source(aws.source("not-there")).read(item)


def test_an_archived_object_is_refused_with_the_reason(aws: Aws, bucket: str) -> None:
    aws.client("s3").put_object(Bucket=bucket, Key="old.md", Body=b"x", StorageClass="GLACIER")
    item = listed(aws.source(bucket))["old.md"]
    with pytest.raises(SourceRefusedError, match=r"old\.md: InvalidObjectState: .*restore it, or exclude it"):
        open_source(aws.source(bucket)).read(item)


def test_without_credentials_another_try_cannot_help(aws: Aws, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/nowhere")
    source = aws.source(bucket, region="us-west-1")  # a client of its own: that of the others has found credentials
    with pytest.raises(SourceRefusedError, match=r"NoCredentialsError: .*give boto3 valid credentials"):
        listed(source)


def test_nobody_answers(aws: Aws) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        nobody = f"http://127.0.0.1:{server.getsockname()[1]}"
    source = S3Objects.of(aws.source("docs", endpoint_url=nobody)).impatient()
    with pytest.raises(SourceError, match="EndpointConnectionError") as failed:
        list(source.list())
    assert not isinstance(failed.value, PermanentError)
    with pytest.raises(SourceRefusedError, match=r"expected http\(s\)://host"):
        list(replace(source, endpoint=replace(source.endpoint, url="http://no host")).list())


class Answering(threading.Thread):
    """Answers each connection with the next of the given bytes, the last ones from then on."""

    def __init__(self, *answers: bytes) -> None:
        super().__init__(daemon=True)
        self._answers = answers
        self._server = socket.create_server(("127.0.0.1", 0))
        self.asked = 0
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"

    def run(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            with connection:
                connection.recv(65_536)
                answer = self._answers[min(self.asked, len(self._answers) - 1)]
                self.asked += 1  # before the answer: whoever has read it may look
                connection.sendall(answer)

    def __enter__(self) -> "Answering":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()


def answer(status: str, code: str) -> bytes:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>Told so.</Message></Error>"
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()


@pytest.mark.parametrize(
    ("status", "code", "permanent"),
    [
        ("403 Forbidden", "AccessDenied", True),
        ("403 Forbidden", "SignatureDoesNotMatch", True),
        ("400 Bad Request", "ExpiredToken", False),
        ("503 Slow Down", "SlowDown", False),
        ("500 Internal Server Error", "InternalError", False),
        ("429 Too Many Requests", "TooManyRequests", False),
        ("400 Bad Request", "KMS.ThrottlingException", False),
        ("400 Bad Request", "KMS.DisabledException", True),
    ],
)
def test_refusals_are_permanent_or_pass(aws: Aws, status: str, code: str, permanent: bool) -> None:
    with Answering(answer(status, code)) as server:
        source = S3Objects.of(aws.source("docs", "in", endpoint_url=server.url)).impatient()
        with pytest.raises(SourceError, match=f"'lake': s3://docs/in/: {code}: Told so") as listing:
            list(source.list())
        with pytest.raises(SourceError, match=f"'lake': s3://docs/in/a.md: {code}: Told so") as reading:
            source.read(SourceObject("lake", "a.md", "", "", 1))
        assert server.asked == 2
    for failed in (listing, reading):
        assert isinstance(failed.value, PermanentError) is permanent


def test_an_answer_that_breaks_off_is_asked_for_again(aws: Aws) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\n"
    item = SourceObject("lake", "a.md", "", "", 4)
    with Answering(head + b"te", head + b"text") as server:
        source = S3Objects.of(aws.source("docs", endpoint_url=server.url)).impatient()
        assert source.read(item) == b"text"
        assert server.asked == 2
    with Answering(head + b"te") as server:
        source = replace(source, endpoint=replace(source.endpoint, url=server.url))
        with pytest.raises(SourceError, match=r"s3://docs/a\.md") as failed:
            source.read(item)
        assert server.asked == 3
    assert not isinstance(failed.value, PermanentError)


def test_a_server_that_cannot_go_on_after_a_key_is_found_out(aws: Aws) -> None:
    content = "<Contents><Key>a.md</Key><Size>1</Size><LastModified>2026-03-01T12:00:00Z</LastModified></Contents>"
    body = f"<ListBucketResult><IsTruncated>true</IsTruncated>{content}</ListBucketResult>"
    whole = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
    with Answering(whole) as server:
        source = S3Objects.of(aws.source("docs", endpoint_url=server.url)).impatient()
        with pytest.raises(SourceRefusedError, match="begins at the start again"):
            list(source.list())
    assert server.asked == 2


def test_a_process_has_its_own_client(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = S3Objects.of(aws.source("docs")).endpoint
    assert aws_module.client(endpoint) is aws_module.client(endpoint)
    monkeypatch.setattr("os.getpid", lambda: -1)
    assert aws_module.client(endpoint) is not aws_module.client(replace(endpoint, tries=7))


def findings_of(tmp_path: Path, source: str) -> dict[str, Finding]:
    path = tmp_path / "rag.yaml"
    path.write_text(f"store: {{root: ./data}}\nsources:\n  - {source}\n")
    return {finding.name: finding for finding in run_doctor(load_config(path, {}), {})}


def test_doctor_looks_at_bucket_and_queue(aws: Aws, bucket: str, tmp_path: Path) -> None:
    start = f"name: lake, kind: s3, endpoint_url: '{aws.url}', region: {REGION}"
    queue = aws.queue("doctors-queue")
    aws.put(bucket, {"docs/a.md": "x"})
    found = findings_of(tmp_path, f"{{{start}, bucket: {bucket}, prefix: docs, events: {{queue_url: '{queue}'}}}}")
    assert found["source lake"].status == "ok"
    assert found["queue of lake"] == Finding("queue of lake", "ok", f"{queue}: about 0 messages wait")
    found = findings_of(tmp_path, f"{{{start}, bucket: gone, events: {{queue_url: '{queue}s'}}}}")
    assert (found["source lake"].status, found["queue of lake"].status) == ("fail", "fail")
    assert "NoSuchBucket" in found["source lake"].detail
    assert f"{queue}s" in found["queue of lake"].detail
    found = findings_of(tmp_path, f"{{{start}, bucket: {bucket}, prefix: docs, include: ['*.pdf']}}")
    assert found["source lake"].status == "warn"
    assert "queue of lake" not in found


@pytest.mark.milvus
@pytest.mark.slow
def test_the_whole_pipeline_on_a_bucket(aws: Aws, bucket: str, tmp_path: Path) -> None:
    aws.put(
        bucket,
        {
            "docs/notes/a b.md": "# Shelves\n\nThe quokka crate is on shelf 7.\n",
            "docs/c.html": "<html><body><h1>Tides</h1><p>Walk the barrier island at low tide.</p></body></html>",
            "docs/big.md": "# Big\n" + "x" * 5_000,
            "elsewhere.md": "# Elsewhere\n\nNobody reads this.\n",
        },
    )
    source = aws.source(bucket, "docs", max_bytes=4_000).model_dump(mode="json", exclude_none=True)
    platform = Platform(tmp_path / "platform", [source])
    try:
        assert platform.run()["upserted"] == 2
        statuses = [row[2] for row in platform.tables()["documents"]]
        assert sorted(statuses) == ["ok", "ok", "rejected"]
        (hit,) = search_json(platform, "quokka", "bm25")
        assert hit["uri"] == f"s3://{bucket}/docs/notes/a b.md"
        before = platform.tables()
        assert platform.run()["upserted"] == 0
        assert platform.tables() == before
        aws.put(bucket, {"docs/notes/a b.md": "# Shelves\n\nThe wombat crate is on shelf 8.\n"})
        aws.client("s3").delete_object(Bucket=bucket, Key="docs/c.html")
        platform.run()
        assert len(search_json(platform, "wombat", "bm25")) == 1
        assert not search_json(platform, "quokka barrier", "bm25")
    finally:
        platform.stop()
