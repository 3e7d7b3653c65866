"""Access tokens of Google Cloud: for a service account with a key, for a workload of another cloud or cluster that
Google trusts, and for the service account of the machine that we run on.

Facts: Google's "Using OAuth 2.0 for Server to Server Applications", "Workload Identity Federation" with AIP-4117, and
"About VM metadata".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from time import time
from typing import Annotated, Any

import orjson
from yarl import URL

from event_handler.errors import SinkError
from event_handler.ports import Retry
from event_handler.setting import Setting
from event_handler.sinks.access_token import Token, TokenSource
from event_handler.sinks.http import DIRECT, endpoint
from event_handler.sinks.http_options import HttpOptions
from event_handler.sinks.signed_jwt import read, rsa_key, signed
from event_handler.sinks.token_endpoint import (
    FormSource,
    MetadataSource,
    TokenEndpoint,
    fits_a_header,
    form_client,
    metadata_client,
)

GOOGLE_SECONDS = 3600  # that a signed assertion, and the token for it, is good for: the most that Google gives
CLOUD_PLATFORM = "https://www.googleapis.com/auth/cloud-platform"
METADATA_HOST = "metadata.google.internal"
METADATA_PATH = "/computeMetadata/v1/instance/service-accounts/default/token"
FROM_ENVIRONMENT = "GOOGLE_APPLICATION_CREDENTIALS"


class GoogleOptions(HttpOptions):
    """How to sign in at Google Cloud."""

    credentials_file: Annotated[
        str,
        Setting(
            "file",
            "JSON file of a service account's key, or of workload identity federation",
            unset=f"{FROM_ENVIRONMENT}, or else the service account of this machine",
        ),
    ] = ""


def google_source(options: GoogleOptions, section: str, scope: str, environment: Mapping[str, str]) -> TokenSource:
    """Where tokens for `scope` come from. Raises SinkError for a file that cannot be used."""
    option = f"{section}.credentials-file"
    file = options.credentials_file or environment.get(FROM_ENVIRONMENT, "")
    if not file:
        return _machine(section, scope, environment.get("GCE_METADATA_HOST", "") or METADATA_HOST)
    found = _Credentials(file, option)
    kind = found.text("type")
    if kind == "service_account":
        return _service_account(options, section, scope, found)
    if kind == "external_account":
        return _external_account(options, section, scope, found)
    raise SinkError(
        f"{option} {file} is of the type {kind!r}, which this program does not use",
        "It must be of a service account (service_account) or of workload identity federation (external_account).",
    )


class _Credentials:
    """A credentials file, read again for each token. Errors name `option` and the file, and show nothing of it."""

    def __init__(self, file: str, option: str) -> None:
        self.whose = f"{option} {file}"
        self._file = file
        self._option = option
        self._content = self._read()

    def again(self) -> _Credentials:
        return _Credentials(self._file, self._option)

    def _read(self) -> dict[str, Any]:
        try:
            content = orjson.loads(read(self._file, self._option))
        except orjson.JSONDecodeError:
            content = None
        if not isinstance(content, dict):
            raise SinkError(f"{self.whose} is not a JSON object", "It must be the file that Google Cloud has made.")
        return content

    def text(self, name: str, *, within: tuple[str, ...] = (), default: str | None = None) -> str:
        """A field, in objects within objects. Raises SinkError when it is not there and there is no default."""
        holder: Any = self._content
        for outer in within:
            holder = holder.get(outer) if isinstance(holder, dict) else None
        value = holder.get(name, default) if isinstance(holder, dict) else default
        if not isinstance(value, str) or (not value and default is None):
            raise SinkError(f"{self.whose} has no {'.'.join((*within, name))}", "Let Google Cloud make it again.")
        return value


def _machine(section: str, scope: str, host: str) -> TokenSource:
    base = endpoint(
        f"http://{host}/computeMetadata/v1/instance/service-accounts/default/token", "GCE_METADATA_HOST", proxy=DIRECT
    )
    option = f"{section}.credentials-file (without it this must be a machine of Google Cloud)"
    check = f"that this machine has a service account, or set {section}.credentials-file"
    client = metadata_client(section, {"Metadata-Flavor": "Google"})
    return MetadataSource(TokenEndpoint(section, client, url=option, check=check), base.with_query({"scopes": scope}))


def _endpoint(options: HttpOptions, section: str, file: str) -> TokenEndpoint:
    return TokenEndpoint(section, form_client(options, section), url=f"the addresses in {file}", check=file)


def _service_account(options: GoogleOptions, section: str, scope: str, found: _Credentials) -> TokenSource:
    url = options.address(found.text("token_uri"), f"{section}.credentials-file: token_uri")

    def form() -> tuple[dict[str, str], str]:
        account = found.again()
        key = rsa_key(account.text("private_key").encode(), account.whose)
        now = int(time())
        claims = {
            "iss": account.text("client_email"),
            "scope": scope,
            "aud": account.text("token_uri"),
            "iat": now,
            "exp": now + GOOGLE_SECONDS,
        }
        assertion = signed({"kid": account.text("private_key_id", default="")}, claims, key, "RS256")
        return {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": assertion}, ""

    form()
    return FormSource(_endpoint(options, section, found.whose), url, form)


def _external_account(options: GoogleOptions, section: str, scope: str, found: _Credentials) -> TokenSource:
    source = "credential_source"
    if not found.text("file", within=(source,), default=""):
        raise SinkError(f"{found.whose} has no {source}.file", "Only federation with a token in a file can be used.")
    url = options.address(found.text("token_url"), f"{section}.credentials-file: token_url")
    impersonated = found.text("service_account_impersonation_url", default="")

    def form() -> tuple[dict[str, str], str]:
        file = found.again()
        return {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "audience": file.text("audience"),
            "scope": CLOUD_PLATFORM if impersonated else scope,
            "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "subject_token_type": file.text("subject_token_type"),
            "subject_token": _subject_token(file, source),
        }, ""

    exchange = FormSource(_endpoint(options, section, found.whose), url, form)
    if not impersonated:
        return exchange
    account = options.address(impersonated, f"{section}.credentials-file: service_account_impersonation_url")
    return Impersonation(exchange, _endpoint(options, section, found.whose), account, scope)


def _subject_token(file: _Credentials, source: str) -> str:
    """The token of the other cloud or cluster, which it renews in its file: as text, or in a field of an object."""
    path = file.text("file", within=(source,))
    text = read(path, f"{file.whose}: {source}.file").decode("utf-8", "replace").strip()
    if file.text("type", within=(source, "format"), default="text") == "json":
        try:
            content = orjson.loads(text)
        except orjson.JSONDecodeError:
            content = None
        name = file.text("subject_token_field_name", within=(source, "format"))
        text = content.get(name, "") if isinstance(content, dict) else ""
    if not isinstance(text, str) or not text:
        raise SinkError(f"{path}, the {source}.file of {file.whose}, holds no token", "Check what writes it.")
    return text


@dataclass(slots=True)
class Impersonation:
    """Tokens of a service account, for tokens of a source that may act as it (generateAccessToken)."""

    source: TokenSource
    endpoint: TokenEndpoint
    url: URL
    scope: str

    async def fetch(self) -> Token | Retry:
        own = await self.source.fetch()
        if isinstance(own, Retry):
            return own
        asked = {"scope": [self.scope], "lifetime": f"{GOOGLE_SECONDS}s"}
        answer = await self.endpoint.post_json(self.url, asked, own.value)
        if isinstance(answer, Retry):
            return self.endpoint.token(self.url, answer)
        try:
            said = orjson.loads(answer.body)
            left = datetime.fromisoformat(said["expireTime"]) - datetime.now(UTC)
            value = said["accessToken"]
        except (ValueError, KeyError, TypeError):
            return self.endpoint.refusal(self.url, answer)
        return Token(value, left.total_seconds()) if fits_a_header(value) else self.endpoint.refusal(self.url, answer)

    def reload(self) -> None:
        self.source.reload()
        self.endpoint.reload()

    async def close(self) -> None:
        await self.source.close()
        await self.endpoint.close()
