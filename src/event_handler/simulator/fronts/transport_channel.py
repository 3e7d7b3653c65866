"""The seam in asyncssh: an SSH server connection that has Teleport's own kind of channel and nothing else: asyncssh has
no public way to add a kind of channel. Its connections and channels look up a method by the name of what the client
asks for (`_process_<channel type>_open`, `_process_<request>_request`); everything that relies on that is in this
module. Written for asyncssh 2.24.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import asyncssh
from asyncssh.constants import EXTENDED_DATA_STDERR
from asyncssh.packet import SSHPacket
from asyncssh.stream import SSHTCPStreamSession

REQUEST_TIMEOUT = 30.0  # seconds between the opening of a channel and the request to dial, as a real Proxy waits
WINDOW = 2 * 1024 * 1024  # bytes that the client may send ahead
LARGEST_PACKET = 32 * 1024  # bytes

Dial = Callable[["Dialing"], Awaitable[None]]


class TransportChannel(asyncssh.SSHTCPChannel[bytes]):
    """A channel of the type `teleport-transport`: one request tells where to, then it carries bytes."""

    _write_datatypes = {EXTENDED_DATA_STDERR}  # noqa: RUF012 - as declared by the parent

    def __init__(self, connection: TunnelConnection) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(connection, loop, None, "strict", WINDOW, LARGEST_PACKET)
        self.request: asyncio.Future[bytes] = loop.create_future()

    def reply(self, success: bool) -> None:
        self._report_response(success)

    def _process_teleport_transport_dial_request(self, packet: SSHPacket) -> bool | None:
        """Keep the payload, which is raw JSON without a length in front; None = the reply comes later."""
        if self.request.done():
            return False
        self.request.set_result(packet.get_remaining_payload())
        return None


class Dialing:
    """A client's request to dial.

    `payload` says where to, `reader` and `writer` are its end once `accept` was called.
    """

    def __init__(
        self,
        channel: TransportChannel,
        payload: bytes,
        reader: asyncssh.SSHReader[bytes],
        writer: asyncssh.SSHWriter[bytes],
    ) -> None:
        self._channel = channel
        self.payload = payload
        self.reader = reader
        self.writer = writer

    def accept(self) -> None:
        self._channel.reply(True)

    def refuse(self, text: str) -> None:
        """Reply with failure, and say why on stderr."""
        self._channel.write(text.encode(), EXTENDED_DATA_STDERR)
        self._channel.reply(False)


class TunnelConnection(asyncssh.SSHServerConnection):
    """One client of the tunnel. Channels of other types are refused by asyncssh: nothing here asks for them."""

    def __init__(self, options: asyncssh.SSHServerConnectionOptions, dial: Dial) -> None:
        super().__init__(asyncio.get_running_loop(), options)
        self._dial = dial

    def _process_teleport_transport_open(
        self, packet: SSHPacket
    ) -> tuple[TransportChannel, asyncssh.SSHTCPSession[bytes]]:
        channel = TransportChannel(self)

        async def serve(reader: asyncssh.SSHReader[bytes], writer: asyncssh.SSHWriter[bytes]) -> None:
            try:
                payload = await asyncio.wait_for(channel.request, REQUEST_TIMEOUT)
                await self._dial(Dialing(channel, payload, reader, writer))
            except* (TimeoutError, OSError, asyncssh.Error):
                pass
            finally:
                channel.close()

        return channel, SSHTCPStreamSession(serve)
