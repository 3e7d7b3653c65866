"""The ways in: a dialer is a coroutine function that returns a connected byte stream, as a non-blocking socket.

Whatever lies between (a proxy, a tunnel, an upgraded connection) is the dialer's business; one TLS session and gRPC run
on top of the socket that it returns. A dialer whose stream is no kernel socket pumps it through a
`socket.socketpair()`, which no other process can reach.
"""

from event_handler.teleport.transport.base import Dialer, Route, plain_address, split_address
from event_handler.teleport.transport.direct import direct
from event_handler.teleport.transport.routes import Choice, routes

__all__ = ["Choice", "Dialer", "Route", "direct", "plain_address", "routes", "split_address"]
