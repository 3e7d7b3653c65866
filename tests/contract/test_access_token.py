"""Access tokens of OAuth's client credentials: asked for once, kept, renewed in time, and what goes wrong with them."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from event_handler.errors import SinkError
from event_handler.ports import Delivered, Denied, Retry
from event_handler.sinks.access_token import RENEW_AGAIN, RENEW_EARLY, AccessTokens
from event_handler.sinks.http_login import LoginOptions, client_credentials
from event_handler.sinks.panther import PantherOptions, PantherSink
from event_handler.sinks.webhook import WebhookOptions, WebhookSink
from tests.contract import receiver as scripted
from tests.contract.deliveries import events, verdict
from tests.contract.receiver import Receiver, Reply, Request, answer, receiving
from tests.contract.token_server import TokenServer, form_of, refusal

SECRET = "s3cret/with + signs"


def knows(request: Request, form: Mapping[str, str]) -> str:
    """Id and secret as RFC 6749, 2.3.1 has them in the header: form-encoded before they are joined."""
    said = base64.b64decode(request.headers["authorization"].removeprefix("Basic ")).decode()
    return "" if said == "the+client:s3cret%2Fwith+%2B+signs" else "invalid_client"


def options(url: str, **given: Any) -> dict[str, Any]:
    return {
        "oauth_token_url": f"{url}/token",
        "oauth_client_id": "the client",
        "oauth_client_secret": SECRET,
        "compression": "none",
        **given,
    }


@asynccontextmanager
async def hook(server: TokenServer, **given: Any) -> AsyncIterator[tuple[Receiver, WebhookSink]]:
    async with receiving(server, None) as receiver:
        sink = WebhookSink(WebhookOptions(url=f"{receiver.url}/hook", **options(receiver.url, **given)), "h", "sinks.h")
        yield receiver, sink
        await sink.close()


def server(**given: Any) -> TokenServer:
    return TokenServer(lambda _: Reply(200), **{"check": knows, **given})


async def test_a_token_is_asked_for_once_and_shown_with_every_request() -> None:
    tokens = server()
    async with hook(tokens, oauth_scope="events.write", oauth_audience="siem") as (receiver, sink):
        assert [await verdict(sink, events(1)) for _ in range(3)] == [Delivered()] * 3
        assert receiver.connections == 2
    (asked,) = tokens.asked
    assert form_of(asked) == {"grant_type": "client_credentials", "scope": "events.write", "audience": "siem"}
    assert asked.headers["content-type"] == "application/x-www-form-urlencoded"
    shown = [one.headers["authorization"] for one in receiver.requests if one.target == "/hook"]
    assert shown == ["Bearer token-1"] * 3


async def test_id_and_secret_may_stand_in_the_form() -> None:
    tokens = server(check=lambda _, form: "" if form["client_secret"] == SECRET else "invalid_client")
    async with hook(tokens, oauth_client_auth="body") as (_, sink):
        assert await verdict(sink) == Delivered()
    assert "authorization" not in tokens.asked[0].headers
    assert form_of(tokens.asked[0])["client_id"] == "the client"


async def test_panther_can_sign_in_so_too() -> None:
    async with receiving(server(), None) as receiver:
        sink = PantherSink(PantherOptions(url=f"{receiver.url}/http/x", **options(receiver.url)), "p", "sinks.p")
        assert await verdict(sink) == Delivered()
        await sink.close()


async def test_twenty_deliveries_at_once_ask_for_one_token() -> None:
    tokens = server()
    async with hook(tokens) as (_, sink):
        said = await asyncio.gather(*(verdict(sink, events(1)) for _ in range(20)))
    assert said == [Delivered()] * 20
    assert len(tokens.asked) == 1


async def test_what_fails_for_one_fails_for_all_who_wait_and_is_asked_again_later() -> None:
    tokens = server(refusals=[refusal(503, "temporarily_unavailable")])
    async with hook(tokens) as (_, sink):
        said = await asyncio.gather(*(verdict(sink, events(1)) for _ in range(20)))
        assert len(tokens.asked) == 1
        assert await verdict(sink) == Delivered()
    assert {type(one) for one in said} == {Retry}


async def test_a_delivery_that_is_cancelled_while_it_asks_leaves_the_question_to_the_next() -> None:
    tokens = server()
    async with hook(tokens) as (receiver, sink):
        receiver.script.append(scripted.stay_silent)
        first, second = (asyncio.create_task(sink.deliver(events(1))) for _ in range(2))
        while not receiver.requests:
            await asyncio.sleep(0.01)
        first.cancel()
        assert await second == Delivered()
    assert first.cancelled()


async def test_a_sink_that_is_closed_leaves_no_delivery_waiting_for_a_token() -> None:
    async with hook(server()) as (receiver, sink):
        receiver.script.append(scripted.stay_silent)
        waiting = [asyncio.create_task(verdict(sink, events(1))) for _ in range(3)]
        while not receiver.requests:
            await asyncio.sleep(0.01)
        await sink.close()
        said = await asyncio.gather(*waiting)
    assert {type(one) for one in said} == {Retry}
    assert not any(one.unanswered for one in said if isinstance(one, Retry)), "no event was sent"


async def test_a_token_endpoint_that_hangs_ends_within_the_time_out() -> None:
    async with hook(server(), timeout=0.3) as (receiver, sink):
        receiver.script.append(scripted.stay_silent)
        said = await verdict(sink)
    asked = f"http://localhost:{receiver.port}"
    hung = f"no access token from {asked}: the receiver does not answer within 0.3 s; check sinks.h.oauth-token-url"
    assert said == Retry(hung)


@pytest.mark.parametrize(
    ("error", "status", "named"),
    [
        ("invalid_client", 401, "sinks.h.oauth-client-secret, sinks.h.oauth-client-id and oauth-client-auth"),
        ("unauthorized_client", 400, "sinks.h.oauth-client-secret"),
        ("invalid_scope", 400, "check sinks.h.oauth-scope"),
        ("invalid_target", 400, "check sinks.h.oauth-audience"),
    ],
)
async def test_a_refusal_names_the_option_and_delivers_nothing(error: str, status: int, named: str) -> None:
    async with hook(server(refusals=[refusal(status, error, "no such thing")])) as (receiver, sink):
        said = await verdict(sink)
    assert isinstance(said, Retry)
    assert said.misconfigured
    assert not said.unanswered
    assert f"no access token: http://localhost:{receiver.port} answered {status} {error}: no such thing" in said.reason
    assert named in said.reason
    assert SECRET not in said.reason
    assert [one.target for one in receiver.requests] == ["/token"]


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_token_endpoint_that_is_busy_is_asked_again(status: int) -> None:
    async with hook(server()) as (receiver, sink):
        receiver.script.append(answer(status, b"busy", Retry_After="17"))
        said = await verdict(sink)
        assert isinstance(said, Retry)
        assert (said.misconfigured, said.after) == (False, 17.0)
        assert await verdict(sink) == Delivered()


@pytest.mark.parametrize(
    "body",
    [b"{}", b"<html>", b'["token"]', b'{"access_token":""}', b'{"access_token":"two words"}', b'{"access_token":7}'],
)
@pytest.mark.parametrize("status", [200, 204, 302, 404])
async def test_an_answer_without_a_token_is_about_the_address(body: bytes, status: int) -> None:
    async with hook(server()) as (receiver, sink):
        receiver.script.append(answer(status, b"" if status == 204 else body))
        said = await verdict(sink)
    assert isinstance(said, Retry)
    assert said.misconfigured
    assert "check sinks.h.oauth-token-url" in said.reason


async def test_a_token_endpoint_that_is_down_is_named_by_its_option() -> None:
    async with hook(server(), oauth_token_url="http://localhost:1/token") as (_, sink):
        said = await verdict(sink)
    assert isinstance(said, Retry)
    assert not said.misconfigured
    assert "no access token from http://localhost:1: no connection to" in said.reason
    assert "sinks.h.oauth-token-url" in said.reason
    assert "sinks.h.url" not in said.reason


async def test_a_token_that_the_receiver_refuses_is_renewed_once() -> None:
    tokens = server()
    async with hook(tokens) as (receiver, sink):
        assert await verdict(sink) == Delivered()
        tokens.good = set()  # taken back before its end
        assert await verdict(sink) == Delivered()
        assert len(tokens.asked) == 2
        receiver.script.extend([answer(401), receiver._succeed, answer(401)])
        said = await verdict(sink)
    assert isinstance(said, Denied)
    assert len(tokens.asked) == 3


async def test_a_secret_that_is_replaced_in_its_file_is_used_for_the_next_token(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("wrong")
    tokens = server()
    async with hook(tokens, oauth_client_secret="", oauth_client_secret_file=str(file)) as (_, sink):
        assert isinstance(await verdict(sink), Retry)
        file.write_text(SECRET + "\n")
        assert await verdict(sink) == Delivered()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"oauth_token_url": ""}, r"sinks\.h\.oauth-token-url is missing"),
        ({"oauth_client_id": ""}, r"sinks\.h\.oauth-client-id is missing"),
        ({"oauth_client_secret": ""}, r"oauth-client-secret and sinks\.h\.oauth-client-secret-file are missing"),
        ({"oauth_token_url": "ftp://x"}, r"sinks\.h\.oauth-token-url is not a URL"),
        ({"bearer": "x"}, r"sinks\.h\.bearer and sinks\.h\.oauth-token-url are set together"),
    ],
)
def test_options_that_are_not_complete_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(SinkError, match=words):
        WebhookSink(WebhookOptions(url="http://x/", **options("http://x", **given)), "h", "sinks.h")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def tokens_of(tokens: TokenServer, clock: Clock) -> AsyncIterator[AccessTokens]:
    async with receiving(tokens, None) as receiver:
        made = AccessTokens(client_credentials(LoginOptions(**options(receiver.url)), "sinks.h"), clock)
        yield made
        await made.close()


async def test_a_token_is_renewed_before_its_end() -> None:
    tokens, clock = server(), Clock()
    async with tokens_of(tokens, clock) as made:
        assert await made.current() == "token-1"
        clock.now += 3600 - RENEW_EARLY - 1
        assert await made.current() == "token-1"
        clock.now += 1
        assert await made.current() == "token-2"


async def test_a_short_token_is_renewed_at_half_of_its_time() -> None:
    tokens, clock = server(lifetime=60), Clock()
    async with tokens_of(tokens, clock) as made:
        assert await made.current() == "token-1"
        clock.now += 29
        assert await made.current() == "token-1"
        clock.now += 1
        assert await made.current() == "token-2"


async def test_while_the_endpoint_is_down_a_token_is_used_to_its_end() -> None:
    tokens, clock = server(), Clock()
    async with tokens_of(tokens, clock) as made:
        assert await made.current() == "token-1"
        tokens.refusals = [Reply(503)] * 2
        clock.now += 3600 - RENEW_EARLY
        assert await made.current() == "token-1"
        assert await made.current() == "token-1"
        assert len(tokens.asked) == 2, "a try that failed is not repeated at once"
        clock.now += RENEW_AGAIN
        assert await made.current() == "token-1"
        assert len(tokens.asked) == 3
        clock.now += RENEW_EARLY
        tokens.refusals = [Reply(503)]
        assert isinstance(await made.current(), Retry)
        assert await made.current() == "token-5"


async def test_others_go_on_with_a_good_token_while_one_asks_for_the_next() -> None:
    tokens, clock = server(), Clock()
    async with receiving(tokens, None) as receiver:
        made = AccessTokens(client_credentials(LoginOptions(**options(receiver.url)), "sinks.h"), clock)
        await made.current()
        clock.now += 3600 - RENEW_EARLY
        receiver.script.append(scripted.stay_silent)
        asking = asyncio.create_task(made.current())
        while len(receiver.requests) < 2:
            await asyncio.sleep(0.01)
        assert await made.current() == "token-1"
        asking.cancel()
        await asyncio.wait([asking])
        await made.close()
