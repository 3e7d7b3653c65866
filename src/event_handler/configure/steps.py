"""The commands that come after `configure`, ready to be copied into a shell."""

from __future__ import annotations

import shlex
from pathlib import Path

from event_handler import about
from event_handler.configure import HELM_FILE, IMPERSONATOR_FILE, ROLE_FILE, TOML_FILE, UNIT_FILE, Request

GUIDE = "https://goteleport.com/docs/zero-trust-access/export-audit-events/"
USER = "teleport-event-handler"


def render(request: Request) -> str:
    """Numbered steps; what only the reader knows is in capitals."""
    out = request.out.absolute()
    identity = out / "identity" if request.output == "systemd" else Path("identity")
    steps = [("Create the role and the user:", [f"tctl create -f {_word(out / ROLE_FILE)}"])]
    if request.impersonator:
        mine = f"tctl users update YOU --set-roles=YOUR_ROLES,{USER}-impersonator"
        steps.append(("Let yourself sign the identity:", [f"tctl create -f {_word(out / IMPERSONATOR_FILE)}", mine]))
    steps += [
        ("Sign the identity:", [f"tctl auth sign --user={USER} --out={_word(identity)}"]),
        ("or, to have it renewed, give its role to a bot and let tbot write it:", _tbot(identity.absolute().parent)),
        _collector(request, out),
        _start(request, out),
    ]
    lines = ["Next:"]
    number = 0
    for title, commands in steps:
        number += not title.startswith("or")
        lines += ["", f"{number}. {title}" if not title.startswith("or") else f"   {title}"]
        lines += [f"     {command}" for command in commands]
    return "\n".join([*lines, "", f"The guide: {GUIDE}"])


def _tbot(directory: Path) -> list[str]:
    return [
        f"tctl bots update BOT --add-roles={USER}",
        f"tbot start identity --destination={_word(directory)} --storage=/var/lib/teleport/bot --proxy-server=PROXY:443 --token=TOKEN"
        " --join-method=token",
    ]


def _collector(request: Request, out: Path) -> tuple[str, list[str]]:
    if request.output != "helm":
        return "Start the collector:", [request.collector.run.format(out=_word(out))]
    names = (f"{request.ca_name}.crt", f"{request.server_name}.crt", f"{request.server_name}.key", request.collector.file)
    files = " ".join(f"--from-file={_word(out / name)}" for name in names)
    return "Give Fluentd its files, to be mounted at /keys:", [
        f"kubectl --namespace=fluentd create secret generic fluentd-keys {files}"
    ]


def _start(request: Request, out: Path) -> tuple[str, list[str]]:
    if request.output == "helm":
        files = [out / f"{request.ca_name}.crt", out / f"{request.client_name}.crt", out / f"{request.client_name}.key"]
        keys = " ".join(
            f"--from-file={key}={_word(file)}" for key, file in zip(("ca.crt", "client.crt", "client.key"), files, strict=True)
        )
        return "Install the chart:", [
            f"kubectl create secret generic teleport-event-handler-client-tls {keys}",
            "kubectl create secret generic teleport-event-handler-identity --from-file=identity=identity",
            f"helm install teleport-plugin-event-handler teleport/teleport-plugin-event-handler --values={_word(out / HELM_FILE)}",
        ]
    if request.output == "systemd":
        return "Install the unit:", [
            f"cp {_word(out / UNIT_FILE)} /etc/systemd/system/",
            "systemctl daemon-reload",
            f"systemctl enable --now {UNIT_FILE}",
        ]
    return "Start the event handler:", [f"{about.PROGRAM} start --config={_word(out / TOML_FILE)}"]


def _word(path: Path) -> str:
    return shlex.quote(str(path))
