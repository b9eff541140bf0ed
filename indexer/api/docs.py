"""``/docs``: the OpenAPI document as one page of HTML that fetches nothing from anywhere."""

import json
from html import escape
from typing import Any

_STYLE = """
:root{color-scheme:light dark;--line:#8884;--soft:#8881;--accent:#0a7d76}
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{font-weight:600;margin-bottom:0}h2{margin:2.5rem 0 .5rem}
article{border:1px solid var(--line);border-radius:8px;padding:1rem 1.2rem;margin:1rem 0}
article h3{margin:0;font:600 1rem ui-monospace,monospace;overflow-wrap:anywhere}
article h3 b{color:var(--accent);display:inline-block;min-width:4.5rem}
table{border-collapse:collapse;width:100%;margin:.6rem 0}
td,th{border-top:1px solid var(--line);padding:.3rem .6rem .3rem 0;text-align:left;
vertical-align:top}
code,pre{font:.875rem/1.45 ui-monospace,monospace}
pre{background:var(--soft);border-radius:6px;padding:.8rem;overflow:auto;margin:.4rem 0}
a{color:var(--accent)}summary{cursor:pointer}
"""


def page(document: dict[str, Any]) -> str:
    """The whole page."""
    operations = "".join(
        _operation(path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    )
    schemas = "".join(
        f'<article id="{escape(name)}"><h3>{escape(name)}</h3>'
        f"<p>{escape(schema.get('description', ''))}</p>{_schema(schema)}</article>"
        for name, schema in document["components"]["schemas"].items()
    )
    info = document["info"]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(info['title'])} API</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(info['title'])} API {escape(info['version'])}</h1>"
        f"<p>{escape(info['description'])} The same for programs:"
        ' <a href="/openapi.json">/openapi.json</a>.</p>'
        f"<h2>Requests</h2>{operations}<h2>Shapes</h2>{schemas}</body></html>"
    )


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(one['name'])}</code></td><td>{escape(one['in'])}</td>"
        f"<td>{escape(one['description'])} {_default(one['schema'])}</td></tr>"
        for one in operation["parameters"]
    )
    body = ""
    if "requestBody" in operation:
        body = "<p>Body: " + _named(operation["requestBody"]["content"]) + "</p>"
    answers = "".join(
        f"<tr><td><code>{status}</code></td><td>{escape(answer['description'])}</td>"
        f"<td>{_named(answer['content'])}</td></tr>"
        for status, answer in operation["responses"].items()
    )
    return (
        f"<article><h3><b>{method.upper()}</b>{escape(path)}</h3>"
        f"<p>{escape(operation['summary'])}</p>"
        + (f"<table>{rows}</table>" if rows else "")
        + body
        + f"<table>{answers}</table></article>"
    )


def _default(schema: dict[str, Any]) -> str:
    if schema.get("default") in (None, []):
        return ""
    return f"Default <code>{escape(json.dumps(schema['default']))}</code>."


def _named(content: dict[str, Any]) -> str:
    """The name of a body's schema, linked where it has one."""
    (media, said), *_ = content.items()
    return _linked(said["schema"]) if media == "application/json" else escape(media)


def _linked(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if schema.get("type") == "array":
        return f"list of {_linked(schema['items'])}"
    if "anyOf" in schema:
        return " or ".join(_linked(kind) for kind in schema["anyOf"])
    return escape(str(schema.get("type", "any")))


def _schema(schema: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{_linked(field)}</td>"
        f"<td>{escape(field.get('description', ''))} {_default(field)}</td></tr>"
        for name, field in schema.get("properties", {}).items()
    )
    return f"<table>{rows}</table>" if rows else ""
