"""`configure` writes ten files that fit together, or none."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
import tomllib
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from event_handler.configure import Request, configure, templates
from event_handler.configure.authority import Chain, make_chain
from event_handler.errors import ConfigurationError

PASSPHRASE = 'a"b\\c#{exit} ü'
TTL = timedelta(days=30)


def run(out: Path, **changes: Any) -> list[Path]:
    given: dict[str, Any] = {
        "addr": "example.test:443",
        "ca_name": "ca",
        "server_name": "server",
        "client_name": "client",
        "dns_names": ("localhost",),
        "ips": ("127.0.0.1",),
        "ttl": TTL,
        "length": 2048,
        "passphrase": PASSPHRASE,
    }
    return configure(Request(out, **(given | changes)))


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


def test_both_sides_accept_each_other_over_tls(made: Path) -> None:
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(made / "ca.crt"))
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_cert_chain(made / "server.crt", made / "server.key", PASSPHRASE)
    client = ssl.create_default_context(cafile=str(made / "ca.crt"))
    client.load_cert_chain(made / "client.crt", made / "client.key")
    near, far = socket.socketpair()

    def serve() -> None:
        with server.wrap_socket(far, server_side=True) as tls:
            tls.sendall(tls.recv(5))

    thread = threading.Thread(target=serve)
    thread.start()
    with client.wrap_socket(near, server_hostname="localhost") as tls:
        tls.sendall(b"hello")
        assert tls.recv(5) == b"hello"
    thread.join()


def test_subjects_names_and_life(chain: Chain) -> None:
    pairs = (chain.ca, chain.server, chain.client)
    subjects = [pair.certificate.subject.rfc4514_string() for pair in pairs]
    assert subjects == ["CN=Teleport Event Handler CA", "CN=Collector Server", "CN=Teleport Event Handler Client"]
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
        assert not extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
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
    assert found["teleport"] == {"addr": "example.test:443", "identity": "identity", "refresh": {"enabled": True}}
    assert (found["storage"], found["timeout"], found["batch"]) == ("./storage", "10s", 20)


def test_the_collectors_file(made: Path) -> None:
    text = (made / "fluent.conf").read_text()
    assert 'private_key_passphrase "a\\"b\\\\c\\#{exit} ü"\n' in text
    assert "keep_time_key true" in text
    assert "time_type string" in text
    assert "time_format %Y-%m-%dT%H:%M:%S.%L%z\n" in text
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
    assert unescaped(templates._fluent(passphrase)) == passphrase


@given(st.text(), st.text())
def test_any_path_and_address_survive_the_quoting_of_toml(path: str, addr: str) -> None:
    found = tomllib.loads(templates.toml(path, path, path, addr))
    assert (found["forward"]["fluentd"]["ca"], found["teleport"]["addr"]) == (path, addr)


def test_existing_files_are_listed_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "ca.key").write_text("precious")
    (tmp_path / "fluent.conf").symlink_to("nowhere")
    with pytest.raises(ConfigurationError, match=r"exist already: \S+/ca\.key, \S+/fluent\.conf\. Nothing was written"):
        run(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"ca.key", "fluent.conf"}
    assert (tmp_path / "ca.key").read_text() == "precious"


def test_force_replaces_all_ten_and_takes_others_rights_away(tmp_path: Path) -> None:
    (tmp_path / "ca.key").write_text("old")
    (tmp_path / "ca.key").chmod(0o644)
    run(tmp_path, force=True)
    assert (tmp_path / "ca.key").read_text().startswith("-----BEGIN RSA PRIVATE KEY-----")
    assert (tmp_path / "ca.key").stat().st_mode & 0o777 == 0o600


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []

    def sync(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) == 4:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", sync)
    with pytest.raises(ConfigurationError, match="No space left"):
        run(tmp_path)
    assert list(tmp_path.iterdir()) == []


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"ips": ["300.1.1.1"]}, "'300.1.1.1' is no IP address"),
    ({"ips": ["fe80::1%eth0"]}, "is no IP address"),
    ({"dns_names": ["not a name"]}, "'not a name' is no DNS name"),
    ({"dns_names": ["münchen.test"]}, "is no DNS name"),
    ({"dns_names": [], "ips": []}, "needs a DNS name or an IP address"),
    ({"ttl": timedelta(0)}, "at least a second"),
    ({"ttl": timedelta.max}, "year 9999"),
    ({"length": 1024}, "1024 bits"),
    ({"passphrase": ""}, "has 0 bytes"),
    ({"passphrase": "ü" * 512}, "has 1024 bytes"),
    ({"passphrase": "\udc80"}, "no valid text"),
    ({"addr": ""}, "no address"),
    ({"addr": "a\nb"}, "no address"),
    ({"ca_name": "x", "server_name": "x"}, "the same name"),
    ({"ca_name": "../x"}, "no name for a certificate"),
    ({"ca_name": "/x"}, "no name for a certificate"),
    ({"ca_name": ""}, "no name for a certificate"),
    ({"ca_name": "absent/x"}, "is no directory"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG, ids=[message for _, message in WRONG])
def test_what_makes_no_sense_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        run(tmp_path, **changes)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="absent is no directory"):
        run(tmp_path / "absent")
