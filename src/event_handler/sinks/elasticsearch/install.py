"""Installs the index templates before the first event is delivered."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import orjson
import structlog
from yarl import URL

from event_handler.ports import Retry
from event_handler.sinks.answers import PASSING
from event_handler.sinks.elasticsearch.answers import refusal_text
from event_handler.sinks.elasticsearch.template import (
    DATA_STREAM,
    OWNER,
    TEMPLATE_VERSION,
    Product,
    index_template,
    template_name,
)
from event_handler.sinks.http import MISCONFIGURED_WAIT, Answer, HttpClient

NOT_THERE = 404

log = structlog.get_logger()


class _HinderedError(Exception):
    """Carries why the templates cannot be installed now."""

    def __init__(self, verdict: Retry) -> None:
        super().__init__(verdict.reason)
        self.verdict = verdict


class Installer:
    """Puts a template for each of the `targets`, once. A newer one, and one that is not ours, stays as it is."""

    def __init__(self, client: HttpClient, base: URL, targets: Sequence[str], section: str) -> None:
        self._client = client
        self._section = section
        self._base = base
        self._targets = tuple(dict.fromkeys(targets))
        self._done = False
        self._lock = asyncio.Lock()

    async def ensure(self) -> Retry | None:
        """None when all is in place.

        Else why delivery waits: without the template the first event would make a wrong mapping.
        """
        async with self._lock:
            if not self._done:
                try:
                    product = await self._product()
                    for target in self._targets:
                        await self._install(target, product)
                except _HinderedError as error:
                    return error.verdict
                self._done = True
        return None

    async def _product(self) -> Product:
        said = (await self._ask("GET", "/", "say which product and version it is")).get("version")
        number = re.match(r"(\d+)\.(\d+)", str(said.get("number"))) if isinstance(said, dict) else None
        if said is None or number is None:
            reason = (
                f"cannot install the index template: {self._section}.url does not answer as Elasticsearch or OpenSearch"
            )
            raise _HinderedError(
                Retry(f"{reason}; set {self._section}.template to none", MISCONFIGURED_WAIT, misconfigured=True)
            )
        return Product(said.get("distribution") == "opensearch", (int(number[1]), int(number[2])))

    async def _install(self, target: str, product: Product) -> None:
        name = template_name(target)
        path = f"/_index_template/{quote(name, safe='')}"
        there = (await self._ask("GET", path, "show the one that is there", missing={})).get("index_templates", [])
        if there and not self._is_to_be_replaced(name, there[0]["index_template"]):
            return
        found = await self._look("GET", f"/_resolve/index/{quote(target, safe='')}")
        as_index = bool(found.get("indices") or found.get("aliases"))
        data_stream = bool(found.get("data_streams")) or (DATA_STREAM.fullmatch(target) is not None and not as_index)
        body = index_template(target, product, data_stream=data_stream)
        said = await self._ask("PUT", path, "take it", body=body)
        if not said.get("acknowledged"):
            log.warning(
                "the server does not confirm the index template, is it Elasticsearch or OpenSearch?", template=name
            )
            return
        form = "data stream" if data_stream else "index"
        log.info("index template installed", template=name, version=TEMPLATE_VERSION, target=target, form=form)
        await self._tell_if_another_wins(name, target)
        if found.get("data_streams"):
            log.warning(
                "the data stream was there before its template and keeps its old mapping until its next index",
                target=target,
                next_step=f"To begin the next index now: POST /{target}/_rollover",
            )
        elif as_index:
            log.warning(
                "the index was there before its template and keeps its old mapping",
                target=target,
                next_step="Deliver to a new index, or to an alias that is rolled over (docs/sinks-elasticsearch.md).",
            )

    def _is_to_be_replaced(self, name: str, there: dict[str, Any]) -> bool:
        version = there.get("version", 0)
        if there.get("_meta", {}).get("managed_by") != OWNER:
            log.warning(
                "an index template of this name is there and is not ours, it stays as it is",
                template=name,
                next_step=f"Delete it to have ours, or set {self._section}.template to none.",
            )
            return False
        if version > TEMPLATE_VERSION:
            log.warning(
                "the index template is of a newer version, it stays as it is",
                template=name,
                version=version,
                ours=TEMPLATE_VERSION,
            )
        return bool(version < TEMPLATE_VERSION)

    async def _tell_if_another_wins(self, name: str, target: str) -> None:
        path = f"/_index_template/_simulate_index/{quote(target, safe='')}"
        said = await self._look("POST", path)
        ours = said.get("template", {}).get("mappings", {}).get("_meta", {}).get("managed_by") == OWNER
        if said and not ours:
            log.warning(
                "another index template of a higher priority counts for the target instead of ours",
                template=name,
                target=target,
                next_step="GET /_index_template shows them all.",
            )

    async def _look(self, method: str, path: str) -> dict[str, Any]:
        """Return the answer's object, an empty one when there is none: it only makes what we say more exact."""
        answer = await self._client.request(method, self._url(path), b"")
        return _object(answer.body) or {} if isinstance(answer, Answer) and answer.status == 200 else {}

    async def _ask(
        self,
        method: str,
        path: str,
        doing: str,
        *,
        body: dict[str, Any] | None = None,
        missing: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Return the answer's object, or `missing` where it is given and nothing is there."""
        answer = await self._client.request(method, self._url(path), orjson.dumps(body) if body else b"")
        if isinstance(answer, Retry):
            raise _HinderedError(answer)
        if answer.status == NOT_THERE and missing is not None:
            return missing
        if answer.status != 200:
            raise _HinderedError(_hindrance(answer, doing, self._section))
        said = _object(answer.body)
        if said is None:
            reason = (
                f"cannot install the index template: the answer to {method} {path} is not a JSON object; check "
                f"{self._section}.url"
            )
            raise _HinderedError(Retry(reason, MISCONFIGURED_WAIT, misconfigured=True))
        return said

    def _url(self, path: str) -> URL:
        return self._base.with_path(self._base.raw_path.rstrip("/") + path, encoded=True)


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        said = orjson.loads(body)
    except ValueError:
        return None
    return said if isinstance(said, dict) else None


def _hindrance(answer: Answer, doing: str, section: str) -> Retry:
    reason = f"cannot install the index template, the server refused to {doing}: {refusal_text(answer)}"
    if answer.status in PASSING or answer.status >= 500:
        return Retry(reason)
    advice = f"give the user of {section} the rights that docs/sinks-elasticsearch.md names"
    other = (
        f"put the template yourself (teleport-event-handler elasticsearch-template) and set {section}.template to none"
    )
    return Retry(f"{reason}; {advice}, or {other}", MISCONFIGURED_WAIT, misconfigured=True)
