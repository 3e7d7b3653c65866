"""Gets the credentials that AWS gives to a container (ECS, EKS Pod Identity) or to a machine (EC2)."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from time import time

import orjson
from yarl import URL

from event_handler import redact
from event_handler.ports import Retry
from event_handler.sinks.answers import readable
from event_handler.sinks.aws_signing import AwsCredentials
from event_handler.sinks.aws_sts import temporary
from event_handler.sinks.http import DIRECT, MISCONFIGURED_WAIT, Answer, HttpClient
from event_handler.sinks.http_options import HttpOptions

CONTAINER_TIMEOUT = 5.0  # seconds; these services are on the machine itself
EC2_TIMEOUT = 2.0  # seconds; where there is no such service, packets to its address are often dropped
EC2 = "http://169.254.169.254"
CONTAINER = "http://169.254.170.2"  # what AWS_CONTAINER_CREDENTIALS_RELATIVE_URI is relative to
# Beside loopback, where a token may be sent in the clear: ECS, and EKS Pod Identity.
CONTAINER_HOSTS = frozenset({"169.254.170.2", "169.254.170.23", "fd00:ec2::23"})
GOOD_FOR = "21600"  # seconds that a token of EC2's metadata service is good for, its longest
ROLE_PATH = "/latest/meta-data/iam/security-credentials/"

Found = AwsCredentials | Retry | str  # a text tells why there are none to be found here


class Container:
    """Credentials from the address in AWS_CONTAINER_CREDENTIALS_FULL_URI or _RELATIVE_URI."""

    name = "container"

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    async def find(self) -> Found:
        relative = self._environment.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
        full = self._environment.get("AWS_CONTAINER_CREDENTIALS_FULL_URI")
        if not relative and not full:
            return "AWS_CONTAINER_CREDENTIALS_FULL_URI is not set"
        url = _url(f"{CONTAINER}{relative}" if relative else full or "")
        if url is None or not _trusted(url):
            return _unusable("AWS_CONTAINER_CREDENTIALS_FULL_URI names neither https nor an address of the machine")
        token = self._environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN", "")
        if file := self._environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"):
            try:
                token = Path(file).read_text().strip()
            except (OSError, UnicodeDecodeError) as error:
                return _unusable(f"the token in {file} cannot be read ({getattr(error, 'strerror', 'not text')})")
        if not token.isascii() or not token.isprintable():
            return _unusable("the authorization token of the container has a character that no header can hold")
        redact.know([token])
        headers = {"Authorization": token} if token else {}
        answer = await _ask("GET", url, headers, CONTAINER_TIMEOUT)
        if isinstance(answer, Retry):
            return Retry(f"no credentials for the container: {answer.reason}", answer.after, answer.misconfigured)
        return _credentials(answer) or _unusable(
            f"no credentials for the container: {url.host} answered {answer.status} {readable(answer.body)}"
        )


class Instance:
    """Credentials of the machine's role, from the metadata service of EC2 (IMDSv2)."""

    name = "EC2 metadata"

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._off = environment.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true"
        self._base = _url(environment.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or EC2)

    async def find(self) -> Found:
        if self._off:
            return "AWS_EC2_METADATA_DISABLED is true"
        base = self._base
        if base is None:
            return "AWS_EC2_METADATA_SERVICE_ENDPOINT is not a URL"
        token = await self._get(base, "PUT", "/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": GOOD_FOR})
        if isinstance(token, Retry):
            return f"no answer from {base.host}; in a container on EC2 the hop limit must be 2 ({token.reason})"
        bearer = token.body.decode("latin-1").strip()
        if token.status != 200 or not bearer.isascii() or not bearer.isprintable():
            return f"{base.host} answered {token.status} to the request for a token"
        headers = {"X-aws-ec2-metadata-token": bearer}
        roles = await self._get(base, "GET", ROLE_PATH, headers)
        if isinstance(roles, Retry):
            return roles
        role = readable(roles.body.split(b"\n", 1)[0])
        if roles.status != 200 or not role:
            return "the machine has no role"
        answer = await self._get(base, "GET", f"{ROLE_PATH}{role}", headers)
        if isinstance(answer, Retry):
            return answer
        return _credentials(answer) or Retry(f"{base.host} gave no credentials for the role {role} of the machine")

    async def _get(self, base: URL, method: str, path: str, headers: Mapping[str, str]) -> Answer | Retry:
        return await _ask(method, base.with_path(path), headers, EC2_TIMEOUT)


async def _ask(method: str, url: URL, headers: Mapping[str, str], timeout: float) -> Answer | Retry:
    """Ask a service of the machine itself: never through a proxy, which would be another machine."""
    client: HttpClient = HttpOptions(proxy=DIRECT, compression="none", timeout=timeout).client(
        "AWS metadata", {"Content-Type": "application/json"}, connections=1
    )
    try:
        return await client.request(method, url, b"", headers)
    finally:
        await client.close()


def _url(text: str) -> URL | None:
    """None for what is no URL of HTTP."""
    try:
        url = URL(text)
    except ValueError:
        return None
    return url if url.scheme in ("http", "https") and url.host and url.port else None


def _trusted(url: URL) -> bool:
    """Whether a token may be sent there."""
    if url.scheme == "https":
        return True
    if url.host in CONTAINER_HOSTS or url.host == "localhost":
        return True
    try:
        return ipaddress.ip_address(url.host or "").is_loopback
    except ValueError:
        return False


def _credentials(answer: Answer) -> AwsCredentials | None:
    """What is in the JSON of an answer, None where that is not credentials that are still good."""
    try:
        said = orjson.loads(answer.body)
        parts = [said[name] for name in ("AccessKeyId", "SecretAccessKey", "Token", "Expiration")]
    except (ValueError, KeyError, TypeError):
        return None
    if answer.status != 200 or not all(isinstance(part, str) for part in parts):
        return None
    found = temporary(*parts)
    return found if found is not None and found.expires > time() else None


def _unusable(reason: str) -> Retry:
    return Retry(reason, MISCONFIGURED_WAIT, misconfigured=True)
