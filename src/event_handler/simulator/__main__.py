"""Runs a simulated cluster as a process of its own, so that either side can be killed."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

from event_handler.simulator import starting

try:
    from event_handler.simulator.authorities import Phase
    from event_handler.simulator.credentials import Credentials
    from event_handler.simulator.faults import FaultyRelay, Trouble
    from event_handler.simulator.fronts import Front
    from event_handler.simulator.history import build, live, write_manifest
    from event_handler.simulator.log import AuditLog
    from event_handler.simulator.options import parser
    from event_handler.simulator.server import AuthServer, Faults
except ModuleNotFoundError as error:
    starting.without_extra(error)

Job = Coroutine[None, None, None]


async def renew_every(seconds: float, credentials: Credentials) -> None:
    while True:
        await asyncio.sleep(seconds)
        credentials.renew()


async def rotate(seconds: float, credentials: Credentials, auth: AuthServer, directory: Path) -> None:
    """Go through the phases up to the next standby."""
    phase = None
    while phase is not Phase.STANDBY:
        await asyncio.sleep(seconds)
        phase = credentials.advance()
        auth.reload(directory)
        credentials.renew()


async def start_auth(
    options: argparse.Namespace, auth: AuthServer, stack: AsyncExitStack, jobs: list[Job]
) -> tuple[str, FaultyRelay | None]:
    """Start Auth, behind a relay if connections shall have faults.

    Return the address that clients dial, and the relay.
    """
    trouble = Trouble(blackhole=options.blackhole, bytes_per_second=options.slow, cut_handshakes=options.cut_handshakes)
    faulty = trouble != Trouble() or options.cut_every > 0
    server, port = await auth.start(options.directory, "127.0.0.1", 0 if faulty else options.port)
    stack.push_async_callback(server.wait_closed)
    stack.callback(server.close)
    address = f"127.0.0.1:{port}"
    if not faulty:
        return address, None
    relay = FaultyRelay(address, trouble, seed=options.seed)
    stack.push_async_callback(relay.close)
    if options.cut_every:
        jobs.append(relay.cut_every(options.cut_every))
    return await relay.start(options.port), relay


async def start_fronts(options: argparse.Namespace, address: str, stack: AsyncExitStack) -> dict[str, str]:
    """Start what stands in front of Auth; return the addresses by name."""
    if options.front is None:
        return {}
    # Loaded only here: asyncssh and aiohttp's server double the time that a cluster without fronts takes to start.
    from event_handler.simulator.fronts.proxy import Fronts

    fronts = Fronts(options.directory, options.cluster, address)
    stack.push_async_callback(fronts.close)
    await fronts.start(Front(options.front), options.web_port)
    return fronts.addresses


async def run_until_signal(jobs: list[Job]) -> None:
    """Run the jobs until SIGTERM or SIGINT; one that fails ends everything."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(job) for job in jobs]
        await stop.wait()
        for task in tasks:
            task.cancel()


async def serve(options: argparse.Namespace) -> None:
    directory: Path = options.directory
    lifetime = timedelta(seconds=options.lifetime)
    credentials = Credentials(
        directory, options.cluster, lifetime=lifetime, key_kind=options.key_kind, renewal=options.renew_by
    )
    credentials.write_all()
    log, generator = build(options)
    write_manifest(log, directory)
    jobs: list[Job] = []
    faults = Faults(options.unavailable_every, options.invalid_every)
    auth = AuthServer(
        log,
        cluster=options.cluster,
        bulk=options.mode == "bulk",
        faults=faults,
        pace=options.pace,
        search_cost=options.search_cost / 1e6,
    )
    async with AsyncExitStack() as stack:
        address, relay = await start_auth(options, auth, stack, jobs)
        addresses = {"address": address} | await start_fronts(options, address, stack)
        if options.live:
            jobs.append(live(log, generator, options))
        if options.renew:
            jobs.append(renew_every(options.renew, credentials))
        if options.rotate:
            jobs.append(rotate(options.rotate, credentials, auth, directory))
        print(json.dumps(addresses | ready(options, log)), flush=True)
        await run_until_signal(jobs)
        (directory / "calls.json").write_text(json.dumps(auth.calls))
        if relay is not None:
            print(json.dumps({"connections": relay.accepted, "cuts": relay.cuts}), flush=True)


def ready(options: argparse.Namespace, log: AuditLog) -> dict[str, object]:
    """What is told beside the addresses when everything listens."""
    facts = {"identity": str(options.directory / "identity"), "cluster": options.cluster}
    return facts | {"events": len(log.events), "recordings": len(log.recordings)}


def main() -> None:
    made = parser()
    options = made.parse_args()
    if options.back_end != "file" and options.mode != "search":
        made.error("--back-end needs --mode search: bulk export is Athena's")
    if options.large_event and options.mode != "bulk" and options.back_end != "postgres":
        made.error(
            "--large-event needs --mode bulk or --back-end postgres: the others trim what a search page cannot hold"
        )
    with starting.told():
        asyncio.run(serve(options))


if __name__ == "__main__":
    main()
