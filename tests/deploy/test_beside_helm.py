"""The Kustomize base has what the chart makes, and the Terraform example gives values that the chart takes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.chart import HELM, ROOT, config_map, objects, pod, snapshot, template, the
from tests.support.receiver_cache import absent, place

KUSTOMIZE, TERRAFORM = ROOT / "deploy" / "kustomize", ROOT / "deploy" / "terraform"
BUILDER = "bin/kustomize"
NO_TERRAFORM = "" if shutil.which("terraform") else "there is no terraform"
VARIABLES = {
    "image": "registry.example.com/teleport-event-handler",
    "teleport_address": "teleport.example.com:443",
    "identity_secret": "identity",
    "sink_secret": "splunk",
    "splunk_url": "https://splunk.example.com:8088",
}


def kustomize(directory: str) -> list[dict[str, Any]]:
    command = (place(BUILDER), "build", KUSTOMIZE / directory)
    return objects(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(bool(absent(BUILDER)), reason=absent(BUILDER))
def test_the_base_is_what_the_chart_makes() -> None:
    chart, base = objects(snapshot("kustomize")), kustomize("base")
    assert config_map(base)["data"] == config_map(chart)["data"]
    volumes = pod(base)["volumes"]
    config = next(volume["configMap"] for volume in volumes if volume["name"] == "config")
    assert config["name"] == config_map(base)["metadata"]["name"]
    config["name"] = config_map(chart)["metadata"]["name"]
    assert pod(base) == pod(chart)
    for kind, key in (("Deployment", "spec"), ("PersistentVolumeClaim", "spec"), ("ServiceAccount", "kind")):
        ours, theirs = the(base, kind), the(chart, kind)
        if kind == "Deployment":
            for each in (ours, theirs):
                each["spec"]["template"]["metadata"].pop("annotations", None)
        assert ours[key] == theirs[key]
        assert ours["metadata"]["name"] == theirs["metadata"]["name"]


@pytest.mark.skipif(bool(absent(BUILDER)), reason=absent(BUILDER))
def test_the_overlay_has_settings_of_its_own() -> None:
    found = kustomize("example")
    assert {each["metadata"]["namespace"] for each in found} == {"teleport"}
    assert "teleport.mine.example.com" in config_map(found)["data"]["teleport-event-handler.toml"]
    assert pod(found)["containers"][0]["image"].startswith("registry.example.com/teleport-event-handler:")


@pytest.mark.skipif(bool(NO_TERRAFORM or absent(HELM)), reason=NO_TERRAFORM or absent(HELM))
def test_terraform_gives_values_that_the_chart_takes(tmp_path: Path) -> None:
    """The provider for Helm is on no package index, so the expression is asked for."""
    environment = {
        **os.environ,
        "CHECKPOINT_DISABLE": "1",
        **{f"TF_VAR_{name}": value for name, value in VARIABLES.items()},
    }
    formatted = subprocess.run(("terraform", "fmt", "-check", str(TERRAFORM)), capture_output=True, text=True)
    assert formatted.returncode == 0, formatted.stdout
    shutil.copy(TERRAFORM / "variables.tf", tmp_path)
    (expression,) = re.findall(r"values = \[yamlencode\((.*?)\)\]", (TERRAFORM / "main.tf").read_text(), re.DOTALL)
    (tmp_path / "values.tf").write_text(f"locals {{\n  values = yamlencode({expression})\n}}\n")
    said = subprocess.run(
        ("terraform", f"-chdir={tmp_path}", "console"),
        input="local.values",
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    values = tmp_path / "values.yaml"
    values.write_text(said.strip().removeprefix("<<EOT").removesuffix("EOT"))
    found = objects(template("teleport-event-handler", values).stdout)
    assert the(found, "Deployment")["metadata"]["name"] == "teleport-event-handler"
    assert 'type = "splunk-hec"' in config_map(found)["data"]["teleport-event-handler.toml"]
