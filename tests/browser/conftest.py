"""Pages in a real Chromium. One browser serves a test module, a fresh context each test."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright, expect

from tests.browser.fake_api import FakeApi, FakeServer, serve

PATIENCE_MS = 60_000
"""For what a busy machine delays; nothing waits so long for what is there."""


class OpenPage(Protocol):
    """Opens a blank page in a context of its own; options are Playwright's `new_context`'s."""

    def __call__(self, **options: Any) -> AbstractAsyncContextManager[Page]: ...


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(chromium: str) -> AsyncIterator[Browser]:
    expect.set_options(timeout=PATIENCE_MS)
    async with async_playwright() as playwright:
        # Playwright gives each launch a user-data-dir of its own.
        launched = await playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-background-networking"]
        )
        yield launched
        await launched.close()


@pytest.fixture
def open_page(browser: Browser) -> OpenPage:
    @asynccontextmanager
    async def opened(**options: Any) -> AsyncIterator[Page]:
        context = await browser.new_context(
            **{"viewport": {"width": 1280, "height": 900}, "locale": "en-GB", **options}
        )
        context.set_default_timeout(PATIENCE_MS)
        page = await context.new_page()
        failures: list[str] = []
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.on("dialog", lambda dialog: failures.append(f"dialog: {dialog.message}"))
        page.on(
            "console",
            lambda line: (
                failures.append(line.text)
                if line.type == "error" and "Failed to load resource" not in line.text
                else None
            ),
        )
        yield page
        await context.close()
        assert failures == [], "the page raised, logged or was stopped by its security policy"

    return opened


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


@pytest.fixture
def server(api: FakeApi) -> Iterator[FakeServer]:
    with serve(api) as running:
        yield running
