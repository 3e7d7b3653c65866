"""The `elasticsearch` sink: Elasticsearch 8 and 9, OpenSearch 2 and 3, and whatever else speaks their bulk API."""

from event_handler.sinks.elasticsearch.options import ElasticsearchSettings
from event_handler.sinks.elasticsearch.sink import ElasticsearchSink

__all__ = ["ElasticsearchSettings", "ElasticsearchSink"]
