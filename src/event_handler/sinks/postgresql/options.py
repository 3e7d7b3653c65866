"""What a `postgresql` sink can be set to, and the parameters of a connection that libpq is given for it.

Facts: PostgreSQL's documentation, "Database Connection Control Functions" (parameters) and "SSL Support".
"""

from __future__ import annotations

import ipaddress
import ssl
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from event_handler import redact
from event_handler.errors import SinkError
from event_handler.setting import Options, Setting
from event_handler.sinks.http_tls import TlsFiles, TlsVersion, tls_context
from event_handler.sinks.secret import Secret

BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
MAYBE_CLEAR = frozenset({"disable", "allow", "prefer"})  # modes with which events may go out in the clear
NOT_SAID = frozenset({"allow", "prefer"})  # of these, those that do not say so
PROTOCOLS = {"1.2": "TLSv1.2", "1.3": "TLSv1.3"}

SslMode = Literal["", "verify-full", "verify-ca", "require", "disable"]


class PostgresqlOptions(Options):
    """Which database and table, how to sign in, and how long to wait."""

    url: Annotated[
        str,
        Setting("text", "the database, as postgresql://user@host/database; never shown", secret=True),
        Field(repr=False),
    ] = ""
    url_file: Annotated[str, Setting("file", "file with the URL; it is read again when it changes")] = ""
    username: Annotated[str, Setting("text", "user name", unset="that of the URL")] = ""
    password: Annotated[
        str, Setting("text", "password; better in password-file or the variable", secret=True), Field(repr=False)
    ] = ""
    password_file: Annotated[str, Setting("file", "file with the password; it is read again when it changes")] = ""
    table: Annotated[str, Setting("text", "table of the events, with its schema if need be, as audit.events")] = (
        "teleport_events"
    )
    create_table: Annotated[bool, Setting("flag", "create the table when there is none")] = False
    sslmode: Annotated[
        SslMode,
        Setting(
            "choice",
            "how the server is trusted",
            unset="verify-full; for a server on this machine without ca, TLS where it has it",
        ),
    ] = ""
    ca: Annotated[str, Setting("file", "TLS CA of the server", unset="those of the system")] = ""
    cert: Annotated[str, Setting("file", "TLS client certificate for the server")] = ""
    key: Annotated[str, Setting("file", "TLS client key for the server; libpq wants it to be readable by us only")] = ""
    min_tls: Annotated[TlsVersion, Setting("choice", "oldest version of TLS that is spoken with the server")] = "1.2"
    max_connections: Annotated[int, Setting("number", "connections at most"), Field(ge=1, le=100)] = 4
    timeout: Annotated[float, Setting("duration", "longest time for a batch, connecting included"), Field(ge=0.1)] = (
        30.0
    )


class Login:
    """The parameters of a connection, made again when a file with a secret changes. Raises SinkError."""

    def __init__(self, options: PostgresqlOptions, section: str) -> None:
        self._options = options
        self._section = section
        files = TlsFiles(options.ca, options.cert, options.key)
        tls_context(section, files)  # says what is wrong with a file better than libpq, and now
        self._url = Secret(options.url, options.url_file, f"{section}.url")
        self._password = (
            Secret(options.password, options.password_file, f"{section}.password")
            if options.password or options.password_file
            else None
        )
        self.parameters = self._made()

    def changed(self) -> bool:
        """Whether a secret is another one since the last look. Raises SinkError for a URL that cannot be used."""
        changed = [secret.changed() for secret in (self._url, self._password) if secret is not None]
        if any(changed):
            self.parameters = self._made()
        return any(changed)

    def _made(self) -> dict[str, Any]:
        options, url = self._options, parsed(self._url.value, f"{self._section}.url")
        mode = ssl_mode(options, url, self._section)
        parameters = {
            **url,
            "sslmode": mode,
            "ssl_min_protocol_version": PROTOCOLS[options.min_tls],
            "gssencmode": "disable",  # it would take the place of TLS
            "client_encoding": "UTF8",
            "fallback_application_name": "teleport-event-handler",
            "user": options.username or url.get("user"),
            "password": self._password.value if self._password else url.get("password"),
            "sslcert": options.cert or url.get("sslcert"),
            "sslkey": options.key or url.get("sslkey"),
            "sslrootcert": options.ca or url.get("sslrootcert"),
        }
        if mode.startswith("verify-") and not parameters["sslrootcert"]:
            parameters["sslrootcert"] = system_authorities()
        if "," in str(url.get("host") or url.get("hostaddr")):  # of a primary and its replicas, the one that writes
            parameters.setdefault("target_session_attrs", "read-write")
        return {name: value for name, value in parameters.items() if value is not None and value != ""}


def parsed(url: str, option: str) -> dict[str, Any]:
    """The parameters in a URL, or in libpq's `host=… dbname=…`. Raises SinkError, which shows nothing of the URL."""
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    hint = "It must look like postgresql://user@host:5432/database."
    try:
        found = conninfo_to_dict(url)
    except ProgrammingError:  # its text has a part of the URL, perhaps of the password
        raise SinkError(f"{option} cannot be read", hint) from None
    if not all(port.isdigit() for port in str(found.get("port", "0")).split(",") if port):
        raise SinkError(f"{option} cannot be read", f"{hint} A / or @ in the password is written %2F or %40.")
    if not found.get("host") and not found.get("hostaddr"):
        raise SinkError(f"{option} names no host", hint)
    if password := found.get("password"):
        redact.know([str(password)])
    return found


def ssl_mode(options: PostgresqlOptions, url: dict[str, Any], section: str) -> str:
    """libpq's `sslmode`. Raises SinkError where events would go out in the clear without anybody having said so."""
    of_url = str(url.get("sslmode") or "")
    if options.sslmode and of_url and options.sslmode != of_url:
        raise SinkError(f"{section}.sslmode and the sslmode in {section}.url differ", "Remove one of them.")
    here = all(map(_is_here, str(url.get("hostaddr") or url.get("host")).split(",")))
    given = [f"{section}.{name}" for name in ("ca", "cert", "key") if getattr(options, name)]
    mode = options.sslmode or of_url or ("prefer" if here and not given else "verify-full")
    if mode in MAYBE_CLEAR and given:
        reason = f"sslmode is {mode}, so events may be sent in the clear although {' and '.join(given)} is set"
        raise SinkError(reason, f"Remove it from {section}, or {' and '.join(given)}.")
    if mode in NOT_SAID and not here:
        raise SinkError(
            f"with sslmode {mode} in {section}.url events may be sent in the clear",
            "Remove it for verify-full, or say disable if that is meant.",
        )
    return mode


def _is_here(host: str) -> bool:
    """Whether a host is this machine: a directory of a UNIX socket, an abstract socket, or a loopback address."""
    if host.startswith(("/", "@")) or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def system_authorities() -> str:
    """The file with the authorities that this system trusts: the libpq of a Python package has no directory of its
    own for them.
    """
    own = ssl.get_default_verify_paths().cafile
    return own or next((bundle for bundle in BUNDLES if Path(bundle).exists()), "system")
