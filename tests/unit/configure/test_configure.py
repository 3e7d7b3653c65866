"""`configure` writes ten files that fit together, or none."""

from __future__ import annotations

import plistlib
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import threading
import tomllib
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from event_handler.config.load import load
from event_handler.configure import OUTPUTS, Request, collectors, groups, steps, templates
from event_handler.configure.authority import Chain, KeyType, make_chain
from event_handler.configure.files import write
from event_handler.errors import ConfigurationError, FilesError

PASSPHRASE = 'a"b\\c#{exit} ü'
TTL = timedelta(days=30)


def request(out: Path, **changes: Any) -> Request:
    given: dict[str, Any] = {
        "addr": "example.test:443",
        "ca_name": "ca",
        "server_name": "server",
        "client_name": "client",
        "dns_names": ("localhost",),
        "ips": ("127.0.0.1",),
        "ttl": TTL,
        "length": 2048,
    }
    return Request(out, **(given | changes))


def run(out: Path, passphrase: str = PASSPHRASE, **changes: Any) -> list[Path]:
    return write(groups(request(out, **changes), lambda: passphrase))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made")
    run(out)
    return out


@pytest.fixture(scope="module")
def chain() -> Chain:
    return make_chain(["localhost", "*.example.test", "localhost"], ["127.0.0.1", "2001:db8::1"], TTL, 2048)


def openssl(*arguments: str | Path) -> str:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_ten_files_only_the_owner_can_read_and_no_leftovers(tmp_path: Path) -> None:
    written = run(tmp_path)
    assert len(written) == 10
    assert set(written) == set(tmp_path.iterdir())
    assert {path.stat().st_mode & 0o777 for path in written} == {0o600}


@pytest.mark.parametrize(("purpose", "name"), [("sslserver", "server"), ("sslclient", "client")])
def test_openssl_verifies_the_certificates_strictly(made: Path, purpose: str, name: str) -> None:
    openssl("verify", "-x509_strict", "-purpose", purpose, "-CAfile", made / "ca.crt", made / f"{name}.crt")


def test_openssl_refuses_the_client_certificate_as_a_server(made: Path) -> None:
    arguments = [
        "openssl",
        "verify",
        "-purpose",
        "sslserver",
        "-CAfile",
        str(made / "ca.crt"),
        str(made / "client.crt"),
    ]
    assert subprocess.run(arguments, capture_output=True, check=False).returncode != 0


def test_the_server_key_is_encrypted_in_the_form_that_fluentd_reads(made: Path) -> None:
    pem = (made / "server.key").read_text()
    assert pem.startswith("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,")
    public = openssl("pkey", "-in", made / "server.key", "-passin", f"pass:{PASSPHRASE}", "-pubout")
    assert public == openssl("x509", "-in", made / "server.crt", "-noout", "-pubkey")


def shake_hands(made: Path) -> bool:
    """Both sides prove themselves with the files, and a message goes there and back."""
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(made / "ca.crt"))
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_cert_chain(made / "server.crt", made / "server.key", PASSPHRASE)
    client = ssl.create_default_context(cafile=str(made / "ca.crt"))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    client.load_cert_chain(made / "client.crt", made / "client.key")
    near, far = socket.socketpair()

    def serve() -> None:
        with server.wrap_socket(far, server_side=True) as tls:
            tls.sendall(tls.recv(5))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(near, server_hostname="localhost") as tls:
            tls.sendall(b"hello")
            return tls.recv(5) == b"hello"
    finally:
        thread.join()


def test_both_sides_accept_each_other_over_tls(made: Path) -> None:
    assert shake_hands(made)


def test_subjects_names_and_life(chain: Chain) -> None:
    pairs = (chain.ca, chain.server, chain.client)
    subjects = [pair.certificate.subject.rfc4514_string() for pair in pairs]
    assert subjects == [
        "CN=Teleport Event Handler CA,O=Teleport Event Handler",
        "CN=Collector Server,O=Teleport Event Handler",
        "CN=Teleport Event Handler Client,O=Teleport Event Handler",
    ]
    for pair in pairs:
        left = pair.certificate.not_valid_after_utc - datetime.now(UTC)
        assert TTL - timedelta(minutes=2) < left <= TTL
    names = chain.server.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "*.example.test"]
    assert names.get_values_for_type(x509.IPAddress) == [ip_address("127.0.0.1"), ip_address("2001:db8::1")]


