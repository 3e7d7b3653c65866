"""The command line: `configure`, `start`, `storage` and `version`. Every flag of `start` comes from the settings model."""

from __future__ import annotations

import os
import platform
import secrets
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from event_handler import __version__, logs
from event_handler.cli.start import run
from event_handler.cli.storage import storage
from event_handler.configure import Request, configure
from event_handler.errors import EventHandlerError, UsageError
from event_handler.settings import durations
from event_handler.settings.load import load
from event_handler.settings.options import click_options, given

EXIT_USAGE = 80  # the Go plugin's code for a wrong command line
PROGRAM = "teleport-event-handler"


@click.group(help="Forwards the audit log of a Teleport cluster to a log collector.")
def cli() -> None:
    """The program."""


@cli.command(help="Print the version.")
def version() -> None:
    click.echo(f"{PROGRAM} v{__version__} python {platform.python_version()}")


@cli.command("configure", help="Make certificates, role and configuration files in OUT.")
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("addr", default="localhost:3025")
@click.argument("ca_name", default="ca")
@click.argument("server_name", default="server")
@click.argument("client_name", default="client")
@click.option("--output", type=click.Choice(["fluentd"]), default="fluentd", help="collector to configure")
@click.option("--ttl", default="87600h", metavar="DURATION", help="validity of the certificates [default: 87600h]")
@click.option("--dns-names", multiple=True, help="host names of the collector [default: localhost]")
@click.option("--ip", multiple=True, help="IP addresses of the collector")
@click.option("--length", type=click.Choice(["2048", "3072", "4096"]), default="4096", help="bits of the RSA keys [default: 4096]")
@click.option("--force", is_flag=True, help="make files anew that are there already")
def configure_command(
    out: Path,
    addr: str,
    ca_name: str,
    server_name: str,
    client_name: str,
    output: str,
    ttl: str,
    dns_names: tuple[str, ...],
    ip: tuple[str, ...],
    length: str,
    force: bool,
) -> None:
    try:
        lifetime = timedelta(seconds=durations.parse(ttl))
    except ValueError as error:
        raise UsageError(f"--ttl: {error}") from None
    split = [name for text in dns_names for name in text.split(",")] or ["localhost"]
    addresses = [address for text in ip for address in text.split(",")]
    request = Request(
        out, addr, ca_name, server_name, client_name, tuple(split), tuple(addresses), lifetime, int(length), _passphrase(), force
    )
    for path in configure(request):
        click.echo(f"wrote {path}")
    click.echo(f"""
For {output}, next:
  tctl create -f {out / "teleport-event-handler-role.yaml"}
  tctl auth sign --user=teleport-event-handler --out={out / "identity"} --ttl=8760h
  {PROGRAM} start --config={out / "teleport-event-handler.toml"}""")


def _passphrase() -> str:
    """Of the server's key: what is piped in, without its last line end, or a random one."""
    if not sys.stdin.isatty():
        piped = sys.stdin.readline().rstrip("\r\n")
        if piped:
            return piped
    return secrets.token_hex(32)


@cli.command(help="Follow the audit log and deliver every event.")
@click.option("--config", "-c", "config", default="", metavar="FILE", help="TOML file with settings ($FDFWD_CONFIG)")
@click_options()
def start(config: str, **parameters: Any) -> None:
    loaded = load(given(parameters), os.environ, config)
    logs.configure(loaded.settings.debug)
    run(loaded.settings, loaded.warnings)


cli.add_command(storage)


def main() -> None:
    """Entry point. Exit codes: 0 done, 1 failed, 80 wrong command line or configuration."""
    try:
        cli.main(prog_name=PROGRAM, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(EXIT_USAGE)
    except click.ClickException as error:
        click.echo(f"{PROGRAM}: error: {error.format_message()}", err=True)
        sys.exit(EXIT_USAGE)
    except EventHandlerError as error:
        click.echo(f"{PROGRAM}: error: {error}", err=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        sys.exit(130)
