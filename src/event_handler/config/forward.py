"""The options of the sinks beside fluentd, one group a sink; a sink is used when its first option is set."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from event_handler.config.option import Seconds, option

SAME = "the same as for all sinks"


class FileOptions(BaseModel):
    """Lines of JSON to a file or to standard output."""

    file_path: Annotated[
        str, option("file-path", "text", "file that events are appended to, - for standard output")
    ] = ""
    file_session_path: Annotated[
        str,
        option(
            "file-session-path", "text", "file of each recording, with {session_id} in its name", unset="the same file"
        ),
    ] = ""
    file_max_bytes: Annotated[
        int, option("file-max-bytes", "number", "size at which the file is renamed, 0 = never"), Field(ge=0)
    ] = 104_857_600
    file_max_age: Annotated[
        Seconds, option("file-max-age", "duration", "age at which the file is renamed, 0 = never")
    ] = 86_400.0
    file_keep: Annotated[int, option("file-keep", "number", "renamed files that stay"), Field(ge=1, le=10_000)] = 10
    file_mode: Annotated[
        Literal["0600", "0640", "0644", "0660", "0664"],
        option("file-mode", "choice", "mode of new files, as octal text"),
    ] = "0600"
    file_types: Annotated[
        tuple[str, ...] | None, option("file-types", "list", "event types to deliver here", unset=SAME)
    ] = None
    file_skip_event_types: Annotated[
        tuple[str, ...] | None, option("file-skip-event-types", "list", "event types not to deliver here", unset=SAME)
    ] = None
    file_skip_session_types: Annotated[
        tuple[str, ...] | None,
        option("file-skip-session-types", "list", "recorded event types not to deliver here", unset=SAME),
    ] = None


class ElasticsearchOptions(BaseModel):
    """Elasticsearch 8 and 9, or OpenSearch, by the bulk API."""

    elasticsearch_url: Annotated[str, option("elasticsearch-url", "url", "address of Elasticsearch or OpenSearch")] = ""
    elasticsearch_target: Annotated[
        str, option("elasticsearch-target", "text", "data stream or index of audit events")
    ] = "logs-teleport.audit-default"
    elasticsearch_session_target: Annotated[
        str, option("elasticsearch-session-target", "text", "data stream or index of recorded events")
    ] = "logs-teleport.session-default"
    elasticsearch_document: Annotated[
        Literal["message", "plain"],
        option(
            "elasticsearch-document",
            "choice",
            "the event as text in `message`, as Elastic's integration wants it, or its own fields",
        ),
    ] = "message"
    elasticsearch_template: Annotated[
        Literal["none", "install"],
        option(
            "elasticsearch-template",
            "choice",
            "index template that is installed at the start (docs/sinks-elasticsearch.md)",
        ),
    ] = "none"
    elasticsearch_api_key: Annotated[
        str,
        option(
            "elasticsearch-api-key",
            "text",
            "encoded API key; better in the variable or the file than on the command line",
            secret=True,
        ),
    ] = ""
    elasticsearch_username: Annotated[str, option("elasticsearch-username", "text", "user name")] = ""
    elasticsearch_password: Annotated[
        str,
        option(
            "elasticsearch-password",
            "text",
            "password; better in the variable or the file than on the command line",
            secret=True,
        ),
    ] = ""
    elasticsearch_bearer: Annotated[
        str,
        option(
            "elasticsearch-bearer",
            "text",
            "bearer token; better in the variable or the file than on the command line",
            secret=True,
        ),
    ] = ""
    elasticsearch_ca: Annotated[str, option("elasticsearch-ca", "file", "TLS CA of Elasticsearch")] = ""
    elasticsearch_cert: Annotated[
        str, option("elasticsearch-cert", "file", "TLS client certificate for Elasticsearch")
    ] = ""
    elasticsearch_key: Annotated[str, option("elasticsearch-key", "file", "TLS client key for Elasticsearch")] = ""
    elasticsearch_compression: Annotated[
        Literal["none", "gzip"], option("elasticsearch-compression", "choice", "how bodies are packed")
    ] = "gzip"
    elasticsearch_max_connections: Annotated[
        int, option("elasticsearch-max-connections", "number", "requests in flight at most"), Field(ge=1, le=100)
    ] = 4
    elasticsearch_timeout: Annotated[
        float,
        option(
            "elasticsearch-timeout", "duration", "longest time for a request, from connecting to the end of the answer"
        ),
        Field(ge=0.1),
    ] = 30.0
    elasticsearch_types: Annotated[
        tuple[str, ...] | None, option("elasticsearch-types", "list", "event types to deliver here", unset=SAME)
    ] = None
    elasticsearch_skip_event_types: Annotated[
        tuple[str, ...] | None,
        option("elasticsearch-skip-event-types", "list", "event types not to deliver here", unset=SAME),
    ] = None
    elasticsearch_skip_session_types: Annotated[
        tuple[str, ...] | None,
        option("elasticsearch-skip-session-types", "list", "recorded event types not to deliver here", unset=SAME),
    ] = None
