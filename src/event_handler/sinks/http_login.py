"""How a sink over HTTP signs in at its receiver: a bearer token, a secret in a header of any name, or a password."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field

from event_handler.errors import SinkError
from event_handler.setting import Setting
from event_handler.sinks.http_dial import basic
from event_handler.sinks.http_options import HttpOptions
from event_handler.sinks.secret import Secret

HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, 5.1


class LoginOptions(HttpOptions):
    """At most one of a bearer token, a secret with the name of its header, and a user name with a password."""

    bearer: Annotated[
        str, Setting("text", "bearer token; better in bearer-file or the variable", secret=True), Field(repr=False)
    ] = ""
    bearer_file: Annotated[str, Setting("file", "file with the bearer token; it is read again when it changes")] = ""
    secret_header: Annotated[str, Setting("text", "name of the header that holds the secret, as X-Api-Key")] = ""
    secret: Annotated[
        str,
        Setting("text", "secret of that header; better in secret-file or the variable", secret=True),
        Field(repr=False),
    ] = ""
    secret_file: Annotated[str, Setting("file", "file with that secret; it is read again when it changes")] = ""
    username: Annotated[str, Setting("text", "user name")] = ""
    password: Annotated[
        str, Setting("text", "password; better in password-file or the variable", secret=True), Field(repr=False)
    ] = ""
    password_file: Annotated[str, Setting("file", "file with the password; it is read again when it changes")] = ""


class Login:
    """The header that signs in. Raises SinkError when more than one way is set, or one is not complete."""

    def __init__(self, options: LoginOptions, section: str) -> None:
        self._username = options.username
        self._secret: Secret | None = None
        self.header = "Authorization"
        ways = {
            "bearer": bool(options.bearer or options.bearer_file),
            "secret": bool(options.secret or options.secret_file or options.secret_header),
            "username": bool(options.username or options.password or options.password_file),
        }
        chosen = [way for way, used in ways.items() if used]
        if len(chosen) > 1:
            raise SinkError(
                f"{' and '.join(f'{section}.{way}' for way in chosen)} are set together", "Set one of them."
            )
        self._way = chosen[0] if chosen else ""
        if self._way == "bearer":
            self._secret = Secret(options.bearer, options.bearer_file, f"{section}.bearer")
        elif self._way == "secret":
            if not HEADER_NAME.fullmatch(options.secret_header):
                raise SinkError(f"{section}.secret-header is missing, or no header can have that name", "Set it.")
            self.header = options.secret_header
            self._secret = Secret(options.secret, options.secret_file, f"{section}.secret")
        elif self._way == "username":
            if not options.username:
                raise SinkError(f"{section}.password is set without {section}.username", "Set both.")
            self._secret = Secret(options.password, options.password_file, f"{section}.password")

    def headers(self) -> dict[str, str]:
        """{} where there is nothing to sign in with."""
        if self._secret is None:
            return {}
        value = self._secret.value
        if self._way == "bearer":
            return {"Authorization": f"Bearer {value}"}
        return {self.header: basic(self._username.encode(), value.encode()) if self._way == "username" else value}

    def changed(self) -> bool:
        """Whether the secret is another one since the last look."""
        return self._secret is not None and self._secret.changed()
