"""A real API server of Kubernetes, without nodes: it takes objects, checks them, and gives them back."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.contract.ports import free_ports
from tests.contract.server_process import listens, serving
from tests.deploy.chart import HELM
from tests.support.receiver_cache import absent, place

SERVER, STORE = "bin/kube-apiserver", "bin/etcd"
TOKEN = "admin-of-tests"
POD_TOKEN, POD_USER = "pod-of-tests", "system:serviceaccount:security:events"  # somebody without any right
ISSUER = "https://kubernetes.default.svc"
ENFORCED = {"pod-security.kubernetes.io/enforce": "restricted"}
PLURALS = {"NetworkPolicy": "networkpolicies"}


def no_api_server() -> str:
    """Why there is none, "" where there is one."""
    return absent(HELM) or absent(SERVER) or absent(STORE)


@dataclass(frozen=True, slots=True)
class ApiServer:
    url: str
    kubeconfig: Path

    def ask(self, method: str, path: str, content: dict[str, Any] | None = None) -> dict[str, Any]:
        """Raises urllib.error.HTTPError."""
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        data = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(f"{self.url}{path}", data, headers, method=method)  # noqa: S310 - on loopback
        trusting = ssl._create_unverified_context()  # noqa: S323 - it made its certificate itself
        with urllib.request.urlopen(request, timeout=30, context=trusting) as answer:  # noqa: S310 - on loopback
            found: dict[str, Any] = json.load(answer)
        return found

    def helm(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = (str(place(HELM)), *arguments)
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        return subprocess.run(command, check=check, capture_output=True, text=True, env=environment, timeout=60)

    def namespace(self, name: str) -> None:
        """Make one in which only pods of the restricted standard are let in."""
        self.ask("POST", "/api/v1/namespaces", {"metadata": {"name": name, "labels": ENFORCED}})

    def define(self, group: str, version: str, kind: str) -> None:
        """Let it take a custom resource, whatever is in it."""
        plural = _plural(kind)
        anything = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
        spec = {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "versions": [{"name": version, "served": True, "storage": True, "schema": anything}],
        }
        whole = {"metadata": {"name": f"{plural}.{group}"}, "spec": spec}
        self.ask("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", whole)

    def live(self, made: dict[str, Any], namespace: str) -> dict[str, Any]:
        """What it has of an object."""
        version = made["apiVersion"]
        root = "apis" if "/" in version else "api"
        name = made["metadata"]["name"]
        return self.ask("GET", f"/{root}/{version}/namespaces/{namespace}/{_plural(made['kind'])}/{name}")

    def let_in(self, spec: dict[str, Any], namespace: str) -> None:
        """Ask whether a pod would be let in. Raises HTTPError where not."""
        pod = {"metadata": {"name": "asked"}, "spec": spec}
        self.ask("POST", f"/api/v1/namespaces/{namespace}/pods?dryRun=All", pod)


def _plural(kind: str) -> str:
    return PLURALS.get(kind, f"{kind.lower()}s")


@contextmanager
def api_server(directory: Path) -> Iterator[ApiServer]:
    client, peer, port = free_ports(3)
    store, server = f"http://127.0.0.1:{client}", f"https://127.0.0.1:{port}"
    key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    (directory / "accounts.key").write_bytes(key)
    (directory / "tokens.csv").write_text(f'{TOKEN},admin,admin,"system:masters"\n{POD_TOKEN},{POD_USER},pod\n')
    kubeconfig = directory / "kubeconfig"
    kubeconfig.write_text(json.dumps(_kubeconfig(server)))
    found = ApiServer(server, kubeconfig)
    etcd = [
        str(place(STORE)),
        f"--data-dir={directory / 'etcd'}",
        f"--listen-client-urls={store}",
        f"--advertise-client-urls={store}",
        f"--listen-peer-urls=http://127.0.0.1:{peer}",
        f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
        f"--initial-cluster=default=http://127.0.0.1:{peer}",
        "--unsafe-no-fsync",
    ]
    kubernetes = [
        str(place(SERVER)),
        f"--etcd-servers={store}",
        f"--secure-port={port}",
        "--bind-address=127.0.0.1",
        f"--cert-dir={directory / 'certificates'}",
        f"--service-account-issuer={ISSUER}",
        f"--service-account-key-file={directory / 'accounts.key'}",
        f"--service-account-signing-key-file={directory / 'accounts.key'}",
        "--service-cluster-ip-range=10.0.0.0/24",
        f"--token-auth-file={directory / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        "--disable-admission-plugins=ServiceAccount",  # nobody makes the accounts `default` here
    ]

    def is_ready() -> bool:
        return listens(port) and bool(found.ask("GET", "/api/v1/namespaces/default"))

    with (
        serving(etcd, directory / "etcd.log", lambda: listens(client)),
        serving(kubernetes, directory / "api.log", is_ready, within=90),
    ):
        yield found


def _kubeconfig(server: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "tests",
        "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "admin"}}],
        "clusters": [{"name": "tests", "cluster": {"server": server, "insecure-skip-tls-verify": True}}],
        "users": [{"name": "admin", "user": {"token": TOKEN}}],
    }