def test_usages_and_key_identifiers(chain: Chain) -> None:
    ca, server, client = (pair.certificate.extensions for pair in (chain.ca, chain.server, chain.client))
    usage = ca.get_extension_for_class(x509.KeyUsage).value
    assert (usage.key_cert_sign, usage.crl_sign, usage.digital_signature) == (True, True, False)
    for extensions, purpose in ((server, ExtendedKeyUsageOID.SERVER_AUTH), (client, ExtendedKeyUsageOID.CLIENT_AUTH)):
        assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [purpose]
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
        assert (usage.key_cert_sign, usage.digital_signature, usage.key_encipherment) == (False, True, True)
        identifier = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
        assert identifier == ca.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest


def test_the_settings_file(made: Path) -> None:
    found = tomllib.loads((made / "teleport-event-handler.toml").read_text())
    assert found["forward"]["fluentd"] == {
        "ca": str(made / "ca.crt"),
        "cert": str(made / "client.crt"),
        "key": str(made / "client.key"),
        "url": "https://localhost:8888/test.log",
        "session-url": "https://localhost:8888/session",
        "format": "array",
    }
    identity = str(made / "identity")
    assert found["teleport"] == {"addr": "example.test:443", "identity": identity, "refresh": {"enabled": True}}
    assert (found["storage"], found["timeout"]) == (str(made / "storage"), "10s")
    assert "batch" not in found, "the largest page is the best, and what start takes by itself"


def test_the_collectors_file(made: Path) -> None:
    text = (made / "fluent.conf").read_text()
    assert 'private_key_passphrase "a\\"b\\\\c\\#{exit} ü"\n' in text
    assert "keep_time_key true" in text
    assert "time_type string" in text
    assert "time_format %iso8601\n" in text
    source, *matches = text.split("<match ")
    assert "<buffer>" not in source
    assert [part.count("<buffer>") for part in matches] == [1, 1]


def unescaped(value: str) -> str:
    """Reads a double-quoted value by Fluentd's rules; "#{" that is not escaped would run code."""
    special = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "b": "\b", "0": "\0"}
    found, rest = "", value[1:-1]
    while rest:
        assert not rest.startswith(('"', "#{", "\n"))
        if rest[0] == "\\":
            found, rest = found + special.get(rest[1], rest[1]), rest[2:]
        else:
            found, rest = found + rest[0], rest[1:]
    return found


@given(st.text())
def test_any_passphrase_survives_the_collectors_quoting(passphrase: str) -> None:
    assert unescaped(collectors._fluent(passphrase)) == passphrase


@given(st.text(), st.text())
def test_any_path_and_address_survive_the_quoting_of_toml(path: str, addr: str) -> None:
    found = tomllib.loads(templates.toml(path, path, path, addr, path, path))
    assert (found["forward"]["fluentd"]["ca"], found["teleport"]["addr"]) == (path, addr)
    assert (found["storage"], found["teleport"]["identity"]) == (path, path)


def test_a_group_knows_which_of_its_files_exist(tmp_path: Path) -> None:
    (tmp_path / "ca.key").write_text("precious")
    (tmp_path / "fluent.conf").symlink_to("nowhere")
    found = groups(request(tmp_path), lambda: PASSPHRASE)
    assert [group.existing() for group in found] == [[tmp_path / "ca.key", tmp_path / "fluent.conf"], [], [], []]


