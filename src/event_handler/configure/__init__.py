"""Makes the certificates and sample files for a first set-up, all of them or none."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path, PurePath

from event_handler.configure import templates
from event_handler.configure.authority import DEFAULT_LENGTH, LONGEST_PASSPHRASE, Chain, make_chain
from event_handler.errors import ConfigurationError

ROLE_FILE = "teleport-event-handler-role.yaml"
FLUENT_FILE = "fluent.conf"
TOML_FILE = "teleport-event-handler.toml"
HELM_FILE = "teleport-plugin-event-handler-values.yaml"

__all__ = ["DEFAULT_LENGTH", "Request", "configure"]


@dataclass(frozen=True, slots=True)
class Request:
    """What to make. The three names are those of the certificate files, without .crt and .key."""

    out: Path
    addr: str
    ca_name: str
    server_name: str
    client_name: str
    dns_names: tuple[str, ...]
    ips: tuple[str, ...]
    ttl: timedelta
    length: int
    passphrase: str
    force: bool = False

    @property
    def names(self) -> tuple[str, str, str]:
        return self.ca_name, self.server_name, self.client_name


def configure(request: Request) -> list[Path]:
    """Write the ten files into the directory `request.out` and return their paths. Raises ConfigurationError.

    Nothing is written when any file exists, unless `force`: half a set of keys is worth nothing.
    """
    _check_text(request.addr, request.passphrase)
    paths = _paths(request.out, request.names)
    if not request.force:
        _refuse_existing(paths)
    contents = _contents(request, make_chain(request.dns_names, request.ips, request.ttl, request.length))
    _write_all(dict(zip(paths, contents, strict=True)))
    return paths


def _check_text(addr: str, passphrase: str) -> None:
    if not addr or not addr.isprintable():
        raise ConfigurationError(f"{addr!r} is no address of Teleport", "Give it as host:port.")
    try:
        size = len(passphrase.encode())
    except UnicodeEncodeError:
        raise ConfigurationError("the passphrase is no valid text (UTF-8)", "Choose another one.") from None
    if not 0 < size <= LONGEST_PASSPHRASE:
        raise ConfigurationError(
            f"the passphrase of the server key has {size} bytes", f"Choose one of 1 to {LONGEST_PASSPHRASE} bytes."
        )


def _paths(out: Path, names: tuple[str, str, str]) -> list[Path]:
    if not out.is_dir():
        raise ConfigurationError(f"{out} is no directory", "Create it first, or name another one.")
    pairs = [f"{name}.{kind}" for name in names for kind in ("crt", "key")]
    for name in names:
        pure = PurePath(name)
        if not name.isprintable() or not pure.name or pure.is_absolute() or ".." in pure.parts or name.endswith("/"):
            raise ConfigurationError(f"{name!r} is no name for a certificate", "Give a plain name such as ca.")
    root = out.absolute()
    paths = [root / name for name in (*pairs, ROLE_FILE, FLUENT_FILE, TOML_FILE, HELM_FILE)]
    if len(set(paths)) < len(paths):
        raise ConfigurationError("two certificates have the same name", "Name ca, server and client differently.")
    for parent in {path.parent for path in paths}:
        if not parent.is_dir():
            raise ConfigurationError(f"{parent} is no directory", "Create it first, or choose another name.")
    return paths


def _refuse_existing(paths: list[Path]) -> None:
    existing = [str(path) for path in paths if os.path.lexists(path)]
    if existing:
        raise ConfigurationError(
            f"these files exist already: {', '.join(existing)}",
            "Nothing was written. Move them away, choose another directory, or force their replacement.",
        )


def _contents(request: Request, chain: Chain) -> list[bytes]:
    """In the order of `_paths`."""
    root = request.out.absolute()
    ca, certificate, key = f"{request.ca_name}.crt", f"{request.client_name}.crt", f"{request.client_name}.key"
    server = PurePath(request.server_name).name
    texts = (
        templates.ROLE,
        templates.fluent_conf(PurePath(ca).name, f"{server}.crt", f"{server}.key", request.passphrase),
        templates.toml(str(root / ca), str(root / certificate), str(root / key), request.addr),
        templates.helm_values(request.addr),
    )
    try:
        encoded = [text.encode() for text in texts]
    except UnicodeEncodeError:
        raise ConfigurationError(f"the path {str(root)!r} is not UTF-8", "Choose another directory.") from None
    return [
        chain.ca.certificate_pem(),
        chain.ca.key_pem(),
        chain.server.certificate_pem(),
        chain.server.key_pem(request.passphrase),
        chain.client.certificate_pem(),
        chain.client.key_pem(),
        *encoded,
    ]


def _write_all(contents: dict[Path, bytes]) -> None:
    """Write everything beside its destination first; only when all of it is on disk are the files put in place."""
    staged: dict[Path, Path] = {}
    try:
        for path, content in contents.items():
            _stage(path, content, staged)
        for path, temporary in staged.items():
            temporary.replace(path)
        for parent in {path.parent for path in contents}:
            _sync_directory(parent)
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        raise ConfigurationError(f"the files cannot be written ({reason})", "Check the directory and free space.") from None
    finally:
        for temporary in staged.values():
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def _stage(path: Path, content: bytes, staged: dict[Path, Path]) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # made 0600
    staged[path] = Path(name)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
