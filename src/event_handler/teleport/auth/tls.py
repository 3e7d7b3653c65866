"""The TLS settings of the connection to Auth: our certificate, the cluster's authorities only, the protocols
offered.
"""

from __future__ import annotations

import os
import ssl
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from event_handler.errors import CredentialsError
from event_handler.teleport.auth.credentials import Credentials


class ClientContext(ssl.SSLContext):
    """TLS settings that know the credentials they were made of, for messages and for the layers below."""

    credentials: Credentials


def client_context(credentials: Credentials) -> ClientContext:
    """TLS 1.2 or newer, trusting only the authorities in `credentials`.

    A Proxy with TLS routing takes the first protocol name as the way to Auth; Auth itself picks h2. Raises
    CredentialsError.
    """
    context = ClientContext(ssl.PROTOCOL_TLS_CLIENT)
    context.credentials = credentials
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Certificates of long-lived clusters may lack extensions that strict mode demands.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.verify_flags |= (
        ssl.VERIFY_X509_PARTIAL_CHAIN
    )  # as a Go client: whatever certificate is in the file is trusted
    route = f"teleport-auth@{credentials.cluster.encode().hex()}.teleport.cluster.local"
    context.set_alpn_protocols([route, "h2"] if len(route) < 256 else ["h2"])
    try:
        context.load_verify_locations(cadata=credentials.authorities_pem.decode("ascii"))
        with _secret_file(credentials.certificate_pem + credentials.key_pem) as path:
            context.load_cert_chain(path)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise CredentialsError(
            f"TLS cannot use the credentials in {credentials.source} ({error})", "Make them again."
        ) from None
    return context


@contextmanager
def _secret_file(content: bytes) -> Iterator[str]:
    """A path that `ssl` can read a key from: anonymous memory on Linux, elsewhere a 0600 file that is gone at once."""
    if sys.platform == "linux":
        descriptor = os.memfd_create("credentials", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, content)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
    else:
        with tempfile.TemporaryDirectory() as directory:  # made 0700
            path = Path(directory) / "credentials"
            path.touch(mode=0o600)
            path.write_bytes(content)
            yield str(path)
