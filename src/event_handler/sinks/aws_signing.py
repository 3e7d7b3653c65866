"""Signs requests to AWS, in their headers, with Signature Version 4.

Facts: AWS's "Create a signed AWS API request" (IAM User Guide).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from math import inf
from urllib.parse import quote, unquote, unquote_plus

from yarl import URL

ALGORITHM = "AWS4-HMAC-SHA256"
HASH_IN_HEADER = frozenset({"s3", "es", "aoss"})  # services that want the hash of the body in a header, or take it
UNRESERVED = "-_.~"  # is not quoted, beside letters and digits
BLANKS = re.compile(" +")
KEPT_KEYS = 16  # signing keys that are kept: one for each day, region and service


@dataclass(frozen=True, slots=True)
class AwsCredentials:
    """A key with its secret, and the token of a temporary one.

    From `renew` on it is time to fetch others, from `expires` on these are worth nothing; both in seconds since the
    epoch.
    """

    access_key: str
    secret_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)
    renew: float = inf
    expires: float = inf


def signed(
    credentials: AwsCredentials,
    region: str,
    service: str,
    moment: datetime,
    method: str,
    url: URL,
    body: bytes,
    headers: Mapping[str, str],
) -> dict[str, str]:
    """The headers, all of them signed, with those that prove who sends the request at `moment` (UTC).

    The request must be sent with exactly this path, query, body and `Host`.
    """
    stamp = f"{moment:%Y%m%dT%H%M%SZ}"
    body_hash = hashlib.sha256(body).hexdigest()
    sent = {**headers, "X-Amz-Date": stamp}
    if credentials.session_token:
        sent["X-Amz-Security-Token"] = credentials.session_token
    if service in HASH_IN_HEADER:
        sent["X-Amz-Content-Sha256"] = body_hash
    named = {"host": url.host_port_subcomponent or "", **{name.lower(): value for name, value in sent.items()}}
    names = ";".join(sorted(named))
    request = "\n".join(
        [
            method,
            canonical_path(url.raw_path, service),
            canonical_query(url.raw_query_string),
            *(f"{name}:{BLANKS.sub(' ', named[name].strip())}" for name in sorted(named)),
            "",
            names,
            body_hash,
        ]
    )
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    text = f"{ALGORITHM}\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = _signing_key(credentials.secret_key, stamp[:8], region, service)
    signature = hmac.new(key, text.encode(), "sha256").hexdigest()
    proof = f"Credential={credentials.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {**sent, "Authorization": f"{ALGORITHM} {proof}"}


@lru_cache(maxsize=KEPT_KEYS)
def _signing_key(secret: str, day: str, region: str, service: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def canonical_path(path: str, service: str) -> str:
    """What is signed of a path as it is sent: S3 signs it quoted once, all others without dots and quoted once more."""
    if service == "s3":
        return quote(unquote(path), safe=f"/{UNRESERVED}") or "/"
    kept: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del kept[-1:]
        elif part not in ("", "."):
            kept.append(part)
    last = "/" if kept and path.endswith(("/", "/.", "/..")) else ""
    return quote(f"/{'/'.join(kept)}{last}", safe=f"/{UNRESERVED}")


def canonical_query(query: str) -> str:
    """The parameters in the order of their names, each quoted in the one way that is signed."""
    pairs = [pair.partition("=")[::2] for pair in query.split("&") if pair]
    quoted = sorted((_quoted(name), _quoted(value)) for name, value in pairs)
    return "&".join(f"{name}={value}" for name, value in quoted)


def _quoted(text: str) -> str:
    return quote(unquote_plus(text), safe=UNRESERVED)
