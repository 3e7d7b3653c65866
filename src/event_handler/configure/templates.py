"""The text files beside the collector's that `configure` writes.

Each value is quoted by the rules of the file that it lands in.
"""

from __future__ import annotations

import json
import plistlib

JOB = "teleport-event-handler"  # the name of the service for launchctl

_ROLE = """\
# The role and the user of the event handler. Create both with: tctl create -f teleport-event-handler-role.yaml
kind: role
metadata:
  name: teleport-event-handler
spec:
  allow:
    rules:
      - resources: ['event', 'session']
        verbs: ['list', 'read']
{lock}version: v5
---
kind: user
metadata:
  name: teleport-event-handler
spec:
  roles: ['teleport-event-handler']
version: v2
"""

_LOCK_RULE = """\
      # For lock-enabled: users whose logins keep failing are locked.
      - resources: ['lock']
        verbs: ['create', 'update']
"""

IMPERSONATOR = """\
# Whoever has this role may sign an identity file for the event handler:
#   tctl auth sign --user=teleport-event-handler --out=identity --ttl=10h
kind: role
metadata:
  name: teleport-event-handler-impersonator
spec:
  options:
    # No identity file may be valid for longer when it is signed with this role, and no login of whoever has it.
    # With tbot none of this is needed.
    max_session_ttl: 10h
  allow:
    impersonate:
      users: ['teleport-event-handler']
      roles: ['teleport-event-handler']
version: v5
"""

_TOML = """\
# Settings of teleport-event-handler. Use them with: teleport-event-handler start --config=teleport-event-handler.toml
# All paths are absolute: a relative one would start at the directory that the event handler is started in, and a storage
# that is not found there begins empty. Durations need a unit: "10s", "1m30s", "24h".

# The position in the audit log is kept here. It must survive restarts.
storage = {storage}
# The longest pause between two looks at the audit log.
timeout = "10s"

# Where the first start begins to read; without it, at that moment: nothing older is delivered.
# Later starts go on where the last one ended, and refuse another time.
# start-time = "2026-01-01T00:00:00Z"

# Only these types of audit events, or all but those.
# types = ["user.login", "session.start"]
# skip-event-types = ["session.command"]
# What is left out of session recordings; [] leaves nothing out, and makes them large.
# skip-session-types = ["print", "desktop.recording"]
# Recordings that are read at a time.
# concurrency = 5

{lock}
[forward.fluentd]
# What proves the two sides to each other. New files are taken up without a restart.
ca = {ca}
cert = {certificate}
key = {key}
# Audit events are sent here.
url = "https://localhost:8888/test.log"
# Session recordings are sent here, with .<session id>.log appended:
# in Fluentd they match the tag session.*.log.
session-url = "https://localhost:8888/session"
# "array" sends many events in a request, "single" one.
format = "array"

[teleport]
# The Auth Service or the Proxy, as host:port.
addr = {addr}
# Written and renewed by tbot, or signed by hand and good for its --ttl:
#   tctl auth sign --user=teleport-event-handler --out=identity --ttl=8760h
identity = {identity}
# Read the identity again when it has been renewed.
refresh.enabled = true
"""

_LOCK_OFF = """\
# Lock users whose logins keep failing. The role needs the lock rule: configure --lock-enabled writes it.
# lock-enabled = true
# lock-failed-attempts-count = 3
# lock-period = "1m"
"""

_LOCK_ON = """\
# Lock users whose logins keep failing: this many failures within this time.
lock-enabled = true
lock-failed-attempts-count = 3
lock-period = "1m"
# How long a lock holds; without it, until someone removes it.
# lock-for = "30m"
"""

_HELM = """\
# Values for the chart deploy/helm/teleport-event-handler (docs/helm.md). They fit Teleport's own chart too, teleport-plugin-event-handler.
# The image is in no registry yet: build it, push it to yours, and name it here.
# image:
#   repository: registry.example.com/teleport-event-handler
eventHandler:
  # The volume is mounted here.
  storagePath: "/var/lib/teleport-event-handler"
  timeout: "10s"
  # The largest page; without it Teleport's chart asks for pages of 20 events.
  batch: 10000
{lock}
teleport:
  address: {addr}
  identitySecretName: teleport-event-handler-identity
  identitySecretPath: identity

# These URLs fit a Service that leads to the Fluentd of fluent.conf.
fluentd:
  url: "https://fluentd.fluentd.svc.cluster.local:8888/test.log"
  # Session recordings go to this URL with .<session id>.log appended.
  sessionUrl: "https://fluentd.fluentd.svc.cluster.local:8888/session"
  certificate:
    secretName: "teleport-event-handler-client-tls"
    caPath: "ca.crt"
    certPath: "client.crt"
    keyPath: "client.key"

persistentVolumeClaim:
  enabled: true
"""

