"""The page's files over HTTP, without Kafka."""

from pathlib import Path

import httpx
import pytest

from indexer.api.app import PAGE, create_app
from rheos.settings import from_tree


@pytest.mark.parametrize(
    "path", ["/", *(f"/page/{file.name}" for file in sorted(PAGE.glob("*.*")))]
)
async def test_no_file_of_the_page_is_used_again_unasked(path: str, tmp_path: Path) -> None:
    app = create_app(from_tree({"data_dir": str(tmp_path)}))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://rheos") as client:
        answer = await client.get(path)
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-cache"
        tag = {"if-none-match": answer.headers["etag"]}
        again = await client.get(path, headers=tag)
        assert again.status_code == (200 if path == "/" else 304)
        assert again.headers["cache-control"] == "no-cache"
