"""Serves metrics, health checks, the report and the status page over HTTP: on a port when asked, and on a local socket.

Health checks answer anybody, with no more than a word; everything else wants the token or the password where one is
set.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import ipaddress
import json
import os
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import structlog
from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from event_handler.errors import ConfigurationError
from event_handler.report import Report
from event_handler.tap import Tap
from event_handler.telemetry.metrics import ReportCollector, registry
from event_handler.telemetry.page import page_file

SOCKET_PATH_LIMIT = 103  # bytes of a socket's path that every system takes (macOS has 104 with the end)
PUSH_EVERY = 1.0  # seconds between reports to a viewer
MOST_VIEWERS = 50  # of the page at a time, each with two connections
TAIL_PAUSE = 0.25  # seconds between two writes to a viewer of the tail, so that a busy log costs little
LONGEST_BODY = 32 * 1024  # bytes of an event that the tail shows
LOOK_FOR_RENEWED = 60.0  # seconds between two looks for a renewed certificate; it was renewed days before its end
CLOSE_WITHIN = 1.0  # seconds for open connections when the process ends
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

ALLOWED = web.RequestKey("allowed", bool)

log = structlog.get_logger()
MakeReport = Callable[[], Awaitable[Report]]


@dataclass(frozen=True, slots=True)
class ListenOptions:
    """Where to listen (`host:port`), with which certificate, and who may ask; "" means none.

    `unprotected` allows an address that others can reach without a token or a password.
    """

    address: str
    cert: str = ""
    key: str = ""
    client_ca: str = ""
    token: str = field(default="", repr=False)
    user: str = ""
    password: str = field(default="", repr=False)
    unprotected: bool = False


class Listener:
    """One application for the port and the local socket. Raises ConfigurationError for options that cannot be used."""

    def __init__(self, report: MakeReport, tap: Tap, options: ListenOptions | None, socket: Path | None) -> None:
        self._report = report
        self._tap = tap
        self._options = options
        self._socket = socket
        self._runners: list[web.AppRunner] = []
        self._viewers = 0
        self._stopping = asyncio.Event()
        if options is not None:
            self._host, self._port = _address(options)
            self._tls = _tls(options)
            self._stamp = _stamp(options)

    async def run(self) -> None:
        """Serve until cancelled. Raises ConfigurationError when the port cannot be had."""
        try:
            if self._socket is not None:
                await self._listen_locally(self._socket)
            if self._options is not None:
                await self._listen()
            while True:
                await asyncio.sleep(LOOK_FOR_RENEWED)
                self._renew()
        finally:
            self._stopping.set()
            for runner in self._runners:
                await runner.cleanup()
            self._runners.clear()
            if self._socket is not None:
                with suppress(OSError):
                    self._socket.unlink()

    def _renew(self) -> None:
        """Take up a certificate that was renewed, for connections from now on."""
        options = self._options
        if options is None or self._tls is None or (stamp := _stamp(options)) == self._stamp:
            return
        self._stamp = stamp
        try:
            self._tls.load_cert_chain(options.cert, options.key, password="")
        except (OSError, ValueError) as error:
            log.warning("the renewed certificate for --listen cannot be used; the old one stays", error=str(error))
        else:
            log.info("took up the renewed certificate for --listen", file=options.cert)

    async def _listen_locally(self, socket: Path) -> None:
        """For `status` on this machine: a socket that only this user can open. It is no fault where there is none."""
        if len(os.fsencode(socket)) > SOCKET_PATH_LIMIT:
            log.debug("the path of the storage is too long for a local socket, so `status` cannot ask")
            return
        with suppress(OSError):
            socket.unlink()
        runner = await self._runner(None)
        before = os.umask(0o177)  # it is for its owner only from its first moment on
        try:
            await web.UnixSite(runner, str(socket)).start()
        except OSError as error:
            log.debug("there is no local socket, so `status` cannot ask", error=str(error))
        finally:
            os.umask(before)

    async def _listen(self) -> None:
        options = self._options
        assert options is not None  # noqa: S101 - for mypy
        runner = await self._runner(options)
        try:
            await web.TCPSite(runner, self._host, self._port, ssl_context=self._tls).start()
        except OSError as error:
            raise ConfigurationError(
                f"cannot listen on {options.address} ({error.strerror or error})", "Choose another --listen."
            ) from None
        port = runner.addresses[0][1]
        scheme = "https" if self._tls else "http"
        log.info("listening", url=f"{scheme}://{_shown(self._host)}:{port}")

    async def _runner(self, options: ListenOptions | None) -> web.AppRunner:
        app = web.Application(middlewares=[_guard(options)])
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/api/report", self._api_report)
        app.router.add_get("/api/reports", self._stream_reports)
        app.router.add_get("/api/tail", self._stream_tail)
        app.router.add_get("/", _page)
        app.router.add_get("/{file:[a-z.]+}", _page)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=CLOSE_WITHIN)
        await runner.setup()
        self._runners.append(runner)
        return runner

    async def _metrics(self, _: web.Request) -> web.Response:
        collector = ReportCollector()
        collector.report = await self._report()
        body = await asyncio.to_thread(generate_latest, registry(collector))
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _readyz(self, request: web.Request) -> web.Response:
        state = readiness(await self._report())
        body = state if request[ALLOWED] else {"ready": state["ready"]}
        return web.json_response(body, status=200 if state["ready"] else 503)

    async def _api_report(self, _: web.Request) -> web.Response:
        return web.json_response(body=report_json(await self._report()))

    async def _stream_reports(self, request: web.Request) -> web.StreamResponse:
        async def send(response: web.StreamResponse) -> None:
            while True:
                await response.write(b"data: %b\n\n" % report_json(await self._report()))
                await asyncio.sleep(PUSH_EVERY)

        return await self._stream(request, send)

    async def _stream_tail(self, request: web.Request) -> web.StreamResponse:
        prefix = request.query.get("type", "")

        async def send(response: web.StreamResponse) -> None:
            with self._tap.viewing() as viewer:
                await response.write(b": the tail begins\n\n")
                while True:
                    events = [event for event in await viewer.take() if event.type.startswith(prefix)]
                    lines = [b"data: %b\n" % shown_body(event.body) for event in events]
                    if viewer.missed:
                        lines.append(b"event: missed\ndata: %d\n" % viewer.missed)
                        viewer.missed = 0
                    await response.write(b"".join(line + b"\n" for line in lines))
                    await asyncio.sleep(TAIL_PAUSE)

        return await self._stream(request, send)

    async def _stream(
        self, request: web.Request, send: Callable[[web.StreamResponse], Awaitable[None]]
    ) -> web.StreamResponse:
        """Server-sent events until the viewer goes or the process ends."""
        if self._viewers >= 2 * MOST_VIEWERS:
            raise web.HTTPServiceUnavailable(text="too many viewers")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", **HEADERS})
        await response.prepare(request)
        self._viewers += 1
        sending = asyncio.ensure_future(send(response))
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({sending, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._viewers -= 1
            stopping.cancel()
            sending.cancel()
            with suppress(asyncio.CancelledError, ConnectionError):
                await sending
        return response


def readiness(report: Report) -> dict[str, Any]:
    """Whether the process is signed in and every sink takes events, with the state and the reason of each part.

    One that stands by is ready: to take over.
    """
    if report.standing_by:
        return {"ready": True, "parts": {"replica": {"ready": True, "reason": "stands by: another one is at work"}}}
    cluster = [reading for reading in report.readings if reading.connected]
    parts: dict[str, Any] = {
        "teleport": {
            "ready": bool(cluster),
            "reason": "" if cluster else next((one.failing for one in report.readings if one.failing), "not signed in"),
        }
    }
    for sink in report.sinks:
        parts[f"sink {sink.name}"] = {"ready": not sink.failing, "reason": sink.failing}
    return {"ready": all(part["ready"] for part in parts.values()), "parts": parts}


_OF_PARTS = ("readings", "sinks", "replicas")


def report_json(report: Report) -> bytes:
    """The report as the page and `status` read it, on one line."""
    sinks = []
    for sink in report.sinks:
        found = {name: getattr(sink, name) for name in sink.__dataclass_fields__ if name not in ("audit", "recordings")}
        found["load"] = [asdict(load) for load in sink.load]
        for stream, counters in (("audit", sink.audit), ("recordings", sink.recordings)):
            found[stream] = {
                name: getattr(counters, name)
                for name in counters.__dataclass_fields__
                if name not in ("requests", "batches")
            }
        sinks.append(found)
    whole = {name: getattr(report, name) for name in report.__dataclass_fields__ if name not in _OF_PARTS}
    whole |= {"readings": [asdict(reading) for reading in report.readings], "sinks": sinks, **readiness(report)}
    whole["replicas"] = [asdict(replica) for replica in report.replicas]
    return json.dumps(whole).encode()


def shown_body(body: bytes) -> bytes:
    """The body of an event for the tail, "" fields where it is too large to show. It has no line break: it is JSON."""
    return body if len(body) <= LONGEST_BODY else json.dumps({"event": "", "too_large": len(body)}).encode()


async def _page(request: web.Request) -> web.Response:
    found = page_file(request.match_info.get("file", "index.html"))
    if found is None:
        raise web.HTTPNotFound(headers=HEADERS)
    content, kind = found
    return web.Response(body=content, headers={"Content-Type": kind, **HEADERS})


def _guard(options: ListenOptions | None) -> Any:
    """Let pass who knows the token or the password, and anybody to the health checks; `None`: anybody to everything."""

    @web.middleware
    async def guard(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Any:
        request[ALLOWED] = options is None or _knows(request, options)
        if not request[ALLOWED] and request.path not in ("/healthz", "/readyz"):
            ask = {"WWW-Authenticate": 'Basic realm="teleport-event-handler", charset="UTF-8"'}
            raise web.HTTPUnauthorized(headers={**HEADERS, **(ask if options and options.user else {})})
        return await handler(request)

    return guard


def _knows(request: web.Request, options: ListenOptions) -> bool:
    given = request.headers.get("Authorization", "").encode()
    expected = []
    if options.token:
        expected.append(f"Bearer {options.token}".encode())
    if options.user:
        expected.append(b"Basic " + base64.b64encode(f"{options.user}:{options.password}".encode()))
    return not expected or any(hmac.compare_digest(given, one) for one in expected)


def _address(options: ListenOptions) -> tuple[str, int]:
    """Raises ConfigurationError for what is no address, and for one that others reach without a token or password."""
    host, colon, port = options.address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ConfigurationError(f"expected host:port in --listen, got {options.address!r}", "As 127.0.0.1:3000.")
    protected = options.token or options.user or options.client_ca
    if not _is_loopback(host) and not protected and not options.unprotected:
        raise ConfigurationError(
            f"--listen {options.address} can be reached from elsewhere, and nobody would have to sign in",
            "Set listen-token-file, or listen-user with listen-password-file, or say --listen-unprotected.",
        )
    return host, int(port)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _tls(options: ListenOptions) -> ssl.SSLContext | None:
    if bool(options.cert) != bool(options.key):
        raise ConfigurationError("only one of listen-cert and listen-key is set", "Set both or none.")
    if not options.cert:
        if options.client_ca:
            raise ConfigurationError("listen-client-ca is set without listen-cert", "Set listen-cert and listen-key.")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(options.cert, options.key, password="")
        if options.client_ca:
            context.load_verify_locations(options.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"the certificate for --listen cannot be used ({error})", "listen-cert and listen-key must be PEM."
        ) from None
    return context


def _stamp(options: ListenOptions) -> tuple[float, float]:
    """When certificate and key were written, 0 for what is not there."""
    return _written(options.cert), _written(options.key)


def _written(file: str) -> float:
    try:
        return Path(file).stat().st_mtime if file else 0.0
    except OSError:
        return 0.0


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host or "localhost"
