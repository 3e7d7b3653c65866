"""Renewal, expiry and rotation of a simulated cluster's credentials, at a real Auth server."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from event_handler.simulator.authorities import Phase
from event_handler.simulator.certificates import KeyKind
from event_handler.simulator.credentials import Credentials, Renewal, write_cluster_files
from event_handler.simulator.log import AuditLog
from event_handler.simulator.server import AuthServer, Faults
from tests.unit.simulator.clients import CLUSTER, Stream, auth_answers, connect, user_context


class Auth:
    """An Auth server on the files of a directory, and a TLS client."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.server = AuthServer(AuditLog(), cluster=CLUSTER, bulk=True, faults=Faults())
        self.port = 0

    def context(self) -> ssl.SSLContext:
        return user_context(self.directory)

    async def connect(self, context: ssl.SSLContext) -> Stream:
        """Connect and wait for the first bytes of HTTP/2: only they show that the server took our certificate."""
        stream = await connect(f"127.0.0.1:{self.port}", context)
        try:
            assert await auth_answers(stream)
        except BaseException:
            stream[1].close()
            raise
        return stream


@pytest.fixture
async def auth(tmp_path: Path) -> AsyncIterator[Auth]:
    write_cluster_files(tmp_path, CLUSTER)
    made = Auth(tmp_path)
    server, made.port = await made.server.start(tmp_path, "127.0.0.1", 0)
    yield made
    server.close()
    await server.wait_closed()


def leaf(directory: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate((directory / "tls.crt").read_bytes())


@pytest.mark.parametrize(
    ("kind", "key_class"),
    [
        (KeyKind.ECDSA, ec.EllipticCurvePrivateKey),
        (KeyKind.RSA, rsa.RSAPrivateKey),
        (KeyKind.ED25519, ed25519.Ed25519PrivateKey),
    ],
)
async def test_auth_takes_certificates_of_every_kind_of_key(auth: Auth, kind: KeyKind, key_class: type) -> None:
    Credentials(auth.directory, CLUSTER, key_kind=kind).renew()
    assert isinstance(load_pem_private_key((auth.directory / "tls.key").read_bytes(), None), key_class)
    _, writer = await auth.connect(auth.context())
    writer.close()


async def test_an_expired_certificate_is_refused_by_tls(auth: Auth) -> None:
    Credentials(auth.directory, CLUSTER, lifetime=timedelta(seconds=-5)).renew()
    with pytest.raises(ssl.SSLError, match="EXPIRED"):
        await auth.connect(auth.context())


async def test_files_are_issued_again_from_the_same_authorities_after_a_restart(auth: Auth) -> None:
    before, trusted = leaf(auth.directory), (auth.directory / "tls.cas").read_bytes()
    old = auth.context()
    write_cluster_files(auth.directory, CLUSTER)
    assert leaf(auth.directory) != before
    assert (auth.directory / "tls.cas").read_bytes() == trusted
    for context in (old, auth.context()):
        _, writer = await auth.connect(context)
        writer.close()


def test_another_cluster_in_the_directory_gets_authorities_of_its_own(tmp_path: Path) -> None:
    write_cluster_files(tmp_path, CLUSTER)
    trusted = (tmp_path / "tls.cas").read_bytes()
    write_cluster_files(tmp_path, "other.test")
    assert (tmp_path / "tls.cas").read_bytes() != trusted


def test_renewal_in_place_keeps_the_file_and_by_symlink_swaps_all_files_at_once(tmp_path: Path) -> None:
    Credentials(tmp_path, CLUSTER).write_all()
    number = (tmp_path / "identity").stat().st_ino
    Credentials(tmp_path, CLUSTER).renew()
    assert (tmp_path / "identity").stat().st_ino == number
    by_symlink = Credentials(tmp_path, CLUSTER, renewal=Renewal.SYMLINK)
    seen = set()
    for _ in range(3):
        by_symlink.renew()
        assert (tmp_path / "identity").readlink() == Path("..data/identity")
        certificate = (tmp_path / "tls.crt").read_bytes()
        assert certificate in (tmp_path / "identity").read_bytes()
        seen.add(certificate)
    assert len(seen) == 3
    assert len(list(tmp_path.glob("..[0-9]*"))) == 1


def test_openssh_reads_the_certificates(tmp_path: Path) -> None:
    for kind, algorithm in (
        (KeyKind.RSA, "RSA-CERT"),
        (KeyKind.ED25519, "ED25519-CERT"),
        (KeyKind.ECDSA, "ECDSA-CERT"),
    ):
        Credentials(tmp_path, CLUSTER, key_kind=kind).write_all()
        line = next(text for text in (tmp_path / "identity").read_text().splitlines() if "-cert-v01@" in text)
        told = subprocess.run(
            ["ssh-keygen", "-L", "-f", "-"], input=line, capture_output=True, text=True, check=True
        ).stdout
        assert algorithm in told
        assert "-teleport-internal-join" in told


async def refused(auth: Auth, context: ssl.SSLContext) -> bool:
    try:
        _, writer = await auth.connect(context)
    except (ssl.SSLError, ConnectionError, asyncio.IncompleteReadError):
        return True
    writer.close()
    return False


async def test_a_rotation_leaves_no_gap_for_a_client_that_renews_in_every_phase_and_shuts_out_who_does_not(
    auth: Auth,
) -> None:
    credentials = Credentials(auth.directory, CLUSTER)
    before = auth.context()
    reader, running = await auth.connect(before)
    previous = before
    works: dict[Phase, bool] = {}
    for _ in Phase:
        phase = credentials.advance()
        auth.server.reload(auth.directory)
        assert not await refused(auth, previous), f"renewed in the phase before {phase}"
        credentials.renew()
        previous = auth.context()
        assert not await refused(auth, previous), phase
        works[phase] = not await refused(auth, before)
        assert (auth.directory / "tls.cas").read_text().count("BEGIN CERTIFICATE") == (
            1 if phase is Phase.STANDBY else 2
        )
    assert works == {Phase.INIT: True, Phase.UPDATE_CLIENTS: True, Phase.UPDATE_SERVERS: False, Phase.STANDBY: False}
    ping = b"\x00\x00\x08\x06\x00\x00\x00\x00\x00" + b"rotation"
    running.write(b"\x00\x00\x00\x04\x01\x00\x00\x00\x00" + ping)
    assert await asyncio.wait_for(reader.readuntil(b"rotation"), 10), "the running connection stays"
    running.close()


def test_a_rotation_goes_on_after_a_restart(tmp_path: Path) -> None:
    credentials = Credentials(tmp_path, CLUSTER)
    credentials.write_all()
    credentials.advance()
    again = Credentials(tmp_path, CLUSTER)
    again.write_all()
    assert again.phase is Phase.INIT
    assert (tmp_path / "tls.cas").read_text().count("BEGIN CERTIFICATE") == 2
    assert again.advance() is Phase.UPDATE_CLIENTS
