"""Makes objects of events: which share one, what it is called, and what is in it.

A name is made of the events that are in it, so the same events have the same name whenever they are sent.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Sequence
from typing import Any

from event_handler.errors import SinkError
from event_handler.event import MARK, Event, fingerprint
from event_handler.sinks.columns import row_of
from event_handler.sinks.fields import with_session
from event_handler.sinks.moments import moment
from event_handler.sinks.packing import SUFFIXES, packer
from event_handler.sinks.s3.options import S3Options

DIGEST_BYTES = MARK  # of an event
SECONDS_OF_HOUR = 3600  # seconds
OBJECT_TYPES = {"none": "application/x-ndjson", "gzip": "application/gzip", "zstd": "application/zstd"}
PARQUET_TYPE = "application/vnd.apache.parquet"
PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
PLACEHOLDERS = frozenset({"stream", "date", "year", "month", "day", "hour"})
LONGEST_NAME = 1024  # bytes of a name (S3 User Guide, "Naming Amazon S3 objects")


def digest_of(event: Event) -> bytes:
    """What tells an event from every other, here and after a restart: mostly as the state remembers it when delivered.

    Its text does not: transforms may leave out what differs, and some events of a recording differ by their place only.
    """
    return fingerprint(f"{event.session_id}/{event.index}/{event.id}" if event.session_id else event.id)


def period_of(prefix: str) -> int:
    """Seconds of the time that objects of this prefix are divided by; 0 where they are not."""
    named = set(PLACEHOLDER.findall(prefix))
    if "hour" in named:
        return SECONDS_OF_HOUR
    return 24 * SECONDS_OF_HOUR if named & {"date", "day"} else 0


def groups(events: Sequence[Event], period: int) -> list[list[int]]:
    """The places of the events that share an object: those of one hour or day, in the order in which these come up."""
    if not period:
        return [list(range(len(events)))]
    found: dict[int, list[int]] = {}
    for place, event in enumerate(events):
        found.setdefault(int(event.time // period), []).append(place)
    return list(found.values())


def checked_prefix(prefix: str, option: str) -> str:
    """Raises SinkError for a prefix that cannot begin a name."""
    for name in PLACEHOLDER.findall(prefix):
        if name not in PLACEHOLDERS:
            known = ", ".join(f"{{{one}}}" for one in sorted(PLACEHOLDERS))
            raise SinkError(f"{option} has {{{name}}}, which stands for nothing", f"There are {known}.")
    rest = PLACEHOLDER.sub("", prefix)
    if "{" in rest or "}" in rest:
        raise SinkError(f"{option} has a brace without the other one", "Write placeholders as {date}.")
    dots = {".", ".."} & set(prefix.split("/"))  # on the way they would become another name
    if prefix.startswith("/") or "//" in prefix or dots or len(prefix.encode()) > LONGEST_NAME // 2:
        raise SinkError(f"{option} cannot begin a name", "It must look like teleport/{date}/{hour}/.")
    return prefix


def object_name(prefix: str, suffix: str, events: Sequence[Event], digests: Sequence[bytes]) -> str:
    """The name of the object that holds exactly these events, all of one hour."""
    first = moment(min(event.time for event in events))
    date = first.date().isoformat()  # %Y has fewer digits before the year 1000
    stands_for = {
        "stream": "session" if events[0].session_id else "audit",
        "date": date,
        "year": date.partition("-")[0],
        "month": f"{first:%m}",
        "day": f"{first:%d}",
        "hour": f"{first:%H}",
    }
    begin = PLACEHOLDER.sub(lambda found: stands_for[found[1]], prefix)
    content = hashlib.blake2b(b"".join(sorted(digests)), digest_size=DIGEST_BYTES).hexdigest()
    return f"{begin}{date.replace('-', '')}T{first:%H%M%SZ}-{content}{suffix}"


class ObjectFormat:
    """What is in objects by these options. Raises SinkError when a package is missing that it needs."""

    def __init__(self, options: S3Options, section: str) -> None:
        self.body: Callable[[Sequence[Event]], bytes]
        if options.format == "parquet":
            arrow, parquet = _pyarrow(section)
            self.suffix, self.content_type = ".parquet", PARQUET_TYPE
            self.body = lambda events: _parquet(arrow, parquet, options.compression, events)
        else:
            pack, _ = packer(options.compression)
            self.suffix = f".ndjson{SUFFIXES[options.compression]}"
            self.content_type = OBJECT_TYPES[options.compression]
            self.body = lambda events: pack(b"".join(b"%b\n" % with_session(event) for event in events))


def _pyarrow(section: str) -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise SinkError(
            f"{section}.format is parquet, which needs pyarrow, and that is not installed",
            "Run: pip install 'teleport-event-handler[parquet]'",
        ) from None
    return pyarrow, pyarrow.parquet


def _parquet(arrow: Any, parquet: Any, compression: str, events: Sequence[Event]) -> bytes:
    """One schema for every type of event: the columns that one asks for most, and the whole event as JSON text."""
    rows = [row_of(event) for event in events]
    columns = dict(zip(rows[0]._fields, zip(*rows, strict=True), strict=True))
    columns["time"] = tuple(moment(event.time) for event in events)
    kinds = {"time": arrow.timestamp("us", tz="UTC"), "event_index": arrow.int64(), "success": arrow.bool_()}
    schema = arrow.schema([(name, kinds.get(name, arrow.string())) for name in columns])
    output = io.BytesIO()
    table = arrow.table({name: list(values) for name, values in columns.items()}, schema=schema)
    parquet.write_table(table, output, compression=compression)
    return output.getvalue()
