"""Spells values as a user would write them, and says what is allowed; no secret is ever spelled."""

from __future__ import annotations

from typing import Any, Protocol, get_args

from annotated_types import Ge, Gt, Le
from pydantic.fields import FieldInfo

from event_handler.config import durations
from event_handler.redact import HIDDEN, origin, parts
from event_handler.setting import Kind


class Described(Protocol):
    """What is known of a setting, wherever it stands."""

    @property
    def kind(self) -> Kind: ...
    @property
    def secret(self) -> bool: ...


def spell(kind: Kind, value: Any) -> str:
    """A value as a user would write it on the command line."""
    match kind:
        case "duration":
            return durations.render(value)
        case "flag":
            return "true" if value else "false"
        case "list":
            return ",".join(value)
        case "table":
            return ",".join(f"{name}={item}" for name, item in value.items())
        case "time":
            return str(value.isoformat().replace("+00:00", "Z"))
        case _:
            return str(value)


def shown(made: Described, value: Any) -> str:
    """A value as it may be logged: no secret, and of a URL its scheme, host and port."""
    if made.secret:
        return HIDDEN if value else ""
    return origin(value) if made.kind == "url" else spell(made.kind, value)


def secret_parts(made: Described, value: Any) -> list[str]:
    """The texts in a value that may be shown nowhere."""
    if not value:
        return []
    if made.kind == "table":
        return list(map(str, value.values())) if made.secret else []
    return [value] if made.secret else parts(value) if made.kind == "url" else []


def allowed(kind: Kind, field: FieldInfo) -> str:
    """What a field takes: the choices or the range in the user's spelling, "" when there is no limit."""
    if kind == "choice":
        return " or ".join(get_args(field.annotation))
    low, high = "", ""
    for limit in field.metadata:
        if isinstance(limit, Le):
            high = spell(kind, limit.le)
        elif isinstance(limit, Gt):
            low = f"more than {spell(kind, limit.gt)}"
        elif isinstance(limit, Ge):
            low = spell(kind, limit.ge)
    if low and high:
        return f"{low} to {high}"
    return low if low.startswith("more") or not low else f"{low} or more"
