"""What an `s3` sink can be set to."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from event_handler.setting import Setting
from event_handler.sinks.aws_options import AwsOptions
from event_handler.sinks.packing import Compression

OBJECT_EVENTS = 10_000  # of a batch
OBJECT_BYTES = 16 * 1024 * 1024  # of the events of a batch; with what they cost beside, some 50 MiB of memory each
OBJECT_ROOM = 3  # times the bytes in flight of others, for objects should be large and still go out side by side
OBJECT_AGE = 60.0  # seconds; one object a minute while little happens: requests cost money


class S3Options(AwsOptions):
    """Which bucket, how objects are named, what is in them, and how the bucket keeps them."""

    bucket: Annotated[str, Setting("text", "name of the bucket", required=True)] = ""
    prefix: Annotated[
        str,
        Setting("text", "how names begin; {stream} is audit or session, the others are the hour's in UTC"),
    ] = "teleport/{stream}/{date}/{hour}/"
    format: Annotated[Literal["ndjson", "parquet"], Setting("choice", "what is in an object")] = "ndjson"
    compression: Annotated[Compression, Setting("choice", "how objects are packed")] = "gzip"
    path_style: Annotated[
        bool | None,
        Setting("flag", "name the bucket in the path instead of the host", unset="true with a url, else false"),
    ] = None
    object_events: Annotated[int, Setting("number", "events of an object at most"), Field(ge=1, le=100_000)] = (
        OBJECT_EVENTS
    )
    object_bytes: Annotated[
        int, Setting("number", "bytes of the events of an object at most, before packing"), Field(ge=1024)
    ] = OBJECT_BYTES
    object_age: Annotated[
        float, Setting("duration", "longest time that an event waits for others to share its object"), Field(ge=0.1)
    ] = OBJECT_AGE
    encryption: Annotated[
        Literal["bucket", "s3", "kms"],
        Setting("choice", "encryption at rest: as the bucket is set, with keys of S3, or with those of KMS"),
    ] = "bucket"
    kms_key: Annotated[str, Setting("text", "key of KMS", unset="the account's own key for S3")] = ""
    bucket_key: Annotated[
        bool, Setting("flag", "let S3 make a key of the bucket from that of KMS, so that KMS is asked less often")
    ] = False
    storage_class: Annotated[str, Setting("text", "storage class, as STANDARD_IA", unset="the bucket's")] = ""
    bucket_owner: Annotated[
        str, Setting("text", "account that must own the bucket; another one's is refused", unset="any")
    ] = ""
    max_connections: Annotated[
        int,
        Setting("number", "batches in flight at most, each of which may have several objects"),
        Field(ge=1, le=16),
    ] = 4
