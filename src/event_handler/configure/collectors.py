"""The collector's own file: TLS that demands a client certificate, audit events and session recordings apart, buffers
on disk.

Each collector finds the certificates under /keys, where its container has the authority's certificate and its own pair.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from event_handler.configure.authority import KeyForm, KeyType
from event_handler.configure.templates import quoted
from event_handler.errors import ConfigurationError

KEYS = "/keys"

_FLUENT_ESCAPES = {
    "\\": "\\\\",
    '"': '\\"',
    "#": "\\#",  # "#{...}" in a double-quoted value is run as Ruby code
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\f": "\\f",
    "\b": "\\b",
    "\0": "\\0",
}

_FLUENT_SOURCE = """\
# Receives events over HTTPS, only from holders of a client certificate of the same authority.
<source>
  @type http
  port 8888

  <transport tls>
    client_cert_auth true
    ca_path {ca}
    cert_path {certificate}
    private_key_path {key}
    private_key_passphrase {passphrase}
  </transport>

  # Takes one event in a request, or an array of events.
  <parse>
    @type json
    json_parser oj

    # The record is filed under the time of the event, and keeps it. Teleport writes a time with as many digits behind the second
    # as it needs, and none for a whole second: %iso8601 takes them all, a format such as %S.%L would refuse some events.
    time_key time
    keep_time_key true
    time_type string
    time_format %iso8601
  </parse>
</source>
"""

_FLUENT_MATCH = """
# {comment}
<match {pattern}>
  @type stdout

  # Kept on disk, so that a restart of Fluentd loses nothing that it has accepted.
  <buffer>
    @type file
    path /fluentd/log/buffer/{buffer}
    flush_thread_count 8
    flush_interval 1s
    chunk_limit_size 10M
    queue_limit_length 16
    retry_max_interval 30
    retry_forever true
  </buffer>
</match>
"""

_FLUENT_BIT = """\
# Fluent Bit 5.0 or newer: older ones cannot demand a client certificate (tls.verify_client_cert), and do not start with this file.
service:
  flush: 1
  log_level: info
  # Kept on disk, so that a restart loses nothing that was accepted.
  storage.path: /var/lib/fluent-bit/buffer
  storage.sync: full

parsers:
  # The record is filed under the time of the event, and keeps it. Teleport writes a time with as many digits behind the second
  # as it needs, and none for a whole second: Fluent Bit needs a format for each.
  - name: teleport_time
    format: regex
    regex: '^(?<time>.+[.].+)$'
    time_key: time
    time_format: '%Y-%m-%dT%H:%M:%S.%L%z'
    time_keep: on
  - name: teleport_time_whole_second
    format: regex
    regex: '^(?<time>[^.]+)$'
    time_key: time
    time_format: '%Y-%m-%dT%H:%M:%S%z'
    time_keep: on

pipeline:
  inputs:
    # Receives events over HTTPS, only from holders of a client certificate of the same authority.
    - name: http
      listen: 0.0.0.0
      port: 8888
      # The Go plugin takes 200 and 204 for success, not the usual 201.
      successful_response_code: 200
      # The largest request; a single event may have many megabytes.
      buffer_max_size: 32M
      storage.type: filesystem
      tls: on
      tls.verify: on
      tls.verify_client_cert: on
      tls.ca_file: {ca}
      tls.crt_file: {certificate}
      tls.key_file: {key}
      tls.key_passwd: {passphrase}

  filters:
    - name: parser
      match: '*'
      key_name: time
      parser: [teleport_time, teleport_time_whole_second]
      reserve_data: on
      preserve_key: on

  outputs:
    # Audit events.
    - name: stdout
      match: test.log
      format: json_lines
      retry_limit: no_limits
    # Session recordings: session.<id>.log, where the dashes of the id have become underscores.
    - name: stdout
      match: session.*
      format: json_lines
      retry_limit: no_limits
"""

_LOGSTASH = """\
# For the input plugin http 3.7 or newer, whose ssl_ options have these names. With queue.type: persisted in pipelines.yml
# (QUEUE_TYPE=persisted for the container), what was accepted is kept on disk.
input {{
  # Receives events over HTTPS, only from holders of a client certificate of the same authority.
  http {{
    host => "0.0.0.0"
    port => 8888
    ssl_enabled => true
    ssl_certificate => {certificate}
    ssl_key => {key}
    ssl_key_passphrase => {passphrase}
    ssl_certificate_authorities => [{ca}]
    ssl_client_authentication => "required"
    # Each element of an array becomes an event. With ECS, the field user of Teleport would collide with that of ECS.
    additional_codecs => {{ "application/json" => "json" }}
    ecs_compatibility => disabled
  }}
}}

filter {{
  # The record is filed under the time of the event, with any number of digits behind the second, and keeps it.
  date {{
    match => ["time", "ISO8601"]
  }}
}}

output {{
  if [headers][request_path] =~ "^/session" {{
    # Session recordings.
    stdout {{ codec => json_lines }}
  }} else {{
    # Audit events.
    stdout {{ codec => json_lines }}
  }}
}}
"""

_VECTOR = """\
sources:
  # Receives events over HTTPS, only from holders of a client certificate of the same authority.
  teleport:
    type: http_server
    address: 0.0.0.0:8888
    method: POST
    # Takes every path, and notes it: /test.log or /session.<id>.log. Some events have a field path of their own.
    path: ""
    strict_path: false
    path_key: request_path
    # Each element of an array becomes an event.
    decoding:
      codec: json
    tls:
      enabled: true
      verify_certificate: true
      ca_file: {ca}
      crt_file: {certificate}
      key_file: {key}
      key_pass: {passphrase}

