"""The ways in: a dialer is a coroutine function that returns a connected byte stream, as a non-blocking socket.

Whatever lies between (a proxy, a tunnel, an upgraded connection) is the dialer's business; one TLS session and gRPC run on top of
the socket that it returns. A dialer whose stream is no kernel socket pumps it through a `socket.socketpair()`, which no other
process can reach.
"""

from event_handler.teleport.dial.base import Dialer, Way, plain_address, split_address
from event_handler.teleport.dial.direct import direct
from event_handler.teleport.dial.ways import Choice, ways

__all__ = ["Choice", "Dialer", "Way", "direct", "plain_address", "split_address", "ways"]