_HELM_LOCK = """\
  lock:
    enabled: true
    failedAttemptsCount: 3
    period: "1m"
"""

_SYSTEMD = """\
# Install with: cp teleport-event-handler.service /etc/systemd/system/ && systemctl enable --now teleport-event-handler
[Unit]
Description=Teleport event handler
Documentation=https://goteleport.com/docs/zero-trust-access/export-audit-events/
Wants=network-online.target
After=network-online.target
# Never given up: a cluster or a disk that is away for a night is there again in the morning.
StartLimitIntervalSec=0

[Service]
# It says when it has started, what it does (systemctl status), and that it lives: one that hangs is started again.
Type=notify
WatchdogSec=60
# Where there are no credentials yet, it waits for them.
TimeoutStartSec=infinity
# The owner of the key files that were made with this unit.
User={user}
WorkingDirectory={directory}
ExecStart={program} start --config={config}
# Reads the identity file at once; it is also read every minute, and TLS files whenever they change.
ExecReload=/bin/kill -HUP $MAINPID
# A password, token or key that only root may read, or that is encrypted for this machine (systemd-creds encrypt). The settings
# name it as token-file = "/run/credentials/teleport-event-handler.service/token". It is copied at the start, so this is not
# for the identity, which is renewed.
# LoadCredential=token:/etc/teleport-event-handler/token
Restart=always
RestartSec=5
# 80 is a wrong command line, setting or credential: only a person can correct it.
RestartPreventExitStatus=80
# Longer than shutdown-timeout, so that what is in flight is finished.
TimeoutStopSec=30
# Made by systemd as /var/lib/teleport-event-handler; the position in the audit log is kept there.
StateDirectory=teleport-event-handler
StateDirectoryMode=0700
UMask=0077
LimitNOFILE=65536

# All that it may do is read its files, write its state and open connections. The file sink writes elsewhere, into a directory
# that must be named here and belong to the user above:
# ReadWritePaths=/var/log/teleport
CapabilityBoundingSet=
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
LockPersonality=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RemoveIPC=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""


def role(lock: bool) -> str:
    """Role v5, accepted by Teleport 15 to 19, and its user; `lock` adds the right to lock users."""
    return _ROLE.format(lock=_LOCK_RULE if lock else "")


def toml(ca: str, certificate: str, key: str, addr: str, storage: str, identity: str, *, lock: bool = False) -> str:
    """Settings for this program and the Go plugin, which ignores keys that it does not know.

    All but `addr` are absolute paths.
    """
    return _TOML.format(
        ca=quoted(ca),
        certificate=quoted(certificate),
        key=quoted(key),
        addr=quoted(addr),
        storage=quoted(storage),
        identity=quoted(identity),
        lock=_LOCK_ON if lock else _LOCK_OFF,
    )


def helm_values(addr: str, *, lock: bool = False) -> str:
    return _HELM.format(addr=quoted(addr), lock=_HELM_LOCK if lock else "")


def systemd_unit(user: str, program: str, directory: str, config: str) -> str:
    """A unit for this machine.

    `program` and `config` are absolute paths, `user` owns the key files; none has control characters.
    """
    return _SYSTEMD.format(
        user=user.replace("%", "%%"),
        program=_systemd_word(program, executable=True),
        directory=directory.replace("%", "%%"),
        config=_systemd_word(config),
    )


def launchd_job(user: str, program: str, directory: str, config: str) -> str:
    """A property list for launchd of macOS, see launchd.plist(5); the arguments are those of `systemd_unit`.

    It starts the program again whenever it ended with an error, at most every ten seconds. launchd has no exit code
    after which it would not: a wrong setting is told in the log every ten seconds.
    """
    job = {
        "Label": JOB,
        "ProgramArguments": [program, "start", f"--config={config}"],
        "UserName": user,
        "WorkingDirectory": directory,
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 10,
        "ExitTimeOut": 30,  # seconds; longer than shutdown-timeout, so that what is in flight is finished
        "Umask": 0o077,
        "ProcessType": "Background",
        "StandardErrorPath": f"{directory}/{JOB}.log",
        "SoftResourceLimits": {"NumberOfFiles": 65536},
    }
    return plistlib.dumps(job, sort_keys=False).decode()


def quoted(text: str) -> str:
    """A string that TOML and YAML both read back as it was."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _systemd_word(text: str, *, executable: bool = False) -> str:
    """One argument of a command line.

    "%" begins a specifier and "$" a variable, except that the program itself has no variables.
    """
    word = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{word}"' if executable else '"' + word.replace("$", "$$") + '"'
