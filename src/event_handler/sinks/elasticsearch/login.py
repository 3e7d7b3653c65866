"""How the sink signs in: an API key, a password or a bearer token, each perhaps from a file, or a signature of AWS."""

from __future__ import annotations

from yarl import URL

from event_handler.errors import SinkError
from event_handler.sinks.aws_credentials import AwsAccess
from event_handler.sinks.elasticsearch.options import ElasticsearchOptions
from event_handler.sinks.http import Sign
from event_handler.sinks.http_dial import basic
from event_handler.sinks.secret import Secret


class ElasticsearchLogin:
    """At most one way to sign in. Raises SinkError, without showing a secret, when more are set, or one in part."""

    def __init__(self, options: ElasticsearchOptions, section: str, url: URL) -> None:
        self._user = options.username
        self._secret: Secret | None = None
        self._aws: AwsAccess | None = None
        ways = {
            "api-key": bool(options.api_key or options.api_key_file),
            "username": bool(options.username or options.password or options.password_file),
            "bearer": bool(options.bearer or options.bearer_file),
            "aws": options.aws != "none",
            "url": options.aws != "none" and bool(url.raw_user or url.raw_password),
        }
        chosen = [way for way, used in ways.items() if used]
        if len(chosen) > 1:
            named = " and ".join(f"{section}.{way}" for way in chosen)
            raise SinkError(f"{named} are set together", "Set one of them.")
        self._way = chosen[0] if chosen else ""
        if self._way != "aws" and (options.access_key_id or options.profile or options.role_arn):
            raise SinkError(f"{section} has options of AWS without {section}.aws", "Set aws to es or aoss.")
        if self._way == "api-key":
            self._secret = Secret(options.api_key, options.api_key_file, f"{section}.api-key")
        elif self._way == "bearer":
            self._secret = Secret(options.bearer, options.bearer_file, f"{section}.bearer")
        elif self._way == "username" and (options.password or options.password_file):
            self._secret = Secret(options.password, options.password_file, f"{section}.password", encoded=True)
        elif self._way == "aws":
            self._aws = AwsAccess(options, section, options.aws)

    @property
    def sign(self) -> Sign | None:
        return self._aws.sign if self._aws else None

    def headers(self) -> dict[str, str]:
        """{} where there is nothing to sign in with, or each request has a signature of its own."""
        secret = self._secret.value if self._secret else ""
        match self._way:
            case "api-key":
                return {"Authorization": f"ApiKey {secret}"}
            case "bearer":
                return {"Authorization": f"Bearer {secret}"}
            case "username":  # in UTF-8, as both products read it, whatever characters the password has
                return {"Authorization": basic(self._user.encode(), secret.encode())}
        return {}

    def changed(self) -> bool:
        """Whether the secret is another one since the last look."""
        return self._secret is not None and self._secret.changed()

    def refused(self) -> None:
        """The receiver does not take who we are: credentials of AWS are looked for anew."""
        if self._aws:
            self._aws.renew(self._aws.number)

    async def close(self) -> None:
        if self._aws:
            await self._aws.close()