def test_replacing_takes_others_rights_away(tmp_path: Path) -> None:
    (tmp_path / "ca.key").write_text("old")
    (tmp_path / "ca.key").chmod(0o644)
    run(tmp_path)
    assert (tmp_path / "ca.key").read_text().startswith("-----BEGIN RSA PRIVATE KEY-----")
    assert (tmp_path / "ca.key").stat().st_mode & 0o777 == 0o600


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []

    def sync(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) == 4:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", sync)
    with pytest.raises(FilesError, match="No space left"):
        run(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_in_the_way_stops_everything(tmp_path: Path) -> None:
    (tmp_path / "fluent.conf").mkdir()
    with pytest.raises(FilesError, match=r"fluent\.conf: is a directory"):
        run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["fluent.conf"]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"ips": ["300.1.1.1"]}, "expected an IP address, got '300.1.1.1'"),
    ({"ips": ["fe80::1%eth0"]}, "expected an IP address"),
    ({"dns_names": ["not a name"]}, "expected a DNS name, got 'not a name'"),
    ({"dns_names": ["münchen.test"]}, "expected a DNS name"),
    ({"dns_names": [], "ips": []}, "needs a DNS name or an IP address"),
    ({"ttl": timedelta(0)}, "at least a second"),
    ({"ttl": timedelta.max}, "year 9999"),
    ({"length": 2000}, 'must be one of "1024","2048","4096" but got "2000"'),
    ({"passphrase": ""}, "has 0 bytes"),
    ({"passphrase": "ü" * 512}, "has 1024 bytes"),
    ({"passphrase": "\udc80"}, "not valid UTF-8 text"),
    ({"addr": ""}, "expected the address of Teleport, got ''"),
    ({"addr": "a\nb"}, "expected the address of Teleport"),
    ({"output": "logstash", "key_type": "ed25519"}, "logstash reads no ed25519 keys. Choose --key-type rsa or ecdsa"),
    ({"output": "logstash", "passphrase": 'with "quotes"'}, 'Logstash cannot hold a passphrase with "'),
    ({"output": "fluent-bit", "passphrase": "${HOME}"}, r"Fluent Bit cannot hold a passphrase with \$\{"),
    ({"output": "fluent-bit", "passphrase": "a\tb"}, "control characters"),
    ({"ca_name": "x", "server_name": "x"}, "the same name"),
    ({"ca_name": "../x"}, "expected a name for a certificate"),
    ({"ca_name": "/x"}, "expected a name for a certificate"),
    ({"ca_name": ""}, "expected a name for a certificate"),
    ({"ca_name": "absent/x"}, "absent does not exist"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG, ids=[message for _, message in WRONG])
def test_what_makes_no_sense_is_refused_and_nothing_written(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        run(tmp_path, **changes)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"expected a directory, got .*absent"):
        run(tmp_path / "absent")


@pytest.mark.parametrize("key_type", ["ecdsa", "ed25519"])
def test_other_kinds_of_keys_work_in_tls_too(tmp_path: Path, key_type: KeyType) -> None:
    run(tmp_path, key_type=key_type)
    assert shake_hands(tmp_path)
    usage = x509.load_pem_x509_certificate((tmp_path / "server.crt").read_bytes()).extensions.get_extension_for_class(
        x509.KeyUsage
    )
    assert not usage.value.key_encipherment  # meaningless for keys that only sign


def test_a_name_may_lie_in_a_directory_that_exists(tmp_path: Path) -> None:
    (tmp_path / "tls").mkdir()
    run(tmp_path, server_name="tls/collector")
    assert (tmp_path / "tls" / "collector.key").exists()
    assert 'cert_path "/keys/tls/collector.crt"' in (tmp_path / "fluent.conf").read_text()


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("lock", [False, True])
def test_start_loads_the_settings_file_and_knows_every_key_also_those_in_comments(
    tmp_path: Path, output: str, lock: bool
) -> None:
    run(tmp_path, "plain", output=output, lock=lock)
    path = tmp_path / "teleport-event-handler.toml"
    text = path.read_text()
    (tmp_path / "identity").write_text("x")
    path.write_text(text)
    loaded = load({}, {}, str(path))
    assert loaded.warnings == []
    assert loaded.settings.lock_enabled is lock
    assert loaded.settings.sinks[0].shown()["format"] == "array"
    path.write_text(re.sub(r"^# (?=[a-z-]+ = )", "", text, flags=re.MULTILINE))
    uncommented = load({}, {}, str(path))
    assert uncommented.warnings == []
    assert uncommented.settings.skip_session_types == ("print", "desktop.recording")
    assert uncommented.settings.lock_enabled


def test_the_role_may_lock_only_when_asked_to() -> None:
    plain, locking = templates.role(False), templates.role(True)
    reading = "  allow:\n    rules:\n      - resources: ['event', 'session']\n        verbs: ['list', 'read']\n"
    assert f"{reading}version: v5\n---\nkind: user\n" in plain
    assert reading in locking
    assert "      - resources: ['lock']\n        verbs: ['create', 'update']\nversion: v5\n" in locking


def test_the_impersonators_role(tmp_path: Path) -> None:
    assert tmp_path / "teleport-event-handler-impersonator-role.yaml" in run(tmp_path, impersonator=True)
    text = (tmp_path / "teleport-event-handler-impersonator-role.yaml").read_text()
    allowed = "    impersonate:\n      users: ['teleport-event-handler']\n      roles: ['teleport-event-handler']\n"
    assert allowed in text


