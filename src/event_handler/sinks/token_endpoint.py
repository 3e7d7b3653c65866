"""Asks for access tokens over HTTP: a token endpoint of OAuth 2.0 (RFC 6749), or the metadata server of a cloud."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import time
from typing import Any, TypeGuard
from urllib.parse import urlencode

import orjson
from yarl import URL

from event_handler.errors import SinkError
from event_handler.ports import Retry
from event_handler.sinks.access_token import Token
from event_handler.sinks.answers import PASSING, readable
from event_handler.sinks.http import DIRECT, MISCONFIGURED_WAIT, Answer, HttpClient, TlsFiles, retry_seconds
from event_handler.sinks.http_options import HttpOptions

UNSTATED = 300.0  # seconds that a token is taken to be good for when the answer does not say
METADATA_TIMEOUT = 10.0  # seconds; a metadata server is on this machine, or there is none
METADATA_PASSING = PASSING | {404, 410}  # it says so while it starts or is updated (Azure's "How to use" for IMDS)

DESCRIPTION = "error_description"

Form = Callable[[], tuple[Mapping[str, str], str]]


class TokenEndpoint:
    """One place that gives tokens. `url` is the option with its address; `check` names those to look at when it
    refuses, and `by_error` those of an error's name (RFC 6749, 5.2).
    """

    def __init__(
        self, section: str, client: HttpClient, *, url: str, check: str, by_error: Mapping[str, str] | None = None
    ) -> None:
        self._section = section
        self._client = client
        self._url = url
        self._check = check
        self._by_error = by_error or {}

    async def post(self, url: URL, form: Mapping[str, str], authorization: str = "") -> Token | Retry:
        """Ask with a form, and a value for the header Authorization where given."""
        if authorization:
            self._client.set_header("Authorization", authorization)
        return self.token(url, await self._client.post(url, urlencode(form).encode()))

    async def post_json(self, url: URL, content: Mapping[str, object], bearer: str) -> Answer | Retry:
        self._client.set_header("Authorization", f"Bearer {bearer}")
        return await self._client.request("POST", url, orjson.dumps(content))

    async def get(self, url: URL, authorization: str = "") -> Answer | Retry:
        if authorization:
            self._client.set_header("Authorization", authorization)
        return await self._client.request("GET", url, b"")

    def token(self, url: URL, answer: Answer | Retry, passing: frozenset[int] = PASSING) -> Token | Retry:
        """Turn an answer into the token that is in it, or into what to do."""
        if isinstance(answer, Retry):
            # The client would name the option of the receiver, which it takes the token endpoint for.
            reason = answer.reason.replace(f"{self._section}.url", self._url)
            more = "" if self._url in reason else f"; check {self._url}"
            return Retry(f"no access token from {url.origin()}: {reason}{more}", answer.after, answer.misconfigured)
        said = _object(answer.body)
        value = said.get("access_token")
        if 200 <= answer.status < 300 and answer.complete and fits_a_header(value):
            return Token(value, lifetime(said))
        return self.refusal(url, answer, passing)

    def refusal(self, url: URL, answer: Answer, passing: frozenset[int] = PASSING) -> Retry:
        """Why an answer brings no token."""
        whom = f"no access token: {url.origin()} answered {answer.status}"
        after = retry_seconds(answer.retry_after)
        if 200 <= answer.status < 300:
            return Retry(f"{whom}, but no token with it; check {self._url}", MISCONFIGURED_WAIT, misconfigured=True)
        said = _object(answer.body)
        reason = f"{whom} {_words(said) or readable(answer.body)}".rstrip()
        if answer.status in passing or (answer.status >= 500 and answer.status not in (501, 505)):
            return Retry(reason, after)
        named = str(said.get("error"))
        check = self._by_error.get(named, self._check)
        if 300 <= answer.status < 400 or (answer.status in (404, 405) and "error" not in said):
            check = self._url
        return Retry(f"{reason}; check {check}", max(after, MISCONFIGURED_WAIT), misconfigured=True)

    def reload(self) -> None:
        self._client.reload()

    async def close(self) -> None:
        await self._client.close()


class FormSource:
    """Tokens for a form that is made anew for each: `form` returns it with a value for the header Authorization, or "".

    `form` raises SinkError for a file that cannot be used.
    """

    def __init__(self, endpoint: TokenEndpoint, url: URL, form: Form) -> None:
        self._endpoint = endpoint
        self._url = url
        self._form = form

    async def fetch(self) -> Token | Retry:
        try:
            form, authorization = self._form()
        except SinkError as error:
            return Retry(f"no access token: {error}", MISCONFIGURED_WAIT, misconfigured=True)
        return await self._endpoint.post(self._url, form, authorization)

    def reload(self) -> None:
        self._endpoint.reload()

    async def close(self) -> None:
        await self._endpoint.close()


class MetadataSource:
    """Tokens of the machine's own identity, from a metadata server that knows whom it asks for by the network."""

    def __init__(self, endpoint: TokenEndpoint, url: URL) -> None:
        self._endpoint = endpoint
        self._url = url

    async def fetch(self) -> Token | Retry:
        return self._endpoint.token(self._url, await self._endpoint.get(self._url), METADATA_PASSING)

    def reload(self) -> None:
        """There are no files."""

    async def close(self) -> None:
        await self._endpoint.close()


def form_client(options: HttpOptions, section: str) -> HttpClient:
    """A client for a token endpoint: it trusts whom the sink trusts, shows the same certificate where it is asked for
    one (RFC 8705), and goes through the same proxy. Raises SinkError when the TLS files cannot be used.
    """
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
    return HttpClient(
        section, options.files, connections=1, headers=headers, timeout=options.timeout, proxy=options.proxy
    )


def metadata_client(section: str, headers: Mapping[str, str]) -> HttpClient:
    """A client for a metadata server, never through a proxy: it would be asked for the proxy's own identity."""
    headers = {"Content-Type": "application/json", **headers}
    return HttpClient(section, TlsFiles(), connections=1, headers=headers, timeout=METADATA_TIMEOUT, proxy=DIRECT)


def lifetime(said: Mapping[str, Any]) -> float:
    """Seconds that a token is good for: `expires_in`, or else `expires_on` in seconds since the epoch, as a number or
    as text (Azure's metadata).
    """
    for key, since in (("expires_in", 0.0), ("expires_on", time())):
        try:
            return max(0.0, float(said[key]) - since)
        except (KeyError, TypeError, ValueError):
            continue
    return UNSTATED


def fits_a_header(value: object) -> TypeGuard[str]:
    """Whether it is a token that can be shown in a header."""
    return isinstance(value, str) and value != "" and value.isascii() and value.isprintable() and " " not in value


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _words(said: Mapping[str, Any]) -> str:
    """What a refusal says: OAuth's `error` with its description, or the message of Google's errors."""
    error: Any = said.get("error")
    parts = (error.get("status"), error.get("message")) if isinstance(error, dict) else (error, said.get(DESCRIPTION))
    return readable(": ".join(str(part) for part in parts if part).encode())
