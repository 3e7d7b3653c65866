"""What a NATS sink can be set to, and how it signs in."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from event_handler import redact
from event_handler.errors import SinkError
from event_handler.setting import Setting
from event_handler.sinks.bus_options import BusOptions
from event_handler.sinks.http_tls import TlsVersion
from event_handler.sinks.nats.nkeys import NkeyError, credentials, user_key
from event_handler.sinks.secret import Secret

_PLACEHOLDER = re.compile(r"\{[^{}]*\}")
_NOT_IN_A_TOKEN = re.compile(r"[^\x21-\x7e]|[*>]")


class NatsOptions(BusOptions):
    """Where to publish, by which subject, and how to sign in."""

    url: Annotated[
        str,
        Setting("url", "server, as tls://nats.example.com:4222 or nats://…; several with commas", required=True),
    ] = ""
    subject: Annotated[
        str, Setting("text", "subject of an event; {type} is its type, {session} the id of its recording")
    ] = "teleport.audit.{type}"
    session_subject: Annotated[str, Setting("text", "subject of a recorded event")] = "teleport.session.{session}"
    stream: Annotated[
        str, Setting("text", "stream that must take the events", unset="the one that takes the subject")
    ] = ""
    username: Annotated[str, Setting("text", "user name")] = ""
    password: Annotated[
        str, Setting("text", "password; better in password-file or the variable", secret=True), Field(repr=False)
    ] = ""
    password_file: Annotated[str, Setting("file", "file with the password; it is read again when it changes")] = ""
    token: Annotated[
        str, Setting("text", "token; better in token-file or the variable", secret=True), Field(repr=False)
    ] = ""
    token_file: Annotated[str, Setting("file", "file with the token; it is read again when it changes")] = ""
    nkey_file: Annotated[str, Setting("file", "file with the seed of a user's nkey")] = ""
    creds_file: Annotated[str, Setting("file", "credentials file of a user, as nsc writes it")] = ""
    min_tls: Annotated[TlsVersion, Setting("choice", "oldest version of TLS that is spoken with the receiver")] = "1.2"


class Subject:
    """Makes subjects of a template. Raises SinkError for one that cannot be used."""

    def __init__(self, template: str, option: str) -> None:
        unknown = [found for found in _PLACEHOLDER.findall(template) if found not in ("{type}", "{session}")]
        tried = template.replace("{type}", "user.login").replace("{session}", "0")
        if unknown or not all(tried.split(".")) or _NOT_IN_A_TOKEN.search(tried) or {"{", "}"} & set(tried):
            raise SinkError(
                f"{option} {template!r} cannot be a subject",
                "It has words with dots between, and may have {type} and {session}.",
            )
        self._template = template
        self._known: dict[tuple[str, str], str] = {}

    def of(self, type_: str, session_id: str) -> str:
        key = type_, session_id
        found = self._known.get(key)
        if found is None:
            if len(self._known) > 1000:
                self._known.clear()
            names = self._template.replace("{type}", _words(type_)).replace("{session}", _words(session_id))
            found = self._known[key] = names
        return found


def _words(text: str) -> str:
    """The text as words of a subject, which have no blanks and wildcards, and are not empty."""
    return ".".join(_NOT_IN_A_TOKEN.sub("_", word) or "_" for word in text.split("."))


class NatsSignIn:
    """At most one of a password, a token, an nkey and a credentials file. Raises SinkError for more, or a wrong one."""

    def __init__(self, options: NatsOptions, section: str) -> None:
        self._options = options
        self._section = section
        self._secret: Secret | None = None
        ways = {
            "username": bool(options.username or options.password or options.password_file),
            "token": bool(options.token or options.token_file),
            "nkey-file": bool(options.nkey_file),
            "creds-file": bool(options.creds_file),
        }
        chosen = [way for way, used in ways.items() if used]
        if len(chosen) > 1:
            raise SinkError(f"{' and '.join(f'{section}.{way}' for way in chosen)} are set together", "Set one.")
        if ways["username"]:
            if not options.username:
                raise SinkError(f"{section}.password is set without {section}.username", "Set both.")
            self._secret = Secret(options.password, options.password_file, f"{section}.password")
        elif ways["token"]:
            self._secret = Secret(options.token, options.token_file, f"{section}.token")
        self.arguments(lambda: None)

    def arguments(self, check: Callable[[], None]) -> tuple[dict[str, Any], str]:
        """What the client's `connect` is told, and the public key of an nkey or "".

        `check` is called before a secret goes out. Files are read as they are now. Raises SinkError.
        """
        if self._secret is not None:
            self._secret.changed()
            value = self._secret.value

            def secret() -> str:
                check()
                return value

            user = self._options.username
            return ({"user": user, "password": secret} if user else {"token": secret}), ""
        if self._options.creds_file:
            option, file = f"{self._section}.creds-file", self._options.creds_file
        elif self._options.nkey_file:
            option, file = f"{self._section}.nkey-file", self._options.nkey_file
        else:
            return {}, ""
        try:
            text = Path(file).read_text("ascii").strip()
            jwt, seed = credentials(text) if self._options.creds_file else ("", text)
            redact.know([jwt, seed])
            key = user_key(seed)
        except (OSError, UnicodeDecodeError, NkeyError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise SinkError(f"{option} {file} cannot be used ({reason})", "Check the file.") from None

        def sign(nonce: str) -> bytes:
            check()
            return key.sign(nonce)

        if jwt:
            return {"signature_cb": sign, "user_jwt_cb": jwt.encode}, ""
        return {"signature_cb": sign}, key.public
