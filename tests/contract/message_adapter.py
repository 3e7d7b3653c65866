"""What the conformance suite of the sinks that do not speak HTTP must know about one of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from event_handler.ports import Sink


class Receiving(Protocol):
    """A receiver at work. `sink` makes a sink for it, `taken` are the bodies of the events that it has, in order.

    `stop` ends it, `start` begins it again at the same address.
    """

    option: str

    def sink(self) -> Sink: ...

    async def taken(self) -> list[dict[str, Any]]: ...

    async def stop(self) -> None: ...

    async def start(self) -> None: ...


@dataclass(frozen=True, slots=True)
class MessageAdapter:
    """How a receiver is started in an empty directory. `skip` says why it cannot be, "" when it can.

    `restarts`: it can be stopped and started again; `in_order`: one batch keeps its order there.
    """

    name: str
    receiving: Callable[[Path], AbstractAsyncContextManager[Receiving]]
    skip: Callable[[], str] = lambda: ""
    restarts: bool = True
    in_order: bool = True
