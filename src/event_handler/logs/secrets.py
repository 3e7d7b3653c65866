"""Takes out of log lines and error messages what nobody may read there: passwords, tokens, private keys, contents of events."""

from __future__ import annotations

import re
from typing import Any

from structlog.typing import EventDict, WrappedLogger

HIDDEN = "***"
SECRET_FIELDS = frozenset({"api_key", "authorization", "bearer", "key_pem", "passphrase", "password", "secret", "token"})
_RULES: list[tuple[re.Pattern[str], str]] = [
    # What an URL carries before its host: user and password.
    (re.compile(r"""(\b[a-z][a-z0-9+.-]*://)[^/\s"'<>?#]*@""", re.IGNORECASE), r"\1"),
    (
        re.compile(r"([?&](?:access_token|api[-_]?key|key|password|secret|sig|signature|token)=)[^&\s\"']+", re.IGNORECASE),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"""(\bauthorization["']?\s*[:=]\s*["']?)(?:[a-z]+\s+)?[^\s"',]+""", re.IGNORECASE), rf"\1{HIDDEN}"),
    (re.compile(r"""(\b(?:bearer|apikey)\s+)[^\s"',]{8,}""", re.IGNORECASE), rf"\1{HIDDEN}"),
    (re.compile(r"(\bsplunk\s+)[0-9a-f-]{32,}", re.IGNORECASE), rf"\1{HIDDEN}"),
    (re.compile(r"(\bBasic\s+)(?=[A-Za-z+/]*[0-9=])[A-Za-z0-9+/]{6,}={0,2}"), rf"\1{HIDDEN}"),
    (
        re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)", re.DOTALL),
        "(a private key was here)",
    ),
    # A receiver may quote the event that it refuses; these keys are in every event of Teleport and in few other answers.
    (re.compile(r"""[\[{].*?\\?["'](?:cluster_name|ei|uid)\\?["']\s*:.*""", re.DOTALL), "(an event was here)"),
]


def without_secrets(text: str) -> str:
    """The text as it may be shown. What looks like a secret is replaced, the rest stays."""
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


def hide_secrets(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    """A structlog processor; it stands right before the renderer, when tracebacks are text already."""
    return {name: HIDDEN if _is_secret(name) else _clean(value) for name, value in line.items()}


def _is_secret(name: str) -> bool:
    """Also where something stands before it: `elasticsearch_api_key`."""
    return any(f"_{name.lower()}".endswith(f"_{secret}") for secret in SECRET_FIELDS)


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, dict):
        return {name: HIDDEN if _is_secret(str(name)) else _clean(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(inner) for inner in value]
    return value if isinstance(value, int | float | None) else without_secrets(str(value))
