"""Makes what a cluster and its user need: two authorities, the certificate of an Auth server, and an identity file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    SSHCertificateBuilder,
    SSHCertificateType,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

USER = "teleport-event-handler"
NAMES = ("teleport.cluster.local", "*.teleport.cluster.local")  # in the certificate of every Auth server


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority of the cluster: X.509 and SSH sides share one key here."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def name(common: str, organization: str) -> x509.Name:
    """A subject with a common name and an organization."""
    return x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization), x509.NameAttribute(NameOID.COMMON_NAME, common)])


def make_authority(cluster: str) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    subject = name(cluster, cluster)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(minutes=1)).not_valid_after(now + timedelta(days=3650))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return Authority(key, builder.sign(key, hashes.SHA256()))


def issue(authority: Authority, subject: x509.Name, lifetime: timedelta, names: tuple[str, ...] = ()) -> tuple[bytes, bytes]:
    """Return a new key and its certificate, both PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(authority.certificate.subject, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(minutes=1)).not_valid_after(now + lifetime)
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(dns) for dns in names]), critical=False)
    return _pem(key), builder.sign(authority.key, hashes.SHA256()).public_bytes(Encoding.PEM)


def write_secret(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def write_cluster_files(directory: Path, cluster: str, lifetime: timedelta = timedelta(days=1)) -> None:
    """Write `identity`, `tls.key`, `tls.crt`, `tls.cas` for the user and `server.pem`, `user-ca.pem` for the server."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    host, user = make_authority(cluster), make_authority(cluster)
    host_pem = host.certificate.public_bytes(Encoding.PEM)
    server_key, server_cert = issue(host, name("auth", cluster), lifetime, NAMES)
    key, cert = issue(user, name(USER, USER), lifetime)
    loaded = x509.load_pem_x509_certificate(cert).public_key()
    if not isinstance(loaded, ec.EllipticCurvePublicKey):
        raise TypeError("the simulator issues ECDSA keys only")
    now = int(datetime.now(UTC).timestamp())
    ssh = (
        SSHCertificateBuilder()
        .public_key(loaded)
        .serial(1)
        .type(SSHCertificateType.USER)
        .key_id(USER.encode())
        .valid_principals([USER.encode(), b"-teleport-internal-join"])
        .valid_after(now - 60)
        .valid_before(now + int(lifetime.total_seconds()))
        .sign(user.key)
        .public_bytes()
    )
    authority_key = host.key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    known = b"@cert-authority %s,*.%s %s type=host\n" % (cluster.encode(), cluster.encode(), authority_key)
    write_secret(directory / "identity", key + ssh + b"\n" + cert + known + host_pem)
    write_secret(directory / "tls.key", key)
    write_secret(directory / "tls.crt", cert)
    write_secret(directory / "tls.cas", host_pem)
    write_secret(directory / "server.pem", server_cert + server_key)
    write_secret(directory / "user-ca.pem", user.certificate.public_bytes(Encoding.PEM))
