"""The HTTP API: a file a resource, each a list of endpoints that routing and OpenAPI share."""
