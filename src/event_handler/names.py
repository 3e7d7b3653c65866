"""Resolves host names in threads of their own: a name server that hangs holds up neither other names nor the end of the
process.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from time import monotonic
from typing import Any

STUCK_AFTER = (
    60.0  # seconds; libc gives up after about half a minute, a lookup that takes longer is not waited for by newcomers
)
THREADS_A_NAME = 4  # threads at most that look up one name, the stuck ones included

AddressInfo = tuple[int, int, int, str, tuple[Any, ...]]  # as getaddrinfo gives it
_Found = list[AddressInfo] | Exception

_running: dict[tuple[str, int], list[_Lookup]] = {}
_lock = threading.Lock()


async def resolve(host: str, port: int) -> list[AddressInfo]:
    """The addresses of `host` for TCP, as getaddrinfo gives them. Raises socket.gaierror, and UnicodeError for what is
    no name.

    It may take for ever; a caller limits its wait. Callers that ask for the same name at the same time share one
    lookup.
    """
    with contextlib.suppress(socket.gaierror):
        return _look_up(host, port, socket.AI_NUMERICHOST)  # an address: no name server is asked
    answer: asyncio.Future[_Found] = asyncio.get_running_loop().create_future()
    with _lock:
        lookups = _running.setdefault((host, port), [])
        if not lookups or (lookups[-1].is_stuck() and len(lookups) < THREADS_A_NAME):
            lookups.append(_Lookup(host, port))
        lookups[-1].waiting.append(answer)
    found = await answer
    if isinstance(found, Exception):
        raise found
    return found


class _Lookup:
    """One call of getaddrinfo in a thread that the interpreter's end does not wait for."""

    def __init__(self, host: str, port: int) -> None:
        self._key = (host, port)
        self._began = monotonic()
        self.waiting: list[asyncio.Future[_Found]] = []
        threading.Thread(target=self._run, name=f"resolve {host}", daemon=True).start()

    def is_stuck(self) -> bool:
        return monotonic() - self._began > STUCK_AFTER

    def _run(self) -> None:
        found: _Found
        try:
            found = _look_up(*self._key)
        except (OSError, UnicodeError) as error:
            found = error
        with _lock:
            lookups = _running[self._key]
            lookups.remove(self)
            if not lookups:
                del _running[self._key]
        for answer in self.waiting:
            with contextlib.suppress(RuntimeError):  # its event loop has ended
                answer.get_loop().call_soon_threadsafe(_settle, answer, found)


def _look_up(host: str, port: int, flags: int = 0) -> list[AddressInfo]:
    return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=flags))


def _settle(answer: asyncio.Future[_Found], found: _Found) -> None:
    if not answer.done():
        answer.set_result(found)
