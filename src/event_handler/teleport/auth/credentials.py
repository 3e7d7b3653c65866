"""Reads what proves who we are to Teleport: an identity file, or certificate, key and CA as three PEM files.

The format of an identity file is told by order, never by label: the first PEM block is the key, the second our
certificate, every further one an authority. Source: Teleport's api/identityfile, as restated in its protocol reference.
"""

from __future__ import annotations

import base64
import codecs
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
    load_ssh_private_key,
)
from cryptography.x509.oid import NameOID

from event_handler.errors import ConfigurationError, CredentialsError

LARGEST_FILE = 1024 * 1024  # bytes; a real identity file has a few KiB
LONGEST_LINE = 65_536  # bytes; Go's reader refuses longer lines, so no writer makes them
CLUSTER_OF_IDENTITY = x509.ObjectIdentifier("1.3.9999.1.7")
CLUSTER_OF_AUTHORITY = x509.ObjectIdentifier("1.3.9999.4.1")
_SSH_CERTIFICATE = re.compile(r"[a-z0-9-]+-cert-v[0-9]{2}@openssh\.com")
TIME = "%Y-%m-%d %H:%M:%S UTC"
RENEW = "Renew it with tbot, or with `tctl auth sign --user=teleport-event-handler --out=identity --ttl=…`."


@dataclass(frozen=True, slots=True)
class Credentials:
    """Everything needed to sign in.

    `not_before` and `not_after` are those of the TLS certificate. For messages, `source` names the file of certificate
    and key, `authorities_source` that of the authorities.
    """

    key_pem: bytes
    certificate_pem: bytes
    authorities_pem: bytes
    ssh_certificate: str
    ssh_authorities: tuple[str, ...]
    cluster: str
    not_before: datetime
    not_after: datetime
    source: str
    authorities_source: str

    def check_not_expired(self, now: datetime | None = None) -> None:
        """Raise CredentialsError when the certificate has expired by this machine's clock."""
        if self.not_after <= (now or datetime.now(UTC)):
            raise CredentialsError(
                f"by this machine's clock the certificate in {self.source} expired at {self.not_after:{TIME}}",
                f"{RENEW} Or set the clock, if it is ahead.",
            )


def load(identity: str, cert: str, key: str, ca: str) -> Credentials:
    """Read the configured credentials ("" = not configured). Raises ConfigurationError or CredentialsError."""
    three = {"teleport.cert": cert, "teleport.key": key, "teleport.ca": ca}
    given = [name for name, path in three.items() if path]
    if identity and given:
        raise ConfigurationError(
            f"teleport.identity and {', '.join(given)} are both configured",
            "Keep either the identity file, or the three of teleport.cert, teleport.key and teleport.ca.",
        )
    if identity:
        return read_identity(_as_meant(identity))
    if not given:
        raise ConfigurationError(
            "neither identity file nor cert, key and ca files configured",
            "Set teleport.identity to the file made by tbot or `tctl auth sign`.",
        )
    if len(given) < 3:
        missing = [name for name in three if name not in given]
        raise ConfigurationError(
            f"of the three TLS files {', '.join(given)} is set and {', '.join(missing)} is missing", "Set all."
        )
    return read_key_pair(*map(_as_meant, (cert, key, ca)))


def _as_meant(path: str) -> str:
    """A path without the blanks or the carriage return that an editor left at its end, unless there is a file of
    that name.
    """
    return path if os.path.lexists(path) else path.strip()


def read_identity(path: str) -> Credentials:
    """Read an identity file, or the one in a directory that tbot writes. Raises CredentialsError."""
    if _is(Path.is_dir, path):
        path = str(Path(path) / "identity")
    blocks: list[list[str]] = []
    open_block: list[str] | None = None
    ssh_certificate = ""
    ssh_authorities: list[str] = []
    for raw in _read(path).splitlines():
        if len(raw) >= LONGEST_LINE:
            raise CredentialsError(
                f"{path} has a line of over 64 KiB",
                "It is not an identity file. Make one with `tctl auth sign`.",
                lasting=True,
            )
        line = raw.strip()
        if open_block is not None:
            open_block.append(line)
            if line.startswith("-----END"):
                blocks.append(open_block)
                open_block = None
        elif line.startswith("-----BEGIN"):
            open_block = [line]
        elif line.startswith("@cert-authority"):
            ssh_authorities.append(line)
        elif _SSH_CERTIFICATE.fullmatch(line.partition(" ")[0]):
            ssh_certificate = line
    if open_block is not None:
        raise CredentialsError(
            f"{path} ends inside a PEM block", "The file is cut off: was it just being written? Make it again."
        )
    if len(blocks) < 3:
        raise CredentialsError(
            f"{path} is not an identity file: it has {len(blocks)} PEM blocks; a key, a certificate and an "
            "authority are needed",
            "Make it with tbot (service type identity) or `tctl auth sign --format=file`.",
        )
    pem = ["\n".join(block).encode() + b"\n" for block in blocks]
    companion = f"{path}-cert.pub"
    if not ssh_certificate and _is(Path.is_file, companion):
        ssh_certificate = _read(companion).strip()
    return _assemble(path, path, pem[0], pem[1], b"".join(pem[2:]), ssh_certificate, tuple(ssh_authorities))


