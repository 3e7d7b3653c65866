"""What commands beside `start` need to ask a cluster: the settings of `start`, and a client that is signed in."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import click

from event_handler import redact
from event_handler.config.load import load
from event_handler.config.model import StartSettings, secrets
from event_handler.runtime.access import Access, keep_credentials
from event_handler.telemetry import logs
from event_handler.teleport.rpc.client import Client

F = TypeVar("F", bound=Callable[..., Any])


def config_of_start(command: F) -> F:
    """`--config`, whose file has all settings of `start`."""
    option = click.option("--config", "-c", "config", default="", metavar="FILE", help="TOML file of `start`")
    return option(command)


def settings_of_start(before: Mapping[str, str], config: str) -> StartSettings:
    """The settings that `start` would work with. Raises ConfigurationError; a log line is a warning at least."""
    settings = load({}, os.environ, config or before["config"]).settings
    redact.know(secrets(settings))
    logs.configure(settings.debug, settings.log_format, "debug" if settings.debug else "warning")
    return settings


@asynccontextmanager
async def signed_in(settings: StartSettings) -> AsyncIterator[tuple[Client, str]]:
    """A client, and the name of its cluster. Raises CredentialsError, ConfigurationError, ConnectError or RpcError."""
    client = Access(settings, keep_credentials(settings)).connect()
    try:
        yield client, (await client.ping()).name
    finally:
        await client.aclose()
