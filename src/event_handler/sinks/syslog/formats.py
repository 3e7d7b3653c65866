"""The text of a message: the event as JSON, as CEF for ArcSight, or as LEEF for QRadar, and RFC 5424 around it.

Facts: RFC 5424; "ArcSight Common Event Format" (Micro Focus, version 25); "Log Event Extended Format" (IBM, LEEF 2.0).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, Literal

import orjson

from event_handler.event import Event
from event_handler.sinks.fields import SESSION_FIELD, FalseField, TextField, with_session
from event_handler.sinks.moments import rfc3339_milliseconds

Format = Literal["json", "cef", "leef"]
INFO, WARNING, ERROR = 6, 4, 3  # severities of RFC 5424
SEVERITY: Final = {"I": INFO, "W": WARNING, "E": ERROR}  # by the last letter of a code
OF_TEN: Final = {INFO: 3, WARNING: 6, ERROR: 8}  # the same in CEF and LEEF, of 10
FIRST_TIME, LAST_TIME = 0.0, 253_402_300_799.0  # seconds; years that RFC 3339 can write
KNOWN_HEADERS: Final = 1000  # headers that are kept written; Teleport has fewer types of events
EVENT_CODE: Final = TextField("code")
HAS_FAILED: Final = FalseField("success")
PLAIN = re.compile(r"[0-9A-Za-z.-]*")  # what needs no escaping
CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def severity(content: Mapping[str, Any]) -> int:
    """By the code of the event, and at least a warning where something failed."""
    code = content.get("code")
    found = SEVERITY.get(code[-1:], INFO) if isinstance(code, str) else INFO
    return min(found, WARNING) if content.get("success") is False else found


def parsed(event: Event) -> dict[str, Any]:
    """The fields of an event, and the session of a recorded one."""
    content: dict[str, Any] = orjson.loads(event.body)
    return {SESSION_FIELD: event.session_id, **content} if event.session_id else content


def for_header(event: Event) -> dict[str, Any]:
    """What a header needs of an event, mostly found without reading its JSON."""
    found: dict[str, Any] = {"code": EVENT_CODE.of(event.body).decode("utf-8", "replace")}
    if HAS_FAILED.of(event.body):
        found["success"] = False
    return found


def as_cef(event: Event, content: Mapping[str, Any]) -> bytes:
    """`CEF:0|vendor|product|version|code|type|severity|extension`."""
    head = ("Gravitational", "Teleport", "1", _text(content.get("code")) or event.type, event.type)
    start = "|".join(["CEF:0", *map(_cef_head, head), str(OF_TEN[severity(content)])])
    fields = " ".join(f"{name}={_cef_value(value)}" for name, value in _cef_fields(event, content))
    return f"{start}|{fields}".encode("utf-8", "replace")


def as_leef(event: Event, content: Mapping[str, Any]) -> bytes:
    """`LEEF:2.0|vendor|product|version|code|x09|attributes`, parted by tabs."""
    head = ("Gravitational", "Teleport", "1", _text(content.get("code")) or event.type)
    start = "|".join(["LEEF:2.0", *map(_leef_head, head), "x09"])
    fields = "\t".join(f"{name}={_one_line(value)}" for name, value in _leef_fields(event, content))
    return f"{start}|{fields}".encode("utf-8", "replace")


FORMATS: Final[dict[Format, Callable[[Event, Mapping[str, Any]], bytes]]] = {"cef": as_cef, "leef": as_leef}


def _cef_fields(event: Event, content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    host, port = _source(content)
    named = {
        "rt": str(round(_known(event.time) * 1000)),
        "externalId": event.id,
        "act": event.type,
        "suser": _text(content.get("user")),
        "src": host,
        "spt": port,
        "dhost": _text(content.get("server_hostname")),
        "duser": _text(content.get("login")),
        "outcome": _outcome(content),
        "reason": _text(content.get("error")),
        "msg": _text(content.get("message")),
        "cs1": _text(content.get("sid")) or event.session_id,
        "cs2": _text(content.get("cluster_name")),
        "cs3": event.body.decode("utf-8", "replace"),
    }
    labels = {"cs1": "sessionId", "cs2": "cluster", "cs3": "teleportEvent"}
    for name, value in named.items():
        if value:
            yield name, value
            if name in labels:
                yield f"{name}Label", labels[name]


def _leef_fields(event: Event, content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    host, port = _source(content)
    named = {
        "devTime": _rfc3339(event.time),
        "devTimeFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSX",
        "cat": event.type,
        "sev": str(OF_TEN[severity(content)]),
        "usrName": _text(content.get("user")),
        "src": host,
        "srcPort": port,
        "accountName": _text(content.get("login")),
        "identHostName": _text(content.get("server_hostname")),
        "outcome": _outcome(content),
        "reason": _text(content.get("error")),
        "sessionId": _text(content.get("sid")) or event.session_id,
        "cluster": _text(content.get("cluster_name")),
        "uid": event.id,
        "teleportEvent": event.body.decode("utf-8", "replace"),
    }
    return ((name, value) for name, value in named.items() if value)


def _source(content: Mapping[str, Any]) -> tuple[str, str]:
    """Address and port of whoever caused the event, "" where they are not known."""
    text = _text(content.get("addr.remote"))
    host, _, port = text.rpartition(":")
    host = host.strip("[]")
    try:
        return str(ipaddress.ip_address(host)), port if port.isdigit() else ""
    except ValueError:
        return "", ""


def _outcome(content: Mapping[str, Any]) -> str:
    success = content.get("success")
    return {True: "success", False: "failure"}[success] if isinstance(success, bool) else ""


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _one_line(text: str) -> str:
    return CONTROL.sub(" ", text)


def _cef_head(text: str) -> str:
    return _one_line(text).replace("\\", "\\\\").replace("|", "\\|")


def _cef_value(text: str) -> str:
    lines = text.replace("\\", "\\\\").replace("=", "\\=").replace("\r\n", "\\n").replace("\n", "\\n")
    return _one_line(lines.replace("\r", "\\r"))


def _leef_head(text: str) -> str:
    return _one_line(text).replace("|", "_")


class Header:
    """What stands before each message (RFC 5424, section 6). `host`, `app` and `process` are "" for none."""

    def __init__(self, facility: int, host: str, app: str, process: str, enterprise: int) -> None:
        self._facility = facility
        self._same = f" {_word(host, 255)} {_word(app, 48)} {_word(process, 128)} "
        self._data = f"[teleport@{enterprise}"
        self._around: dict[tuple[str, str, int], tuple[bytes, bytes, bytes]] = {}  # by type, code and severity

    def before(self, event: Event, content: Mapping[str, Any]) -> bytes:
        key = (event.type, _text(content.get("code")), severity(content))
        around = self._around.get(key)
        if around is None:
            if len(self._around) >= KNOWN_HEADERS:
                self._around.clear()
            around = self._around[key] = self._written(*key)
        first, middle, last = around
        uid = b' uid="%b"' % _data_value(event.id).encode("utf-8", "replace") if event.id else b""
        return b"%b%b%b%b%b" % (first, rfc3339_milliseconds(_known(event.time)), middle, uid, last)

    def _written(self, type: str, code: str, severity: int) -> tuple[bytes, bytes, bytes]:
        """What stands before the time, between that and the id of the event, and behind it."""
        data = "".join(f' {name}="{_data_value(value)}"' for name, value in (("event", type), ("code", code)) if value)
        parts = (f"<{self._facility * 8 + severity}>1 ", f"{self._same}{_word(type, 32)} {self._data}", f"{data}] ")
        first, middle, last = (part.encode("utf-8", "replace") for part in parts)
        return first, middle, last


def messages_of(events: Sequence[Event], header: Header, format: Format) -> list[bytes]:
    """Each event as a message."""
    if format == "json":
        return [header.before(event, for_header(event)) + with_session(event) for event in events]
    write = FORMATS[format]
    found = []
    for event in events:
        content = parsed(event)
        found.append(header.before(event, content) + write(event, content))
    return found


def octet_counted(messages: Sequence[bytes]) -> bytes:
    """RFC 6587, section 3.4.1."""
    return b"".join([b"%d %b" % (len(message), message) for message in messages])


def _known(moment: float) -> float:
    """A time that no calendar has is the nearest that has one."""
    return min(max(moment, FIRST_TIME), LAST_TIME)


def _rfc3339(moment: float) -> str:
    """The time with milliseconds."""
    return rfc3339_milliseconds(_known(moment)).decode()


@lru_cache(maxsize=1024)
def _word(text: str, longest: int) -> str:
    """Printable ASCII without blanks, "-" for nothing."""
    return "".join(sign if "!" <= sign <= "~" else "_" for sign in text)[:longest] or "-"


def _data_value(text: str) -> str:
    if PLAIN.fullmatch(text):
        return text
    return _one_line(text).replace("\\", "\\\\").replace('"', '\\"').replace("]", "\\]")
