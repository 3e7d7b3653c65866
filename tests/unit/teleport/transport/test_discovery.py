"""What a Proxy says of itself becomes the address of its tunnel, by Teleport's order of precedence."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from event_handler.errors import ConnectError
from event_handler.teleport.transport.base import split_address
from event_handler.teleport.transport.discovery import Discovery, find, parse, tunnel_address
from tests.unit.teleport.transport.servers import PublicAuthority, Reader, Writer, listening

GOLDEN = Path(__file__).parents[3] / "data" / "golden" / "discovery"


@pytest.mark.parametrize("name", ["find.json", "ping.json"])
def test_the_answer_of_a_real_proxy_is_read(name: str) -> None:
    found = parse("proxy:443", (GOLDEN / name).read_bytes())
    assert found == Discovery(
        server_version="19.0.0-prealpha.2",
        cluster_name="example.test",
        tls_routing=True,
        public_addr="localhost:3080",
        web_listen_addr="127.0.0.1:3080",
        tunnel_listen_addr="127.0.0.1:3080",
    )
    assert tunnel_address(found, {}) == "localhost:3080"


ALL = Discovery(
    public_addr="public:443",
    web_listen_addr="0.0.0.0:3080",
    ssh_public_addr="ssh:3023",
    tunnel_public_addr="tunnel:9024",
    tunnel_listen_addr="0.0.0.0:4024",
)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        # TLS routing: the public web address
        (Discovery(tls_routing=True, public_addr="public:444", web_listen_addr="[::]:3080"), "public:444"),
        (Discovery(tls_routing=True, public_addr="public", web_listen_addr="[::]:3080"), "public:3080"),
        (Discovery(tls_routing=True, public_addr="https://public", web_listen_addr=""), "public:443"),
        (Discovery(tls_routing=True, public_addr="[fd00::1]", web_listen_addr=""), "[fd00::1]:443"),
        (Discovery(tls_routing=True, web_listen_addr="web:3080", tunnel_public_addr="tunnel:1"), "web:3080"),
        (Discovery(tls_routing=True, web_listen_addr="web"), "web:443"),
        # separate listeners, in order of precedence
        (ALL, "tunnel:9024"),
        (Discovery(tunnel_public_addr="tunnel", tunnel_listen_addr="0.0.0.0:4024"), "tunnel:4024"),
        (Discovery(tunnel_public_addr="tcp://tunnel"), "tunnel:3024"),
        (
            Discovery(ssh_public_addr="ssh:3023", public_addr="public:443", tunnel_listen_addr="0.0.0.0:4024"),
            "ssh:4024",
        ),
        (Discovery(ssh_public_addr="ssh:3023", public_addr="public:443"), "ssh:3024"),
        (Discovery(public_addr="public:443", tunnel_listen_addr="[::]:4024"), "public:4024"),
        (Discovery(public_addr="http://[fd00::1]:443/"), "[fd00::1]:3024"),
        (Discovery(tunnel_listen_addr="listen:4024", web_listen_addr="web:3080"), "listen:4024"),
        (Discovery(tunnel_listen_addr="listen", web_listen_addr="web:3080"), "listen:3024"),
        (Discovery(web_listen_addr="web:3080"), "web:3080"),
        (Discovery(web_listen_addr="web"), "web:3024"),
        (Discovery(web_listen_addr="fd00::1"), "[fd00::1]:3024"),
    ],
)
def test_the_tunnel_is_where_the_proxy_says(found: Discovery, expected: str) -> None:
    assert tunnel_address(found, {}) == expected


def test_the_environment_decides_before_the_proxy() -> None:
    assert tunnel_address(ALL, {"TELEPORT_TUNNEL_PUBLIC_ADDR": "other:1"}) == "other:1"
    assert tunnel_address(ALL, {"TELEPORT_TUNNEL_PUBLIC_ADDR": "other"}) == "other:4024"
    assert tunnel_address(Discovery(), {"TELEPORT_TUNNEL_PUBLIC_ADDR": "https://[fd00::1]"}) == "[fd00::1]:3024"
    assert tunnel_address(ALL, {"TELEPORT_TUNNEL_PUBLIC_ADDR": ""}) == "tunnel:9024"


@pytest.mark.parametrize(
    "found",
    [Discovery(), Discovery(tls_routing=True), Discovery(public_addr=":443"), Discovery(web_listen_addr="[]:1")],
)
def test_a_proxy_without_any_address_is_said_so(found: Discovery) -> None:
    with pytest.raises(ConnectError, match=r"names no address.*TELEPORT_TUNNEL_PUBLIC_ADDR"):
        tunnel_address(found, {})


addresses = st.one_of(
    st.text(max_size=30), st.sampled_from(["", "host", "host:1", "[::1]:1", "https://host:70000", "::1", "[", "]:"])
)


@given(st.booleans(), addresses, addresses, addresses, addresses, addresses)
def test_whatever_a_proxy_says_the_result_can_be_dialed_or_is_refused(
    tls_routing: bool, public: str, web: str, ssh: str, tunnel: str, listen: str
) -> None:
    found = Discovery("", "", tls_routing, public, web, ssh, tunnel, listen)
    try:
        address = tunnel_address(found, {})
    except ConnectError:
        return
    split_address(address)


json = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 10) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["proxy", "ssh", "public_addr", "x"]), inner, max_size=4)
    ),
)


@given(st.one_of(json.map(orjson.dumps), st.binary(max_size=50)))
def test_an_answer_of_any_form_is_read_or_refused(body: bytes) -> None:
    with suppress(ConnectError):
        assert isinstance(parse("proxy:443", body), Discovery)


class Web:
    """A web server with one answer."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.request = ""

    async def __call__(self, reader: Reader, writer: Writer) -> None:
        self.request = (await reader.readuntil(b"\r\n\r\n")).decode()
        writer.write(self.answer)
        await writer.drain()


