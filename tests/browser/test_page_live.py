"""The page on the real loop: Chromium, indexer, Kafka, stream worker."""

import asyncio
import random
import uuid
from collections.abc import Iterator

import pytest
from playwright.async_api import Page, expect

from rheos.local_kafka import KafkaProcess
from tests.browser.conftest import OpenPage
from tests.browser.fake_api import TITLES
from tests.browser.live_stack import LiveStack

pytestmark = [
    pytest.mark.browser,
    pytest.mark.kafka,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
]

HOSTILE = '<img src=x onerror="alert(1)">'
ITEM_IDS = [f"{21_000 + row}" for row in range(len(TITLES))]
USERS = 40


@pytest.fixture(scope="module")
def stack(
    run_broker: KafkaProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveStack]:
    """A shop that runs: a catalogue, and customers who take items that stand near each other."""
    run_broker.start()
    started = LiveStack(
        run_broker.bootstrap, f"t{uuid.uuid4().hex[:12]}", tmp_path_factory.mktemp("live")
    )
    try:
        started.start("stream")
        started.start("indexer")
        started.wait_ready()
        fill(started)
        yield started
    finally:
        started.close()


def fill(stack: LiveStack) -> None:
    for row, item_id in enumerate(ITEM_IDS):
        title = HOSTILE if row == 3 else TITLES[row]
        item = {"item_id": item_id, "title": title, "price": 1.25 + row, "category": "home"}
        response = stack.api.put(f"v1/items/{item_id}", json=item)
        assert response.is_success, response.text
    draw = random.Random(7)
    events = []
    for user in range(USERS):
        at = draw.randrange(len(ITEM_IDS))
        for step in range(6):
            item_id = ITEM_IDS[(at + draw.randrange(5)) % len(ITEM_IDS)]
            kind = "purchase" if step % 3 == 2 else "click"
            event = {"user_id": f"c{user}", "item_id": item_id, "type": kind}
            # Without an id of its own, the same item in the same millisecond is a duplicate.
            events.append({**event, "event_id": f"e{len(events)}"})
    stack.post("v1/events", events)
    stack.until(
        lambda: all(stack.api.get(f"v1/users/c{user}").status_code == 200 for user in range(USERS))
    )


async def shown_titles(page: Page) -> list[str]:
    return await page.locator(".row:not(.is-leaving) .title").all_inner_texts()


async def test_a_click_goes_through_kafka_and_back_and_the_list_changes_within_a_second(
    stack: LiveStack, open_page: OpenPage
) -> None:
    async with open_page() as page:
        await page.goto(stack.url)
        await expect(page.locator(".customer").first).to_be_visible()
        await page.goto(stack.url + "?user=c3")
        await expect(page.locator("h1")).to_have_text("Customer c3")
        await expect(page.locator(".row")).to_have_count(12)
        await expect(page.locator(".entry")).to_have_count(6)
        await expect(page.locator("[data-vital=state]")).to_contain_text("live")
        for count in range(1, 6):
            before = await shown_titles(page)
            await page.locator(".row [data-take=click]").nth(count % 3).click()
            await expect(page.locator(".column")).to_have_count(count)
            after = await shown_titles(page)
            assert before[count % 3] not in after
            await expect(page.locator(".entry-title").first).to_have_text(before[count % 3])
        measured = await page.locator(".column .hidden").all_inner_texts()
        milliseconds = [int(text.split(" ms")[0].replace(",", "")) for text in measured]
        print("milliseconds from click to changed list:", milliseconds)
        assert sorted(milliseconds)[len(milliseconds) // 2] < 1_000
        reading = await page.locator("#gauge-ms").inner_text()
        assert 0 < int(reading.replace(",", "")) in milliseconds


async def test_the_list_does_not_change_while_no_stream_worker_runs_and_does_when_one_comes_back(
    stack: LiveStack, open_page: OpenPage
) -> None:
    async with open_page() as page:
        await page.goto(stack.url + "?user=c4")
        await expect(page.locator(".row")).to_have_count(12)
        before = await shown_titles(page)
        await asyncio.to_thread(stack.stop, "stream")
        await page.locator(".row [data-take=purchase]").first.click()
        await expect(page.locator("#gauge-caption")).to_contain_text("has not folded it in yet")
        assert await shown_titles(page) == before
        stack.start("stream")
        await expect(page.locator(".column")).to_have_count(1, timeout=60_000)
        assert before[0] not in await shown_titles(page)
        await expect(page.locator(".entry-type").first).to_have_text("purchase")


async def test_a_new_customer_begins_with_the_trend_and_a_hostile_title_stays_text(
    stack: LiveStack, open_page: OpenPage
) -> None:
    async with open_page() as page:
        await page.goto(stack.url)
        await page.get_by_role("button", name="Be a new customer").click()
        await expect(page.locator("h1")).to_contain_text("guest-")
        await expect(page.locator(".row .source").first).to_have_text("trend")
        await page.fill("#search", "onerror")
        await expect(page.locator(".find .title")).to_have_text([HOSTILE])
        await page.locator(".find [data-take=purchase]").click()
        await expect(page.locator(".column")).to_have_count(1)
        await expect(page.locator(".entry-title")).to_have_text([HOSTILE])
        await expect(page.locator(".row .because").first).to_contain_text(HOSTILE)
        await expect(page.locator("body img")).to_have_count(0)


async def test_strange_ids_reach_the_api_as_they_are(stack: LiveStack, open_page: OpenPage) -> None:
    async with open_page() as page:
        for user in ("a/b?c=d#e%2F&ü", HOSTILE, "50% off"):
            await page.goto(stack.url)
            await page.fill("#customer-id", user)
            await page.get_by_role("button", name="Show", exact=True).click()
            await expect(page.locator("h1")).to_have_text(f"Customer {user}")
            await page.locator(".row [data-take=click]").first.click()
            await expect(page.locator(".entry")).to_have_count(1)


async def test_a_hot_swap_of_the_real_indexer_is_announced(
    stack: LiveStack, open_page: OpenPage
) -> None:
    first = await asyncio.to_thread(stack.publish, ITEM_IDS, 1)
    async with open_page() as page:
        await page.goto(stack.url + "?user=c5")
        await expect(page.locator("[data-vital=generation]")).to_contain_text(first)
        await expect(page.locator("#list-facts")).to_contain_text(first)
        second = await asyncio.to_thread(stack.publish, ITEM_IDS, 2)
        await expect(page.locator(".notice")).to_contain_text(f"{second} took over from {first}")
        await expect(page.locator("#list-facts")).to_contain_text(second)
        await expect(page.locator(".row")).to_have_count(12)
