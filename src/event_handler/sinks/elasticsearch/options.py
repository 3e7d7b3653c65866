"""Where and how the sink delivers."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field

from event_handler.errors import SinkError
from event_handler.setting import Setting
from event_handler.sinks.aws_options import AwsLoginOptions
from event_handler.sinks.http_options import Gzip

INDEX_NAME = re.compile(
    r"""[^-_+\\/*?"<>|,#:\s][^\\/*?"<>|,#:\s]*"""
)  # as in the reference of Elasticsearch's create index API

Document = Literal["message", "plain"]


class ElasticsearchOptions(AwsLoginOptions):
    """Where and how to deliver. At most one of `api_key`, `username` with `password`, `bearer` and `aws` is set."""

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
    api_key_file: Annotated[str, Setting("file", "file with the encoded API key; it is read again when it changes")] = (
        ""
    )
    username: Annotated[str, Setting("text", "user name")] = ""
    password: Annotated[
        str,
        Setting("text", "password; better in the variable or the file than on the command line", secret=True),
        Field(repr=False),
    ] = ""
    password_file: Annotated[str, Setting("file", "file with the password; it is read again when it changes")] = ""
    bearer: Annotated[
        str,
        Setting("text", "bearer token; better in the variable or the file than on the command line", secret=True),
        Field(repr=False),
    ] = ""
    bearer_file: Annotated[str, Setting("file", "file with the bearer token; it is read again when it changes")] = ""
    aws: Annotated[
        Literal["none", "es", "aoss"],
        Setting("choice", "sign requests for Amazon OpenSearch Service (es) or OpenSearch Serverless (aoss)"),
    ] = "none"
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
