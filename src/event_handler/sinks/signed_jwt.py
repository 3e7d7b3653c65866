"""Signs JSON Web Tokens with an RSA key (RFC 7515, RFC 7518), by which a client proves who it is (RFC 7523)."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import orjson
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, AsymmetricPadding, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from event_handler.errors import SinkError

ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"  # RFC 7523, 2.2
PADDINGS: Mapping[str, AsymmetricPadding] = {"RS256": PKCS1v15(), "PS256": PSS(MGF1(SHA256()), SHA256.digest_size)}


def signed(
    header: Mapping[str, str], claims: Mapping[str, object], key: RSAPrivateKey, algorithm: Literal["RS256", "PS256"]
) -> str:
    """A JWT in its compact form."""
    parts = ({"alg": algorithm, "typ": "JWT", **header}, claims)
    content = ".".join(base64url(orjson.dumps(part)) for part in parts)
    return f"{content}.{base64url(key.sign(content.encode(), PADDINGS[algorithm], SHA256()))}"


def base64url(data: bytes) -> str:
    """Without padding, as JWTs have it."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def rsa_key(pem: bytes, whose: str) -> RSAPrivateKey:
    """The private key in PEM, not encrypted. Raises SinkError, which names it as `whose`."""
    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError):
        raise SinkError(
            f"{whose} has no private key that can be read", "It must be PEM, and not be encrypted."
        ) from None
    if not isinstance(key, RSAPrivateKey):
        raise SinkError(f"the private key of {whose} is not RSA", "Make an RSA key with 2048 bits or more.")
    return key


def certificate_and_key(file: str, option: str) -> tuple[x509.Certificate, RSAPrivateKey]:
    """What a PEM file with both holds. Raises SinkError, which names the option."""
    pem = read(file, option)
    whose = f"{option} {file}"
    try:
        certificate = x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise SinkError(
            f"{whose} has no certificate that can be read", "It must hold the certificate and its private key, in PEM."
        ) from None
    return certificate, rsa_key(pem, whose)


def read(file: str, option: str) -> bytes:
    """Raises SinkError when the file cannot be read."""
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise SinkError(f"{option} {file} cannot be read ({error.strerror})", "Check the path.") from None
