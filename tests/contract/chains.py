"""Certificates that are not in order, or whose issuer is not the root: made for one test each."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from event_handler.simulator.certificates import key_pem, name

DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Signed:
    """A certificate with its key."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)


def sign(
    subject: str,
    issuer: Signed | None = None,
    *,
    host: str = "",
    begins: timedelta = -DAY,
    ends: timedelta = DAY,
    authority: bool = False,
) -> Signed:
    """A certificate of `issuer` (its own without one), for a server at `host` where that is given.

    Times are from now.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    signer, signed_by = (key, name(subject, "test")) if issuer is None else (issuer.key, issuer.certificate.subject)
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(signed_by, name(subject, "test"), key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now + begins).not_valid_after(now + ends)
    builder = builder.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    if host:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
    return Signed(key, builder.sign(signer, hashes.SHA256()))


def server(directory: Path, leaf: Signed, *above: Signed) -> ssl.SSLContext:
    """A server that shows `leaf` and what is `above` it, and asks for no certificate."""
    file = directory / "chain.pem"
    file.write_bytes(leaf.pem + b"".join(each.pem for each in above) + key_pem(leaf.key))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context
