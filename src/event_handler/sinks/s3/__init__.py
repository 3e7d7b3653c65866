"""Delivers to a bucket of Amazon S3, or of what speaks its protocol: objects of events, by date and hour."""

from __future__ import annotations

from event_handler.sinks.registry import SinkType
from event_handler.sinks.s3.options import S3Options as S3Options
from event_handler.sinks.s3.sink import S3Sink as S3Sink

SINK = SinkType("objects in a bucket of Amazon S3, MinIO, R2 and their like", S3Options, S3Sink)
