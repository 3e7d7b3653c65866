"""Makes the certificates and sample files for a first set-up: certificates and keys that fit the collector's file,
role, settings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path, PurePath

from event_handler.configure import templates
from event_handler.configure.authority import DEFAULT_LENGTH, LONGEST_PASSPHRASE, Chain, KeyType, check, make_chain
from event_handler.configure.collectors import COLLECTORS, FLUENTD, Collector
from event_handler.configure.files import Group
from event_handler.errors import ConfigurationError

ROLE_FILE = "teleport-event-handler-role.yaml"
IMPERSONATOR_FILE = "teleport-event-handler-impersonator-role.yaml"
TOML_FILE = "teleport-event-handler.toml"
HELM_FILE = "teleport-plugin-event-handler-values.yaml"
UNIT_FILE = "teleport-event-handler.service"
JOB_FILE, LOG_FILE = f"{templates.JOB}.plist", f"{templates.JOB}.log"  # the log is launchd's
IDENTITY = "identity"  # the file that tbot or tctl writes into the same directory
SYSTEMD_STORAGE = "/var/lib/teleport-event-handler"  # what StateDirectory= of the unit makes
WAYS_TO_RUN = ("helm", "launchd", "systemd")  # the handler; their collector is Fluentd
OUTPUTS = (*COLLECTORS, *WAYS_TO_RUN)
HELM_NAME = "fluentd.fluentd.svc.cluster.local"  # of the collector in the Helm values

__all__ = ["DEFAULT_LENGTH", "OUTPUTS", "Group", "KeyType", "Request", "groups"]


@dataclass(frozen=True, slots=True)
class Request:
    """What to make. The three names are those of the certificate files, without .crt and .key.

    `output` is one of OUTPUTS; `program` and `user` go into the service of systemd or launchd; `length` counts for RSA
    keys only.
    """

    out: Path
    addr: str
    ca_name: str
    server_name: str
    client_name: str
    dns_names: tuple[str, ...]
    ips: tuple[str, ...]
    ttl: timedelta
    length: int = DEFAULT_LENGTH
    key_type: KeyType = "rsa"
    output: str = "fluentd"
    lock: bool = False
    impersonator: bool = False
    program: str = "teleport-event-handler"
    user: str = "root"

    @property
    def names(self) -> tuple[str, str, str]:
        return self.ca_name, self.server_name, self.client_name

    @property
    def collector(self) -> Collector:
        return COLLECTORS.get(self.output, FLUENTD)


def groups(request: Request, passphrase: Callable[[], str]) -> list[Group]:
    """What there is to write; nothing of it is made before `write`, which calls `passphrase` when it makes the
    certificates.

    Raises ConfigurationError, as do the groups when they are made.
    """
    if not request.addr or not request.addr.isprintable():
        raise ConfigurationError(f"expected the address of Teleport, got {request.addr!r}", "Give it as host:port.")
    check(request.dns_names, request.ips, request.ttl, request.length)
    if request.key_type not in request.collector.key_types:
        known = " or ".join(request.collector.key_types)
        raise ConfigurationError(f"{request.output} reads no {request.key_type} keys", f"Choose --key-type {known}.")
    root = _root(request.out)
    collector = root / request.collector.file
    found = [
        Group(
            f"mTLS CA, server and client certificates, and {request.collector.file}",
            (*_certificate_paths(root, request.names), collector),
            lambda: _certificates(request, passphrase()),
        ),
        _text("role and user", root / ROLE_FILE, templates.role(request.lock)),
        _text("event handler configuration", root / TOML_FILE, _toml(request, root)),
        _text("Helm values", root / HELM_FILE, templates.helm_values(request.addr, lock=request.lock)),
    ]
    if request.impersonator:
        found.append(_text("role that may sign the identity", root / IMPERSONATOR_FILE, templates.IMPERSONATOR))
    if request.output == "systemd":
        found.append(_text("systemd unit", root / UNIT_FILE, _unit(request, root)))
    if request.output == "launchd":
        found.append(_text("launchd job", root / JOB_FILE, _job(request, root)))
    paths = [path for group in found for path in group.paths]
    if len(set(paths)) < len(paths):
        raise ConfigurationError("two of the files have the same name", "Name ca, server and client differently.")
    return found


def _root(out: Path) -> Path:
    if not out.is_dir():
        raise ConfigurationError(f"expected a directory, got {out}", "Create it first, or name another one.")
    root = out.absolute()
    try:
        str(root).encode()
    except UnicodeEncodeError:
        raise ConfigurationError(f"the path {str(root)!r} is not UTF-8", "Choose another directory.") from None
    return root


def _certificate_paths(root: Path, names: tuple[str, str, str]) -> list[Path]:
    for name in names:
        pure = PurePath(name)
        if not name.isprintable() or not pure.name or pure.is_absolute() or ".." in pure.parts or name.endswith("/"):
            raise ConfigurationError(
                f"expected a name for a certificate, got {name!r}", "Give a plain name such as ca."
            )
    paths = [root / f"{name}.{kind}" for name in names for kind in ("crt", "key")]
    for parent in {path.parent for path in paths}:
        if not parent.is_dir():
            raise ConfigurationError(
                f"the directory {parent} does not exist", "Create it first, or choose another name."
            )
    return paths


def _text(title: str, path: Path, text: str) -> Group:
    return Group(title, (path,), lambda: [text.encode()])


def _toml(request: Request, root: Path) -> str:
    ca, certificate, key = (
        str(root / name)
        for name in (f"{request.ca_name}.crt", f"{request.client_name}.crt", f"{request.client_name}.key")
    )
    storage = SYSTEMD_STORAGE if request.output == "systemd" else str(root / "storage")
    return templates.toml(ca, certificate, key, request.addr, storage, str(root / IDENTITY), lock=request.lock)


def _service_path(root: Path) -> str:
    if not str(root).isprintable():
        raise ConfigurationError(f"a service cannot have the path {str(root)!r}", "Choose another directory.")
    return str(root)


def _job(request: Request, root: Path) -> str:
    return templates.launchd_job(request.user, request.program, _service_path(root), str(root / TOML_FILE))


def _unit(request: Request, root: Path) -> str:
    return templates.systemd_unit(request.user, request.program, _service_path(root), str(root / TOML_FILE))


def _certificates(request: Request, passphrase: str) -> list[bytes]:
    """In the order of `_certificate_paths`, then the collector's file."""
    _check_passphrase(passphrase)
    ca, server = f"{request.ca_name}.crt", request.server_name
    collector = request.collector.render(ca, f"{server}.crt", f"{server}.key", passphrase).encode()
    chain = make_chain(request.dns_names, request.ips, request.ttl, request.length, request.key_type)
    return [*_chain_files(chain, request.collector, passphrase), collector]


def _chain_files(chain: Chain, collector: Collector, passphrase: str) -> list[bytes]:
    return [
        chain.ca.certificate_pem(),
        chain.ca.key_pem(),
        chain.server.certificate_pem(),
        chain.server.key_pem(passphrase, collector.key_form),
        chain.client.certificate_pem(),
        chain.client.key_pem(),
    ]


def _check_passphrase(passphrase: str) -> None:
    try:
        size = len(passphrase.encode())
    except UnicodeEncodeError:
        raise ConfigurationError("the passphrase is not valid UTF-8 text", "Choose another one.") from None
    if not 0 < size <= LONGEST_PASSPHRASE:
        raise ConfigurationError(
            f"the passphrase of the server key has {size} bytes", f"Choose one of 1 to {LONGEST_PASSPHRASE} bytes."
        )
