"""S3, SQS, SNS and EventBridge as a real HTTP server (moto), and what tests put into it."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer

from rag_core import ids
from rag_core.config import S3Source

REGION = "eu-central-1"
ACCOUNT = "123456789012"


@dataclass
class Aws:
    """The server and clients of it."""

    url: str

    def client(self, service: str) -> Any:
        return boto3.client(service, endpoint_url=self.url, region_name=REGION)

    def bucket(self, name: str) -> None:
        where = {"LocationConstraint": REGION}
        self.client("s3").create_bucket(Bucket=name, CreateBucketConfiguration=where)

    def queue(self, name: str) -> str:
        url: str = self.client("sqs").create_queue(QueueName=name)["QueueUrl"]
        return url

    def notify(self, bucket: str, queue: str) -> None:
        """Have the bucket tell the queue, as a user would set it up."""
        arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:{queue}"
        wanted = {"QueueArn": arn, "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]}
        self.client("s3").put_bucket_notification_configuration(
            Bucket=bucket, NotificationConfiguration={"QueueConfigurations": [wanted]}
        )

    def put(self, bucket: str, objects: Mapping[str, str | bytes]) -> None:
        s3 = self.client("s3")
        for key, body in objects.items():
            s3.put_object(Bucket=bucket, Key=key, Body=body if isinstance(body, bytes) else body.encode())

    def fill(self, bucket: str, keys: Iterable[str]) -> None:
        """Put many small objects, past HTTP: the server is in this process."""
        backend = s3_backends[ACCOUNT]["aws"]
        for key in keys:
            backend.put_object(bucket, key, b"x")

    def send(self, queue_url: str, *bodies: object) -> None:
        sqs = self.client("sqs")
        for body in bodies:
            text = body if isinstance(body, str) else json.dumps(body)
            sqs.send_message(QueueUrl=queue_url, MessageBody=text)

    def in_queue(self, queue_url: str) -> tuple[int, int]:
        """Count the messages that wait, and those that were received and not removed."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.client("sqs").get_queue_attributes(QueueUrl=queue_url, AttributeNames=names)["Attributes"]
        return int(found[names[0]]), int(found[names[1]])

    def show_again(self, queue_url: str, receipts: tuple[str, ...]) -> None:
        """Let received messages be received again now, as the time that they are hidden for does."""
        sqs = self.client("sqs")
        for receipt in receipts:
            sqs.change_message_visibility(QueueUrl=queue_url, ReceiptHandle=receipt, VisibilityTimeout=0)

    def source(self, bucket: str, prefix: str = "", queue_url: str = "", **more: Any) -> S3Source:
        events = {"events": {"queue_url": queue_url, "wait_s": 0}} if queue_url else {}
        settings = {"name": "lake", "kind": "s3", "bucket": bucket, "prefix": prefix, "endpoint_url": self.url}
        return S3Source.model_validate({**settings, "region": REGION, **events, **more})


@contextmanager
def aws_server() -> Iterator[Aws]:
    """Start the server on a free port, with credentials for it in the environment; child processes inherit them."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        try:
            yield Aws(f"http://{host}:{port}")
        finally:
            server.stop()


def bucket_name(test: str) -> str:
    """Make a bucket's name of a test's: one for each, parameters and all."""
    return f"{test.partition('[')[0].replace('_', '-')[:50].strip('-')}-{ids.digest(test)[:8]}"


def record(bucket: str, key: str, name: str = "ObjectCreated:Put", **entity: Any) -> dict[str, Any]:
    """Write a notification of one event as S3 documents it; `key` is already URL-encoded."""
    item = {"key": key, "size": 2, "eTag": "d41d8cd98f00b204e9800998ecf8427e", "sequencer": "0055AED6DCD90281E5"}
    if "Created" not in name:
        del item["size"], item["eTag"]
    return {
        "Records": [
            {
                "eventVersion": "2.5",
                "eventSource": "aws:s3",
                "awsRegion": REGION,
                "eventTime": "2026-03-01T12:00:00.250Z",
                "eventName": name,
                "s3": {
                    "s3SchemaVersion": "1.0",
                    "configurationId": "documents",
                    "bucket": {"name": bucket, "arn": f"arn:aws:s3:::{bucket}"},
                    "object": {**item, **entity},
                },
            }
        ]
    }
