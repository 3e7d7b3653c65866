"""The chart as it is committed: its schema, its table of values, and what was rendered of it. No helm is needed."""

from __future__ import annotations

import json
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from event_handler import __version__
from event_handler.config.load import load
from event_handler.configure import templates
from tests.deploy import values_reference
from tests.deploy.chart import (
    CASES,
    CHART,
    GIVEN,
    PAGE,
    SCHEMA,
    TOML,
    UPSTREAM,
    VALUES,
    config_map,
    objects,
    pod,
    release,
    snapshot,
    the,
    workload,
)

HOME = "/var/lib/teleport/plugins/event-handler"
OUR_CONTAINERS = (UPSTREAM, "tbot", "check")
UNPROTECTED = "listen-unprotected"
# Objects of others, of which the schema cannot know more than that they are objects.
FREE = {
    "affinity", "additionalProperties", "capabilities", "customConfig", "dnsConfig", "emptyDir", "env", "global",
    "items", "resources", "seccompProfile", "tokenSpecOverride", "volume",
}  # fmt: skip


@cache
def rendered(case: str) -> list[dict[str, Any]]:
    return objects(snapshot(case))


def settings(case: str) -> dict[str, Any]:
    return tomllib.loads(config_map(rendered(case))["data"][TOML])


def containers(case: str) -> list[dict[str, Any]]:
    """All containers of ours, that of `helm test` too."""
    pods = [pod(rendered(case)), *(each["spec"] for each in rendered(case) if each["kind"] == "Pod")]
    all_ = [one for each in pods for one in (*each.get("initContainers", ()), *each["containers"])]
    return [each for each in all_ if each["name"] in OUR_CONTAINERS]


def test_the_schema_is_made_of_the_values_and_of_the_settings() -> None:
    assert SCHEMA.read_text() == values_reference.schema_text(VALUES), "make chart"


def test_the_page_has_the_values() -> None:
    page = PAGE.read_text()
    assert page == values_reference.with_table(page, VALUES), "make chart"


def test_the_version_is_that_of_the_program() -> None:
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (about["version"], about["appVersion"]) == (__version__, __version__)


@pytest.mark.parametrize(("case", "lock"), [("configure", False), ("configure-lock", True)])
def test_the_values_of_configure_are_those_that_configure_writes(case: str, lock: bool) -> None:
    given = (GIVEN / f"{case}.yaml").read_text()
    assert given == templates.helm_values("teleport.example.com:443", lock=lock)


def test_nothing_that_is_not_named_is_allowed() -> None:
    def look(schema: Any, path: str) -> None:
        if not isinstance(schema, dict):
            return
        if schema.get("type") == "object" and "additionalProperties" not in schema and "allOf" not in schema:
            described_table = schema.keys() <= {"type", "description"}  # an option of a sink that is a table
            assert path.rpartition(".")[2] in FREE or described_table, path
        for key, value in schema.items():
            for name, inner in value.items() if key == "properties" else [(key, value)]:
                look(inner, f"{path}.{name}")

    look(json.loads(SCHEMA.read_text()), "")


@pytest.mark.parametrize("case", CASES)
def test_the_settings_are_taken_without_a_warning(case: str, tmp_path: Path) -> None:
    objects_ = rendered(case)
    text = re.sub(r'"(/[a-z])', rf'"{tmp_path}\1', config_map(objects_)["data"][TOML])
    for path in re.findall(rf'"({tmp_path}/[^"]*)"', text):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        if not path.endswith("storage"):
            Path(path).write_text("x")
    file = tmp_path / TOML
    file.write_text(text)
    (container,) = [one for one in pod(objects_)["containers"] if one["name"] == UPSTREAM]
    environment = {one["name"]: one.get("value", "secret") for one in container["env"]}
    loaded = load({}, environment, str(file))
    assert loaded.warnings == []
    assert loaded.settings.sinks


@pytest.mark.parametrize("case", CASES)
def test_config_wins_and_arrives_as_it_was_written(case: str) -> None:
    def within(given: Any, found: Any) -> None:
        for key, value in given.items():
            if isinstance(value, dict):
                within(value, found[key])
            else:
                assert found[key] == value

    given = yaml.load((GIVEN / f"{case}.yaml").read_text(), yaml.BaseLoader)  # noqa: S506 - it makes text only
    found = settings(case)
    within(_typed(given.get("config", {})), _typed(found))


