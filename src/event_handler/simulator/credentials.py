"""Issues what the cluster's user and servers present, again whenever asked: renewals, expiries and rotations are made
of this.
"""

from __future__ import annotations

import shutil
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from time import time_ns

from cryptography.hazmat.primitives.serialization import SSHCertificateType

from event_handler.simulator.authorities import Phase, load_or_make
from event_handler.simulator.certificates import KeyKind, issue, issue_ssh, key_pem, make_key, name, write_secret

USER = "teleport-event-handler"
INTERNAL_JOIN = "-teleport-internal-join"  # a principal of every user certificate, the safest user name for the tunnel
HOST_NAMES = ("teleport.cluster.local", "*.teleport.cluster.local")  # in the certificate of every Auth server and Proxy
PUBLIC_NAMES = ("localhost", "127.0.0.1")  # by which the Proxy is dialled
DAY = timedelta(days=1)


class Renewal(StrEnum):
    """How new files take the place of old ones: tbot truncates and writes in place, Kubernetes swaps the symlink
    `..data`.
    """

    IN_PLACE = "in-place"
    SYMLINK = "symlink"


class Credentials:
    """Writes a cluster's files into one directory.

    For the user: `identity`, or `tls.key`, `tls.crt` and `tls.cas`. For the servers: `server.pem` (Auth), `proxy.pem`
    (Proxy, from the Host CA), `web.pem` (Proxy, from a public authority), `ssh-host` with `ssh-host-cert.pub`. What to
    trust: `user-ca.pem`, `user-ca.pub`, `web-ca.pem`.
    """

    def __init__(
        self,
        directory: Path,
        cluster: str,
        *,
        lifetime: timedelta = DAY,
        key_kind: KeyKind = KeyKind.ECDSA,
        renewal: Renewal = Renewal.IN_PLACE,
    ) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        self._cluster = cluster
        self._lifetime = lifetime
        self._key_kind = key_kind
        self._renewal = renewal
        self._authorities = load_or_make(directory, cluster)

    @property
    def phase(self) -> Phase:
        return self._authorities.phase

    def write_all(self) -> None:
        """Write every file again, from the authorities that the directory keeps."""
        self._authorities.save(self._directory)
        web = self._authorities.web
        key, certificate = issue(web, name("localhost", "public"), DAY, PUBLIC_NAMES)
        write_secret(self._directory / "web.pem", certificate + key)
        write_secret(self._directory / "web-ca.pem", web.pem)
        self._write_servers()
        self.renew()

    def renew(self) -> None:
        """Issue the user's files again, with a new key, for another lifetime."""
        files = self._user_files()
        if self._renewal is Renewal.SYMLINK:
            swap(self._directory, files)
        else:
            for file, content in files.items():
                write_secret(self._directory / file, content)

    def advance(self) -> Phase:
        """Take both CAs to the next phase of their rotation, and the servers' files with them; return the phase.

        The user's files stay as they are until `renew`, and a server goes by new files when it is told to.
        """
        self._authorities.advance()
        self._authorities.save(self._directory)
        self._write_servers()
        return self._authorities.phase

    def _write_servers(self) -> None:
        authorities, directory = self._authorities, self._directory
        for file, names in (("server.pem", HOST_NAMES), ("proxy.pem", HOST_NAMES + PUBLIC_NAMES)):
            key, certificate = issue(
                authorities.host_signer, name(file.removesuffix(".pem"), self._cluster), DAY, names
            )
            write_secret(directory / file, certificate + key)
        host_key = make_key()
        ssh = issue_ssh(authorities.host_signer, host_key, SSHCertificateType.HOST, "proxy", PUBLIC_NAMES, DAY)
        write_secret(directory / "ssh-host", key_pem(host_key))
        write_secret(directory / "ssh-host-cert.pub", ssh + b"\n")
        write_secret(directory / "user-ca.pem", b"".join(one.pem for one in authorities.user))
        write_secret(directory / "user-ca.pub", b"".join(one.ssh_line + b"\n" for one in authorities.user))

    def _user_files(self) -> dict[str, bytes]:
        authorities, cluster = self._authorities, self._cluster.encode()
        secret = make_key(self._key_kind)
        key, certificate = issue(authorities.user_signer, name(USER, USER), self._lifetime, key=secret)
        ssh = issue_ssh(
            authorities.user_signer, secret, SSHCertificateType.USER, USER, (USER, INTERNAL_JOIN), self._lifetime
        )
        hosts = b"%s,*.%s" % (cluster, cluster)
        known = b"".join(b"@cert-authority %s %s type=host\n" % (hosts, one.ssh_line) for one in authorities.host)
        trusted = b"".join(one.pem for one in authorities.host)
        identity = key + ssh + b"\n" + certificate + known + trusted
        return {"identity": identity, "tls.key": key, "tls.crt": certificate, "tls.cas": trusted}


def swap(directory: Path, files: dict[str, bytes]) -> None:
    """Replace all files at one moment, as Kubernetes does with a mounted secret.

    `identity` is a symlink to `..data/identity`.
    """
    new = directory / f"..{time_ns()}"
    new.mkdir(mode=0o700)
    for file, content in files.items():
        write_secret(new / file, content)
    data, temporary = directory / "..data", directory / "..data_tmp"
    old = data.resolve() if data.is_symlink() else None
    temporary.symlink_to(new.name)
    temporary.replace(data)
    for file in files:
        path = directory / file
        if not path.is_symlink():
            path.unlink(missing_ok=True)
            path.symlink_to(f"..data/{file}")
    if old is not None:
        shutil.rmtree(old)


def write_cluster_files(directory: Path, cluster: str, lifetime: timedelta = DAY) -> None:
    """Write all files of a cluster, with an identity of that lifetime."""
    Credentials(directory, cluster, lifetime=lifetime).write_all()
