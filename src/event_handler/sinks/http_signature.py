"""Signs the bodies of requests with a shared secret (HMAC, RFC 2104), as receivers of webhooks check them."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable, Mapping
from time import time
from typing import Annotated, Literal

from pydantic import Field

from event_handler.errors import SinkError
from event_handler.setting import Options, Setting
from event_handler.sinks.http_login import HEADER_NAME
from event_handler.sinks.secret import Secret

Algorithm = Literal["sha256", "sha512", "sha1"]


class SignatureOptions(Options):
    """The secret, and where and how the signature stands."""

    hmac_secret: Annotated[
        str,
        Setting("text", "secret that signs each body; better in hmac-secret-file or the variable", secret=True),
        Field(repr=False),
    ] = ""
    hmac_secret_file: Annotated[str, Setting("file", "file with that secret; it is read again when it changes")] = ""
    hmac_header: Annotated[str, Setting("text", "header of the signature")] = "X-Signature"
    hmac_algorithm: Annotated[Algorithm, Setting("choice", "hash of the signature")] = "sha256"
    hmac_encoding: Annotated[Literal["hex", "base64"], Setting("choice", "how the signature is written")] = "hex"
    hmac_prefix: Annotated[str, Setting("text", "what stands before the signature, as sha256=")] = ""
    hmac_timestamp_header: Annotated[
        str,
        Setting("text", "header with the time in seconds, which is signed before the body with a dot between"),
    ] = ""


class Signature:
    """The headers that sign a body; none where there is no secret. Raises SinkError for options that cannot be used."""

    def __init__(self, options: SignatureOptions, section: str, clock: Callable[[], float] = time) -> None:
        self._options = options
        self._clock = clock
        self._secret: Secret | None = None
        for option in ("hmac_header", "hmac_timestamp_header"):
            name = getattr(options, option)
            if name and not HEADER_NAME.fullmatch(name):
                raise SinkError(f"{section}.{option.replace('_', '-')} is no name of a header", "As X-Signature.")
        if not (options.hmac_prefix.isascii() and options.hmac_prefix.isprintable()):
            raise SinkError(f"{section}.hmac-prefix has characters that a header cannot hold", "As sha256=.")
        if options.hmac_secret or options.hmac_secret_file:
            self._secret = Secret(options.hmac_secret, options.hmac_secret_file, f"{section}.hmac-secret", encoded=True)

    @property
    def signs(self) -> bool:
        """Whether there is a secret."""
        return self._secret is not None

    def headers(self, body: bytes) -> Mapping[str, str]:
        """For a body as it goes out, packed or not."""
        if self._secret is None:
            return {}
        self._secret.changed()
        options, named = self._options, {}
        if options.hmac_timestamp_header:
            stamp = str(int(self._clock()))
            named[options.hmac_timestamp_header] = stamp
            body = stamp.encode() + b"." + body
        digest = hmac.digest(self._secret.value.encode(), body, options.hmac_algorithm)
        text = digest.hex() if options.hmac_encoding == "hex" else base64.b64encode(digest).decode()
        return {**named, options.hmac_header: f"{options.hmac_prefix}{text}"}
