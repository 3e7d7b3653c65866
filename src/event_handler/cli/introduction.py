"""What `start` says at first to a person at a terminal: in a few lines what is read and where it goes."""

from __future__ import annotations

from collections.abc import Sequence

from event_handler import __version__
from event_handler.config.model import StartSettings
from event_handler.runtime.access import addresses
from event_handler.runtime.sinks import PlannedSink
from event_handler.state.postgresql.session import shown_place
from event_handler.telemetry.status_text import stamp
from event_handler.teleport.auth.credentials import Credentials


def introduction(settings: StartSettings, planned: Sequence[PlannedSink], credentials: Credentials) -> list[str]:
    """The lines; nothing secret is in one."""
    begin = stamp(settings.start_time.timestamp()) if settings.start_time else "now"
    what = "the audit log" if settings.no_session_recordings else "the audit log and session recordings"
    look = "teleport-event-handler status"
    if settings.listen:
        look = f"{'https' if settings.listen_cert else 'http'}://{settings.listen}/, or {look}"
    return [
        f"teleport-event-handler {__version__}",
        f"  cluster   {credentials.cluster}, at {', '.join(addresses(settings))}, identity until "
        f"{stamp(credentials.not_after.timestamp())}",
        f"  reads     {what}, from where it stopped; for a new storage from {begin}",
        f"  delivers  to {', '.join(f'{plan.sink.name} ({plan.type})' for plan in planned)}",
        f"  storage   {shown_place(settings.storage)}",
        f"  look      {look}",
    ]
