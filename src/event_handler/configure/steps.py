"""The commands that come after `configure`, ready to be copied into a shell."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from event_handler import about
from event_handler.configure import (
    HELM_FILE,
    IDENTITY,
    IMPERSONATOR_FILE,
    JOB_FILE,
    LOG_FILE,
    ROLE_FILE,
    TOML_FILE,
    UNIT_FILE,
    Request,
)
from event_handler.configure.collectors import KEYS

GUIDE = "https://goteleport.com/docs/zero-trust-access/export-audit-events/"
CHART = "teleport-plugin-event-handler"  # the release, and so the objects, as in Teleport's guide
USER = "teleport-event-handler"
AUTH_PORT = "3025"  # where the Auth Service listens, unless it was told otherwise
CONTINUED = " \\\n       "  # one command on several lines, still fit to be copied


@dataclass(frozen=True, slots=True)
class Step:
    """A heading, what to know beforehand, and commands. An `other` way to the same end has no number of its own."""

    title: str
    commands: list[str]
    notes: tuple[str, ...] = ()
    other: bool = False


def render(request: Request) -> str:
    """Numbered steps; what only the reader knows is in capitals."""
    out = request.out.absolute()
    steps = [Step("Create the role and the user:", [f"tctl create -f {_word(out / ROLE_FILE)}"])]
    steps += [_tbot(request, out), *_sign(request, out), _collector(request, out), _start(request, out)]
    lines = ["Next:"]
    number = 0
    for step in steps:
        number += not step.other
        lines += ["", f"   {step.title}" if step.other else f"{number}. {step.title}"]
        lines += [f"   {note}" for note in step.notes]
        lines += [f"     {command}" for command in step.commands]
    return "\n".join([*lines, "", f"The guide: {GUIDE}"])


def _tbot(request: Request, out: Path) -> Step:
    kind = "auth-server" if request.addr.endswith(f":{AUTH_PORT}") else "proxy-server"
    run = [
        f"tbot start identity --destination={_word(out)} --storage=/var/lib/teleport/bot",
        f"--{kind}={shlex.quote(request.addr)} --token=TOKEN --join-method=token",
    ]
    return Step(
        "Let tbot write the identity and keep it renewed:",
        [f"tctl bots add {USER} --roles={USER}", CONTINUED.join(run)],
        (
            "The first command prints the TOKEN. Run tbot as the user that the event handler runs as, and keep it "
            "running.",
        ),
    )


def _sign(request: Request, out: Path) -> list[Step]:
    """Without `--ttl` an identity is good for 12 hours."""
    sign = f"tctl auth sign --user={USER} --out={_word(out / IDENTITY)}"
    if request.impersonator:
        mine = f"tctl users update YOU --set-roles=YOUR_ROLES,{USER}-impersonator"
        grant = Step(
            "or, without tbot: let yourself sign an identity, and log in again:",
            [f"tctl create -f {_word(out / IMPERSONATOR_FILE)}", mine],
            other=True,
        )
        note = (
            "It expires after 10 hours, the most that this role allows, and nothing is read from then on until "
            "there is a new one."
        )
        return [grant, Step("then sign it:", [f"{sign} --ttl=10h"], (note,), other=True)]
    notes = (
        "It expires after --ttl, and nothing is read from then on until there is a new one. On the host of the Auth "
        "Service any --ttl",
        "is granted; after tsh login at most the max_session_ttl of the roles, which is 30h where they set none.",
    )
    return [Step("or, without tbot, sign one by hand:", [f"{sign} --ttl=8760h"], notes, other=True)]


def _own_files(request: Request) -> list[str]:
    """What the collector needs of the certificates and keys: neither the authority's key nor anything of the client."""
    return [f"{request.ca_name}.crt", f"{request.server_name}.crt", f"{request.server_name}.key"]


def _collector(request: Request, out: Path) -> Step:
    if request.output == "helm":
        files = " ".join(f"--from-file={_word(out / name)}" for name in (*_own_files(request), request.collector.file))
        return Step(
            "Give Fluentd its files, to be mounted at /keys:",
            [f"kubectl --namespace=fluentd create secret generic fluentd-keys {files}"],
        )
    container = request.collector.container
    mounts = [(out / name, f"{KEYS}/{name}") for name in _own_files(request)]
    mounts.append((out / request.collector.file, container.file))
    parts = ["docker run -u 0 -p 8888:8888", *(f"-e {setting}" for setting in container.environment)]
    parts += [f"-v {shlex.quote(f'{file}:{place}:ro')}" for file, place in mounts]
    if container.buffer:
        parts.append(f"-v teleport-{Path(request.collector.file).stem}-buffer:{container.buffer}")
    parts.append(f"{container.image} {container.arguments}".rstrip())
    return Step("Start the collector, with its own files and no other:", [CONTINUED.join(parts)])


def _start(request: Request, out: Path) -> Step:
    if request.output == "helm":
        return _chart(request, out)
    if request.output == "systemd":
        return Step(
            "Install the unit:",
            [
                f"cp {_word(out / UNIT_FILE)} /etc/systemd/system/",
                "systemctl daemon-reload",
                f"systemctl enable --now {UNIT_FILE}",
            ],
        )
    if request.output == "launchd":
        place = f"/Library/LaunchDaemons/{JOB_FILE}"
        return Step(
            "Install the service:",
            [
                f"sudo install -o root -g wheel -m 644 {_word(out / JOB_FILE)} {place}",
                f"sudo launchctl bootstrap system {place}",
            ],
            (f"Its log is {out / LOG_FILE}.",),
        )
    return Step("Start the event handler:", [f"{about.PROGRAM} start --config={_word(out / TOML_FILE)}"])


def _chart(request: Request, out: Path) -> Step:
    files = [out / f"{request.ca_name}.crt", out / f"{request.client_name}.crt", out / f"{request.client_name}.key"]
    keys = " ".join(
        f"--from-file={key}={_word(file)}"
        for key, file in zip(("ca.crt", "client.crt", "client.key"), files, strict=True)
    )
    return Step(
        "Install the chart:",
        [
            f"kubectl create secret generic teleport-event-handler-client-tls {keys}",
            f"kubectl create secret generic teleport-event-handler-identity "
            f"--from-file=identity={_word(out / IDENTITY)}",
            f"helm install {CHART} deploy/helm/teleport-event-handler --values={_word(out / HELM_FILE)}",
            f"helm test {CHART} --logs",
        ],
        (
            "The chart is in the source of the event handler. Its image is in no registry yet: build it, push it to "
            "yours, and name",
            "it in the values; docs/helm.md shows how.",
        ),
    )


def _word(path: Path) -> str:
    return shlex.quote(str(path))
