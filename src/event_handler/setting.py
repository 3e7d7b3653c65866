"""How a component declares its options: the kind, the help and the secrecy of each field of its options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal["text", "url", "file", "flag", "number", "duration", "list", "time", "choice", "table"]
Seconds = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, slots=True)
class Setting:
    """What stands beside a field of an options model, in `Annotated[...]`.

    `unset` says what leaving it out means, where the default does not. A `secret` is never shown, and of a URL its
    origin only. One that is `required` must not be empty.
    """

    kind: Kind
    help: str
    unset: str = ""
    secret: bool = False
    required: bool = False


class Options(BaseModel):
    """The options of one component, each field with its `Setting`.

    They are written with dashes: `max_bytes` is `max-bytes` in TOML and `MAX_BYTES` in a variable.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
