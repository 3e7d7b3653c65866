"""The chart in a real API server: what is installed is read back, and an upgrade from Teleport's chart keeps it all."""

from __future__ import annotations

import urllib.error
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.api_server import ApiServer, api_server, no_api_server
from tests.deploy.chart import CASES, CHART, GIVEN, UPSTREAM, objects, pod, release, snapshot, the, workload

pytestmark = [
    pytest.mark.skipif(bool(no_api_server()), reason=no_api_server()),
    pytest.mark.proof,
    pytest.mark.timeout(300),
]

# NFS is no volume of the restricted standard, and the other containers of this one are not ours.
NOT_RESTRICTED = {"user-containers"}
# What a release of Teleport's chart has in a cluster, as far as an upgrade must find it again.
BEFORE = {
    "Chart.yaml": f"apiVersion: v2\nname: {UPSTREAM}\nversion: 18.0.0\n",
    "templates/all.yaml": """
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: "{{ .Release.Name }}"}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: "{{ .Release.Name }}"}
data: {teleport-event-handler.toml: ""}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: "{{ .Release.Name }}"}
spec:
  replicas: 1
  strategy: {type: Recreate}
  selector:
    matchLabels: &labels
      app.kubernetes.io/name: teleport-plugin-event-handler
      app.kubernetes.io/instance: "{{ .Release.Name }}"
  template:
    metadata:
      labels: *labels
    spec:
      containers:
        - name: teleport-plugin-event-handler
          image: plugin:1
          ports: [{name: http, containerPort: 80, protocol: TCP}]
          volumeMounts: [{name: storage, mountPath: /var/lib/teleport/plugins/event-handler/storage}]
      volumes:
        - name: storage
          persistentVolumeClaim: {claimName: "{{ .Release.Name }}"}
""",
}


def same(given: Any, found: Any, where: str) -> None:
    """All that is given is found; there may be more."""
    if isinstance(given, dict):
        for key, value in given.items():
            if value not in (None, {}, []):
                assert key in found, f"{where}.{key}"
                same(value, found[key], f"{where}.{key}")
    elif isinstance(given, list):
        assert len(given) == len(found), where
        for at, value in enumerate(given):
            same(value, found[at], f"{where}[{at}]")
    else:
        assert given == found, where


def test_what_is_installed_is_read_back_and_its_pods_are_let_in(tmp_path: Path) -> None:
    with api_server(tmp_path) as server:
        server.namespace("teleport-iac")
        customs = {
            (*made["apiVersion"].split("/"), made["kind"])
            for case in CASES
            for made in objects(snapshot(case))
            if made["apiVersion"].count(".") > 1 or made["apiVersion"].startswith(("cert-manager", "external"))
        }
        for group, version, kind in sorted(one for one in customs if "k8s.io" not in one[0]):
            server.define(group, version, kind)
        for case in CASES:
            install_and_compare(server, case)


def install_and_compare(server: ApiServer, case: str) -> None:
    server.namespace(case)
    server.helm("install", release(case), str(CHART), "-n", case, "-f", str(GIVEN / f"{case}.yaml"))
    for made in objects(snapshot(case)):
        hook = made["metadata"].get("annotations", {}).get("helm.sh/hook")
        namespace = case if made["metadata"].get("namespace") in ("teleport", None) else made["metadata"]["namespace"]
        if hook is None:
            live = server.live(made, namespace)
            for moved in (made, live):  # what a namespace or chance makes differ
                moved["metadata"].pop("namespace", None)
                for subject in moved.get("subjects", ()):
                    subject.pop("namespace", None)
                if moved["kind"] == "Secret":
                    del moved["data"]
            same(spelled(made, case), live, f"{case} {made['kind']}")
    found = objects(snapshot(case))
    for spec in (pod(found), the(found, "Pod")["spec"]):
        for template in workload(found)["spec"].get("volumeClaimTemplates", ()):  # the StatefulSet adds their volumes
            spec["volumes"].append({"name": template["metadata"]["name"], "emptyDir": {}})
        try:
            server.let_in(spec, case)
        except urllib.error.HTTPError as error:
            reason = error.read().decode()
            assert case in NOT_RESTRICTED, f"{case}: {reason}"
            assert "violates PodSecurity" in reason


def spelled(made: Any, case: str) -> Any:
    """In the namespace of the case instead of `teleport`, which join tokens name."""
    if isinstance(made, dict):
        return {key: spelled(value, case) for key, value in made.items() if key != "checksum/config"}
    if isinstance(made, list):
        return [spelled(value, case) for value in made]
    return f"{case}:{made.removeprefix('teleport:')}" if str(made).startswith("teleport:") else made


def before_in(directory: Path, *, without: str = "") -> str:
    for name, text in BEFORE.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text.replace(without, "") if without else text)
    return str(directory)


def test_an_upgrade_from_teleports_chart_keeps_objects_and_state(tmp_path: Path) -> None:
    values = str(GIVEN / "upstream-guide.yaml")
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": UPSTREAM}}
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": UPSTREAM}}
    token = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": f"{UPSTREAM}-listener"}}

    def identities(server: ApiServer) -> list[str]:
        return [server.live(each, "audit")["metadata"]["uid"] for each in (claim, deployment)]

    def upgrade(server: ApiServer, *arguments: str, check: bool = True) -> str:
        command = ("upgrade", UPSTREAM, str(CHART), "-n", "audit", "-f", values, *arguments)
        done = server.helm(*command, check=check)
        return done.stdout + done.stderr

    with api_server(tmp_path) as server:
        server.namespace("audit")
        server.helm("install", UPSTREAM, before_in(tmp_path / "before"), "-n", "audit")
        there = identities(server)
        other_claim = "persistentVolumeClaim.existingClaim=another"
        assert "which the upgrade would delete" in upgrade(server, "--set", other_claim, check=False)
        said = upgrade(server)
        assert identities(server) == there
        assert "helm test" in said
        assert "The status page" in said
        assert "emptyDir" not in said
        first = server.live(token, "audit")["data"]
        upgrade(server, "--set", "eventHandler.debug=true")
        assert server.live(token, "audit")["data"] == first, "the token stays"
        assert "is lost with it" in upgrade(server, "--set", "state.kind=emptyDir")
        upgrade(server)
        assert identities(server) == there, "the claim was kept and is taken up again"
        server.helm("uninstall", UPSTREAM, "-n", "audit")
        assert server.live(claim, "audit")["metadata"]["uid"] == there[0]
        server.helm("install", UPSTREAM, str(CHART), "-n", "audit", "-f", values)
        assert identities(server)[0] == there[0]
        go_there_and_back(server, tmp_path)


def go_there_and_back(server: ApiServer, directory: Path) -> None:
    """Where there was no claim, two pods at a time were allowed before."""
    rolling = before_in(directory / "rolling", without="  strategy: {type: Recreate}\n")
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": UPSTREAM}}

    def strategy() -> str:
        return str(server.live(deployment, "back")["spec"]["strategy"]["type"])

    server.namespace("back")
    server.helm("install", UPSTREAM, rolling, "-n", "back")
    assert strategy() == "RollingUpdate"
    server.helm("upgrade", UPSTREAM, str(CHART), "-n", "back", "-f", str(GIVEN / "upstream-defaults.yaml"))
    assert strategy() == "Recreate"
    server.helm("rollback", UPSTREAM, "1", "-n", "back")
    assert strategy() == "RollingUpdate"
