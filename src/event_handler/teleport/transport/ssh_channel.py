"""The SSH channel on which a Proxy connects its client to Auth: type `teleport-transport`, as a stream: asyncssh has no
public call for a channel type of one's own. Its channels for forwarded TCP connections differ from ours only in the
type's name and the data sent with it, so this module subclasses one and uses three inherited, non-public methods:
`_open_forward` (opens a channel of any type and connects a session to it), `_make_request` (a channel request with raw
data, awaits the reply) and the set `_read_datatypes` (which lets the server's stderr through). Source of the names on
the wire: Teleport's api/constants, as restated in its protocol reference.
"""

from __future__ import annotations

import asyncio

import asyncssh
from asyncssh.stream import SSHTCPStreamSession

from event_handler.errors import ConnectError
from event_handler.teleport.transport.stream import CHUNK

CHANNEL_TYPE = b"teleport-transport"
DIAL_REQUEST = b"teleport-transport-dial"
DIAL_AUTH = b'{"address":"@remote-auth-server","conn_type":"node"}'  # raw JSON, without the length of an SSH string
WINDOW = 4 * 1024 * 1024  # bytes on the way; caps a link of 100 ms at 40 MB/s
PACKET = 32 * 1024  # bytes of a packet, as OpenSSH and Go take them at most
STDERR_TIMEOUT = 1.0  # seconds; the reason of a refusal is sent before the refusal
STDERR_LIMIT = 1000  # bytes of a reason that are shown


_Session = SSHTCPStreamSession[bytes]


class _TransportChannel(asyncssh.SSHTCPChannel[bytes]):
    _read_datatypes = {asyncssh.EXTENDED_DATA_STDERR}  # noqa: RUF012  (declared so by asyncssh)

    async def open_session(self) -> _Session:
        session = await self._open_forward(_Session, CHANNEL_TYPE)
        assert isinstance(session, SSHTCPStreamSession)  # noqa: S101  (tells the type checker what the factory made)
        return session

    async def request_auth(self) -> bool:
        return bool(await self._make_request(DIAL_REQUEST, DIAL_AUTH))


class ChannelStream:
    """An open channel as a stream. Closing it ends the SSH connection that it belongs to."""

    def __init__(self, connection: asyncssh.SSHClientConnection, channel: _TransportChannel, session: _Session) -> None:
        self._connection = connection
        self._reader: asyncssh.SSHReader[bytes] = asyncssh.SSHReader(session, channel)
        self._writer: asyncssh.SSHWriter[bytes] = asyncssh.SSHWriter(session, channel)

    async def read(self, limit: int = CHUNK) -> bytes:
        try:
            return await self._reader.read(limit)
        except asyncssh.Error as error:
            raise ConnectionError(f"the SSH connection was lost ({error.reason})") from None

    async def write(self, data: bytes) -> None:
        try:
            self._writer.write(data)
            await self._writer.drain()
        except asyncssh.Error as error:
            raise ConnectionError(f"the SSH connection was lost ({error.reason})") from None

    async def finish(self) -> None:
        self._writer.close()
        self._connection.close()
        await self._connection.wait_closed()

    def close(self) -> None:
        self._connection.abort()


async def open_transport(connection: asyncssh.SSHClientConnection, address: str) -> ChannelStream:
    """Open a channel and have the Proxy connect it to Auth.

    Raises ConnectError (`address` is for its text) and asyncssh.Error.
    """
    channel = _TransportChannel(connection, asyncio.get_running_loop(), None, "strict", WINDOW, PACKET)
    session = await channel.open_session()
    if not await channel.request_auth():
        reason = await _reason(session, channel)
        raise ConnectError(
            f"the Proxy at {address} cannot connect us to Auth: {reason}", "Check that the cluster's Auth service runs."
        )
    return ChannelStream(connection, channel, session)


async def _reason(session: _Session, channel: _TransportChannel) -> str:
    stderr: asyncssh.SSHReader[bytes] = asyncssh.SSHReader(session, channel, asyncssh.EXTENDED_DATA_STDERR)
    try:
        async with asyncio.timeout(STDERR_TIMEOUT):
            text = await stderr.read(STDERR_LIMIT)
    except (TimeoutError, asyncssh.Error):
        text = b""
    return text.decode("utf-8", "replace").strip() or "it gave no reason"
