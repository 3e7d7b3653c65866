"""Gets temporary credentials of a role from AWS's token service (STS)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from html import unescape
from pathlib import Path
from time import time
from urllib.parse import quote, urlencode

from yarl import URL

from event_handler import redact
from event_handler.errors import SinkError
from event_handler.ports import Retry
from event_handler.sinks.answers import PASSING, readable
from event_handler.sinks.aws_signing import AwsCredentials, signed
from event_handler.sinks.http import MISCONFIGURED_WAIT, HttpClient
from event_handler.sinks.http_options import HttpOptions

STS_VERSION = "2011-06-15"
SESSION = "teleport-event-handler"  # what CloudTrail calls us
ROLE_TIME = 3600  # seconds that credentials are asked for; a role may allow more, and every role allows this
RENEW_BEFORE = 300.0  # seconds before credentials end, as AWS's own tools fetch the next ones
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class Sts:
    """The token service, asked over the sink's proxy and TLS files. `section` names the options in errors."""

    def __init__(self, options: HttpOptions, url: URL, region: str, section: str) -> None:
        self._options = options
        self._client: HttpClient | None = None  # made when it is first needed
        self._url = url
        self._region = region
        self._section = section

    async def assume_role(self, with_: AwsCredentials, role: str, external_id: str) -> AwsCredentials | Retry:
        """Credentials of a role, for one who may assume it."""
        asked = {"RoleArn": role, "RoleSessionName": SESSION, "DurationSeconds": str(ROLE_TIME)}
        if external_id:
            asked["ExternalId"] = external_id
        return await self._ask("AssumeRole", asked, f"the role {role} cannot be assumed", with_)

    async def with_web_identity(self, role: str, token_file: str, session: str) -> AwsCredentials | Retry:
        """Credentials of a role, for the token that is in a file (IAM roles for service accounts of Kubernetes)."""
        what = f"the role {role} cannot be assumed with the token in {token_file}"
        try:
            token = Path(token_file).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", "") or "it is not text"
            return Retry(f"{what}: the file cannot be read ({why})", MISCONFIGURED_WAIT, misconfigured=True)
        redact.know([token])
        asked = {"RoleArn": role, "RoleSessionName": session, "WebIdentityToken": token}
        return await self._ask("AssumeRoleWithWebIdentity", asked, what, None)

    async def _ask(
        self, action: str, asked: Mapping[str, str], what: str, with_: AwsCredentials | None
    ) -> AwsCredentials | Retry:
        body = urlencode({"Action": action, "Version": STS_VERSION, **asked}, quote_via=quote).encode()
        headers: Mapping[str, str] = FORM
        if with_ is not None:
            headers = signed(with_, self._region, "sts", datetime.now(UTC), "POST", self._url, body, FORM)
        if self._client is None:
            try:
                self._client = self._options.client(self._section, FORM, connections=1)
            except SinkError as error:  # the TLS files were good at the start
                return Retry(f"{what}: {error}", MISCONFIGURED_WAIT, misconfigured=True)
        answer = await self._client.request("POST", self._url, body, headers)
        if isinstance(answer, Retry):
            return Retry(f"{what}: {answer.reason}", answer.after, answer.misconfigured)
        text = answer.body.decode("utf-8", "replace")
        if 200 <= answer.status < 300:
            return _credentials(text) or Retry(f"{what}: the answer of {self._url.origin()} holds no credentials")
        said = f"{element(text, 'Code')} {element(text, 'Message')}".strip() or readable(answer.body)
        reason = f"{what}: the token service answered {answer.status} {said}"
        if answer.status in PASSING or answer.status >= 500 or "Throttling" in said:
            return Retry(reason)
        return Retry(
            f"{reason}; check its trust policy and {self._section}.role-arn", MISCONFIGURED_WAIT, misconfigured=True
        )

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None


def temporary(access_key: str, secret_key: str, token: str, expiration: str) -> AwsCredentials | None:
    """Credentials that end at a time (RFC 3339); None where a part is missing or is not what it should be."""
    values = access_key, secret_key, token
    try:
        expires = datetime.fromisoformat(expiration).timestamp()
    except ValueError:
        return None
    if not (access_key and secret_key) or not all(value.isascii() and value.isprintable() for value in values):
        return None
    redact.know([secret_key, token])
    left = expires - time()
    return AwsCredentials(access_key, secret_key, token, expires - min(RENEW_BEFORE, left / 2), expires)


def _credentials(text: str) -> AwsCredentials | None:
    key, secret, token, end = (
        element(text, name) for name in ("AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration")
    )
    return temporary(key, secret, token, end)


def element(text: str, name: str) -> str:
    """The text of the first element of that name, which holds no other one."""
    found = re.search(rf"<{name}>([^<]*)</{name}>", text)
    return " ".join(unescape(found[1]).split()) if found else ""
