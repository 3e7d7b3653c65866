"""Sixty ways to carry a secret in a URL or a text: none of them reaches a log line, an error, the settings line or a
dead letter.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest
import structlog

from event_handler import redact
from event_handler.config.load import load
from event_handler.config.model import options, secrets
from event_handler.config.spelling import shown
from event_handler.errors import ConfigurationError
from event_handler.redact import credentials, origin, without_secrets
from event_handler.telemetry import logs

S = "hunter2-zq47q-geheim"
HOST = "https://collector.example.com:8088"
USERINFO = [
    f"https://user:{S}@collector.example.com:8088/x",
    f"https://{S}@collector.example.com:8088/x",
    f"https://:{S}@collector.example.com:8088/x",
    f"https://user:a@b{S}@collector.example.com:8088/x",
    f'https://user:a"{S}@collector.example.com:8088/x',
    f"https://user:a'{S}@collector.example.com:8088/x",
    f"https://user:a<{S}>@collector.example.com:8088/x",
    f"https://user:a\\{S}@collector.example.com:8088/x",
    f"https://user:a:{S}@collector.example.com:8088/x",
    f"https://user:a%2F{S}@collector.example.com:8088/x",
    f"https://user:{S}€@collector.example.com:8088/x",
    f"https://us%40er:{S}@collector.example.com:8088/x",
    f"https://user:a b{S}@collector.example.com:8088/x",
    f"HTTPS://user:{S}@collector.example.com:8088/x",
]
QUERIES = [
    f"{HOST}/api/v2/logs?dd-api-key={S}",
    f"{HOST}/x?auth_token={S}",
    f"{HOST}/x?client_secret={S}",
    f"{HOST}/x?X-Amz-Signature={S}",
    f"{HOST}/x?X-Amz-Credential={S}",
    f"{HOST}/x?X-Amz-Security-Token={S}",
    f"{HOST}/x?code={S}",
    f"{HOST}/x?pwd={S}",
    f"{HOST}/x?sig={S}",
    f"{HOST}/x?token={S}&n=1",
    f"{HOST}/x?n=1&apikey={S}",
    f"{HOST}/x?api_key={S}",
    f"{HOST}/x?access_key={S}",
    f"{HOST}/x?key={S}",
    f"{HOST}/x?a;pass={S}",
    f"{HOST}?{S}",
    f"{HOST}/?{S}=1",
    f"{HOST}/x?q=a'{S}",
    f'{HOST}/x?q=a"{S}',
    f"{HOST}/x?q=a\\{S}",
    f"{HOST}/x?u=https://u:{S}@other/",
    f"{HOST}/x?mail=a@b&k={S}",
    f"{HOST}/x#{S}",
    f"{HOST}/x?a=1#access_token={S}",
]
PATHS = [
    f"{HOST}/v1/input/{S}",
    f"{HOST}/services/T0/B0/{S}",
    f"{HOST}/{S}",
    f"{HOST}/x/{S}/logs?n=1",
    f"{HOST}/receiver/v1/http/{S}==",
    f"{HOST}/x;{S}",
    f"{HOST}/a@b/{S}",
    f"{HOST}/%7B{S}%7D",
    f"{HOST}/x,{S}",
]
TEXTS = [
    f"Authorization: Bearer {S}",
    f"authorization=Splunk {S}",
    f'{{"authorization": "Basic {S}"}}',
    f"refused bearer {S}",
    f"ApiKey {S} is not valid",
    f"password={S} is wrong",
    f'{{"password": "{S}", "code": 4}}',
    f"{{'client_secret': '{S}'}}",
    f"bad token={S}&x=1",
    f"-----BEGIN RSA PRIVATE KEY-----\n{S}\n-----END RSA PRIVATE KEY-----",
    f"torn -----BEGIN PRIVATE KEY-----\n{S}",
    f"postgres://u:{S}@db/x and amqp://{S}@mq",
    f"https://user:p/{S}@collector.example.com:8088/x",
]
FORMS = [*USERINFO, *QUERIES, *PATHS, *TEXTS]
SENTENCES = [
    "{}",
    "cannot reach {}: Connection refused",
    "InvalidURL('{}')",
    'the receiver answered 400 {{"url":"{}","code":4}}',
    "see <{}>, please.",
]


@pytest.fixture
def written(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield lambda: capsys.readouterr().err
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def nothing_known() -> Iterator[None]:
    redact._known.clear()
    yield
    redact._known.clear()


def test_there_are_sixty() -> None:
    assert len(set(FORMS)) == 60


@pytest.mark.usefixtures("nothing_known")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("fmt", ["console", "json"])
def test_no_form_reaches_the_log_or_an_error(written: Callable[[], str], fmt: logs.Format, form: str) -> None:
    logs.configure(True, fmt)
    log = structlog.get_logger()
    for sentence in SENTENCES:
        text = sentence.format(form)
        log.info(text)
        log.warning("a field", where=text, nested=[{"deep": text}], other=OSError(text))
        logging.getLogger("some.library").warning("of a library: %s", text)
        try:
            raise OSError(text)
        except OSError:
            log.exception("failed")
        logs.say(f"teleport-event-handler: error: {ConfigurationError(text, text)}")
    said = written()
    assert said.count("a field") == len(SENTENCES)
    assert "zq47q" not in said


@pytest.mark.usefixtures("nothing_known")
@pytest.mark.parametrize("form", FORMS)
def test_no_form_is_kept_with_a_dead_letter(form: str) -> None:
    for sentence in SENTENCES:
        assert "zq47q" not in credentials(sentence.format(form))


@pytest.mark.parametrize("form", [*USERINFO, *QUERIES, *PATHS])
@pytest.mark.parametrize("name", [name for name, option in options().items() if option.kind == "url"])
def test_of_a_url_the_settings_line_shows_scheme_host_and_port(name: str, form: str) -> None:
    required = {"fluentd_url": "https://c/a", "fluentd_session_url": "https://c/s", "storage": "st"}
    settings = load({**required, name: form}, {}).settings
    assert shown(options()[name], getattr(settings, name)).lower() == HOST


@pytest.mark.parametrize("name", [name for name, option in options().items() if option.secret])
def test_a_secret_is_never_shown(name: str) -> None:
    assert (shown(options()[name], S), shown(options()[name], "")) == ("***", "")


@pytest.mark.usefixtures("nothing_known")
@pytest.mark.parametrize(
    "text", ["it said hunter2 zq47q geheim at once", "a\thunter2 zq47q geheim", "hunter2%20zq47q%20geheim"]
)
def test_the_secrets_of_the_settings_are_found_wherever_they_stand(text: str) -> None:
    required = {
        "fluentd_url": "https://u:hunter2%20zq47q%20geheim@c/a",
        "fluentd_session_url": "https://c/s",
        "storage": "st",
    }
    redact.know(secrets(load({**required, "elasticsearch_url": "https://e"}, {}).settings))
    assert "zq47q" not in without_secrets(text)


@pytest.mark.parametrize(
    ("url", "left"),
    [
        ("https://h", "https://h"),
        ("http://127.0.0.1:8888/test.log", "http://127.0.0.1:8888"),
        ("https://[::1]:8888/x", "https://[::1]:8888"),
        ("https://u:p@[fe80::1%eth0]:1/x", "https://[fe80::1%eth0]:1"),
        ("h:8888/x", "***"),
        ("https:///x", "https://***"),
        ("https://h:port/x", "https://***"),
        ("", ""),
    ],
)
def test_an_origin(url: str, left: str) -> None:
    assert origin(url) == left


@pytest.mark.parametrize(
    "text",
    [
        "cannot reach https://collector.example.com:8088 (Connection refused), see docs/connect.md",
        'the receiver answered 403 {"text":"Invalid token","code":4}',
        "the passphrase on standard input is too long: 1 to 1023 bytes",
        "FDFWD_ELASTICSEARCH_PASSWORD: expected text in quotes, got a number",
        "https://localhost:3025 as bob@example.com",
        "types=scp,exec code=5 keep=3",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert without_secrets(text) == text
