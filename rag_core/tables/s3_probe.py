"""A look whether a store in S3 can be used: everything that runs ask of it, once, with an object of its own."""

import uuid
from dataclasses import replace

from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from rag_core.aws import client
from rag_core.errors import StoreError, StoreRefusedError
from rag_core.tables.s3_access import encryption, endpoint
from rag_core.tables.store import Store
from rag_core.tables.store_errors import errors_about, errors_at, is_refused

_CONTENT = b"rag doctor"


def probe(store: Store) -> str:
    """List, write, write under a condition, read and delete in a store, with one try each.

    Returns:
        How what is written there is encrypted, in the words of S3.

    Raises:
        StoreError: One of them does not work now; the message says which. StoreRefusedError if that will not pass.
    """
    patient = endpoint(store.s3)
    s3 = client(replace(patient, tries=1, connect_timeout_s=min(3.0, patient.connect_timeout_s), read_timeout_s=10.0))
    bucket, _, prefix = store.root.removeprefix("s3://").strip("/").partition("/")
    key = f"{prefix}/work/doctor-{uuid.uuid4().hex[:8]}".lstrip("/")
    place, address = {"Bucket": bucket, "Key": key}, f"s3://{bucket}/{key}"
    with errors_at(f"cannot list {store.root}"):
        s3.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/" if prefix else "", MaxKeys=1)
    with errors_at(f"cannot write {address}"):
        written = s3.put_object(**place, Body=_CONTENT, **encryption(store.s3))
    try:
        _refuse_a_second(s3, place, address, store)
        with errors_at(f"cannot read {address}"):
            read = s3.get_object(**place)["Body"].read()
        if read != _CONTENT:
            raise StoreRefusedError(f"{address} was written and reads otherwise: is this a server of S3's protocol?")
    finally:
        with errors_at(f"cannot delete {address}"):
            s3.delete_object(**place)
    _open_a_table(store)
    return str(written.get("ServerSideEncryption") or "not encrypted by S3")


def _refuse_a_second(s3: object, place: dict[str, str], address: str, store: Store) -> None:
    """Write under the condition that nothing is there, which there is: so commits of two writers are kept apart."""
    try:
        with errors_at(f"cannot write {address} under a condition"):
            s3.put_object(**place, Body=b"another", IfNoneMatch="*", **encryption(store.s3))  # type: ignore[attr-defined]
    except StoreError as error:
        if not is_refused(error):
            raise
        return
    raise StoreRefusedError(
        f"the server of {store.root} overwrites an object that a write asked it not to (If-None-Match): two runs could "
        "commit the same version of a table; use a server that has conditional writes, see docs/s3.md"
    )


def _open_a_table(store: Store) -> None:
    """Let delta-rs ask as well, which finds credentials and authorities of certificates by itself."""
    options = {**store.storage_options, "max_retries": "0", "connect_timeout": "3s", "timeout": "10s"}
    with errors_about(store, "tables"):
        try:
            DeltaTable(store.table_uri("documents"), storage_options=options)
        except TableNotFoundError:
            return
