"""Asks the API server for one Lease, as the pod's own service account.

Facts: Kubernetes' API Reference, "Lease v1 coordination.k8s.io"; "Accessing the Kubernetes API from a Pod" (the
variables, the files, that the token is replaced every hour).
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp

from event_handler import about, redact
from event_handler.errors import ConfigurationError, StateError, StorageError

TOKEN_FILE, CA_FILE, NAMESPACE_FILE = "token", "ca.crt", "namespace"
LONGEST_OBJECT_NAME = 253  # characters (RFC 1123, as Kubernetes names most objects)
NOT_IN_A_NAME = re.compile(r"[^a-z0-9.-]+")
SAYS = 200  # characters of an answer that an error shows

Lease = dict[str, Any]  # as the API server has it


class ConflictError(Exception):
    """Somebody else was faster."""


class LeaseApi:
    """The Lease of that name; `namespace` "" is the pod's own. `account` is the directory of the service account.

    Raises ConfigurationError outside of a pod.
    """

    def __init__(self, account: Path, namespace: str, name: str, environment: Mapping[str, str]) -> None:
        host, port = (environment.get(f"KUBERNETES_SERVICE_{part}", "") for part in ("HOST", "PORT"))
        if not host or not port:
            raise ConfigurationError(
                "lease is kubernetes, and KUBERNETES_SERVICE_HOST and _PORT are not set, so this is no pod",
                "Leave lease out, or run it in Kubernetes.",
            )
        self._account = account
        namespace = namespace or self._read(NAMESPACE_FILE)
        self.name, self.namespace = name, namespace
        base = f"https://{f'[{host}]' if ':' in host else host}:{port}"
        self._all = f"{base}/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._one = f"{self._all}/{name}"
        self._session: aiohttp.ClientSession | None = None
        self._trust: tuple[float, ssl.SSLContext] | None = None  # with the time at which the file was written

    async def read(self) -> Lease | None:
        """The Lease as it is, None where there is none. Raises StateError, as all of these do."""
        status, said = await self._ask("GET", self._one)
        return None if status == HTTPStatus.NOT_FOUND else self._lease(status, said)

    async def create(self, lease: Lease) -> Lease:
        """Raises ConflictError when there is one by now."""
        return self._lease(*await self._ask("POST", self._all, lease))

    async def replace(self, lease: Lease) -> Lease:
        """Raises ConflictError when it is no longer as it was read."""
        return self._lease(*await self._ask("PUT", self._one, lease))

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _ask(self, method: str, url: str, body: Lease | None = None) -> tuple[int, Any]:
        token = self._read(TOKEN_FILE)
        redact.know([token])
        if self._session is None:
            # Neither a proxy nor a redirect leads to the API server of the own cluster.
            self._session = aiohttp.ClientSession(headers={"User-Agent": about.user_agent()}, trust_env=False)
        try:
            async with self._session.request(
                method,
                url,
                json=body,
                headers={"Authorization": f"Bearer {token}"},
                ssl=self._trusted(),
                allow_redirects=False,
            ) as answer:
                text = await answer.text(errors="replace")
                said = await answer.json() if answer.content_type == "application/json" else {"message": text}
                return answer.status, said
        except (aiohttp.ClientError, OSError, ValueError) as error:
            reason = str(error) or type(error).__name__
            raise StateError(f"the API server of Kubernetes does not answer ({reason})", "Check it.") from None

    def _lease(self, status: int, said: Any) -> Lease:
        if status == HTTPStatus.CONFLICT:
            raise ConflictError
        if status in (HTTPStatus.OK, HTTPStatus.CREATED) and isinstance(said, dict) and "spec" in said:
            return said
        reason = str(said.get("message", "") if isinstance(said, dict) else "")[:SAYS]
        what = f"the lease {self.namespace}/{self.name} cannot be used: Kubernetes answered {status} ({reason})"
        if status == HTTPStatus.FORBIDDEN:
            raise StorageError(what, "Allow get, create and update on leases of coordination.k8s.io (docs/standby.md).")
        if status == HTTPStatus.NOT_FOUND:
            raise StateError(what, "Check lease-namespace.")
        raise StateError(what, "Check the API server and the service account.")

    def _read(self, name: str) -> str:
        """One of the files of the service account, as it is now."""
        file = self._account / name
        try:
            return file.read_text("ascii").strip()
        except (OSError, ValueError) as error:
            raise StateError(
                f"{file} cannot be read ({getattr(error, 'strerror', '') or error})",
                "Give the pod a service account with its token mounted, or name another directory in lease-account.",
            ) from None

    def _trusted(self) -> ssl.SSLContext:
        """Only the authority of the cluster is trusted; its file is read again when it was replaced."""
        file = self._account / CA_FILE
        try:
            written = file.stat().st_mtime
            if self._trust is None or self._trust[0] != written:
                self._trust = written, ssl.create_default_context(cafile=str(file))
        except (OSError, ssl.SSLError) as error:
            raise StateError(f"{file} cannot be used ({error.strerror or error})", "It must be PEM.") from None
        return self._trust[1]


def lease_name(cluster: str) -> str:
    """The name of the Lease of a cluster of Teleport."""
    return NOT_IN_A_NAME.sub("-", f"{about.PROGRAM}-{cluster.lower()}")[:LONGEST_OBJECT_NAME].strip("-.")
