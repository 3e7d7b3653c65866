"""`status`: what the page shows, in the terminal, from the process that runs on this machine."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import click
import orjson

from event_handler.cli.command_line import Command
from event_handler.cli.listening import local_directory
from event_handler.cli.running import local_sockets
from event_handler.cli.storage import config_option, storage_option, storage_settings
from event_handler.errors import StateError
from event_handler.telemetry.status_text import status_lines

ANSWER_WITHIN = 10.0  # seconds; the process may be busy, but no longer than that
WATCH_EVERY = 1.0  # seconds between two looks with --watch
CLEAR = "\x1b[H\x1b[2J"  # the cursor to the top, and the screen empty (ECMA-48)


@click.command("status", cls=Command, help="Show what the running event handler does, and what is wrong.")
@config_option
@storage_option
@click.option("--json", "as_json", is_flag=True, help="print the report as JSON")
@click.option("--watch", is_flag=True, help="show it again every second, until Ctrl-C")
@click.option("--alive", is_flag=True, help="only tell whether it answers, for health checks; needs no configuration")
@click.pass_obj
def status(
    before: Mapping[str, str], /, config: str, storage_directory: str | None, as_json: bool, watch: bool, alive: bool
) -> None:
    config = config or before["config"]
    if alive and not config and storage_directory is None:
        asyncio.run(_answers(local_sockets()))
        return
    storage = local_directory(storage_settings(config, storage_directory).storage)
    if alive:
        asyncio.run(_answers(sockets_in(storage)))
    elif not asyncio.run(_show(storage, as_json=as_json, watch=watch)):
        raise click.exceptions.Exit(1)


async def _answers(sockets: list[Path]) -> None:
    """Raises StateError, when all were asked, if one of them does not."""
    silent: StateError | None = None
    for socket in sockets:
        try:
            await report_of(socket)
            click.echo(f"{socket.stem} on the storage {socket.parent}: alive")
        except StateError as error:
            silent = error
    if silent:
        raise silent


async def _show(storage: Path, *, as_json: bool, watch: bool) -> bool:
    earlier: dict[str, Any] = {}
    while True:
        reports = [await report_of(socket) for socket in sockets_in(storage)]
        if as_json:
            text = b"\n".join(map(orjson.dumps, reports)).decode()
        else:
            text = "\n\n".join("\n".join(status_lines(one, earlier.get(one["cluster"]))) for one in reports)
        if not watch:
            click.echo(text)
            return all(one["ready"] for one in reports)
        click.echo(CLEAR + text)
        earlier = {one["cluster"]: one for one in reports}
        await asyncio.sleep(WATCH_EVERY)


def sockets_in(storage: Path) -> list[Path]:
    """The sockets of the processes that run there. Raises StateError when there is none."""
    found = sorted(storage.glob("*.sock"))
    if not found:
        raise StateError(f"no event handler runs on the storage {storage}", "Check --storage, and start one.")
    return found


async def report_of(socket: Path) -> dict[str, Any]:
    """What the process behind the socket tells of itself. Raises StateError when it does not answer."""
    try:
        async with (
            asyncio.timeout(ANSWER_WITHIN),
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket))) as session,
            session.get("http://localhost/api/report") as answer,
        ):
            found: dict[str, Any] = orjson.loads(await answer.read())
            return found
    except TimeoutError:
        raise StateError(
            f"the event handler behind {socket} does not answer within {ANSWER_WITHIN:.0f} s",
            "It hangs, or is stopped. Look at its log.",
        ) from None
    except PermissionError:
        raise StateError(f"{socket} belongs to another user", "Run this as the user of the event handler.") from None
    except (OSError, aiohttp.ClientError, ValueError) as error:
        raise StateError(
            f"no event handler answers behind {socket} ({error})", "It has ended without a word. Start it again."
        ) from None
