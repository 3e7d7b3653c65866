"""The authorities of a cluster and their rotation.

Kept in a file, so that certificates can be issued again at any time.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from event_handler.simulator.certificates import Authority, key_pem, make_authority, write_secret

FILE = "authorities.json"


class Phase(StrEnum):
    """Phases of a rotation in their order, as Teleport has them; `standby` is both its end and the rest of the time."""

    INIT = "init"
    UPDATE_CLIENTS = "update_clients"
    UPDATE_SERVERS = "update_servers"
    STANDBY = "standby"


@dataclass(slots=True)
class Authorities:
    """Host CA and User CA, each one authority or, during a rotation, the old and the new one: all of them are trusted.

    `web` stands for a public authority outside of the cluster, and is not rotated.
    """

    cluster: str
    phase: Phase
    host: list[Authority]
    user: list[Authority]
    web: Authority

    @property
    def host_signer(self) -> Authority:
        """Signs the certificates of servers: the new authority from `update_servers` on."""
        return self.host[-1 if self.phase in (Phase.UPDATE_SERVERS, Phase.STANDBY) else 0]

    @property
    def user_signer(self) -> Authority:
        """Signs the certificates of clients: the new authority from `update_clients` on."""
        return self.user[0 if self.phase is Phase.INIT else -1]

    def advance(self) -> None:
        """Go to the next phase; after `standby` a new rotation begins."""
        order = list(Phase)
        self.phase = order[(order.index(self.phase) + 1) % len(order)]
        if self.phase is Phase.INIT:
            self.host.append(make_authority(self.cluster))
            self.user.append(make_authority(self.cluster))
        elif self.phase is Phase.STANDBY:
            del self.host[:-1], self.user[:-1]

    def save(self, directory: Path) -> None:
        """Write `authorities.json`: the phase, and keys and certificates of all authorities, the oldest first."""
        facts: dict[str, object] = {"cluster": self.cluster, "phase": self.phase}
        for kind, authorities in (("host", self.host), ("user", self.user), ("web", [self.web])):
            facts[kind] = [{"key": key_pem(one.key).decode(), "certificate": one.pem.decode()} for one in authorities]
        temporary = directory / f"{FILE}.new"
        write_secret(temporary, json.dumps(facts, indent=1).encode())
        temporary.replace(directory / FILE)


def load_or_make(directory: Path, cluster: str) -> Authorities:
    """The authorities that the directory keeps for this cluster, or new ones (not saved yet)."""
    try:
        facts = json.loads((directory / FILE).read_text())
    except FileNotFoundError:
        facts = {"cluster": None}
    if facts["cluster"] != cluster:
        host, user, web = make_authority(cluster), make_authority(cluster), make_authority("Simulated public authority")
        return Authorities(cluster, Phase.STANDBY, [host], [user], web)
    kept = {kind: [_load(one["key"], one["certificate"]) for one in facts[kind]] for kind in ("host", "user", "web")}
    return Authorities(cluster, Phase(facts["phase"]), kept["host"], kept["user"], kept["web"][0])


def _load(key: str, certificate: str) -> Authority:
    loaded = load_pem_private_key(key.encode(), None)
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise TypeError(
            f"{FILE} holds an authority's key that is not ECDSA: remove the file, and new authorities are made"
        )
    return Authority(loaded, x509.load_pem_x509_certificate(certificate.encode()))
