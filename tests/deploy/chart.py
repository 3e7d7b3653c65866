"""The Helm chart, and what real helm makes of it.

`python -m tests.deploy.chart` (or `make chart`) writes what is made of values.yaml and the settings model: the schema,
the table in docs/helm.md, and what is rendered of each file in values/.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.deploy import values_reference
from tests.support.receiver_cache import absent, place

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "teleport-event-handler"
VALUES = CHART / "values.yaml"
SCHEMA = CHART / "values.schema.json"
PAGE = ROOT / "docs" / "helm.md"
GIVEN = Path(__file__).parent / "values"
RENDERED = Path(__file__).parent / "rendered"
KUBERNETES = "1.34.0"
NAMESPACE = "teleport"
UPSTREAM = "teleport-plugin-event-handler"  # the release of Teleport's guide
TOML = "teleport-event-handler.toml"
HELM = "bin/helm"
CASES = sorted(path.stem for path in GIVEN.glob("*.yaml"))
MADE_TOKEN = re.compile(r"^(  token: )([A-Za-z0-9+/=]{40,})$", re.MULTILINE)  # of random characters
NO_TOKEN = base64.b64encode(b"made by helm").decode()


def helm(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run helm, in no cluster."""
    command = (str(place(HELM)), *arguments, "--kube-version", KUBERNETES)
    return subprocess.run(command, check=check, capture_output=True, text=True, timeout=60)


def release(case: str) -> str:
    if case == "kustomize":
        return "teleport-event-handler"
    return "audit" if case.startswith("user-") else UPSTREAM


def render(case: str) -> str:
    """All objects, with the same words in place of the token that helm makes up."""
    text = template(release(case), GIVEN / f"{case}.yaml").stdout
    return MADE_TOKEN.sub(rf"\g<1>{NO_TOKEN}", text)


def template(name: str, values: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return helm("template", name, str(CHART), "-n", NAMESPACE, "-f", str(values), *arguments, check=check)


def objects(text: str) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(text) if one]


def the(found: list[dict[str, Any]], kind: str, end: str = "") -> dict[str, Any]:
    """The only object of that kind whose name ends so."""
    (only,) = [each for each in found if each["kind"] == kind and each["metadata"]["name"].endswith(end)]
    return only


def workload(found: list[dict[str, Any]]) -> dict[str, Any]:
    (only,) = [each for each in found if each["kind"] in ("Deployment", "StatefulSet")]
    return only


def pod(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The specification of the event handler's pod."""
    return dict(workload(found)["spec"]["template"]["spec"])


def config_map(found: list[dict[str, Any]]) -> dict[str, Any]:
    (only,) = [each for each in found if each["kind"] == "ConfigMap" and TOML in each["data"]]
    return only


def snapshot(case: str) -> str:
    return (RENDERED / f"{case}.yaml").read_text()


def main() -> int:
    SCHEMA.write_text(values_reference.schema_text(VALUES))
    if PAGE.exists():
        PAGE.write_text(values_reference.with_table(PAGE.read_text(), VALUES))
    if reason := absent(HELM):
        print(reason)
        return 1
    RENDERED.mkdir(exist_ok=True)
    for old in RENDERED.glob("*.yaml"):
        old.unlink()
    for case in CASES:
        try:
            (RENDERED / f"{case}.yaml").write_text(render(case))
        except subprocess.CalledProcessError as error:
            print(f"{case}: {error.stderr}")
    print(json.dumps({"schema bytes": SCHEMA.stat().st_size, "rendered": len(CASES)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
