"""The API is documented: every route, status code and error code."""

import re
from pathlib import Path

from indexer.api import docs, openapi
from indexer.api.app import endpoints

ROOT = Path(__file__).resolve().parents[2]
API = (ROOT / "docs" / "api.md").read_text("utf-8")


def test_every_route_stands_in_the_docs() -> None:
    for endpoint in endpoints():
        assert f"`{endpoint.method} {endpoint.path}`" in API, endpoint.path


def test_every_route_of_the_docs_exists() -> None:
    real = {f"{endpoint.method} {endpoint.path}" for endpoint in endpoints()}
    real |= {"GET /openapi.json", "GET /docs", "GET /"}
    told = set(re.findall(r"`((?:GET|PUT|POST|DELETE) /[^`\s]*)`", API))
    assert told == real


def test_every_query_parameter_and_error_code_stands_in_the_docs() -> None:
    document = openapi.document(endpoints(), max_k=500)
    for methods in document["paths"].values():
        for operation in methods.values():
            for parameter in operation["parameters"]:
                if parameter["in"] == "query":
                    assert f"`{parameter['name']}`" in API, parameter["name"]
                    assert parameter["description"]
    for path in (ROOT / "indexer" / "api").glob("*.py"):
        source = path.read_text("utf-8")
        for code in re.findall(r'(?:ApiError\(\s*\d+,|unavailable\()\s*"(\w+)"', source):
            assert f"`{code}`" in API, f"{path.name}: {code}"


def test_the_docs_page_escapes_and_links_every_shape() -> None:
    document = openapi.document(endpoints(), max_k=77)
    page = docs.page(document)
    for name in document["components"]["schemas"]:
        assert f'id="{name}"' in page
    assert "<script" not in page
    parameters = document["paths"]["/v1/users/{user_id}/recommendations"]["get"]["parameters"]
    assert next(one for one in parameters if one["name"] == "k")["schema"]["maximum"] == 77