def _typed(value: Any) -> Any:
    """All values as text, for YAML and TOML to be compared."""
    if isinstance(value, dict):
        return {key: _typed(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_typed(inner) for inner in value]
    return str(value).lower() if isinstance(value, bool) else str(value)


@pytest.mark.parametrize("case", CASES)
def test_the_pods_are_fit_for_the_restricted_standard(case: str) -> None:
    for each in (pod(rendered(case)), *(one["spec"] for one in rendered(case) if one["kind"] == "Pod")):
        context = each["securityContext"]
        assert context["runAsNonRoot"]
        assert context.get("runAsUser") != 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert each["automountServiceAccountToken"] == (case == "user-standby"), (
            "only who holds a Lease asks Kubernetes"
        )
        assert not [volume for volume in each["volumes"] if "hostPath" in volume]
    for container in containers(case):
        context = container["securityContext"]
        assert not context["allowPrivilegeEscalation"]
        assert context["readOnlyRootFilesystem"]
        assert context["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("case", CASES)
def test_mounts_have_their_volumes_and_what_is_renewed_is_a_directory(case: str) -> None:
    for each in (pod(rendered(case)), *(one["spec"] for one in rendered(case) if one["kind"] == "Pod")):
        names = [volume["name"] for volume in each["volumes"]]
        names += [one["metadata"]["name"] for one in workload(rendered(case))["spec"].get("volumeClaimTemplates", ())]
        assert len(set(names)) == len(names)
        mounts = [
            mount
            for one in (*each.get("initContainers", ()), *each["containers"])
            for mount in one.get("volumeMounts", ())
        ]
        assert {mount["name"] for mount in mounts} <= set(names)
        assert {mount["name"] for mount in mounts if "subPath" in mount} == {"config"}
    for container in containers(case):
        paths = [mount["mountPath"] for mount in container.get("volumeMounts", ())]
        assert len(set(paths)) == len(paths)


@pytest.mark.parametrize("case", CASES)
def test_the_state_is_on_a_volume_that_can_be_written(case: str) -> None:
    storage = settings(case)["storage"]
    if "://" in storage:
        assert "@" not in storage.partition("//")[2] or ":" not in storage.partition("//")[2].partition("@")[0]
        return
    (container,) = [one for one in pod(rendered(case))["containers"] if one["name"] == UPSTREAM]
    (mount,) = [mount for mount in container["volumeMounts"] if mount["mountPath"] == storage]
    assert not mount.get("readOnly")


@pytest.mark.parametrize("case", CASES)
def test_who_may_look_is_asked_for_a_token_and_probes_are_answered(case: str) -> None:
    found = settings(case)
    (container,) = [one for one in pod(rendered(case))["containers"] if one["name"] == UPSTREAM]
    assert found.get(UNPROTECTED, False) == (case == "user-trial")
    assert UNPROTECTED in found or found["listen-token-file"].startswith("/etc/teleport-event-handler/listener/")
    port = container["ports"][0]["containerPort"]
    assert found["listen"].endswith(f":{port}")
    assert container["livenessProbe"].keys() & {"httpGet", "tcpSocket"}


@pytest.mark.parametrize("case", CASES)
def test_one_pod_at_a_time_that_is_given_time_to_end(case: str) -> None:
    made = workload(rendered(case))
    assert made["spec"]["replicas"] == {"user-paused": 0, "user-replicas": 3, "user-standby": 2}.get(case, 1)
    if case in ("user-replicas", "user-standby"):
        assert "strategy" not in made["spec"], "they share the work, so one may start before another ends"
    elif made["kind"] == "Deployment":
        assert made["spec"]["strategy"] == {"type": "Recreate"}
    grace = {"user-several-sinks": 115, "user-containers": 60}.get(case, 30)
    assert pod(rendered(case))["terminationGracePeriodSeconds"] == grace
    assert made["spec"]["template"]["metadata"]["annotations"]["checksum/config"]


@pytest.mark.parametrize("case", CASES)
def test_a_service_finds_no_pod_but_the_event_handlers(case: str) -> None:
    found = rendered(case)
    selector = workload(found)["spec"]["selector"]["matchLabels"]
    assert selector.items() <= workload(found)["spec"]["template"]["metadata"]["labels"].items()
    assert not selector.items() <= the(found, "Pod", "-check")["metadata"]["labels"].items()


# Every value of Teleport's chart.
UPSTREAM_VALUES = """
teleport: address identitySecretName identitySecretPath
eventHandler: storagePath timeout batch windowSize debug types skipEventTypes skipSessionTypes
eventHandler: startTime dryRun concurrency
eventHandler.lock: enabled failedAttemptsCount period for
fluentd: url sessionUrl maxConnections
fluentd.certificate: secretName caPath certPath keyPath
tbot: enabled clusterName teleportProxyAddress teleportAuthAddress joinMethod token nameOverride
tbot.defaultOutput: enabled
crd: create namespace tokenSpecOverride
certManager: enabled dnsNames ipAddresses ttl renewBefore
certManager.issuer: create name kind group
persistentVolumeClaim: enabled size storageClassName existingClaim volumeName
annotations: config deployment pod certSecret
extraLabels: config deployment pod certSecret
image: repository pullPolicy tag
tls: existingCASecretName existingCASecretKeyName
: imagePullSecrets nameOverride fullnameOverride podAnnotations podSecurityContext securityContext resources
: nodeSelector affinity tolerations volumes volumeMounts extraArgs extraEnv
"""


def test_every_value_of_teleports_chart_is_taken() -> None:
    for line in UPSTREAM_VALUES.strip().splitlines():
        table, _, names = line.partition(":")
        place = json.loads(SCHEMA.read_text())
        for part in filter(None, table.split(".")):
            place = place["properties"][part]
        assert set(names.split()) <= place["properties"].keys(), table


UPSTREAM_CASES = [case for case in CASES if release(case) == UPSTREAM]


@pytest.mark.parametrize("case", UPSTREAM_CASES)
def test_an_upgrade_from_teleports_chart_finds_its_objects(case: str) -> None:
    """Names and selectors; the selector of a Deployment cannot be changed."""
    found = rendered(case)
    name = "events" if case == "upstream-everything" else UPSTREAM
    labels = {"app.kubernetes.io/name": UPSTREAM, "app.kubernetes.io/instance": UPSTREAM}
    assert workload(found)["kind"] == "Deployment"
    assert workload(found)["metadata"]["name"] == config_map(found)["metadata"]["name"] == name
    assert workload(found)["spec"]["selector"]["matchLabels"] == labels
    assert pod(found)["containers"][0]["name"] == UPSTREAM
    assert {"name": "TELEPORT_PLUGIN_FAIL_FAST", "value": "true"} in pod(found)["containers"][0]["env"]


def test_the_guides_values_mean_what_they_mean_to_teleports_chart() -> None:
    found = rendered("upstream-guide")
    container = pod(found)["containers"][0]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts == {
        "config": "/etc/teleport-event-handler.toml",
        "teleport-identity": f"{HOME}/teleport-identity",
        "certificate": HOME,
        "storage": f"{HOME}/storage",
        "listener": "/etc/teleport-event-handler/listener",
        "tmp": "/tmp",
    }
    volumes = {volume["name"]: volume for volume in pod(found)["volumes"]}
    assert volumes["teleport-identity"]["secret"]["secretName"] == "teleport-event-handler-identity"
    assert volumes["certificate"]["secret"]["secretName"] == "teleport-event-handler-client-tls"
    assert volumes["storage"]["persistentVolumeClaim"] == {"claimName": UPSTREAM}
    assert container["args"] == ["start", "--config", "/etc/teleport-event-handler.toml"]
    assert the(found, "PersistentVolumeClaim")["spec"]["resources"] == {"requests": {"storage": "1Gi"}}
    assert settings("upstream-guide") == {
        "storage": f"{HOME}/storage",
        "timeout": "10s",
        "batch": 20,
        "window-size": "24h",
        "debug": False,
        "concurrency": 5,
        "listen": "0.0.0.0:3000",
        "listen-token-file": "/etc/teleport-event-handler/listener/token",
        "teleport": {
            "addr": "example.teleport.com:443",
            "identity": f"{HOME}/teleport-identity/identity",
            "refresh": {"enabled": True},
        },
        "forward": {
            "fluentd": {
                "url": "https://fluentd.fluentd.svc.cluster.local/events.log",
                "session-url": "https://fluentd.fluentd.svc.cluster.local/session.log",
                "ca": f"{HOME}/ca.crt",
                "cert": f"{HOME}/client.crt",
                "key": f"{HOME}/client.key",
            }
        },
    }


def test_every_option_of_teleports_chart_has_the_key_that_it_has_there() -> None:
    found = settings("upstream-options")
    assert {key: found[key] for key in found if not isinstance(found[key], dict) and not key.startswith("listen")} == {
        "storage": f"{HOME}/storage",
        "timeout": "15s",
        "batch": 500,
        "window-size": "12h",
        "debug": True,
        "types": "user.login,session.start",
        "skip-event-types": "session.command",
        "skip-session-types": "print",
        "start-time": "2021-05-05T00:00:00Z",
        "dry-run": True,
        "concurrency": 2,
        "lock-enabled": True,
        "lock-failed-attempts-count": 5,
        "lock-period": "2m",
        "lock-for": "30m",
    }
    assert found["forward"]["fluentd"]["max-connections"] == 4
    items = next(one for one in pod(rendered("upstream-options"))["volumes"] if one["name"] == "certificate")
    assert items["secret"]["items"] == [
        {"key": "authority.pem", "path": "ca.crt"},
        {"key": "tls.crt", "path": "client.crt"},
        {"key": "tls.key", "path": "client.key"},
    ]


def test_teleports_certificates_issuers_and_operators_resources_have_their_names() -> None:
    def names(case: str, *kinds: str) -> list[tuple[str, str]]:
        return [(each["kind"], each["metadata"]["name"]) for each in rendered(case) if each["kind"] in kinds]

    assert sorted(names("upstream-cert-manager", "Certificate", "Issuer")) == [
        ("Certificate", f"{UPSTREAM}-client"),
        ("Certificate", f"{UPSTREAM}-selfsigned-ca"),
        ("Certificate", f"{UPSTREAM}-server"),
        ("Issuer", f"{UPSTREAM}-ca-issuer"),
        ("Issuer", f"{UPSTREAM}-selfsigned-issuer"),
    ]
    assert names("upstream-cert-manager-issuer", "Issuer") == []
    server = the(rendered("upstream-cert-manager"), "Certificate", "-server")["spec"]
    assert server["secretName"] == f"{UPSTREAM}-server-tls"
    assert server["dnsNames"] == ["fluentd.fluentd.svc.cluster.local"]
    assert server["secretTemplate"]["labels"] == {"team": "security"}
    operator = rendered("upstream-operator")
    assert {each["metadata"]["namespace"] for each in operator if each["kind"].startswith("Teleport")} == {
        "teleport-iac"
    }
    token = the(operator, "TeleportProvisionToken")
    assert token["metadata"]["name"] == f"{UPSTREAM}-tbot"
    assert token["spec"]["kubernetes"]["allow"] == [{"service_account": f"teleport:{UPSTREAM}-tbot"}]
    assert pod(operator)["serviceAccountName"] == f"{UPSTREAM}-tbot"
    jwks = the(rendered("upstream-operator-jwks"), "TeleportProvisionToken")["spec"]["kubernetes"]
    assert (jwks["type"], len(jwks["allow"])) == ("static_jwks", 1)


def test_the_sidecar_writes_where_the_event_handler_reads() -> None:
    found = rendered("upstream-tbot")
    config = yaml.safe_load(config_map(found)["data"]["tbot.yaml"])
    (tbot,) = [each for each in pod(found)["containers"] if each["name"] == "tbot"]
    written = next(mount for mount in tbot["volumeMounts"] if mount["name"] == "teleport-identity")
    assert config["outputs"][0]["destination"] == {"type": "directory", "path": written["mountPath"]}
    assert config["onboarding"] == {"join_method": "kubernetes", "token": "my-token"}
    assert settings("upstream-tbot")["teleport"]["identity"] == f"{HOME}/teleport-identity/identity"
    assert the(found, "Pod", "-check")["spec"]["initContainers"][0]["args"][-1] == "--oneshot"


def test_where_the_state_is() -> None:
    kinds = {case: [each["kind"] for each in rendered(case)] for case in CASES}
    assert "PersistentVolumeClaim" in kinds["upstream-defaults"], "a position that is lost is events that are lost"
    for case in ("upstream-own-volume", "upstream-existing-claim", "user-statefulset", "user-containers", "user-trial"):
        assert "PersistentVolumeClaim" not in kinds[case]
    claims = pod(rendered("upstream-existing-claim"))["volumes"]
    assert {"name": "storage", "persistentVolumeClaim": {"claimName": "audit-position"}} in claims
    stateful = workload(rendered("user-statefulset"))
    assert stateful["kind"] == "StatefulSet"
    assert stateful["spec"]["volumeClaimTemplates"][0]["spec"]["accessModes"] == ["ReadWriteOncePod"]
