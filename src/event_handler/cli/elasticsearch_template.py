"""`elasticsearch-template`: prints the index template for those who put it themselves."""

from __future__ import annotations

import re
from typing import Any

import click
import orjson

from event_handler.cli.command_line import Command
from event_handler.errors import UsageError
from event_handler.sinks.elasticsearch.options import ElasticsearchOptions
from event_handler.sinks.elasticsearch.template import DATA_STREAM, Product, index_template, template_name

NEWEST = {"elasticsearch": "9.0", "opensearch": "3.0"}


@click.command(
    "elasticsearch-template",
    cls=Command,
    help="Print the index template of the elasticsearch sink, to put it yourself.",
)
@click.option(
    "--product",
    type=click.Choice(list(NEWEST)),
    default="elasticsearch",
    help="what it is for [default: elasticsearch]",
)
@click.option("--product-version", default="", metavar="VERSION", help="as 8.13 [default: the newest]")
@click.option("--target", default="", metavar="NAME", help="data stream or index [default: that of audit events]")
@click.option("--name", "only_name", is_flag=True, help="print the name of the template instead")
def elasticsearch_template(product: str, product_version: str, target: str, only_name: bool) -> None:
    target = target or ElasticsearchOptions().target
    if only_name:
        click.echo(template_name(target))
        return
    click.echo(
        orjson.dumps(
            _template(product, product_version or NEWEST[product], target), option=orjson.OPT_INDENT_2
        ).decode()
    )


def _template(product: str, version: str, target: str) -> dict[str, Any]:
    number = re.match(r"(\d+)\.(\d+)", version)
    if not number:
        raise UsageError(
            f"expected a version such as {NEWEST[product]}, got {version!r}", "Give --product-version as two numbers."
        )
    server = Product(product == "opensearch", (int(number[1]), int(number[2])))
    return index_template(target, server, data_stream=DATA_STREAM.fullmatch(target) is not None)
