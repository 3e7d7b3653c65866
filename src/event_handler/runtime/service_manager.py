"""Tells systemd that the process has started, that it lives, what it does, and that it stops.

Facts: sd_notify(3) (the protocol), sd_watchdog_enabled(3), systemd.service(5) (`Type=notify`).
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from time import CLOCK_MONOTONIC, clock_gettime_ns

from event_handler.report import Report
from event_handler.telemetry.summary import summary

STATUS_EVERY = 10.0  # seconds between two texts for `systemctl status`
FIRST_PAUSE = 1.0  # seconds; then twice as many each time: whoever starts the service looks at it now
LONGEST_STATUS = 300  # characters


class ServiceManager:
    """Says nothing where there is no systemd to listen. What cannot be said is no reason to stop."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        self._every = STATUS_EVERY
        watched = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        period = environment.get("WATCHDOG_USEC", "")
        self._watchdog = watched and period.isdecimal() and int(period) > 0
        if self._watchdog:
            self._every = min(STATUS_EVERY, int(period) / 1e6 / 2)

    async def run(self, report: Callable[[], Awaitable[Report]]) -> None:
        """Say that it has started, then again and again that it lives: only while the event loop turns."""
        if not self._address:
            await asyncio.Event().wait()
        self._say("READY=1")
        pause = min(FIRST_PAUSE, self._every)
        while True:
            text = summary(await report())[:LONGEST_STATUS]
            self._say(f"STATUS={text}", *(["WATCHDOG=1"] if self._watchdog else []))
            await asyncio.sleep(pause)
            pause = min(2 * pause, self._every)

    def reloading(self) -> None:
        """Files are read again, which takes no time worth telling."""
        self._say("RELOADING=1", f"MONOTONIC_USEC={clock_gettime_ns(CLOCK_MONOTONIC) // 1000}")
        self._say("READY=1")

    def stopping(self) -> None:
        self._say("STOPPING=1", "STATUS=finishing what is in flight")

    def _say(self, *assignments: str) -> None:
        if not self._address:
            return
        # A name that begins with @ is of Linux's abstract namespace, where a null byte stands for it.
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connected:
            connected.setblocking(False)
            connected.sendto("\n".join(assignments).encode(), address)
