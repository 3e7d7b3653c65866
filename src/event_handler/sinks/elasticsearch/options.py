"""Where and how the sink delivers."""

from __future__ import annotations

import base64
import re
from typing import Annotated, Literal

from pydantic import Field

from event_handler.errors import SinkError
from event_handler.setting import Setting
from event_handler.sinks.http_options import Gzip, HttpOptions

INDEX_NAME = re.compile(
    r"""[^-_+\\/*?"<>|,#:\s][^\\/*?"<>|,#:\s]*"""
)  # as in the reference of Elasticsearch's create index API

Document = Literal["message", "plain"]


class ElasticsearchOptions(HttpOptions):
    """Where and how to deliver. At most one of `api_key`, `username` with `password`, and `bearer` is set."""

    url: Annotated[str, Setting("url", "address of Elasticsearch or OpenSearch", required=True)] = ""
    target: Annotated[str, Setting("text", "data stream or index of audit events")] = "logs-teleport.audit-default"
    session_target: Annotated[str, Setting("text", "data stream or index of recorded events")] = (
        "logs-teleport.session-default"
    )
    document: Annotated[
        Document,
        Setting("choice", "the event as text in `message`, as Elastic's integration wants it, or its own fields"),
    ] = "message"
    template: Annotated[
        Literal["none", "install"],
        Setting("choice", "index template that is installed at the start (docs/sinks-elasticsearch.md)"),
    ] = "none"
    api_key: Annotated[
        str,
        Setting("text", "encoded API key; better in the variable or the file than on the command line", secret=True),
        Field(repr=False),
    ] = ""
    username: Annotated[str, Setting("text", "user name")] = ""
    password: Annotated[
        str,
        Setting("text", "password; better in the variable or the file than on the command line", secret=True),
        Field(repr=False),
    ] = ""
    bearer: Annotated[
        str,
        Setting("text", "bearer token; better in the variable or the file than on the command line", secret=True),
        Field(repr=False),
    ] = ""
    max_connections: Annotated[int, Setting("number", "requests in flight at most"), Field(ge=1, le=100)] = 4
    compression: Gzip = "gzip"


def check_target(name: str, option: str) -> str:
    """Return the name. Raises SinkError when no index or data stream can have it."""
    if not INDEX_NAME.fullmatch(name) or name in (".", ".."):
        raise SinkError(
            f"expected the name of an index or data stream in {option}, got {name!r}",
            "Leave it out for the default.",
        )
    return name


def authorization(options: ElasticsearchOptions, section: str) -> dict[str, str]:
    """The header that logs in, none without credentials. Raises SinkError, without showing a secret."""
    routes = {
        f"{section}.api-key": f"ApiKey {options.api_key}" if options.api_key else "",
        f"{section}.username": _basic(options.username, options.password)
        if options.username or options.password
        else "",
        f"{section}.bearer": f"Bearer {options.bearer}" if options.bearer else "",
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
