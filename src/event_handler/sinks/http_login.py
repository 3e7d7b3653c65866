"""How a sink over HTTP signs in at its receiver: a bearer token, a secret in a header of any name, a password, or
access tokens of OAuth 2.0 that it asks for as a client.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal
from urllib.parse import quote_plus

from pydantic import Field
from yarl import URL

from event_handler.errors import SinkError
from event_handler.ports import Retry
from event_handler.setting import Setting
from event_handler.sinks.access_token import AccessTokens, Send
from event_handler.sinks.http import About, Answer, HttpClient
from event_handler.sinks.http_dial import basic
from event_handler.sinks.http_options import HttpOptions
from event_handler.sinks.secret import Secret
from event_handler.sinks.token_endpoint import FormSource, TokenEndpoint, form_client

OAUTH = ("oauth_token_url", "oauth_client_id", "oauth_client_secret", "oauth_client_secret_file")
Headers = Annotated[
    dict[str, str],
    Setting("table", "headers of every request; never shown, for they may hold a secret", secret=True),
]
HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, 5.1


class LoginOptions(HttpOptions):
    """At most one of a bearer token, a secret with the name of its header, a user name with a password, and a client of
    OAuth.
    """

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
    oauth_token_url: Annotated[
        str, Setting("url", "token endpoint of OAuth 2.0, where access tokens are asked for (client credentials)")
    ] = ""
    oauth_client_id: Annotated[str, Setting("text", "id of the client there")] = ""
    oauth_client_secret: Annotated[
        str,
        Setting("text", "secret of the client; better in oauth-client-secret-file or the variable", secret=True),
        Field(repr=False),
    ] = ""
    oauth_client_secret_file: Annotated[
        str, Setting("file", "file with that secret; it is read again when it changes")
    ] = ""
    oauth_client_auth: Annotated[
        Literal["basic", "body"],
        Setting("choice", "where id and secret stand: the header Authorization, or the form"),
    ] = "basic"
    oauth_scope: Annotated[str, Setting("text", "scope of the tokens, several with blanks between")] = ""
    oauth_audience: Annotated[str, Setting("text", "audience of the tokens, where the token endpoint wants one")] = ""


class Login:
    """The header that signs in. Raises SinkError when more than one way is set, or one is not complete."""

    def __init__(self, options: LoginOptions, section: str) -> None:
        self._username = options.username
        self._secret: Secret | None = None
        self._tokens: AccessTokens | None = None
        self.header = "Authorization"
        ways = {
            "bearer": bool(options.bearer or options.bearer_file),
            "secret": bool(options.secret or options.secret_file or options.secret_header),
            "username": bool(options.username or options.password or options.password_file),
            "oauth-token-url": any(getattr(options, name) for name in OAUTH),
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
        elif self._way == "oauth-token-url":
            self._tokens = AccessTokens(client_credentials(options, section))

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

    async def signed_in(self, client: HttpClient, send: Send) -> Answer | Retry:
        """What `send` brings, which uses `client`, with the header that signs in as it must be now."""
        if self._tokens is not None:
            return await self._tokens.signed_in(client, send)
        if self.changed():
            for name, value in self.headers().items():
                client.set_header(name, value)
        return await send()

    def reload(self) -> None:
        if self._tokens is not None:
            self._tokens.reload()

    async def close(self) -> None:
        if self._tokens is not None:
            await self._tokens.close()


class LoginClient:
    """A client that is signed in as its options say. Raises SinkError for a login or TLS files that cannot be used."""

    def __init__(
        self,
        options: LoginOptions,
        section: str,
        headers: Mapping[str, str],
        *,
        keepalive: float,
        status_only: bool = False,
    ) -> None:
        self.login = Login(options, section)
        named = {**headers, **self.login.headers()}
        self._client = options.client(section, named, keepalive=keepalive, status_only=status_only)

    async def post(self, url: URL, body: bytes, method: str = "POST", about: About | None = None) -> Answer | Retry:
        """As `HttpClient.post` does."""
        return await self.login.signed_in(self._client, lambda: self._client.post(url, body, method, about))

    def reload(self) -> None:
        self._client.reload()
        self.login.reload()

    async def close(self) -> None:
        await self._client.close()
        await self.login.close()


def client_credentials(options: LoginOptions, section: str) -> FormSource:
    """Tokens for a client of OAuth (RFC 6749, 4.4). Raises SinkError when its options are not complete."""
    if not options.oauth_token_url or not options.oauth_client_id:
        missing = "oauth-client-id" if options.oauth_token_url else "oauth-token-url"
        raise SinkError(f"{section}.{missing} is missing", "Set it beside the other options of oauth.")
    url = options.address(options.oauth_token_url, f"{section}.oauth-token-url")
    option = f"{section}.oauth-client-secret"
    secret = Secret(options.oauth_client_secret, options.oauth_client_secret_file, option)
    asked = {"scope": options.oauth_scope, "audience": options.oauth_audience}
    base = {"grant_type": "client_credentials", **{name: value for name, value in asked.items() if value}}
    client = options.oauth_client_id

    def form() -> tuple[dict[str, str], str]:
        secret.changed()
        if options.oauth_client_auth == "body":
            return {**base, "client_id": client, "client_secret": secret.value}, ""
        # Both are encoded as in a form before they become a user name and a password (RFC 6749, 2.3.1).
        return base, basic(quote_plus(client).encode(), quote_plus(secret.value).encode())

    endpoint = TokenEndpoint(
        section,
        form_client(options, section),
        url=f"{section}.oauth-token-url",
        check=f"{option}, {section}.oauth-client-id and oauth-client-auth",
        by_error={"invalid_scope": f"{section}.oauth-scope", "invalid_target": f"{section}.oauth-audience"},
    )
    return FormSource(endpoint, url, form)


def checked_headers(given: Mapping[str, str], section: str) -> dict[str, str]:
    """Raises SinkError for what no header can be, without showing its value."""
    for name, value in given.items():
        if not HEADER_NAME.fullmatch(name) or not value.isascii() or not value.isprintable():
            raise SinkError(
                f"{section}.headers has a header {name!r} that cannot be sent", "Correct its name or value."
            )
        if name.lower() in ("content-type", "content-length", "host", "content-encoding"):
            raise SinkError(f"{section}.headers has the header {name}, which is set by the sink", "Remove it.")
    return dict(given)
