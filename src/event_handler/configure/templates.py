"""The text files that `configure` writes. Each value is quoted by the rules of the file that it lands in."""

from __future__ import annotations

import json

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

ROLE = """\
# Create both with: tctl create -f teleport-event-handler-role.yaml
kind: role
metadata:
  name: teleport-event-handler
spec:
  allow:
    rules:
      - resources: ['event', 'session']
        verbs: ['list', 'read']
version: v5
---
kind: user
metadata:
  name: teleport-event-handler
spec:
  roles: ['teleport-event-handler']
version: v2
"""

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

  <parse>
    @type json
    json_parser oj

    # The record is filed under the time of the event, and keeps it.
    time_key time
    keep_time_key true
    time_type string
    time_format %Y-%m-%dT%H:%M:%S.%L%z
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

_TOML = """\
# The position in the audit log is kept here. It must survive restarts.
storage = "./storage"
# The longest pause between two looks at the audit log.
timeout = "10s"
# Events asked for at a time.
batch = 20

[forward.fluentd]
# What proves the two sides to each other.
ca = {ca}
cert = {certificate}
key = {key}
# Audit events are sent here.
url = "https://localhost:8888/test.log"
# Session recordings are sent here, with .<session id>.log appended:
# in Fluentd they match the tag session.*.log.
session-url = "https://localhost:8888/session"
# "array" sends many events in a request, "single" one.
format = "array"

[teleport]
# The Auth Service or the Proxy, as host:port.
addr = {addr}
# Made by tbot, or by `tctl auth sign --user=teleport-event-handler --out=identity`.
identity = "identity"
# Read the identity again when it has been renewed.
refresh.enabled = true
"""

_HELM = """\
eventHandler:
  storagePath: "./storage"
  timeout: "10s"
  batch: 20

teleport:
  address: {addr}
  identitySecretName: teleport-event-handler-identity
  identitySecretPath: identity

fluentd:
  url: "https://fluentd.fluentd.svc.cluster.local/events.log"
  # Session recordings go to this URL with .<session id>.log appended.
  sessionUrl: "https://fluentd.fluentd.svc.cluster.local/session.log"
  certificate:
    secretName: "teleport-event-handler-client-tls"
    caPath: "ca.crt"
    certPath: "client.crt"
    keyPath: "client.key"

persistentVolumeClaim:
  enabled: true
"""


def fluent_conf(ca: str, certificate: str, key: str, passphrase: str) -> str:
    """The collector's side; the files are names under /keys, where its container finds them."""
    source = _FLUENT_SOURCE.format(
        ca=_fluent(f"/keys/{ca}"),
        certificate=_fluent(f"/keys/{certificate}"),
        key=_fluent(f"/keys/{key}"),
        passphrase=_fluent(passphrase),
    )
    events = _FLUENT_MATCH.format(comment="Audit events.", pattern="test.log", buffer="events")
    recorded = "Session recordings; the middle part of the tag is the id of the session."
    return source + events + _FLUENT_MATCH.format(comment=recorded, pattern="session.*.log", buffer="sessions")


def toml(ca: str, certificate: str, key: str, addr: str) -> str:
    """Our own settings; the three files are absolute paths."""
    return _TOML.format(ca=_quoted(ca), certificate=_quoted(certificate), key=_quoted(key), addr=_quoted(addr))


def helm_values(addr: str) -> str:
    return _HELM.format(addr=_quoted(addr))


def _quoted(text: str) -> str:
    """A string that both TOML and YAML read back as it was."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _fluent(text: str) -> str:
    return '"' + "".join(_FLUENT_ESCAPES.get(character, character) for character in text) + '"'
