"""One call over gRPC, on a connection that stays open: what the sink needs of grpclib."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any, cast

from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.const import Status
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError, StreamTerminatedError

from event_handler.ports import Delivered, Denied, Reject, Retry, Split, Verdict
from event_handler.sinks.http_tls import Tls
from event_handler.sinks.otlp.encode import rejected

EXPORT = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
# Which codes a client repeats (OTLP specification, "OTLP/gRPC throttling"); the others are for a person, but for those
# that are about the content.
PASSING_STATUS = frozenset(
    {
        Status.CANCELLED,
        Status.DEADLINE_EXCEEDED,
        Status.ABORTED,
        Status.OUT_OF_RANGE,
        Status.UNAVAILABLE,
        Status.DATA_LOSS,
        Status.RESOURCE_EXHAUSTED,
        Status.UNKNOWN,
        Status.INTERNAL,
    }
)


class _Bytes(CodecBase):
    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return cast(bytes, message)

    def decode(self, data: bytes, message_type: Any) -> Any:
        return data


class GrpcExport:
    """Sends requests to `host` and `port`, with TLS where there is a `tls`; `section` names the options in reasons."""

    def __init__(self, host: str, port: int, tls: Tls | None, timeout: float, section: str) -> None:
        self._host, self._port, self._tls = host, port, tls
        self._timeout = timeout
        self._section = section
        self._channel: Channel | None = None
        self._context: ssl.SSLContext | None = None

    async def send(self, request: bytes, headers: Mapping[str, str]) -> Verdict:
        """The verdict about a request."""
        channel = self._current()
        call: UnaryUnaryMethod[bytes, bytes] = UnaryUnaryMethod(channel, EXPORT, bytes, bytes)
        where = f"the receiver at {self._host}:{self._port}"
        try:
            answer = await asyncio.wait_for(call(request, timeout=self._timeout, metadata=dict(headers)), self._timeout)
        except GRPCError as error:
            return self._judge(error)
        except TimeoutError:
            return Retry(f"{where} does not answer within {self._timeout:g} s", unanswered=True)
        except ssl.SSLCertVerificationError as error:
            reason = f"the certificate of {where} is not trusted ({error.verify_message}); check {self._section}.ca"
            return Retry(reason, 60.0, misconfigured=True)
        except (OSError, StreamTerminatedError) as error:
            if channel is self._channel:  # the other calls on it fail too, and must not close the next one
                self.close()
            words = getattr(error, "strerror", "") or str(error) or type(error).__name__
            return Retry(f"no answer from {where} ({words}); check {self._section}.url", unanswered=True)
        return judge_export(answer)

    def _current(self) -> Channel:
        """The channel, made again when TLS files have changed."""
        context = self._tls.current() if self._tls else None
        if self._channel is None or context is not self._context:
            self.close()
            self._context = context
            if context is not None:
                context.set_alpn_protocols(["h2"])  # servers on grpc-go refuse a client that does not ask for it
            self._channel = Channel(self._host, self._port, ssl=context, codec=_Bytes())
        return self._channel

    def _judge(self, error: GRPCError) -> Verdict:
        said = f"the receiver answered {error.status.name}: {error.message or ''}".rstrip(": ")
        if error.status is Status.RESOURCE_EXHAUSTED and "larger than max" in (error.message or ""):
            return Split(said)
        if error.status in PASSING_STATUS:
            return Retry(said)
        if error.status is Status.INVALID_ARGUMENT:
            return Reject(said)
        return Denied(f"{said}; check {self._section}.url and how to sign in")

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None


def judge_export(answer: bytes) -> Verdict:
    """What a successful answer says.

    A receiver that refused some records does not say which, and must not be sent them again (OTLP specification,
    "Partial success"): the whole batch counts as refused, so that it comes again in halves, and what is refused at
    last, alone, is kept as a dead letter. Records beside it arrive twice.
    """
    count, text = rejected(answer)
    if count:
        return Reject(f"the receiver refused {count} records: {text}")
    return Delivered()
