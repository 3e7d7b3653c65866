"""A real nats-server with JetStream on loopback; Debian has it as `nats-server`."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep, time
from typing import Any
from uuid import uuid4

import nats
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from nats.js import JetStreamContext

from tests.contract.ports import free_ports

PROGRAM = shutil.which("nats-server", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
START = 20.0  # seconds that a server may take to start
OPERATOR, ACCOUNT, USER = 14 << 3, 0, 20 << 3  # prefixes of keys


@dataclass(slots=True)
class Server:
    port: int
    command: list[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://localhost:{self.port}"

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)
        until = monotonic() + START
        while monotonic() < until and self.process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            sleep(0.05)
        raise RuntimeError(f"nats-server did not start: {self.log.read_text(errors='replace')[-2000:]}")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def running(scratch: Path, settings: str = "") -> Iterator[Server]:
    assert PROGRAM is not None
    scratch.mkdir(parents=True, exist_ok=True)
    (port,) = free_ports(1)
    config = scratch / "nats.conf"
    config.write_text(
        f'listen: "127.0.0.1:{port}"\njetstream {{ store_dir: "{scratch}/js" }}\nserver_name: test\n{settings}\n'
    )
    server = Server(port, [PROGRAM, "-c", str(config)], scratch / "nats.log")
    try:
        server.start()
        yield server
    finally:
        server.kill()


@contextlib.asynccontextmanager
async def jetstream(server: Server, **options: Any) -> AsyncIterator[JetStreamContext]:
    client = await nats.connect(server.url, **options)
    yield client.jetstream()
    await client.close()


class Key:
    """An nkey of any kind, for tests to sign with."""

    def __init__(self, prefix: int) -> None:
        self._prefix = prefix
        self._private = Ed25519PrivateKey.generate()

    @property
    def public(self) -> str:
        return _text(bytes([self._prefix]) + self._private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))

    @property
    def seed(self) -> str:
        raw = self._private.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        return _text(bytes([(18 << 3) | (self._prefix >> 5), (self._prefix & 31) << 3]) + raw)

    def token(self, subject: Key, claims: dict[str, Any]) -> str:
        """A JWT about the subject, signed by this key."""
        head = {"typ": "JWT", "alg": "ed25519-nkey"}
        body = {"jti": uuid4().hex, "iat": int(time()), "iss": self.public, "sub": subject.public, "name": "test"}
        parts = ".".join(_url(json.dumps(part).encode()) for part in (head, {**body, "nats": {**claims, "version": 2}}))
        return f"{parts}.{_url(self._private.sign(parts.encode()))}"


def _text(data: bytes) -> str:
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = ((crc << 1) ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return base64.b32encode(data + crc.to_bytes(2, "little")).decode().rstrip("=")


def _url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def operated() -> tuple[str, str]:
    """Settings of a server with an operator, and the credentials file of a user of an account with JetStream."""
    operator, account, system, user = Key(OPERATOR), Key(ACCOUNT), Key(ACCOUNT), Key(USER)
    limits = {"subs": -1, "conn": -1, "leaf": -1, "imports": -1, "exports": -1, "data": -1, "payload": -1}
    storage = {"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}
    of_account = operator.token(account, {"type": "account", "limits": {**limits, **storage, "wildcards": True}})
    of_system = operator.token(system, {"type": "account", "limits": limits})
    of_user = account.token(user, {"type": "user", "subs": -1, "data": -1, "payload": -1, "pub": {}, "sub": {}})
    settings = (
        f"operator: {operator.token(operator, {'type': 'operator'})}\nresolver: MEMORY\n"
        f"system_account: {system.public}\n"
        f"resolver_preload: {{\n {account.public}: {of_account}\n {system.public}: {of_system}\n}}"
    )
    credentials = (
        f"-----BEGIN NATS USER JWT-----\n{of_user}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
    )
    return settings, credentials
