"""The OpenAPI document, made from the endpoints' own types."""

import importlib.metadata
from collections.abc import Sequence
from typing import Any

import msgspec

from indexer.api.endpoint import Endpoint, Html
from rheos.ids import MAX_ID_BYTES

_REFERENCES = "#/components/schemas/{name}"
_PHRASES = {
    200: "The answer.",
    202: "Written: the broker has acknowledged.",
    400: "The body is no JSON.",
    404: "Not known.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    422: "A value is refused; the message names it.",
    429: "Too many requests in work; see Retry-After.",
    503: "Not ready, too busy, or Kafka is away; see Retry-After.",
}


def document(endpoints: Sequence[Endpoint], max_k: int) -> dict[str, Any]:
    """OpenAPI 3.1 for ``endpoints``."""
    types = _types(endpoints)
    schemas, components = msgspec.json.schema_components(types, ref_template=_REFERENCES)
    schema_of = dict(zip(map(repr, types), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        operation: dict[str, Any] = {
            "summary": endpoint.summary,
            "operationId": f"{endpoint.method.lower()} {endpoint.path}",
            "parameters": [*_path_parameters(endpoint), *_query_parameters(endpoint, max_k)],
            "responses": {
                str(status): _response(status, schema_of[repr(kind)], kind)
                for status, kind in endpoint.answers.items()
            },
        }
        if endpoint.body is not None:
            operation["requestBody"] = {
                "required": True,
                "content": {"application/json": {"schema": schema_of[repr(endpoint.body)]}},
            }
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Rheos",
            "version": importlib.metadata.version("rheos"),
            "description": "What now for this user: recommendations that follow each event.",
        },
        "paths": paths,
        "components": {"schemas": components},
    }


def _types(endpoints: Sequence[Endpoint]) -> list[Any]:
    found: dict[str, Any] = {}
    for endpoint in endpoints:
        for kind in (*endpoint.answers.values(), endpoint.body):
            if kind is not None:
                found[repr(kind)] = kind
    return list(found.values())


def _path_parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    names = [part[1:-1] for part in endpoint.path.split("/") if part.startswith("{")]
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": f"1 to {MAX_ID_BYTES} bytes of UTF-8, no control characters.",
            "schema": {"type": "string", "minLength": 1, "maxLength": MAX_ID_BYTES},
        }
        for name in names
    ]


def _query_parameters(endpoint: Endpoint, max_k: int) -> list[dict[str, Any]]:
    _, components = msgspec.json.schema_components([endpoint.query], ref_template="{name}")
    properties = components[endpoint.query.__name__]["properties"]
    parameters = []
    for name, schema in properties.items():
        shown = dict(schema)
        description = shown.pop("description", "")
        if name == "k":
            shown["maximum"] = max_k
        if "anyOf" in shown:  # null is said by leaving the parameter out
            shown = next(kind for kind in shown["anyOf"] if kind != {"type": "null"})
        parameters.append(
            {
                "name": name,
                "in": "query",
                "required": False,
                "description": description,
                "schema": shown,
            }
        )
    return parameters


def _response(status: int, schema: dict[str, Any], kind: Any) -> dict[str, Any]:
    media = {str: "text/plain", Html: "text/html"}.get(kind, "application/json")
    return {"description": _PHRASES[status], "content": {media: {"schema": schema}}}