BODY = (GOLDEN / "find.json").read_bytes()
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n"


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY),
        b"HTTP/1.0 200 OK\r\n\r\n" + BODY,
        CHUNKED % (100, BODY[:100], len(BODY) - 100, BODY[100:]),
    ],
)
async def test_a_proxy_is_asked_over_https(public: PublicAuthority, answer: bytes) -> None:
    web = Web(answer)
    async with listening(web, public.context()) as port:
        assert (await find(f"localhost:{port}", insecure_proxy=False)).cluster_name == "example.test"
        assert web.request.startswith(f"GET /webapi/find HTTP/1.1\r\nHost: localhost:{port}\r\n")


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnone", "something other than a Proxy's description"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n{}", "does not answer as a web server"),
        (b"SSH-2.0-OpenSSH\r\n", "does not answer as a web server"),
        (b"", "does not answer as a web server"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + bytes(2_000_000), "larger than 1024 KiB"),
    ],
)
async def test_what_is_no_proxy_is_said_so(public: PublicAuthority, answer: bytes, message: str) -> None:
    async with listening(Web(answer), public.context()) as port:
        with pytest.raises(ConnectError, match=rf"localhost:{port} .*{message}.*web address of a Teleport Proxy"):
            await find(f"localhost:{port}", insecure_proxy=False)


async def test_an_untrusted_certificate_is_accepted_only_when_told_to_and_then_a_line_says_so(
    public: PublicAuthority, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    context = public.context("elsewhere.example")
    async with listening(Web(b"HTTP/1.0 200 OK\r\n\r\n" + BODY), context) as port:
        with pytest.raises(ConnectError, match=rf"certificate of localhost:{port} is not trusted"):
            await find(f"localhost:{port}", insecure_proxy=False)
        assert "NOT checked" not in "".join(capsys.readouterr())
        assert (await find(f"localhost:{port}", insecure_proxy=True)).cluster_name == "example.test"
    assert "NOT checked" in "".join(capsys.readouterr())


@pytest.mark.usefixtures("nothing_left")
async def test_a_silent_proxy_is_given_up(public: PublicAuthority, monkeypatch: pytest.MonkeyPatch) -> None:
    async def silence(reader: Reader, _: Writer) -> None:
        await reader.read()
        await reader.read()

    monkeypatch.setattr("event_handler.teleport.transport.discovery.FIND_TIMEOUT", 0.3)
    async with listening(silence) as port:
        with pytest.raises(ConnectError, match="did not say where its tunnel is within"):
            await find(f"localhost:{port}", insecure_proxy=False)
