"""Makes the certificates that guard the way to the collector: an authority, its server and its client."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from event_handler.errors import ConfigurationError

DEFAULT_LENGTH = 4096
SHORTEST, LONGEST = 2048, 8192  # bits; OpenSSL refuses shorter keys in TLS, longer ones take minutes to make
LONGEST_PASSPHRASE = 1023  # bytes, OpenSSL's limit for an encrypted PEM key
CLOCK_SKEW = timedelta(minutes=1)
_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DNS_NAME = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*")


@dataclass(frozen=True, slots=True)
class Pair:
    """A private key and its certificate."""

    key: rsa.RSAPrivateKey
    certificate: x509.Certificate

    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def key_pem(self, passphrase: str = "") -> bytes:
        """The key in OpenSSL's traditional form, the only encrypted one (AES-256-CBC) that Fluentd reads."""
        protection: KeySerializationEncryption = NoEncryption()
        if passphrase:
            protection = BestAvailableEncryption(passphrase.encode())
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, protection)


@dataclass(frozen=True, slots=True)
class Chain:
    """The authority with the two certificates that it signed."""

    ca: Pair
    server: Pair
    client: Pair


def make_chain(dns_names: Sequence[str], ips: Sequence[str], ttl: timedelta, length: int = DEFAULT_LENGTH) -> Chain:
    """Make all three pairs. Raises ConfigurationError for names, addresses, a life or a length that make no sense."""
    if not SHORTEST <= length <= LONGEST:
        raise ConfigurationError(
            f"RSA keys of {length} bits are not made",
            f"Choose from {SHORTEST} to {LONGEST} bits, {DEFAULT_LENGTH} is usual.",
        )
    names = _alternative_names(dns_names, ips)
    begin = datetime.now(UTC).replace(microsecond=0)
    end = _end(begin, ttl)
    ca = _make_ca(length, begin, end)
    server = _sign(ca, "Collector Server", ExtendedKeyUsageOID.SERVER_AUTH, names, length)
    client = _sign(ca, "Teleport Event Handler Client", ExtendedKeyUsageOID.CLIENT_AUTH, names, length)
    return Chain(ca, server, client)


def _alternative_names(dns_names: Sequence[str], ips: Sequence[str]) -> x509.SubjectAlternativeName:
    for name in dns_names:
        if len(name) > 253 or not _DNS_NAME.fullmatch(name):
            raise ConfigurationError(f"{name!r} is no DNS name", "Names outside ASCII are given in their xn-- form.")
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
        raise ConfigurationError(f"{text!r} is no IP address", "Give it as 192.0.2.1 or 2001:db8::1.") from None
    return address


def _end(begin: datetime, ttl: timedelta) -> datetime:
    if ttl < timedelta(seconds=1):
        raise ConfigurationError("certificates must live for at least a second", "Give a longer ttl.")
    try:
        return begin + ttl
    except OverflowError:
        raise ConfigurationError("the certificates would live past the year 9999", "Give a shorter ttl.") from None


def _builder(common_name: str, key: rsa.RSAPrivateKey, begin: datetime, end: datetime) -> x509.CertificateBuilder:
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
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _make_ca(length: int, begin: datetime, end: datetime) -> Pair:
    key = rsa.generate_private_key(65537, length)
    builder = (
        _builder("Teleport Event Handler CA", key, begin - CLOCK_SKEW, end)
        .issuer_name(_subject("Teleport Event Handler CA"))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
    )
    return Pair(key, builder.sign(key, hashes.SHA256()))


def _sign(ca: Pair, common_name: str, purpose: x509.ObjectIdentifier, names: x509.SubjectAlternativeName, length: int) -> Pair:
    key = rsa.generate_private_key(65537, length)
    issuer = ca.certificate
    of_issuer = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        _builder(common_name, key, issuer.not_valid_before_utc, issuer.not_valid_after_utc)
        .issuer_name(issuer.subject)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(of_issuer), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False, server=purpose == ExtendedKeyUsageOID.SERVER_AUTH), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(names, critical=False)
    )
    return Pair(key, builder.sign(ca.key, hashes.SHA256()))


def _usage(*, authority: bool, server: bool = False) -> x509.KeyUsage:
    """Only a server may also be sent an encrypted key, as RSA key exchange of TLS 1.2 does."""
    return x509.KeyUsage(
        digital_signature=not authority,
        key_encipherment=server,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