transforms:
  kinds:
    type: route
    inputs: [teleport]
    route:
      audit: .request_path == "/test.log"
      recordings: starts_with(string(.request_path) ?? "", "/session")

sinks:
  # Audit events. The answer is given when they have been written, so nothing that was accepted is lost.
  audit:
    type: console
    inputs: [kinds.audit]
    encoding:
      codec: json
    acknowledgements:
      enabled: true
  # Session recordings.
  recordings:
    type: console
    inputs: [kinds.recordings]
    encoding:
      codec: json
    acknowledgements:
      enabled: true
"""


@dataclass(frozen=True, slots=True)
class Container:
    """How a collector is tried in a container.

    where its `file` is mounted, and where it keeps what it has accepted, if it does.
    """

    image: str
    file: str
    arguments: str = ""
    buffer: str = ""
    environment: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Collector:
    """A collector that can be configured: its file, the container that tries it, and which private keys it reads.

    `render` takes the names of CA, server certificate and server key within `KEYS`, and the passphrase of the key.
    """

    file: str
    render: Callable[[str, str, str, str], str]
    container: Container
    key_form: KeyForm = "traditional"
    key_types: tuple[KeyType, ...] = ("rsa", "ecdsa", "ed25519")


def fluent_conf(ca: str, certificate: str, key: str, passphrase: str) -> str:
    source = _FLUENT_SOURCE.format(
        ca=_fluent(f"{KEYS}/{ca}"),
        certificate=_fluent(f"{KEYS}/{certificate}"),
        key=_fluent(f"{KEYS}/{key}"),
        passphrase=_fluent(passphrase),
    )
    events = _FLUENT_MATCH.format(comment="Audit events.", pattern="test.log", buffer="events")
    recorded = "Session recordings; the middle part of the tag is the id of the session."
    return source + events + _FLUENT_MATCH.format(comment=recorded, pattern="session.*.log", buffer="sessions")


def fluent_bit_yaml(ca: str, certificate: str, key: str, passphrase: str) -> str:
    """Raises ConfigurationError for a passphrase with "${", which Fluent Bit would replace and cannot escape."""
    _refuse("Fluent Bit", passphrase, "${")
    return _filled(_FLUENT_BIT, quoted, ca, certificate, key, passphrase)


def logstash_conf(ca: str, certificate: str, key: str, passphrase: str) -> str:
    """Raises ConfigurationError for a passphrase that Logstash's strings, which have no escapes, cannot hold."""
    _refuse("Logstash", passphrase, '"', "\\", "${")
    return _filled(_LOGSTASH, lambda text: f'"{text}"', ca, certificate, key, passphrase)


def vector_yaml(ca: str, certificate: str, key: str, passphrase: str) -> str:
    """Vector replaces $NAME before it reads YAML; a doubled "$" stands for one."""
    return _filled(_VECTOR, lambda text: quoted(text.replace("$", "$$")), ca, certificate, key, passphrase)


def _filled(template: str, quote: Callable[[str], str], ca: str, certificate: str, key: str, passphrase: str) -> str:
    return template.format(
        ca=quote(f"{KEYS}/{ca}"),
        certificate=quote(f"{KEYS}/{certificate}"),
        key=quote(f"{KEYS}/{key}"),
        passphrase=quote(passphrase),
    )


def _refuse(collector: str, passphrase: str, *unfit: str) -> None:
    found = [text for text in unfit if text in passphrase]
    if found or not passphrase.isprintable():
        what = " or ".join(found) if found else "control characters"
        raise ConfigurationError(
            f"the file of {collector} cannot hold a passphrase with {what}", "Choose another passphrase."
        )


def _fluent(text: str) -> str:
    return '"' + "".join(_FLUENT_ESCAPES.get(character, character) for character in text) + '"'


FLUENTD = Collector(
    "fluent.conf",
    fluent_conf,
    Container("fluent/fluentd:edge", "/fluentd/etc/fluent.conf", buffer="/fluentd/log/buffer"),
)
COLLECTORS = {
    "fluentd": FLUENTD,
    "fluent-bit": Collector(
        "fluent-bit.yaml",
        fluent_bit_yaml,
        Container(
            "fluent/fluent-bit", "/keys/fluent-bit.yaml", "-c /keys/fluent-bit.yaml", "/var/lib/fluent-bit/buffer"
        ),
    ),
    "logstash": Collector(
        "logstash.conf",
        logstash_conf,
        Container(
            "docker.elastic.co/logstash/logstash:9.1.0",
            "/keys/logstash.conf",
            "-f /keys/logstash.conf",
            "/usr/share/logstash/data",
            # Root reads the key; since version 9 Logstash refuses to run as root unless it is told to.
            environment=("QUEUE_TYPE=persisted", "ALLOW_SUPERUSER=true"),
        ),
        key_form="pkcs8",
        key_types=("rsa", "ecdsa"),  # Netty reads no other: "Neither RSA, DSA nor EC worked"
    ),
    "vector": Collector(
        "vector.yaml",
        vector_yaml,
        Container("timberio/vector:latest-debian", "/keys/vector.yaml", "--config /keys/vector.yaml"),
    ),
}
