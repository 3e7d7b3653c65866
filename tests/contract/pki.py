"""Certificate files for receivers and sinks: an authority each, with the certificates that a test asks for."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from event_handler.simulator.certificates import Authority, issue, make_authority, name, write_secret
from event_handler.sinks.http import TlsFiles


@dataclass(frozen=True, slots=True)
class Pki:
    """One authority whose files are in `directory`; all names begin with `label`."""

    directory: Path
    label: str
    authority: Authority

    def path(self, file: str) -> Path:
        return self.directory / f"{self.label}-{file}"

    def issue(self, *names: str) -> tuple[bytes, bytes]:
        """Return a new key and certificate, both PEM, for the DNS names, or for a client when there are none."""
        return issue(self.authority, name(names[0] if names else "client", self.label), timedelta(days=1), names)

    def server_context(self, *names: str, clients: Pki | None = None) -> ssl.SSLContext:
        """A server with a new certificate for `names` that demands a certificate of `clients` (its own authority by
        default).
        """
        key, cert = self.issue(*names)
        write_secret(self.path("server.pem"), cert + key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.path("server.pem"))
        context.load_verify_locations((clients or self).path("ca.crt"))
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def client_files(self, label: str = "client") -> TlsFiles:
        """New client files; files of the same label are replaced."""
        key, cert = self.issue()
        write_secret(self.path(f"{label}.key"), key)
        write_secret(self.path(f"{label}.crt"), cert)
        return TlsFiles(str(self.path("ca.crt")), str(self.path(f"{label}.crt")), str(self.path(f"{label}.key")))


def make_pki(directory: Path, label: str) -> Pki:
    made = Pki(directory, label, make_authority(label))
    write_secret(made.path("ca.crt"), made.authority.certificate.public_bytes(Encoding.PEM))
    return made
