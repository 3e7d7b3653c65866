"""Notices a bulk export that stands still: for long it has listed no new chunk, though a search finds newer events.

A list that is answered by something that stands still itself (a cache on the way, a back end whose writer has stopped)
looks like a quiet cluster. One search for one event tells the two apart; it is rare, for on Athena each is a query, and
it makes no audit event.
"""

from __future__ import annotations

from datetime import UTC, datetime
from time import monotonic, time

import structlog

from event_handler.errors import ConnectError, MalformedEventError, RpcError
from event_handler.teleport.rpc.client import Client
from event_handler.teleport.wire import messages
from event_handler.teleport.wire.decode import read_event

QUIET = 900.0  # seconds without a new chunk before the first look; a cluster in use makes one a minute
LONGEST_QUIET = 3600.0  # seconds between looks; doubled from QUIET while the cluster is really quiet
VISIBLE_AFTER = 600.0  # seconds from an event to its chunk; a minute or two as a rule, more when the server is busy
MARGIN = 120.0  # seconds that the server's clock may be ahead of ours

log = structlog.get_logger()


class StallDetector:
    """Watches one bulk source. `progress` is called for each new chunk, `look` at every poll without one."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.progress()

    def progress(self) -> None:
        self._since = time()
        self._begun = monotonic()
        self._pause = QUIET
        self._due = self._begun + QUIET

    async def look(self) -> None:
        """Raises ConnectError, so that the cluster is connected to again, when it has events that a chunk should
        have brought.
        """
        if monotonic() < self._due:
            return
        self._due = monotonic() + self._pause
        self._pause = min(self._pause * 2.0, LONGEST_QUIET)
        try:
            events, _ = await self._client.search(
                self._since + MARGIN, time() - VISIBLE_AFTER, limit=1, order=messages.NEWEST_FIRST
            )
        except RpcError as error:  # not allowed, limited, or not there: then nobody can tell
            log.debug("cannot search for events that bulk export may be missing", error=str(error))
            return
        if events:
            raise ConnectError(
                f"bulk export has listed no new chunk for {(monotonic() - self._begun) / 60:.0f} minutes, though the "
                f"log has"
                f" {_what(events[0])}",
                "Connecting again. If this comes again, look for a cache between here and the cluster, and at the Auth "
                "servers' logs"
                " for errors of the Athena audit log.",
            )


def _what(sent: bytes) -> str:
    try:
        event = read_event(sent)
        return f"a newer event, {event.type} of {datetime.fromtimestamp(event.time, UTC).isoformat(timespec='seconds')}"
    except (MalformedEventError, ValueError, OverflowError):
        return "a newer event"
