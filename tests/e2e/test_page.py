"""The status page in a real browser: it tells what happens, shows hostile events as text, and is for everybody."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from time import time

import orjson
import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright
from structlog.testing import capture_logs

from event_handler.event import Event
from event_handler.report import Counters, Load, Position, Reading, Report, SinkReport
from event_handler.tap import Tap
from event_handler.telemetry.listener import Listener, ListenOptions
from tests.e2e.conftest import Collector
from tests.e2e.processes import Started, configuration, handler, simulated
from tests.support.reports import sink_of

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
PICTURES = os.environ.get("PICTURES")  # a directory for screenshots, as docs/pictures
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium; apt-get install chromium")


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        made = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        await made.close()


@asynccontextmanager
async def opened(browser: Browser, url: str, **options: object) -> AsyncIterator[Page]:
    """A page at that URL; at the end nothing was complained of in its console, and nothing came from elsewhere."""
    complaints: list[str] = []
    asked: set[str] = set()

    def heard(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and "ERR_CONNECTION_REFUSED" not in message.text:  # when it has ended
            complaints.append(message.text)

    context = await browser.new_context(**options)  # type: ignore[arg-type]  # the options are right, mypy sees objects
    page = await context.new_page()
    page.on("console", heard)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.add("/".join(request.url.split("/")[:3])))
    await page.goto(url)
    yield page
    await context.close()
    assert complaints == []
    assert asked <= {url.rstrip("/"), "data:"}


def sink(name: str, **more: object) -> SinkReport:
    known: dict[str, object] = {
        "type": "splunk-hec",
        "audit": Counters(read=120_000, delivered=118_000, bytes=90_000_000, newest=time()),
        "recordings": Counters(delivered=420),
        "load": (Load(3, 8, 300_000, 6_291_456, time() - 2), Load(0, 2, 0, 2_097_152, None)),
        "lag": 0.0,
        "oldest": None,
        "state_bytes": 4_300_000,
        "certificate_expires": time() + 86_400 * 40,
        "history": tuple(800 + 300 * (minute % 7) for minute in range(60)),
    }
    return sink_of(name, **{**known, **more})


def report() -> Report:
    now = time()
    behind = Position("bulk", now - 86_400 * 3, False, 12)
    reading = Reading(("siem", "archive"), True, now - 5000, 2, "teleport.example.com:443", "upgrade", "18.4.0", behind)
    failing = sink(
        "archive",
        type="s3",
        lag=4000.0,
        failing="the receiver answered 403 AccessDenied; check sinks.archive.access-key-id",
        failing_since=now - 300,
        next_step="Let the user write to the bucket.",
        dead_letters=3,
        history=(0,) * 60,
    )
    return Report(
        "example.teleport.sh",
        now - 7200,
        now,
        now - 86_400 * 10,
        now + 3000,
        4,
        42_000_000_000,
        None,
        (reading,),
        (sink("siem"), failing),
    )


@asynccontextmanager
async def listening(tap: Tap) -> AsyncIterator[str]:
    """The listener alone, with a report that never changes but for its time; yields its URL."""

    async def made() -> Report:
        return replace(report(), now=time())

    with capture_logs() as lines:
        running = asyncio.create_task(Listener(made, tap, ListenOptions("127.0.0.1:0"), None).run())
        while not lines and not running.done():
            await asyncio.sleep(0.01)
    yield f"{lines[0]['url']}/"
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def show(tap: Tap, **fields: object) -> None:
    tap.show([Event(str(fields["event"]), "e", 0.0, 0, orjson.dumps(fields))])


async def until_viewed(tap: Tap) -> None:
    async with asyncio.timeout(20):
        while not tap.viewers:
            await asyncio.sleep(0.01)


async def test_an_event_with_markup_in_every_field_shows_as_text(browser: Browser) -> None:
    tap = Tap()
    names = ("event", "user", "time", "code", "login", HOSTILE, "message")
    async with listening(tap) as url, opened(browser, url) as page:
        await until_viewed(tap)
        show(tap, **dict.fromkeys(names, HOSTILE))
        line = page.locator("#tail li")
        await line.wait_for()
        assert HOSTILE in (await line.locator("summary").inner_text())
        await line.locator("summary").click()
        shown = await line.locator("pre").inner_text()
        assert orjson.loads(shown) == dict.fromkeys(names, HOSTILE)
        assert await page.title() == "Teleport event handler"
        assert await page.locator("#tail img, #tail script").count() == 0


async def test_the_tail_is_filtered_by_type_and_stands_still_while_it_is_paused(browser: Browser) -> None:
    tap = Tap()
    async with listening(tap) as url, opened(browser, url) as page:
        await until_viewed(tap)
        await page.keyboard.press("/")
        await page.keyboard.type("user.")
        before = set(tap.viewers)
        await page.keyboard.press("Enter")
        async with asyncio.timeout(20):
            while not tap.viewers - before:
                await asyncio.sleep(0.01)
        show(tap, event="session.start", user="alice")
        show(tap, event="user.login", user="bob")
        await page.locator("#tail li").first.wait_for()
        assert "bob" in await page.locator("#tail").inner_text()
        assert "alice" not in await page.locator("#tail").inner_text()
        await page.locator("#pause").click()
        assert await page.locator("#pause").get_attribute("aria-pressed") == "true"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 380])
async def test_it_has_no_fault_of_accessibility_and_fits(browser: Browser, scheme: str, width: int) -> None:
    tap = Tap()
    size = {"width": width, "height": 1400}
    async with listening(tap) as url, opened(browser, url, color_scheme=scheme, viewport=size) as page:
        await until_viewed(tap)
        for number, name in enumerate(("user.login", "session.start", "db.session.query")):
            show(tap, event=name, user="alice", code="T1000I", time=f"2026-11-27T10:00:0{number}Z")
        await page.locator("#tail li").nth(2).wait_for()
        await page.locator("article[data-sink=archive]").wait_for()
        found = await Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"
        if PICTURES:
            await page.screenshot(path=str(Path(PICTURES) / f"page-{scheme}-{width}.png"), full_page=True)


async def test_a_sink_that_is_killed_is_said_within_three_seconds(
    browser: Browser, tmp_path: Path, collector: Collector
) -> None:
    collector.slow = 0.2
    async with simulated(tmp_path / "sim", "--events=20000", "--sessions=0") as ready:
        config = configuration(tmp_path, ready, collector)
        running = Started(await handler(config, "--listen=127.0.0.1:0", "--shutdown-timeout=0"))
        await running.until("listening")
        async with opened(browser, f"{running.lines[-1]['url']}/") as page:
            await page.locator("article.card.behind[data-sink=fluentd], article.card.ok[data-sink=fluentd]").wait_for()
            collector.fail_every = 1
            failed = time()
            await page.locator("article.failing[data-sink=fluentd] .reason").wait_for()
            assert "503" in await page.locator("article[data-sink=fluentd] .reason").inner_text()
            assert "needs attention: sink fluentd" in await page.locator("#overall").inner_text()
            took = time() - failed
            collector.fail_every = 0
            await page.locator("article[data-sink=fluentd]:not(.failing)").wait_for()
            await running.stop()
            await page.get_by_text("does not answer").wait_for()
    assert took < 60.0  # it is within 3 s on a machine at rest (docs/status.md)
