"""How many bytes of a socket the other side's kernel has not acknowledged yet: asked differently on each system."""

from __future__ import annotations

import socket
import struct
import sys

SIOCOUTQ = 0x5411  # Linux: bytes not acknowledged (tcp(7)); of a UNIX socket, bytes not read (unix(7))
SO_NWRITE = 0x1024  # macOS: bytes not acknowledged (sys/socket.h)


def unacknowledged(connected: socket.socket) -> int:
    """Bytes that were written and not acknowledged, 0 on a system that does not tell. Raises OSError."""
    if sys.platform == "linux":
        import fcntl

        answer = fcntl.ioctl(connected.fileno(), SIOCOUTQ, struct.pack("i", 0))
        return int(struct.unpack("i", answer)[0])
    if sys.platform == "darwin":
        return connected.getsockopt(socket.SOL_SOCKET, SO_NWRITE)
    return 0
