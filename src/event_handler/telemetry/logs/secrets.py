"""Takes secrets and contents of events out of log lines, whatever field they stand in."""

from __future__ import annotations

from typing import Any

from structlog.typing import EventDict, WrappedLogger

from event_handler.redact import HIDDEN, without_secrets

SECRET_FIELDS = frozenset(
    {"api_key", "authorization", "bearer", "key_pem", "passphrase", "password", "secret", "token"}
)


def hide_secrets(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    """A structlog processor; it stands before the renderer, when tracebacks are text already."""
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
