"""A token endpoint that checks what it is asked with, and a receiver that takes only the newest of its tokens."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import orjson

from event_handler.ports import Retry
from event_handler.sinks.access_token import Token
from tests.contract.receiver import Reply, Request

Check = Callable[[Request, Mapping[str, str]], str]  # the form as it came; returns OAuth's error, "" for none


def form_of(request: Request) -> dict[str, str]:
    return dict(parse_qsl(request.body.decode(), strict_parsing=True, keep_blank_values=True))


def part_of_jwt(jwt: str, place: int) -> dict[str, Any]:
    """The header (0) or the claims (1) of a token."""
    part = jwt.split(".")[place]
    found: dict[str, Any] = orjson.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


def refusal(status: int, error: str, description: str = "said by the test") -> Reply:
    return Reply(status, orjson.dumps({"error": error, "error_description": description}))


@dataclass(slots=True)
class TokenServer:
    """Answers `path` with tokens `token-1` and on, good for `lifetime` seconds, and leaves the rest to `receiver`.

    The receiver's part answers 401 for any token but those in `good`. `refusals` are given first.
    """

    receiver: Callable[[Request], Reply]
    path: str = "/token"
    check: Check = lambda _request, _form: ""
    lifetime: int = 3600
    asked: list[Request] = field(default_factory=list)
    good: set[str] = field(default_factory=set)
    refusals: list[Reply] = field(default_factory=list)

    def __call__(self, request: Request) -> Reply:
        if not request.target.startswith(self.path):
            token = request.headers.get("authorization", "").removeprefix("Bearer ")
            return self.receiver(request) if token in self.good else Reply(401, b"the token is not known")
        self.asked.append(request)
        if self.refusals:
            return self.refusals.pop(0)
        if error := self.check(request, form_of(request) if request.body else {}):
            return refusal(401 if error == "invalid_client" else 400, error)
        token = f"token-{len(self.asked)}"
        self.good = {token}
        return Reply(200, orjson.dumps({"access_token": token, "token_type": "Bearer", "expires_in": self.lifetime}))


class FixedSource:
    """Always the same token, and nobody is asked for it."""

    async def fetch(self) -> Token | Retry:
        return Token("a-fixed-token", 3600.0)

    def reload(self) -> None:
        return None

    async def close(self) -> None:
        return None
