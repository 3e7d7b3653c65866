"""`configure`: asks what may be replaced and for the passphrase, writes, and prints the next commands."""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import click

from event_handler import about
from event_handler.cli.command_line import Command, app_options
from event_handler.config import durations
from event_handler.configure import DEFAULT_LENGTH, HELM_NAME, OUTPUTS, Group, KeyType, Request, groups, steps
from event_handler.configure.authority import LENGTHS, LONGEST_PASSPHRASE, WEAK_LENGTH
from event_handler.configure.files import write
from event_handler.errors import ConfigurationError

HELP = """Make certificates, role and configuration files in the directory OUT.

ADDR is the Auth Service or the Proxy as host:port; CA_NAME, SERVER_NAME and CLIENT_NAME name the certificate files.

The server's key is encrypted: a terminal is asked for the passphrase, from a pipe comes the first line, otherwise
    it is made up.

Files that exist are asked about on a terminal, and kept otherwise."""


@click.command("configure", cls=Command, help=HELP, short_help="Make certificates, role and configuration files.")
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("addr", default="localhost:3025")
@click.argument("ca_name", default="ca")
@click.argument("server_name", default="server")
@click.argument("client_name", default="client")
@click.option(
    "--output", type=click.Choice(OUTPUTS), default="fluentd", help="collector, or way to run [default: fluentd]"
)
@click.option("--ttl", default="87600h", metavar="DURATION", help="validity of the certificates [default: 87600h]")
@click.option(
    "--dns-names", multiple=True, metavar="NAMES,...", help="host names of the collector [default: localhost]"
)
@click.option("--ip", multiple=True, metavar="IPS,...", help="IP addresses of the collector")
@click.option(
    "--length",
    type=int,
    default=DEFAULT_LENGTH,
    metavar="|".join(map(str, LENGTHS)),
    help="bits of RSA keys [default: 4096]",
)
@click.option(
    "--key-type", type=click.Choice(["rsa", "ecdsa", "ed25519"]), default="rsa", help="kind of the keys [default: rsa]"
)
@click.option(
    "--lock-enabled", "lock", is_flag=True, help="let the role and the settings lock users whose logins keep failing"
)
@click.option("--impersonator", is_flag=True, help="write a role for whoever signs the identity file")
@click.option("--force", is_flag=True, help="replace files that exist")
@app_options
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
    length: int,
    key_type: KeyType,
    lock: bool,
    impersonator: bool,
    force: bool,
    **_: object,
) -> None:
    try:
        lifetime = timedelta(seconds=durations.parse(ttl))
    except ValueError as error:
        raise click.UsageError(f"--ttl: {error}", click.get_current_context()) from None
    if key_type == "rsa" and length == WEAK_LENGTH:
        click.echo(
            f"warning: TLS libraries of today refuse RSA keys of {WEAK_LENGTH} bits; choose --length=2048 or more",
            err=True,
        )
    if not addr.rpartition(":")[2].isdigit():
        click.echo(
            f"warning: the address {addr} has no port, and start asks for one; give it as {addr.rstrip(':')}:443",
            err=True,
        )
    usual = HELM_NAME if output == "helm" else "localhost"
    request = Request(
        out=out,
        addr=addr,
        ca_name=ca_name,
        server_name=server_name,
        client_name=client_name,
        dns_names=_split(dns_names) if dns_names else (usual,),
        ips=_split(ip),
        ttl=lifetime,
        length=length,
        key_type=key_type,
        output=output,
        lock=lock,
        impersonator=impersonator,
        program=_program(),
        user=_user(),
    )
    passphrase = _Passphrase()
    wanted = groups(request, passphrase)
    chosen = [group for group in wanted if force or _may_write(group)]
    click.echo(f"{about.line()}\n")
    written = set(write(chosen))
    _print_steps(wanted, written)
    if passphrase.made_up and not written.isdisjoint(wanted[0].paths):
        click.echo(f"The passphrase of the server's key was made up; {request.collector.file} has it.")
    click.echo(f"\n{steps.render(request)}")
    if len(chosen) < len(wanted) and not _at_terminal():
        # No failure, as with the Go plugin: scripts call it again and again.
        click.echo("warning: what existed was kept and may not fit what was asked for; --force replaces it", err=True)


def _program() -> str:
    """The full path of this program, as far as it can be told: a working directory that was deleted has none."""
    path = Path(shutil.which(about.PROGRAM) or sys.argv[0])
    try:
        return str(path.absolute())
    except OSError:
        return about.PROGRAM


def _user() -> str:
    """The name of this user, or the number where it has none: in a container it may be any."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return str(os.getuid())


def _split(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(part.strip() for text in texts for part in text.split(",") if part.strip())


class _Passphrase:
    """Of the server's key: typed twice on a terminal, the first line of a pipe, or made up. Never an empty one."""

    def __init__(self) -> None:
        self.made_up = False

    def __call__(self) -> str:
        text = _typed() if _at_terminal() else _piped()
        self.made_up = not text
        return text or secrets.token_hex(32)


def _at_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def _typed() -> str:
    question = "Passphrase for the server's key (empty: one is made up)"
    return str(
        click.prompt(
            question, default="", hide_input=True, confirmation_prompt="Once more", show_default=False, err=True
        )
    )


def _piped() -> str:
    if sys.stdin is None:  # closed by whoever started the process
        return ""
    line = sys.stdin.buffer.readline(LONGEST_PASSPHRASE + 3)  # a longer one is refused below, with its length
    try:
        return line.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise ConfigurationError(
            "expected a passphrase in UTF-8 on standard input, got other bytes", "Choose another one."
        ) from None


def _may_write(group: Group) -> bool:
    """Nothing is in the way, or somebody at a terminal agrees that it is replaced."""
    existing = group.existing()
    if not existing:
        return True
    if not _at_terminal():
        return False
    listed = "\n".join(f"  {_shown(path)}" for path in existing)
    return click.confirm(f"{group.title}; these exist:\n{listed}\nReplace all of them?", default=False, err=True)


def _print_steps(wanted: Sequence[Group], written: set[Path]) -> None:
    for number, group in enumerate(wanted, 1):
        names = ", ".join(
            _shown(path) for path in (group.paths if written.issuperset(group.paths) else group.existing())
        )
        if written.issuperset(group.paths):
            click.echo(f"[{number}] {group.title}: {names}")
        else:
            click.echo(
                f"[{number}] {group.title}: KEPT, nothing written, because these exist: {names} (replace them with "
                f"--force)"
            )


def _shown(path: Path) -> str:
    """Relative to the working directory, or absolute where that would climb."""
    try:
        relative = os.path.relpath(path)
    except FileNotFoundError:  # the working directory was deleted
        return str(path)
    return str(path) if relative.startswith("..") else relative