@pytest.mark.parametrize("lock", [False, True])
def test_the_helm_values(lock: bool) -> None:
    text = templates.helm_values("a.test:443", lock=lock)
    assert '  address: "a.test:443"\n' in text
    assert ':8888/session"\n' in text
    assert '  storagePath: "/' in text, "a volume is mounted there"
    assert "  batch: 10000\n" in text, "without it the chart writes 20"
    assert ("  lock:\n    enabled: true\n" in text) is lock


def test_fluent_bit_demands_a_client_certificate(tmp_path: Path) -> None:
    run(tmp_path, output="fluent-bit")
    text = (tmp_path / "fluent-bit.yaml").read_text()
    assert "      tls.verify_client_cert: on\n" in text
    assert '      tls.key_passwd: "a\\"b\\\\c#{exit} ü"\n' in text


def test_vector_demands_a_client_certificate_and_gets_dollars_doubled(tmp_path: Path) -> None:
    run(tmp_path, "a$b", output="vector")
    text = (tmp_path / "vector.yaml").read_text()
    assert "      verify_certificate: true\n" in text
    assert '      key_pass: "a$$b"\n' in text


def test_logstash_gets_a_key_that_java_reads(tmp_path: Path) -> None:
    run(tmp_path, "only-for-tests", output="logstash")
    text = (tmp_path / "logstash.conf").read_text()
    assert 'ssl_key_passphrase => "only-for-tests"' in text
    assert 'ssl_client_authentication => "required"' in text
    assert (tmp_path / "server.key").read_text().startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----")
    openssl("pkey", "-in", tmp_path / "server.key", "-passin", "pass:only-for-tests", "-noout")


def test_systemd_gets_a_unit_for_this_directory(tmp_path: Path) -> None:
    out = tmp_path / "100% $mine"
    out.mkdir()
    run(out, output="systemd", program="/opt/bin/teleport-event-handler", user="logs")
    unit = (out / "teleport-event-handler.service").read_text()
    inside = f"{tmp_path}/100%% $$mine/teleport-event-handler.toml"
    assert f'ExecStart="/opt/bin/teleport-event-handler" start --config="{inside}"\n' in unit
    assert f"WorkingDirectory={tmp_path}/100%% $mine\n" in unit
    assert "User=logs\n" in unit
    settings = tomllib.loads((out / "teleport-event-handler.toml").read_text())
    assert settings["storage"] == "/var/lib/teleport-event-handler"
    assert settings["teleport"]["identity"] == str(out / "identity")


def test_launchd_gets_a_job_for_this_directory(tmp_path: Path) -> None:
    out = tmp_path / "R&D <mine>"
    out.mkdir()
    run(out, output="launchd", program="/opt/bin/teleport-event-handler", user="logs")
    job = plistlib.loads((out / "teleport-event-handler.plist").read_bytes())
    assert job["ProgramArguments"] == [
        "/opt/bin/teleport-event-handler",
        "start",
        f"--config={out}/teleport-event-handler.toml",
    ]
    assert (job["UserName"], job["WorkingDirectory"]) == ("logs", str(out))
    assert job["RunAtLoad"] is True
    assert job["KeepAlive"] == {"SuccessfulExit": False}, "ended by a wish to stop, it is not started again"


@pytest.mark.skipif(shutil.which("plutil") is None, reason="plutil is macOS's")
def test_macos_finds_no_fault_in_the_job(tmp_path: Path) -> None:
    run(tmp_path, output="launchd")
    subprocess.run(["plutil", "-lint", str(tmp_path / "teleport-event-handler.plist")], check=True)


COMMANDS = [
    ("launchd", "sudo launchctl bootstrap system /Library/LaunchDaemons/teleport-event-handler.plist"),
    ("fluentd", "teleport-event-handler start --config={out}/teleport-event-handler.toml"),
    ("helm", "kubectl create secret generic teleport-event-handler-identity --from-file=identity={out}/identity"),
    ("helm", "helm test teleport-plugin-event-handler --logs"),
    ("systemd", "systemctl enable --now teleport-event-handler.service"),
]


@pytest.mark.parametrize(("output", "command"), COMMANDS)
def test_the_next_commands_name_the_files_that_were_made(tmp_path: Path, output: str, command: str) -> None:
    text = steps.render(request(tmp_path, output=output))
    assert f"     {command.format(out=tmp_path)}\n" in text
    assert f"tctl create -f {tmp_path}/teleport-event-handler-role.yaml\n" in text


