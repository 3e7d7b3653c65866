"""The `elasticsearch` sink: Elasticsearch 8 and 9, OpenSearch 2 and 3, and whatever else speaks their bulk API."""

from event_handler.sinks.elasticsearch.options import ElasticsearchOptions
from event_handler.sinks.elasticsearch.sink import ElasticsearchSink
from event_handler.sinks.registry import SinkType

SINK = SinkType("Elasticsearch or OpenSearch, by the bulk API", ElasticsearchOptions, ElasticsearchSink)

__all__ = ["SINK", "ElasticsearchOptions", "ElasticsearchSink"]
