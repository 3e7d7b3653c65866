"""Where and how the sink delivers."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from typing import Literal

from event_handler.errors import SinkError
from event_handler.sinks.http import KEEPALIVE, REQUEST_TIMEOUT, Compression

SECTION = "forward.elasticsearch"
INDEX_NAME = re.compile(
    r"""[^-_+\\/*?"<>|,#:\s][^\\/*?"<>|,#:\s]*"""
)  # as in the reference of Elasticsearch's create index API

Document = Literal["message", "plain"]


@dataclass(frozen=True, slots=True)
class ElasticsearchSettings:
    """Where and how to deliver.

    `url` is the cluster's address, with a path where a proxy adds one. `target` and `session_target` are data streams
    or indices, for audit events and for events of recordings. `document` is `message` (`@timestamp` and the event as
    text in `message`, what Elastic's Teleport integration reads) or `plain` (the event's own fields and `@timestamp`).
    `template` says whether to install an index template for them. At most one of `api_key` (encoded, as Kibana shows
    it), `username` with `password`, and `bearer` is set. TLS files as everywhere, "" = none. `timeout` limits a request
    and `keepalive` an idle connection, both in seconds.
    """

    url: str
    target: str = "logs-teleport.audit-default"
    session_target: str = "logs-teleport.session-default"
    document: Document = "message"
    template: Literal["none", "install"] = "none"
    api_key: str = field(default="", repr=False)
    username: str = ""
    password: str = field(default="", repr=False)
    bearer: str = field(default="", repr=False)
    ca: str = ""
    cert: str = ""
    key: str = ""
    compression: Compression = "gzip"
    max_connections: int = 4
    timeout: float = REQUEST_TIMEOUT
    keepalive: float = KEEPALIVE


def check_target(name: str, option: str) -> str:
    """Return the name. Raises SinkError when no index or data stream can have it."""
    if not INDEX_NAME.fullmatch(name) or name in (".", ".."):
        raise SinkError(
            f"expected the name of an index or data stream in {SECTION}.{option}, got {name!r}",
            "Leave it out for the default.",
        )
    return name


def authorization(settings: ElasticsearchSettings) -> dict[str, str]:
    """The header that logs in, none without credentials. Raises SinkError, without showing a secret."""
    routes = {
        f"{SECTION}.api-key": f"ApiKey {settings.api_key}" if settings.api_key else "",
        f"{SECTION}.username": _basic(settings.username, settings.password)
        if settings.username or settings.password
        else "",
        f"{SECTION}.bearer": f"Bearer {settings.bearer}" if settings.bearer else "",
    }
    chosen = {option: header for option, header in routes.items() if header}
    if len(chosen) > 1:
        raise SinkError(f"{' and '.join(chosen)} are set together", "Set one of them.")
    for option, header in chosen.items():
        if not header.isascii() or not header.isprintable():
            raise SinkError(
                f"{option} has a character that an HTTP header cannot hold", "Is there a line break at its end?"
            )
        return {"Authorization": header}
    return {}


def _basic(username: str, password: str) -> str:
    """In UTF-8, as both products read it, whatever characters the password has."""
    return f"Basic {base64.b64encode(f'{username}:{password}'.encode()).decode()}"
