"""Makes authorities, and what they sign: X.509 and SSH certificates with keys of every kind that Teleport hands out."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    SSHCertificateBuilder,
    SSHCertificateType,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
_SIGNS = x509.KeyUsage(
    key_cert_sign=True,
    crl_sign=True,
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)
BACKDATED = timedelta(minutes=1)  # clocks differ; Teleport's certificates begin a minute in the past


class KeyKind(StrEnum):
    """Kinds of keys in identities.

    ECDSA P-256 of new clusters, RSA 2048 of those from before v17, Ed25519 of hand-made ones.
    """

    ECDSA = "ecdsa"
    RSA = "rsa"
    ED25519 = "ed25519"


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority of the cluster: X.509 and SSH sides share one key here."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def ssh_line(self) -> bytes:
        """The SSH side's public key as an authorized-keys line without a comment."""
        return self.key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)


def make_key(kind: KeyKind = KeyKind.ECDSA) -> PrivateKey:
    match kind:
        case KeyKind.ECDSA:
            return ec.generate_private_key(ec.SECP256R1())
        case KeyKind.RSA:
            return rsa.generate_private_key(65537, 2048)
        case KeyKind.ED25519:
            return ed25519.Ed25519PrivateKey.generate()


def key_pem(key: PrivateKey) -> bytes:
    """PKCS#1 for RSA and PKCS#8 for the others, as Teleport writes them."""
    form = PrivateFormat.TraditionalOpenSSL if isinstance(key, rsa.RSAPrivateKey) else PrivateFormat.PKCS8
    return key.private_bytes(Encoding.PEM, form, NoEncryption())


def name(common: str, organization: str) -> x509.Name:
    """A subject with a common name and an organization."""
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization), x509.NameAttribute(NameOID.COMMON_NAME, common)]
    )


def make_authority(cluster: str) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    subject = name(cluster, cluster)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - BACKDATED).not_valid_after(now + timedelta(days=3650))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    builder = builder.add_extension(_SIGNS, critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return Authority(key, builder.sign(key, hashes.SHA256()))


def issue(
    authority: Authority,
    subject: x509.Name,
    lifetime: timedelta,
    names: tuple[str, ...] = (),
    key: PrivateKey | None = None,
) -> tuple[bytes, bytes]:
    """Return the key (a new one unless given) and its certificate, both PEM; `names` are DNS names or IP addresses."""
    key = key or make_key()
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(
        authority.certificate.subject, subject, key.public_key(), x509.random_serial_number()
    )
    builder = builder.not_valid_before(now - BACKDATED).not_valid_after(now + lifetime)
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    builder = builder.add_extension(signer, critical=False)
    if names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([_general_name(one) for one in names]), critical=False
        )
    return key_pem(key), builder.sign(authority.key, hashes.SHA256()).public_bytes(Encoding.PEM)


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def issue_ssh(
    authority: Authority,
    key: PrivateKey,
    kind: SSHCertificateType,
    key_id: str,
    principals: tuple[str, ...],
    lifetime: timedelta,
) -> bytes:
    """Return an SSH certificate for `key` as one line without its end."""
    now = datetime.now(UTC)
    builder = SSHCertificateBuilder().public_key(key.public_key()).serial(1).type(kind).key_id(key_id.encode())
    builder = builder.valid_principals([principal.encode() for principal in principals])
    builder = builder.valid_after(int((now - BACKDATED).timestamp())).valid_before(int((now + lifetime).timestamp()))
    return builder.sign(authority.key).public_bytes()


def write_secret(path: Path, content: bytes) -> None:
    """Truncate and write in place, as tbot does: a reader may see a part of it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
