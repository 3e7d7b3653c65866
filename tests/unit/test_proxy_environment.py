"""The proxy for an address is chosen by Go's rules, and a password in its URL never gets into text."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from event_handler.errors import ConnectError
from event_handler.proxy_environment import ProxyServer, proxy_for, proxy_for_url

PROXY = {"HTTPS_PROXY": "http://proxy:3128"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("http://proxy:3128", ProxyServer("http", "proxy", 3128)),
        ("proxy:3128", ProxyServer("http", "proxy", 3128)),
        ("proxy", ProxyServer("http", "proxy", 80)),
        ("HTTP://proxy", ProxyServer("http", "proxy", 80)),
        ("https://proxy", ProxyServer("https", "proxy", 443)),
        ("socks5://proxy", ProxyServer("socks5", "proxy", 1080)),
        ("socks5h://[fd00::1]:9", ProxyServer("socks5h", "fd00::1", 9)),
        ("http://user:p%40ss%3A@proxy", ProxyServer("http", "proxy", 80, "user", "p@ss:")),
        ("user:secret@proxy:8080", ProxyServer("http", "proxy", 8080, "user", "secret")),
    ],
)
def test_a_proxy_setting_is_read(value: str, expected: ProxyServer) -> None:
    assert proxy_for("teleport.example.com", 443, {"HTTPS_PROXY": value}) == expected


@pytest.mark.parametrize(
    "value", ["ftp://user:secret@proxy", "http://user:secret@proxy:port", "socks4://secret@proxy", "http://:secret@"]
)
def test_a_setting_that_cannot_be_used_is_an_error_without_the_password(value: str) -> None:
    with pytest.raises(ConnectError, match="HTTPS_PROXY") as caught:
        proxy_for("teleport.example.com", 443, {"HTTPS_PROXY": value})
    assert "secret" not in str(caught.value)


def test_the_https_setting_is_taken_before_the_http_one_and_upper_case_before_lower_case() -> None:
    settings = {"http_proxy": "d", "HTTP_PROXY": "c", "https_proxy": "b", "HTTPS_PROXY": "a"}
    for expected in ("a", "b", "c", "d"):
        found = proxy_for("teleport.example.com", 443, settings)
        assert found is not None
        assert found.host == expected
        assert found.setting == ("HTTPS_PROXY" if expected in "ab" else "HTTP_PROXY")
        del settings[{"a": "HTTPS_PROXY", "b": "https_proxy", "c": "HTTP_PROXY", "d": "http_proxy"}[expected]]
    assert proxy_for("teleport.example.com", 443, settings) is None


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"])
def test_this_machine_is_never_reached_through_a_proxy(host: str) -> None:
    assert proxy_for(host, 443, PROXY) is None


@pytest.mark.parametrize(
    ("no_proxy", "host", "bypassed"),
    [
        ("*", "example.com", True),
        ("other, *", "example.com", True),
        ("example.com", "example.com", True),
        ("example.com", "a.example.com", True),
        ("example.com", "badexample.com", False),
        (".example.com", "a.example.com", True),
        (".example.com", "example.com", False),
        ("*.example.com", "a.b.example.com", True),
        ("*.example.com", "example.com", False),
        (" Example.COM ", "EXAMPLE.com", True),
        ("example.com:443", "a.example.com", True),
        ("example.com:3025", "example.com", False),
        ("example.com:", "example.com", True),
        (":443", "example.com", False),
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.10", False),
        ("10.0.0.1:443", "10.0.0.1", True),
        ("10.0.0.1:80", "10.0.0.1", False),
        ("10.0.0.0/8", "10.200.0.1", True),
        ("10.0.0.1/8", "10.200.0.1", True),
        ("10.0.0.0/8", "11.0.0.1", False),
        ("10.0.0.0/8", "ten.example.com", False),
        ("fd00::/8", "fd12::1", True),
        ("fd00::1", "fd00:0::1", True),
        ("[fd00::1]:443", "fd00::1", True),
        ("[fd00::1]:80", "fd00::1", False),
        ("[fd00::1]", "fd00::1", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("bücher.example", "xn--bcher-kva.example", True),
        ("", "example.com", False),
        (",,", "example.com", False),
    ],
)
def test_no_proxy_is_matched_as_go_does(no_proxy: str, host: str, bypassed: bool) -> None:
    for setting in ("NO_PROXY", "no_proxy"):
        assert (proxy_for(host, 443, {**PROXY, setting: no_proxy}) is None) == bypassed


@given(st.text(), st.text(min_size=1), st.integers(1, 65535))
def test_no_text_in_no_proxy_breaks_the_choice(no_proxy: str, host: str, port: int) -> None:
    proxy_for(host, port, {**PROXY, "NO_PROXY": no_proxy})


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20))
def test_credentials_come_back_from_their_percent_encoding_and_stay_out_of_text(user: str, password: str) -> None:
    found = proxy_for(
        "example.com", 443, {"HTTPS_PROXY": f"http://{quote(user, safe='')}:{quote(password, safe='')}@proxy:1"}
    )
    assert found is not None
    assert (found.user, found.password) == (user, password)
    assert str(found) == "http://proxy:1"
    assert repr(found) == repr(proxy_for("example.com", 443, {"HTTPS_PROXY": "http://proxy:1"}))


@pytest.mark.parametrize(
    ("scheme", "environment", "proxy"),
    [
        ("https", {"HTTPS_PROXY": "http://secure:1", "HTTP_PROXY": "http://plain:1"}, "http://secure:1"),
        ("http", {"HTTPS_PROXY": "http://secure:1", "HTTP_PROXY": "http://plain:1"}, "http://plain:1"),
        ("https", {"HTTP_PROXY": "http://plain:1"}, None),
        ("http", {"HTTPS_PROXY": "http://secure:1"}, None),
        ("https", {"https_proxy": "secure:1", "no_proxy": "example.com:443"}, "http://secure:1"),
        ("https", {"https_proxy": "secure:1", "no_proxy": "example.com:8888"}, None),
    ],
)
def test_a_url_goes_through_the_proxy_of_its_own_scheme_only(
    scheme: str, environment: dict[str, str], proxy: str | None
) -> None:
    found = proxy_for_url(scheme, "collector.example.com", 8888, environment)
    assert (str(found) if found else None) == proxy


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_url_of_this_machine_goes_through_no_proxy(scheme: str, host: str) -> None:
    assert proxy_for_url(scheme, host, 8888, {"HTTPS_PROXY": "proxy:1", "HTTP_PROXY": "proxy:1"}) is None
