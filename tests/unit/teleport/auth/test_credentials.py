"""Credentials are read in every layout that Teleport writes, and what is wrong is said in one message with the next
step.
"""

from __future__ import annotations

import errno
import re
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from event_handler.errors import ConfigurationError, CredentialsError
from event_handler.teleport.auth.credentials import _private_key, load, read_identity, read_key_pair
from event_handler.teleport.auth.tls import client_context

GOLDEN = Path(__file__).parents[3] / "data" / "golden" / "credentials"
TBOT = GOLDEN / "tbot-directory"


def test_an_identity_file_of_a_real_cluster_is_read() -> None:
    found = read_identity(str(GOLDEN / "identity"))
    assert found.cluster == "example.test"
    assert found.not_after.year == 2036
    assert found.ssh_certificate.startswith("ecdsa-sha2-nistp256-cert-v01@openssh.com ")
    assert found.ssh_authorities
    found.check_not_expired()


def test_three_pem_files_of_the_same_user_are_read() -> None:
    found = load("", str(GOLDEN / "tls.crt"), str(GOLDEN / "tls.key"), str(GOLDEN / "tls.cas"))
    assert found.cluster == "example.test"
    assert found.ssh_certificate == ""


def test_an_expired_identity_says_since_when_and_what_to_run() -> None:
    found = read_identity(str(TBOT / "identity"))
    with pytest.raises(CredentialsError, match=r"expired at 20\d\d-.*tctl auth sign"):
        found.check_not_expired(datetime(2030, 1, 1, tzinfo=UTC))


def test_the_loose_files_of_tbot_are_a_key_pair() -> None:
    names = ("tlscert", "key", "teleport-host-ca.crt")
    assert read_key_pair(*(str(TBOT / name) for name in names)).cluster == "example.test"


def test_windows_line_ends_and_comments_change_nothing(tmp_path: Path) -> None:
    text = (GOLDEN / "identity").read_text()
    (tmp_path / "identity").write_bytes(("# made by hand\n\n" + text).replace("\n", "\r\n").encode())
    assert read_identity(str(tmp_path / "identity")).key_pem == read_identity(str(GOLDEN / "identity")).key_pem


def test_the_tls_context_trusts_the_cluster_only_and_offers_the_route_to_auth() -> None:
    context = client_context(read_identity(str(GOLDEN / "identity")))
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert len(context.get_ca_certs()) == 1
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_changes_nothing(tmp_path: Path, encoding: str) -> None:
    plain = [GOLDEN / name for name in ("identity", "tls.crt", "tls.key", "tls.cas")]
    for file in plain:
        (tmp_path / file.name).write_bytes(file.read_text().replace("\n", "\r\n").encode(encoding))
    found = read_identity(str(tmp_path / "identity"))
    assert found.key_pem == read_identity(str(GOLDEN / "identity")).key_pem
    assert found.ssh_certificate
    assert found.ssh_authorities
    three = read_key_pair(*(str(tmp_path / file.name) for file in plain[1:]))
    assert three.certificate_pem == read_key_pair(*map(str, plain[1:])).certificate_pem
    client_context(three)


@pytest.mark.parametrize("tail", [" ", "\r", "\t \r\n"])
def test_blanks_at_the_end_of_a_path_are_left_out_unless_a_file_is_called_so(tmp_path: Path, tail: str) -> None:
    names = [str(GOLDEN / name) for name in ("identity", "tls.crt", "tls.key", "tls.cas")]
    assert load(names[0] + tail, "", "", "") == load(names[0], "", "", "")
    assert load("", *(name + tail for name in names[1:])) == load("", *names[1:])
    odd = tmp_path / f"identity{tail}"
    odd.write_bytes((GOLDEN / "identity").read_bytes())
    assert load(str(odd), "", "", "").source == str(odd)


def test_a_disk_that_fails_is_an_error_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> bool:
        raise OSError(errno.ESTALE, "Stale file handle")

    for question in ("is_dir", "open"):
        with monkeypatch.context() as patch:
            patch.setattr(Path, question, failing)
            with pytest.raises(CredentialsError, match=r"cannot be read \(Stale file handle\)") as caught:
                read_identity(str(tmp_path / "identity"))
            assert not caught.value.lasting


KEYS: list[rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey] = [
    rsa.generate_private_key(65537, 2048),
    ec.generate_private_key(ec.SECP256R1()),
    ed25519.Ed25519PrivateKey.generate(),
]
FORMATS = [
    serialization.PrivateFormat.PKCS8,
    serialization.PrivateFormat.TraditionalOpenSSL,
    serialization.PrivateFormat.OpenSSH,
]


@pytest.mark.parametrize("form", FORMATS, ids=str)
@pytest.mark.parametrize("key", KEYS, ids=lambda key: type(key).__name__)
def test_every_kind_of_key_is_taken_in_every_form(key: Any, form: serialization.PrivateFormat) -> None:
    if isinstance(key, ed25519.Ed25519PrivateKey) and form is serialization.PrivateFormat.TraditionalOpenSSL:
        form = serialization.PrivateFormat.PKCS8
    pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    assert _private_key("test", pem)[0].startswith(b"-----BEGIN PRIVATE KEY-----")