@pytest.mark.parametrize("output", sorted(collectors.COLLECTORS))
def test_the_collector_is_handed_its_own_files_and_no_other(tmp_path: Path, output: str) -> None:
    run(tmp_path, "plain", output=output)
    text = steps.render(request(tmp_path, output=output)).replace("\\\n", "")
    command = shlex.split(next(line for line in text.splitlines() if "docker run" in line))
    mounted = [value for flag, value in pairwise(command) if flag == "-v"]
    of_directory = {value.split(":")[0] for value in mounted if value.endswith(":ro")}
    config = str(tmp_path / collectors.COLLECTORS[output].file)
    assert of_directory == {config, *(str(tmp_path / name) for name in ("ca.crt", "server.crt", "server.key"))}
    volumes = [value.partition(":")[2] for value in mounted if not value.endswith(":ro")]
    assert volumes == ([] if output == "vector" else [collectors.COLLECTORS[output].container.buffer])
    inside = {value.split(":")[1] for value in mounted}
    assert set(re.findall(r"/keys/[\w.]+", Path(config).read_text())) <= inside, "what the file names is there"


@pytest.mark.parametrize("output", ["fluentd", "fluent-bit"])
def test_the_buffer_that_the_file_names_lies_on_the_volume(output: str) -> None:
    collector = collectors.COLLECTORS[output]
    assert collector.container.buffer in collector.render("a", "b", "c", "secret")


def test_a_signed_identity_says_how_long_it_lives_and_tbot_comes_first(tmp_path: Path) -> None:
    text = steps.render(request(tmp_path))
    assert text.index("tbot start identity") < text.index("tctl auth sign")
    assert f"tctl auth sign --user=teleport-event-handler --out={tmp_path}/identity --ttl=8760h\n" in text
    impersonated = steps.render(request(tmp_path, impersonator=True))
    assert "--ttl=10h\n" in impersonated
    assert "8760h" not in impersonated, "its max_session_ttl allows no more"


@pytest.mark.parametrize(
    ("addr", "flag"), [("a.test:443", "--proxy-server=a.test:443"), ("a.test:3025", "--auth-server=a.test:3025")]
)
def test_tbot_is_led_to_the_address_of_the_settings(tmp_path: Path, addr: str, flag: str) -> None:
    assert flag in steps.render(request(tmp_path, addr=addr))


def test_the_steps_for_helm_tell_that_an_image_must_be_built_and_try_what_was_installed(tmp_path: Path) -> None:
    text = steps.render(request(tmp_path, output="helm"))
    assert "build it, push it to yours" in text
    assert text.index("helm install") < text.index("helm test")


@pytest.mark.parametrize("output", OUTPUTS)
def test_no_path_of_the_settings_depends_on_where_start_is_called(
    tmp_path: Path, output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when `configure` itself is given a relative path."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    run(Path("here"), "plain", output=output)
    found = tomllib.loads((tmp_path / "here" / "teleport-event-handler.toml").read_text())
    fluentd = found["forward"]["fluentd"]
    for path in (found["storage"], found["teleport"]["identity"], fluentd["ca"], fluentd["cert"], fluentd["key"]):
        assert Path(path).is_absolute()


def test_systemd_never_gives_up_except_on_what_a_person_must_correct() -> None:
    unit = templates.systemd_unit("root", "/opt/bin/teleport-event-handler", "/srv", "/srv/teleport-event-handler.toml")
    begin, service = unit.split("[Service]")
    assert "StartLimitIntervalSec=0\n" in begin
    assert "Restart=always\n" in service
    assert "RestartPreventExitStatus=80\n" in service


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_finds_no_fault_in_the_unit_and_little_exposure(tmp_path: Path) -> None:
    program = shutil.which("true")
    assert program is not None
    unit = tmp_path / "teleport-event-handler.service"
    unit.write_text(templates.systemd_unit("root", program, str(tmp_path), str(tmp_path / "some.toml")))
    verified = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stderr) == (0, "")
    command = [
        "systemd-analyze",
        "security",
        "--offline=true",
        "--threshold=20",
        str(unit),
    ]  # tenths; above it the command fails
    exposure = subprocess.run(command, capture_output=True, text=True, check=False)
    assert exposure.returncode == 0, exposure.stdout[-500:]
