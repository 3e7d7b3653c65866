"""What a Kafka sink can be set to, and what librdkafka is told for it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from event_handler import about
from event_handler.errors import SinkError
from event_handler.setting import Setting
from event_handler.sinks.bus_options import BusOptions
from event_handler.sinks.secret import Secret

MESSAGE_BYTES = 1_000_000  # of a message at most: librdkafka's default; a broker's is 1,048,588 with what is around it
SASL_NAMES = {"plain": "PLAIN", "scram-sha-256": "SCRAM-SHA-256", "scram-sha-512": "SCRAM-SHA-512"}
# milliseconds that librdkafka waits to put messages of several batches into one request. With idempotence five requests
# to a partition may be without an answer, and librdkafka's thread turns without rest while there are more to send: so
# five of these must be longer than an answer takes.
KAFKA_LINGER = 20
TOPIC_WAIT = 5000  # milliseconds after which a topic that no broker knows is said to be missing

# Properties of librdkafka that safety, or an option of ours, needs to be as they are, beside those that are set here.
NOT_THE_USERS = frozenset(
    {
        "request.required.acks",
        "delivery.timeout.ms",
        "max.in.flight",
        "max.in.flight.requests.per.connection",
        "retries",
        "message.send.max.retries",
        "enable.gapless.guarantee",
        "queuing.strategy",
        "delivery.report.only.error",
        "transactional.id",
        "compression.codec",
        "metadata.broker.list",
        "sasl.mechanism",
        "sasl.mechanisms",
        "sasl.username",
        "sasl.password",
        "ssl.ca.location",
        "ssl.certificate.location",
        "ssl.key.location",
        "enable.ssl.certificate.verification",
        "default.topic.config",
        "plugin.library.paths",
        "dr_cb",
        "on_delivery",
        "oauth_cb",
        "log_cb",
        "log.queue",
        "stats_cb",
        "throttle_cb",
        "produce.offset.report",
    }
)


class KafkaOptions(BusOptions):
    """Where to deliver, by which key, how to sign in, and anything else that librdkafka can be told."""

    brokers: Annotated[
        str, Setting("text", "addresses of brokers, as kafka1:9092,kafka2:9092; one is enough", required=True)
    ] = ""
    topic: Annotated[str, Setting("text", "topic of audit events", required=True)] = ""
    session_topic: Annotated[str, Setting("text", "topic of session recordings", unset="the same topic")] = ""
    message_key: Annotated[
        Literal["session", "user", "uid", "none"],
        Setting("choice", "the key of a message: the id of its session, or else its user; the user; the uid; no key"),
    ] = "session"
    ordered: Annotated[
        bool, Setting("flag", "keep the order of a session, and of events without one: one batch at a time")
    ] = False
    compression: Annotated[
        Literal["none", "gzip", "lz4", "zstd", "snappy"], Setting("choice", "how messages are packed")
    ] = "lz4"
    message_max_bytes: Annotated[
        int,
        Setting("number", "bytes of a message at most, no more than max.message.bytes of the topic"),
        Field(ge=10_000, le=100_000_000),
    ] = MESSAGE_BYTES
    tls: Annotated[bool, Setting("flag", "speak TLS with the brokers")] = True
    sasl: Annotated[
        Literal["none", "plain", "scram-sha-256", "scram-sha-512", "oauthbearer"], Setting("choice", "how to sign in")
    ] = "none"
    username: Annotated[str, Setting("text", "user name, for plain and scram")] = ""
    password: Annotated[
        str, Setting("text", "password; better in password-file or the variable", secret=True), Field(repr=False)
    ] = ""
    password_file: Annotated[str, Setting("file", "file with the password; it is read again when it changes")] = ""
    token_file: Annotated[
        str, Setting("file", "file with a token for oauthbearer, which another program renews; it is read when needed")
    ] = ""
    oidc_url: Annotated[str, Setting("url", "token endpoint that gives tokens for oauthbearer")] = ""
    oidc_client_id: Annotated[str, Setting("text", "client id at that endpoint")] = ""
    oidc_client_secret: Annotated[
        str,
        Setting("text", "client secret; better in oidc-client-secret-file or the variable", secret=True),
        Field(repr=False),
    ] = ""
    oidc_client_secret_file: Annotated[
        str, Setting("file", "file with the client secret; it is read again when it changes")
    ] = ""
    oidc_scope: Annotated[str, Setting("text", "scope that is asked for there")] = ""
    properties: Annotated[
        dict[str, str | int | float | bool],
        Setting("table", "other properties of librdkafka; never shown, for they may hold a secret", secret=True),
    ] = Field(default_factory=dict, repr=False)


class SignIn:
    """The secret of the way to sign in that was chosen. Raises SinkError where one is incomplete, or two are mixed."""

    def __init__(self, options: KafkaOptions, section: str) -> None:
        self._options = options
        self._secret: Secret | None = None
        password = bool(options.username or options.password or options.password_file)
        oidc = bool(
            options.oidc_url or options.oidc_client_id or options.oidc_client_secret or options.oidc_client_secret_file
        )
        bearer = options.sasl == "oauthbearer"
        if password and options.sasl not in SASL_NAMES:
            raise SinkError(f"{section}.username and password need {section}.sasl", "Set plain or scram-sha-512.")
        if (oidc or options.token_file) and not bearer:
            raise SinkError(f"{section} has options of oauthbearer without it", f'Set {section}.sasl = "oauthbearer".')
        if bearer and oidc is bool(options.token_file):
            raise SinkError(
                f"{section}.token-file and {section}.oidc-url are {'both set' if oidc else 'missing'}",
                "Set one of them.",
            )
        if options.sasl in SASL_NAMES:
            if not options.username:
                raise SinkError(f"{section}.username is missing", "Set it.")
            self._secret = Secret(options.password, options.password_file, f"{section}.password")
        elif options.token_file:
            self._secret = Secret("", options.token_file, f"{section}.token")
        elif bearer:
            if not (options.oidc_url and options.oidc_client_id):
                raise SinkError(f"{section}.oidc-url or {section}.oidc-client-id is missing", "Set both.")
            self._secret = Secret(
                options.oidc_client_secret, options.oidc_client_secret_file, f"{section}.oidc-client-secret"
            )

    def changed(self) -> bool:
        """Whether a producer must be made again for a new secret; a token is asked for when it is needed."""
        return not self._options.token_file and self._secret is not None and self._secret.changed()

    def token(self) -> str:
        """The token in the file as it is now."""
        if self._secret is None:
            return ""
        self._secret.changed()
        return self._secret.value

    def properties(self) -> dict[str, Any]:
        options = self._options
        if options.sasl in SASL_NAMES and self._secret is not None:
            return {
                "sasl.mechanisms": SASL_NAMES[options.sasl],
                "sasl.username": options.username,
                "sasl.password": self._secret.value,
            }
        if options.sasl != "oauthbearer":
            return {}
        if options.token_file or self._secret is None:
            return {"sasl.mechanisms": "OAUTHBEARER"}
        found = {
            "sasl.mechanisms": "OAUTHBEARER",
            "sasl.oauthbearer.method": "oidc",
            "sasl.oauthbearer.token.endpoint.url": options.oidc_url,
            "sasl.oauthbearer.client.id": options.oidc_client_id,
            "sasl.oauthbearer.client.secret": self._secret.value,
        }
        return found | ({"sasl.oauthbearer.scope": options.oidc_scope} if options.oidc_scope else {})


def producer_properties(options: KafkaOptions, sign_in: SignIn, section: str) -> dict[str, Any]:
    """All that librdkafka is told. Raises SinkError for a property that is not the user's to set."""
    if bool(options.cert) != bool(options.key):
        raise SinkError(f"only one of {section}.cert and {section}.key is set", "Set both or none.")
    if not options.tls and (options.ca or options.cert):
        raise SinkError(f"{section}.ca and {section}.cert need TLS", f"Set {section}.tls = true, or leave them out.")
    files = {"ssl.ca.location": options.ca, "ssl.certificate.location": options.cert, "ssl.key.location": options.key}
    protocol = ("SASL_" if options.sasl != "none" else "") + ("SSL" if options.tls else "PLAINTEXT")
    ours: dict[str, Any] = {
        "bootstrap.servers": options.brokers,
        "security.protocol": protocol,
        "enable.idempotence": True,
        "acks": "all",
        "compression.type": options.compression,
        "message.max.bytes": options.message_max_bytes,
        "message.timeout.ms": round(options.timeout * 1000),
        **{name: file for name, file in files.items() if file},
        **sign_in.properties(),
    }
    if taken := sorted(NOT_THE_USERS.union(ours).intersection(options.properties)):
        raise SinkError(
            f"{section}.properties cannot set {taken[0]}", "There is an option for it, or safety needs it as it is."
        )
    defaults = {"linger.ms": KAFKA_LINGER, "client.id": about.PROGRAM, "topic.metadata.propagation.max.ms": TOPIC_WAIT}
    return {**defaults, **options.properties, **ours}