@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_three_files_with_windows_line_ends_and_comments_are_read_whatever_the_form_of_the_key(
    tmp_path: Path, form: serialization.PrivateFormat
) -> None:
    plain = [GOLDEN / name for name in ("tls.crt", "tls.key", "tls.cas")]
    key = serialization.load_pem_private_key(plain[1].read_bytes(), None)
    pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()
    paths = []
    for file in plain:
        path = tmp_path / file.name
        text = pem if file.name == "tls.key" else file.read_text()
        path.write_bytes(("# copied by hand\n\n" + text).replace("\n", "\r\n").encode())
        paths.append(str(path))
    found, expected = read_key_pair(*paths), read_key_pair(*map(str, plain))
    assert (found.key_pem, found.certificate_pem) == (expected.key_pem, expected.certificate_pem)
    client_context(found)


def test_a_key_under_the_wrong_label_is_taken() -> None:
    form = serialization.PrivateFormat.PKCS8
    pem = KEYS[0].private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    assert _private_key("test", pem.replace(b"PRIVATE KEY", b"RSA PRIVATE KEY"))[0] == pem


@pytest.mark.parametrize("form", FORMATS, ids=str)
@pytest.mark.parametrize("label", ["", "RSA ", "EC ", "OPENSSH "])
def test_the_label_of_a_key_says_nothing(label: str, form: serialization.PrivateFormat) -> None:
    pem = KEYS[1].private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    relabelled = re.sub(rb"(BEGIN|END) .*PRIVATE", lambda found: found[1] + f" {label}PRIVATE".encode(), pem)
    plain = KEYS[1].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    assert _private_key("test", relabelled)[0] == plain


@pytest.mark.parametrize("which", [0, 1, 2])
def test_of_three_files_the_faulty_one_is_named(tmp_path: Path, which: int) -> None:
    paths = [str(GOLDEN / name) for name in ("tls.crt", "tls.key", "tls.cas")]
    whole = Path(paths[which]).read_text()
    paths[which] = broken(tmp_path, whole[:100])
    with pytest.raises(CredentialsError, match=rf"^{re.escape(paths[which])} ends inside a PEM block"):
        read_key_pair(*paths)
    broken(tmp_path, "nothing")
    with pytest.raises(CredentialsError, match=rf"^there is no PEM block in {re.escape(paths[which])}"):
        read_key_pair(*paths)


def test_a_comment_in_any_alphabet_in_the_ca_file_does_not_reach_openssl(tmp_path: Path) -> None:
    ca = broken(tmp_path, "# Zertifizierungsstelle für Prüfer\n" + (GOLDEN / "tls.cas").read_text())
    context = client_context(read_key_pair(str(GOLDEN / "tls.crt"), str(GOLDEN / "tls.key"), ca))
    assert len(context.get_ca_certs()) == 1


def broken(tmp_path: Path, text: str) -> str:
    path = tmp_path / "identity"
    path.write_text(text)
    return str(path)


def test_each_fault_of_a_file_has_its_message(tmp_path: Path) -> None:
    text = (GOLDEN / "identity").read_text()
    key = text[: text.index("ecdsa-sha2")]
    other = (GOLDEN / "ca-host.keys").read_text()
    cases = {
        "ends inside a PEM block": text[: text.index("-----END PRIVATE")],
        "is not an identity file: it has 0": "",
        "is not an identity file: it has 1": key,
        "do not belong to each other": other + text[len(key) :],
        "hardware token": text.replace("PRIVATE KEY", "PIV YUBIKEY PRIVATE KEY"),
        "over 64 KiB": "x" * 70_000 + text,
        "cannot be read": text.replace("MIGH", "AAAA"),
    }
    for message, content in cases.items():
        with pytest.raises(CredentialsError, match=message):
            read_identity(broken(tmp_path, content))
    with pytest.raises(CredentialsError, match="there is no file"):
        read_identity(str(tmp_path / "absent"))


def test_a_directory_that_tbot_writes_is_as_good_as_the_identity_file_in_it(tmp_path: Path) -> None:
    directory = GOLDEN / "tbot-directory"
    assert read_identity(str(directory)) == read_identity(str(directory / "identity"))
    with pytest.raises(CredentialsError, match=f"there is no file {tmp_path}/identity"):
        read_identity(str(tmp_path))


def test_both_kinds_or_some_of_three_or_none_are_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match=r"teleport\.identity and teleport\.ca are both"):
        load("identity", "", "", "ca")
    with pytest.raises(ConfigurationError, match=r"teleport\.cert is set and teleport\.key, teleport\.ca is missing"):
        load("", "cert", "", "")
    with pytest.raises(ConfigurationError, match="neither identity file nor"):
        load("", "", "", "")


@given(
    st.binary(max_size=300)
    | st.text(max_size=300).map(lambda text: f"-----BEGIN X-----\n{text}\n-----END X-----\n".encode() * 3)
)
def test_no_content_makes_anything_but_a_credentials_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("odd") / "identity"
    path.write_bytes(content)
    with pytest.raises(CredentialsError):
        read_identity(str(path))
