"""What real helm makes of the chart. `make receivers` fetches it, and what else is needed here."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.deploy.chart import (
    CASES,
    CHART,
    GIVEN,
    HELM,
    KUBERNETES,
    ROOT,
    TOML,
    config_map,
    helm,
    objects,
    render,
    snapshot,
    template,
    the,
)
from tests.receivers import KUBERNETES as VERSIONS
from tests.support.receiver_cache import absent, place

pytestmark = pytest.mark.skipif(bool(absent(HELM)), reason=absent(HELM))

NO_KUBECONFORM = absent("kubernetes") or absent("bin/kubeconform")
BASE = """
teleport: {address: "teleport.example.com:443", identitySecretName: identity}
fluentd: {url: "https://fluentd.example.com/e.log", sessionUrl: "https://fluentd.example.com/s"}
"""
EXAMPLE = re.compile(r"```toml\n(.*?)```", re.DOTALL)
WHOLE = re.compile(r'^type = "|^\[forward\.|^lock-', re.MULTILINE)  # not a line or two that belong into a table
SECRETS = re.compile(r"^(api-key|bearer|password|secret|token) = .*\n", re.MULTILINE)
# Kinds of which no package index has a schema.
UNKNOWN = ("ExternalSecret", "TeleportBotV1", "TeleportProvisionToken", "TeleportRoleV8")


@pytest.mark.parametrize("case", CASES)
def test_what_is_rendered_is_what_was_committed(case: str) -> None:
    assert render(case) == snapshot(case), "make chart"


@pytest.mark.parametrize("case", CASES)
def test_helm_finds_nothing_to_say(case: str) -> None:
    said = helm("lint", "--strict", "--quiet", str(CHART), "-f", str(GIVEN / f"{case}.yaml"), check=False)
    assert (said.returncode, said.stdout + said.stderr) == (0, "")


@pytest.mark.skipif(bool(absent("bin/helm-unittest")), reason=absent("bin/helm-unittest"))
def test_the_charts_own_unit_tests_pass() -> None:
    command = [str(place("bin/helm-unittest")), "--strict", str(CHART)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (counted := re.search(r"Tests: +([0-9]+) passed, \1 total", done.stdout)), done.stdout
    assert int(counted[1]) >= 15


@pytest.mark.skipif(bool(NO_KUBECONFORM), reason=NO_KUBECONFORM)
@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_knows_every_field(version: str, tmp_path: Path) -> None:
    schemas = place("kubernetes")
    command: list[str] = [str(place("bin/kubeconform")), "-strict", "-summary", "-output", "json"]
    for directory in (version, "custom"):
        command += ["-schema-location", f"{schemas / directory}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"]
    kinds: list[str] = []
    for case in CASES:
        (tmp_path / f"{case}.yaml").write_text(snapshot(case))
        kinds += re.findall(r"^kind: (\w+)$", snapshot(case), re.MULTILINE)
    done = subprocess.run([*command, "-skip", ",".join(UNKNOWN), str(tmp_path)], capture_output=True, text=True)
    said = json.loads(done.stdout)
    assert done.returncode == 0, said["resources"]
    skipped = sum(kind in UNKNOWN for kind in kinds)
    assert said["summary"] == {"valid": len(kinds) - skipped, "invalid": 0, "errors": 0, "skipped": skipped}


MISSPELLED = [
    ("telport: {}", "telport"),
    ("teleport: {adress: a}", "adress"),
    ("eventHandler: {lock: {enable: true}}", "enable"),
    ("fluentd: {certificate: {secret: a}}", "'secret'"),
    ("tbot: {clustername: a}", "clustername"),
    ("crd: {created: true}", "created"),
    ("certManager: {issuer: {nam: a}}", "'nam'"),
    ("persistentVolumeClaim: {storageClass: a}", "storageClass"),
    ("image: {registry: a}", "registry"),
    ("listener: {tokenSecret: {secretName: a}}", "secretName"),
    ("probes: {liveness: {path: /}}", "'path'"),
    ("secrets: {siem: {secretName: a, keys: {}}}", "'keys'"),
    ("serviceMonitor: {enable: true}", "'enable'"),
    ("config: {windowsize: 1h}", "windowsize"),
    ("config: {lock: {failed-attempt-count: 1}}", "failed-attempt-count"),
    ("config: {forward: {fluent: {}}}", "'fluent'"),
    ("config: {forward: {fluentd: {uri: a}}}", "'uri'"),
    ("config: {sinks: {siem: {type: splunk-hec, indx: a}}}", "'indx'"),
    ("config: {sinks: {siem: {type: splunk}}}", "/config/sinks/siem/type"),
    ("config: {sinks: {siem: {url: a}}}", "'type'"),
    ("config: {sinks: {Siem: {type: file}}}", "Siem"),
    ("config: {transforms: {a: {type: add-field}}}", "/config/transforms/a/type"),
    ("config: {transforms: {a: {type: add-fields, field: {}}}}", "'field'"),
]
WRONG = [
    ("eventHandler: {windowSize: 24}", "/eventHandler/windowSize"),
    ("eventHandler: {windowSize: 1d}", "/eventHandler/windowSize"),
    ("eventHandler: {startTime: yesterday}", "/eventHandler/startTime"),
    ("eventHandler: {concurrency: 0}", "/eventHandler/concurrency"),
    ("eventHandler: {storagePath: state}", "/eventHandler/storagePath"),
    ("tbot: {mode: Secret}", "/tbot/mode"),
    ("image: {tag: 1}", "/image/tag"),
    ("state: {kind: mysql}", "/state/kind"),
    ("state: {kind: postgresql, url: /a}", "/state/url"),
    ("listener: {port: 70000}", "/listener/port"),
    ("config: {batch: twenty}", "/config/batch"),
    ("config: {late-days: 31}", "/config/late-days"),
    ("config: {debug: 'yes'}", "/config/debug"),
    ("config: {log-level: trace}", "/config/log-level"),
    ("config: {shutdown-timeout: 5}", "/config/shutdown-timeout"),
    ("config: {sinks: {siem: {type: splunk-hec, token: hush}}}", "'token'"),
    ("config: {listen-token: hush}", "listen-token"),
]
REFUSED = [
    ("replicas: 2", "with this state one event handler works on it"),
    ("{replicas: 2, state: {kind: volumeClaimTemplate}}", "or state.kind=postgresql"),
    ("{replicas: 2, config: {lease: none}, state: {kind: bucket, url: 's3://a/b'}}", "with a Lease"),
    ("state: {kind: bucket, url: 'postgresql://a@b/c'}", "state.url does not fit state.kind=bucket"),
    ("{config: {lease: kubernetes}, state: {kind: postgresql, url: 'postgresql://a@b/c'}}", "without a Lease"),
    ("state: {kind: postgresql}", "state.url and state.kind=postgresql or bucket belong together"),
    ("state: {kind: postgresql, url: 'postgresql://a:hush@b/c'}", "state.url has a password"),
    ("state: {url: 'postgresql://a@b/c'}", "state.url and state.kind=postgresql or bucket belong together"),
    ("image: {repository: public.ecr.aws/gravitational/teleport-plugin-event-handler}", "is Teleport's own plugin"),
    ("teleport: {address: ''}", "teleport.address is missing"),
    ("teleport: {identitySecretName: ''}", "teleport.identitySecretName is missing"),
    ("fluentd: {url: ''}", "there is no sink"),
    ("fluentd: {sessionUrl: ''}", "fluentd.sessionUrl is missing"),
    ("config: {storage: /a}", "config.storage: set eventHandler.storagePath instead"),
    ("config: {listen: '0.0.0.0:1'}", "config.listen: set listener.address and listener.port instead"),
    ("tbot: {enabled: true, teleportProxyAddress: 'a:1'}", "tbot.clusterName is missing"),
    ("tbot: {enabled: true, clusterName: a}", "set one of tbot.teleportProxyAddress"),
    ("tbot: {enabled: true, clusterName: a, teleportProxyAddress: 'a:1', teleportAuthAddress: 'a:1'}", "set one of"),
    ("crd: {create: true}", "crd.create needs tbot.enabled"),
    ("certManager: {enabled: true}", "certManager.dnsNames or certManager.ipAddresses is missing"),
    ("certManager: {enabled: true, dnsNames: [a], issuer: {create: false}}", "certManager.issuer.name is missing"),
    ("state: {kind: volume}", "state.volume is missing"),
    ("terminationGracePeriodSeconds: 9", "is too short for config.shutdown-timeout (5s)"),
    ("{terminationGracePeriodSeconds: 60, config: {shutdown-timeout: 1m}}", "give at least 65"),
    ("{listener: {enabled: false}, podMonitor: {enabled: true}}", "listener.enabled is false"),
]
TBOT = "tbot: {enabled: true, clusterName: a, teleportProxyAddress: 'a:1', joinMethod: gcp}"
REFUSED_TOKENS = [
    ("crd: {create: true}", "crd.tokenSpecOverride is missing"),
    ("crd: {create: true, tokenSpecOverride: {gcp: {}}}", "crd.tokenSpecOverride is missing"),
    ("crd: {create: true, tokenSpecOverride: {join_method: iam}}", "join_method is iam and tbot.joinMethod is gcp"),
]


PAGES = {
    page.relative_to(ROOT).as_posix(): [tomllib.loads(SECRETS.sub("", block)) for block in blocks]
    for page in sorted((ROOT / "docs").rglob("*.md"))
    if (blocks := [block for block in EXAMPLE.findall(page.read_text()) if WHOLE.search(block)])
}


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_of_a_page_can_stand_in_config(page: str, tmp_path: Path) -> None:
    base = tmp_path / "base.yaml"
    base.write_text(BASE)
    for at, example in enumerate(PAGES[page]):
        values = tmp_path / f"{at}.yaml"
        values.write_text(json.dumps({"config": example}, default=str))
        made = objects(template("audit", base, "-f", str(values)).stdout)
        written = tomllib.loads(config_map(made)["data"][TOML])
        for key, value in json.loads(json.dumps(example, default=str)).items():
            assert value == written[key] or (isinstance(value, dict) and value.items() <= written[key].items()), key


def refusal(tmp_path: Path, *values: str) -> str:
    arguments: list[str] = []
    for at, text in enumerate(values):
        (tmp_path / f"{at}.yaml").write_text(text)
        arguments += ["-f", str(tmp_path / f"{at}.yaml")]
    base = tmp_path / "base.yaml"
    base.write_text(BASE)
    done = template("audit", base, *arguments, check=False)
    assert done.returncode != 0
    assert not done.stdout
    return done.stderr


@pytest.mark.parametrize(("values", "named"), [*MISSPELLED, *WRONG])
def test_what_is_misspelled_or_wrong_is_refused_by_its_name(values: str, named: str, tmp_path: Path) -> None:
    said = refusal(tmp_path, values)
    assert "the schema" in said
    assert named in said
    assert "hush" not in said


@pytest.mark.parametrize(("values", "sentence"), REFUSED)
def test_what_cannot_work_is_refused_with_what_to_do(values: str, sentence: str, tmp_path: Path) -> None:
    assert sentence in refusal(tmp_path, values)


@pytest.mark.parametrize(("values", "sentence"), REFUSED_TOKENS)
def test_a_join_token_that_cannot_work_is_refused(values: str, sentence: str, tmp_path: Path) -> None:
    assert sentence in refusal(tmp_path, TBOT, values)


def test_the_chart_can_be_packed_and_used_by_a_chart_above_it(tmp_path: Path) -> None:
    subprocess.run([place(HELM), "package", CHART, "-d", tmp_path], check=True, capture_output=True)
    (packed,) = tmp_path.glob("teleport-event-handler-*.tgz")
    above = tmp_path / "above"
    (above / "charts").mkdir(parents=True)
    packed.rename(above / "charts" / packed.name)
    (above / "Chart.yaml").write_text("apiVersion: v2\nname: above\nversion: 1.0.0\n")
    indented = "".join(f"  {line}\n" for line in BASE.splitlines())
    (above / "values.yaml").write_text(f"global: {{zone: a}}\nteleport-event-handler:\n{indented}")
    done = helm("template", "audit", str(above))
    assert the(objects(done.stdout), "Deployment")["metadata"]["name"] == "audit-teleport-plugin-event-handler"


@pytest.mark.parametrize("number", [None, *[version.rpartition(".")[0] for version in VERSIONS]])
def test_older_versions_of_kubernetes_are_refused(number: str | None) -> None:
    command: Sequence[str | Path] = (place(HELM), "template", CHART, "-f", GIVEN / "configure.yaml")
    done = subprocess.run([*command, "--kube-version", number or "1.26"], capture_output=True, text=True)
    assert (done.returncode == 0) is (number is not None), KUBERNETES
