"""The cluster: its name resolved, every way in walked, what it is, and whether it lets us read."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from time import time

from event_handler.config.model import StartSettings
from event_handler.errors import ConnectError, EventHandlerError, RpcError
from event_handler.names import resolve
from event_handler.proxy_environment import proxy_for
from event_handler.runtime.access import addresses
from event_handler.runtime.check.finding import Finding, Level, fault, ok, warning
from event_handler.runtime.session import PROBE_AHEAD
from event_handler.teleport.auth.credentials import Credentials
from event_handler.teleport.auth.tls import client_context
from event_handler.teleport.rpc.client import Client
from event_handler.teleport.rpc.connection import Connection
from event_handler.teleport.transport import Route, split_address, srv
from event_handler.teleport.transport.connector import Connector, always
from event_handler.teleport.transport.discovery import find
from event_handler.teleport.transport.routes import routes_to
from event_handler.teleport.wire.messages import NEWEST_FIRST
from event_handler.teleport.wire.raw import raw_events

NAMES, WAYS, CLOCK, CLUSTER_AREA, RIGHTS = "name", "way in", "clock", "cluster", "role"
NAME_WITHIN = 20.0  # seconds; libc asks several servers several times
WAY_WITHIN = 30.0  # seconds for one way, from its first packet to the answer of a call
OTHERS_WITHIN = 3.0  # seconds that the other ways have left once one has led there
CALL_WITHIN = 60.0  # seconds for a call; a search may have to read a day of the log
APART = 5.0  # seconds between our clock and theirs that every lag is wrong by
FAR_APART = 60.0  # seconds; events come that late, or seem to be from the future
FUTURE = 86_400.0  # seconds of the future in which events are looked for
OLDEST, NEWEST = 13, 19  # major versions of Teleport that this was made and tested for
NO_SESSION = "00000000-0000-4000-8000-000000000000"  # of which there is no recording
LOOK_BACK = 3600.0  # seconds of the log that are asked for, to see whether they are given
DENIALS = frozenset({"PERMISSION_DENIED", "UNAUTHENTICATED"})
EVENT_RULE = "Let the role have the rule `event: list, read`, as `configure` writes it, and give the user the role."
SERVER_LOG = "Look into the log of the Auth server."
SESSION_RULE = "Let the role have the rule `session: list, read`, or set no-session-recordings = true."


async def check_cluster(settings: StartSettings, credentials: Credentials) -> AsyncIterator[Finding]:
    """Raises ConfigurationError for addresses and ways that cannot be."""
    found, unresolved = await srv.resolve(addresses(settings))
    for address in found:
        named = await _name(address)
        yield named
        if named.level is Level.FAULT and len(found) == 1:
            return
    ways = routes_to(found, credentials, choice=settings.teleport_dial, insecure_proxy=settings.teleport_insecure_proxy)
    walking = [asyncio.create_task(_walk(way, credentials)) for way in [*ways, *unresolved]]
    works: list[Client] = []
    try:
        await _until_one_works(walking)
        works = [client for task in walking if task.done() and (client := task.result()[0]) is not None]
        for way, task in zip([*ways, *unresolved], walking, strict=True):
            finding = task.result()[1] if task.done() else None
            # A way that leads nowhere is no fault while another one does: a cluster has one or two of them.
            if finding is None:
                yield ok(WAYS, f"{way.name} by {way.address} was not tried to its end, for another way works")
            elif works and finding.level is Level.FAULT:
                yield ok(WAYS, f"{finding.what} (not needed)")
            else:
                yield finding
        if works:
            yield await _clock(found, works[0], insecure_proxy=settings.teleport_insecure_proxy)
            async for inside in _inside(works[0], settings, credentials):
                yield inside
    finally:
        for task in walking:
            task.cancel()
        await asyncio.gather(*walking, return_exceptions=True)
        for client in works:
            await client.aclose()


async def _until_one_works(walking: list[asyncio.Task[tuple[Client | None, Finding]]]) -> None:
    """Wait for all of them, and not for long when one has led to the cluster."""
    left = set(walking)
    while left:
        done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
        if any(task.result()[0] is not None for task in done):
            if left:
                await asyncio.wait(left, timeout=OTHERS_WITHIN)
            return


async def _name(address: str) -> Finding:
    host, port = split_address(address)
    try:
        async with asyncio.timeout(NAME_WITHIN):
            answers = sorted({str(info[4][0]) for info in await resolve(host, port)})
    except TimeoutError:
        return fault(NAMES, f"the name {host} is not resolved within {NAME_WITHIN:.0f} s", "Check the name servers.")
    except (socket.gaierror, UnicodeError) as error:
        if proxy_for(host, port, os.environ):
            return ok(NAMES, f"{host} is resolved by the proxy, not by this machine")
        reason = getattr(error, "strerror", "") or str(error)
        return fault(
            NAMES, f"the name {host} cannot be resolved ({reason})", "Check teleport.addr and the name servers."
        )
    return ok(NAMES, f"{host} is {', '.join(answers)}")


async def _walk(way: Route, credentials: Credentials) -> tuple[Client | None, Finding]:
    """A client that is signed in by that way alone."""
    client = Client(Connection(Connector(always(way)), client_context(credentials)))
    try:
        async with asyncio.timeout(WAY_WITHIN):
            await client.ping()
    except TimeoutError:
        finding = fault(WAYS, f"{way.name} by {way.address}: no answer within {WAY_WITHIN:.0f} s", "Check firewalls.")
    except EventHandlerError as error:
        finding = fault(WAYS, f"{way.name} by {way.address}: {error.message}", error.hint)
    else:
        return client, ok(WAYS, f"{way.name} by {way.address} leads to the cluster ({client.tls})")
    await client.aclose()
    return None, finding


async def _clock(found: Sequence[str], client: Client, *, insecure_proxy: bool) -> Finding:
    """Our clock beside theirs. A Proxy tells its time; an Auth server does not, and has events of our future."""
    for address in found:
        asked = time()
        try:
            clock = (await find(address, insecure_proxy=insecure_proxy)).clock
        except ConnectError:  # no Proxy
            continue
        if clock is not None:  # which leaves out the part of a second
            behind, ahead = clock - time(), asked - (clock + 1.0)
            return _apart(max(behind, ahead, 0.0), "behind" if behind > 0.0 else "ahead of", f"the Proxy {address}")
    now = time()
    with suppress(TimeoutError, RpcError, ConnectError):
        async with asyncio.timeout(CALL_WITHIN):
            events, _ = await client.search(now + APART, now + FUTURE, limit=1, order=NEWEST_FIRST)
            for event in raw_events(events):
                return _apart(event.time - now, "behind", "the newest event")
    return ok(CLOCK, "no Proxy tells its time, and no event is from the future of this machine")


def _apart(seconds: float, which: str, whose: str) -> Finding:
    if seconds <= APART:
        return ok(CLOCK, f"the clock of this machine agrees with that of {whose}")
    level = Level.FAULT if seconds > FAR_APART else Level.WARNING
    step = "Set the clocks of this machine and of the cluster by NTP."
    return Finding(level, CLOCK, f"the clock of this machine is {seconds:.0f} s {which} that of {whose}", step)


async def _inside(client: Client, settings: StartSettings, credentials: Credentials) -> AsyncIterator[Finding]:
    cluster = await client.ping()
    if cluster.name != credentials.cluster:
        what = f"the cluster says that it is {cluster.name}, and the identity is of {credentials.cluster}"
        yield fault(CLUSTER_AREA, what, "Check teleport.addr, and make the identity in this cluster.")
    major = re.match(r"v?(\d+)\.", cluster.version)
    if major and not OLDEST <= int(major[1]) <= NEWEST:
        what = f"{cluster.name} runs Teleport {cluster.version}; {OLDEST} to {NEWEST} are tested"
        yield warning(CLUSTER_AREA, what, "Look for a newer event handler, or upgrade Teleport.")
    else:
        yield ok(CLUSTER_AREA, f"{cluster.name} runs Teleport {cluster.version}")
    listing = await _may_list(client)
    yield listing
    if listing.level is not Level.OK:
        return
    if not settings.no_session_recordings:
        yield await _may_read_sessions(client)
    yield await _how_it_is_read(client)


async def _may_list(client: Client) -> Finding:
    now = time()
    try:
        async with asyncio.timeout(CALL_WITHIN):
            await client.search(now - LOOK_BACK, now, limit=1)
    except TimeoutError:
        return fault(RIGHTS, f"a search of the audit log has no answer within {CALL_WITHIN:.0f} s", SERVER_LOG)
    except RpcError as error:
        if error.code in DENIALS:
            return fault(RIGHTS, f"the role may not list events: {error.server_message}", EVENT_RULE)
        return fault(RIGHTS, error.message, SERVER_LOG)
    except ConnectError as error:
        return fault(RIGHTS, error)
    return ok(RIGHTS, "may list events")


async def _may_read_sessions(client: Client) -> Finding:
    """Who may asks for a recording that is not there hears that; who may not is refused before."""
    try:
        async with asyncio.timeout(CALL_WITHIN):
            async for _ in client.recording(NO_SESSION, 0):
                break
    except TimeoutError:
        return fault(RIGHTS, f"a recording is not answered within {CALL_WITHIN:.0f} s", SERVER_LOG)
    except RpcError as error:
        if error.code in DENIALS:
            return fault(RIGHTS, f"the role may not read session recordings: {error.server_message}", SESSION_RULE)
    except ConnectError as error:
        return fault(RIGHTS, error)
    return ok(RIGHTS, "may read session recordings")


async def _how_it_is_read(client: Client) -> Finding:
    try:
        async with asyncio.timeout(CALL_WITHIN):
            bulk = await client.has_bulk_export(time() + PROBE_AHEAD)
    except (TimeoutError, RpcError, ConnectError) as error:
        return warning(CLUSTER_AREA, f"it is not known whether it has bulk export ({error})", "Try again.")
    if bulk:
        return ok(CLUSTER_AREA, "the audit log is read by bulk export")
    return ok(CLUSTER_AREA, "the audit log is searched, for this back end has no bulk export; that is slower")
