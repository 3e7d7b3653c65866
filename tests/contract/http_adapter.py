"""What the conformance suite of the HTTP sinks must know about one of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from event_handler.ports import Sink
from event_handler.sinks.http import KEEPALIVE, REQUEST_TIMEOUT, TlsFiles
from tests.contract.receiver import Receiver, Reply, Request

Build = Callable[
    [str, TlsFiles, float, float], Sink
]  # URL without a path, files, request time-out and keep-alive in seconds


@dataclass(frozen=True, slots=True)
class HttpAdapter:
    """What the suite must know about a sink.

    `ids` reads the ids of the events from a request, `success` is the receiver's answer that takes all of them.
    `item_by_item` is its answer with a status for each place named and success for the others, None where it has no
    such answer.
    `needs_body` tells that a 2xx status alone does not make the events delivered. `option` begins its option names.
    `empty_is_success` tells that an empty body, which has come whole, refuses none of them.
    `packs` tells that bodies go out packed.
    """

    name: str
    build: Build
    ids: Callable[[Request], list[str]]
    success: Callable[[Request], Reply]
    needs_body: bool
    option: str
    item_by_item: Callable[[Request, Mapping[int, int]], Reply] | None = None
    packs: bool = False
    empty_is_success: bool = False

    def taken(self, receiver: Receiver) -> list[str]:
        """The ids of all events that the receiver has read."""
        return [uid for request in receiver.requests for uid in self.ids(request)]

    def sink(self, url: str, files: TlsFiles, timeout: float = REQUEST_TIMEOUT, keepalive: float = KEEPALIVE) -> Sink:
        return self.build(url, files, timeout, keepalive)