def read_key_pair(cert: str, key: str, ca: str) -> Credentials:
    """Read certificate, key and CA from three PEM files. Raises CredentialsError."""
    return _assemble(f"{cert} and {key}", ca, _read_pem(key), _read_pem(cert), _read_pem(ca), "", ())


def _read_pem(path: str) -> bytes:
    data = _read(path)
    if "-----BEGIN" not in data:
        raise CredentialsError(
            f"there is no PEM block in {path}", "Is it another file, or a binary (DER) one? Make it again."
        )
    if data.rfind("-----END") < data.rfind("-----BEGIN"):
        raise CredentialsError(
            f"{path} ends inside a PEM block", "The file is cut off: was it just being written? Make it again."
        )
    return data.encode()


def _read(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        raise CredentialsError(
            f"there is no file {path}", "Make it with tbot or `tctl auth sign`, or correct the path."
        ) from None
    except OSError as error:
        raise _unreadable(path, error) from None
    except ValueError as error:
        raise CredentialsError(
            f"{path!r} cannot be the path of a file ({error})", "Correct the path.", lasting=True
        ) from None
    if len(data) > LARGEST_FILE:
        raise CredentialsError(
            f"{path} is larger than 1 MiB", "It is not a credentials file: correct the path.", lasting=True
        )
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # what PowerShell makes of the output of a program
        return data.decode("utf-16", "replace")
    return data.decode("utf-8-sig", "replace")


def _is(kind: Callable[[Path], bool], path: str) -> bool:
    """`Path.is_dir` and `Path.is_file` answer no for most that is wrong, and raise for the rest."""
    try:
        return kind(Path(path))
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: str, error: OSError) -> CredentialsError:
    lasting = isinstance(error, PermissionError)
    return CredentialsError(
        f"{path} cannot be read ({error.strerror})", "Check the path and its permissions.", lasting=lasting
    )


def _assemble(
    source: str, ca: str, key: bytes, certificate: bytes, authorities: bytes, ssh: str, ssh_cas: tuple[str, ...]
) -> Credentials:
    key_pem, public = _private_key(source, key)
    try:
        leaf = x509.load_pem_x509_certificate(certificate)
        # Written again, so that comments in the file (in any alphabet) never reach OpenSSL.
        trusted = b"".join(
            authority.public_bytes(Encoding.PEM) for authority in x509.load_pem_x509_certificates(authorities)
        )
        matches = leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) == public
        cluster = _cluster(leaf)
    except Exception as error:  # cryptography raises many kinds for odd certificates
        raise CredentialsError(f"a certificate in {source} cannot be read ({error})", "Make the file again.") from None
    if not matches:
        raise CredentialsError(
            f"key and certificate in {source} do not belong to each other", "Make both again, together."
        )
    return Credentials(
        key_pem,
        leaf.public_bytes(Encoding.PEM),
        trusted,
        ssh,
        ssh_cas,
        cluster,
        leaf.not_valid_before_utc,
        leaf.not_valid_after_utc,
        source,
        ca,
    )


def _private_key(source: str, pem: bytes) -> tuple[bytes, bytes]:
    """Return the key as unencrypted PKCS#8 PEM and its public half as DER.

    The label does not matter, the content does.
    """
    if b"PIV YUBIKEY" in pem:
        raise CredentialsError(
            f"the key in {source} lives on a hardware token (PIV YUBIKEY PRIVATE KEY)",
            "A service cannot use it: make an identity with tbot or `tctl auth sign`.",
            lasting=True,
        )
    loaders: tuple[Callable[[], PrivateKeyTypes], ...]
    loaders = (partial(load_pem_private_key, pem, None), partial(_wrongly_labelled_key, pem))
    reason = ""
    for load_key in loaders:
        try:
            loaded = load_key()
            private = loaded.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            return private, loaded.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        except Exception as error:  # cryptography raises many kinds for odd keys
            reason = reason or type(error).__name__
    raise CredentialsError(f"the private key in {source} cannot be read ({reason})", "It must be PEM and unencrypted.")


def _wrongly_labelled_key(pem: bytes) -> PrivateKeyTypes:
    """The bytes of the last PEM block are tried as OpenSSH, PKCS#8, PKCS#1, SEC 1: historic files carry wrong labels.

    It reads OpenSSH keys below comments too, which `cryptography` wants at the beginning of the file.
    """
    begin = pem.rindex(b"-----BEGIN")
    lines = pem[begin : pem.index(b"-----END", begin)].splitlines()[1:]
    content = base64.b64decode(b"".join(line.strip() for line in lines), validate=True)
    if content.startswith(b"openssh-key-v1\0"):
        label = b"OPENSSH PRIVATE KEY-----\n"
        return load_ssh_private_key(b"-----BEGIN " + label + base64.encodebytes(content) + b"-----END " + label, None)
    return load_der_private_key(content, None)


def _cluster(leaf: x509.Certificate) -> str:
    """The name of the cluster that issued the identity, by the four places it is written in, in order of precedence."""
    places = (
        (leaf.subject, CLUSTER_OF_IDENTITY),
        (leaf.issuer, CLUSTER_OF_AUTHORITY),
        (leaf.issuer, NameOID.ORGANIZATION_NAME),
        (leaf.issuer, NameOID.COMMON_NAME),
    )
    for name, oid in places:
        for attribute in name.get_attributes_for_oid(oid):
            return str(attribute.value)
    raise ValueError("its issuer names no cluster")
