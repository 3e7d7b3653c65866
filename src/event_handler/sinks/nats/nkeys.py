"""NATS's keys: what a seed signs, and what stands in a credentials file.

Facts: NATS ADR-14 (the form of a key: base32 of a prefix, 32 bytes and a CRC-16/XMODEM, little-endian).
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

SEED_PREFIX = 18 << 3  # the letter S
USER_PREFIX = 20 << 3  # the letter U
SEED_LENGTH = 36  # bytes: two of prefixes, 32 of the seed, two of the sum
_CREDENTIAL = re.compile(r"-{3,}BEGIN ([A-Z ]+)-{3,}\s+(\S+)\s+-{3,}END")


class NkeyError(ValueError):
    """The text is no seed of a user, or no credentials file."""


@dataclass(frozen=True)
class UserKey:
    """A user's key pair."""

    private: Ed25519PrivateKey = field(repr=False)

    @property
    def public(self) -> str:
        raw = self.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        data = bytes([USER_PREFIX]) + raw
        return base64.b32encode(data + binascii.crc_hqx(data, 0).to_bytes(2, "little")).decode().rstrip("=")

    def sign(self, nonce: str) -> bytes:
        return base64.b64encode(self.private.sign(nonce.encode()))


def user_key(seed: str) -> UserKey:
    """The key of a seed (`SU…`). Raises NkeyError."""
    try:
        raw = base64.b32decode(seed + "=" * (-len(seed) % 8))
    except binascii.Error:
        raise NkeyError("it is no base32") from None
    kind = ((raw[0] & 7) << 5) | (raw[1] >> 3) if len(raw) == SEED_LENGTH else 0
    if len(raw) != SEED_LENGTH or raw[0] & 0xF8 != SEED_PREFIX or kind != USER_PREFIX:
        raise NkeyError("it is no seed of a user, which begins with SU")
    if binascii.crc_hqx(raw[:-2], 0) != int.from_bytes(raw[-2:], "little"):
        raise NkeyError("its sum is wrong: a letter was lost")
    return UserKey(Ed25519PrivateKey.from_private_bytes(raw[2:-2]))


def credentials(text: str) -> tuple[str, str]:
    """The JWT and the seed in a credentials file. Raises NkeyError."""
    parts: dict[str, str] = dict(_CREDENTIAL.findall(text))
    try:
        return parts["NATS USER JWT"], parts["USER NKEY SEED"]
    except KeyError as missing:
        raise NkeyError(f"it has no part {missing}") from None
