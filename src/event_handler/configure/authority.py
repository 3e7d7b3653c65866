"""Makes the certificates that secure the connection to the collector: an authority, its server and its client."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from event_handler.errors import ConfigurationError

KeyType = Literal["rsa", "ecdsa", "ed25519"]
KeyForm = Literal["traditional", "pkcs8"]
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

LENGTHS = (1024, 2048, 4096)  # bits of RSA keys, the ones that the Go plugin makes
WEAK_LENGTH = 1024  # bits; OpenSSL at its default security level, Go and Java refuse such a certificate in TLS
DEFAULT_LENGTH = 4096
ORGANIZATION = "Teleport Event Handler"
LONGEST_PASSPHRASE = 1023  # bytes, OpenSSL's limit for an encrypted PEM key
CLOCK_SKEW = timedelta(minutes=1)
_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DNS_NAME = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*")


@dataclass(frozen=True, slots=True)
class Pair:
    """A private key and its certificate."""

    key: PrivateKey
    certificate: x509.Certificate

    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def key_pem(self, passphrase: str = "", form: KeyForm = "traditional") -> bytes:
        """The key, encrypted (AES-256-CBC) when there is a passphrase.

        The traditional form is what the Go plugin writes and every OpenSSL reads. Java reads PKCS#8 only, and for
        Ed25519 there is no other form.
        """
        protection: KeySerializationEncryption = NoEncryption()
        if passphrase:
            protection = BestAvailableEncryption(passphrase.encode())
        modern = form == "pkcs8" or isinstance(self.key, ed25519.Ed25519PrivateKey)
        shape = PrivateFormat.PKCS8 if modern else PrivateFormat.TraditionalOpenSSL
        return self.key.private_bytes(Encoding.PEM, shape, protection)


@dataclass(frozen=True, slots=True)
class Chain:
    """The authority with the two certificates that it signed."""

    ca: Pair
    server: Pair
    client: Pair


def check(dns_names: Sequence[str], ips: Sequence[str], ttl: timedelta, length: int) -> None:
    """Raise ConfigurationError for names, addresses, a life or a length that make no sense: before anyone waits for
    keys.
    """
    if length not in LENGTHS:
        allowed = ",".join(f'"{number}"' for number in LENGTHS)
        raise ConfigurationError(f'--length must be one of {allowed} but got "{length}"', f"{DEFAULT_LENGTH} is usual.")
    _alternative_names(dns_names, ips)
    _end(datetime.now(UTC), ttl)


def make_chain(
    dns_names: Sequence[str],
    ips: Sequence[str],
    ttl: timedelta,
    length: int = DEFAULT_LENGTH,
    key_type: KeyType = "rsa",
) -> Chain:
    """Make all three pairs; `length` counts for RSA only. Raises as `check`."""
    check(dns_names, ips, ttl, length)
    names = _alternative_names(dns_names, ips)
    begin = datetime.now(UTC).replace(microsecond=0)
    end = _end(begin, ttl)
    ca = _make_ca(_make_key(key_type, length), begin, end)
    server = _sign(ca, _make_key(key_type, length), "Collector Server", ExtendedKeyUsageOID.SERVER_AUTH, names)
    client = _sign(
        ca, _make_key(key_type, length), "Teleport Event Handler Client", ExtendedKeyUsageOID.CLIENT_AUTH, names
    )
    return Chain(ca, server, client)


def _make_key(key_type: KeyType, length: int) -> PrivateKey:
    match key_type:
        case "rsa":
            return rsa.generate_private_key(65537, length)
        case "ecdsa":
            return ec.generate_private_key(ec.SECP256R1())
        case "ed25519":
            return ed25519.Ed25519PrivateKey.generate()


def _alternative_names(dns_names: Sequence[str], ips: Sequence[str]) -> x509.SubjectAlternativeName:
    for name in dns_names:
        if len(name) > 253 or not _DNS_NAME.fullmatch(name):
            raise ConfigurationError(
                f"expected a DNS name, got {name!r}", "Names outside ASCII are given in their xn-- form."
            )
    found: list[x509.GeneralName] = [x509.DNSName(name) for name in dict.fromkeys(dns_names)]
    found += [x509.IPAddress(address) for address in dict.fromkeys(map(_address, ips))]
    if not found:
        raise ConfigurationError("a server certificate needs a DNS name or an IP address", "Give at least one.")
    return x509.SubjectAlternativeName(found)


def _address(text: str) -> IPv4Address | IPv6Address:
    try:
        address = ip_address(text)
        if isinstance(address, IPv6Address) and address.scope_id:
            raise ValueError
    except ValueError:
        raise ConfigurationError(
            f"expected an IP address, got {text!r}", "Give it as 192.0.2.1 or 2001:db8::1."
        ) from None
    return address


def _end(begin: datetime, ttl: timedelta) -> datetime:
    if ttl < timedelta(seconds=1):
        raise ConfigurationError("certificates must live for at least a second", "Give a longer ttl.")
    try:
        return begin + ttl
    except OverflowError:
        raise ConfigurationError("the certificates would live past the year 9999", "Give a shorter ttl.") from None


def _builder(common_name: str, key: PrivateKey, begin: datetime, end: datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_subject(common_name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _subject(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANIZATION),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _make_ca(key: PrivateKey, begin: datetime, end: datetime) -> Pair:
    builder = (
        _builder("Teleport Event Handler CA", key, begin - CLOCK_SKEW, end)
        .issuer_name(_subject("Teleport Event Handler CA"))
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True, rsa_key=False), critical=True)
    )
    return Pair(key, builder.sign(key, _digest(key)))


def _sign(
    ca: Pair, key: PrivateKey, common_name: str, purpose: x509.ObjectIdentifier, names: x509.SubjectAlternativeName
) -> Pair:
    issuer = ca.certificate
    of_issuer = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        _builder(common_name, key, issuer.not_valid_before_utc, issuer.not_valid_after_utc)
        .issuer_name(issuer.subject)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(of_issuer), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False, rsa_key=isinstance(key, rsa.RSAPrivateKey)), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(names, critical=False)
    )
    return Pair(key, builder.sign(ca.key, _digest(ca.key)))


def _digest(key: PrivateKey) -> hashes.SHA256 | None:
    """Ed25519 hashes by itself."""
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()


def _usage(*, authority: bool, rsa_key: bool) -> x509.KeyUsage:
    """An RSA key may also be sent an encrypted key, as TLS 1.2 without forward secrecy does.

    Others cannot (RFC 5480, RFC 8410).
    """
    return x509.KeyUsage(
        digital_signature=not authority,
        key_encipherment=rsa_key,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
