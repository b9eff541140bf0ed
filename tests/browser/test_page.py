"""The page's behaviour, on a fake API where a state is hard to produce with the real one."""

import asyncio
import time
from urllib.parse import quote

import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.fake_api import START_MS, TITLES, FakeApi, FakeServer

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

HOSTILE = '<img src=x onerror="alert(1)"><script>alert(2)</script>&lt;b&gt;'


async def reading_ms(page: Page) -> int:
    return int((await page.locator("#gauge-ms").inner_text()).replace(",", ""))


async def titles(page: Page) -> list[str]:
    return await page.locator(".row:not(.is-leaving) .title").all_inner_texts()


async def test_history_stands_newest_first_beside_recommendations_that_name_source_and_reason(
    server: FakeServer, open_page: OpenPage
) -> None:
    async with open_page() as page:
        await page.goto(server.url + "?user=17850")
        await expect(page.get_by_role("heading", name="Customer 17850")).to_be_visible()
        await expect(page.locator(".entry-title")).to_have_text([TITLES[4], TITLES[9], TITLES[2]])
        await expect(page.locator(".entry-type")).to_have_text(["click", "purchase", "click"])
        await expect(page.locator(".row")).to_have_count(12)
        first = page.locator(".row").first
        await expect(first.locator(".source")).to_have_text("next")
        await expect(first.locator(".because")).to_have_text(f"because of {TITLES[4]}")
        await expect(first.locator(".score-number")).to_have_text("1.10")
        await expect(page.locator("#list-facts")).to_contain_text("generation 3-91c0ab12")
        await expect(page.locator("#list-facts")).to_contain_text("events[2]@102")


async def test_a_click_changes_the_list_in_place_and_shows_its_milliseconds(
    api: FakeApi, server: FakeServer, open_page: OpenPage
) -> None:
    api.stream_delay_s = 0.12
    async with open_page() as page:
        await page.goto(server.url + "?user=17850")
        await expect(page.locator(".row")).to_have_count(12)
        before = await titles(page)
        began_s = time.monotonic()
        await page.get_by_role("button", name=f"Click {before[1]}").click()
        await expect(page.locator(".column")).to_have_count(1)
        waited_ms = 1000 * (time.monotonic() - began_s)
        after = await titles(page)
        assert before[1] not in after
        assert after != before
        assert len(after) == 12
        await expect(page.locator(".entry-title").first).to_have_text(before[1])
        assert 120 <= await reading_ms(page) <= waited_ms
        await expect(page.locator("#gauge-caption")).to_contain_text(f"Clicked {before[1]}: 1 left")
        (event,) = api.posted
        assert event["user_id"] == "17850"
        assert event["type"] == "click"
        assert api.titles[event["item_id"]] == before[1]
        assert event["event_id"], "two clicks are two events"
        assert event["request_id"], "a click names the answer that showed the item"
        assert "time_ms" not in event, "the server's clock rules, which may be the stream's"

        await page.get_by_role("button", name=f"Buy {after[0]}").click()
        await expect(page.locator(".column")).to_have_count(2)
        assert api.posted[1]["type"] == "purchase"
        await expect(page.locator(".entry-type").first).to_have_text("purchase")


async def test_the_clock_stops_only_when_the_list_has_reached_the_offset_of_the_click(
    api: FakeApi, server: FakeServer, open_page: OpenPage
) -> None:
    api.is_stream_held = True
    async with open_page() as page:
        await page.goto(server.url + "?user=17850")
        await expect(page.locator(".row")).to_have_count(12)
        before = await titles(page)
        await page.locator(".row [data-take=click]").first.click()
        await expect(page.locator("#gauge")).to_have_attribute("data-state", "waiting")
        clicked_s = time.monotonic()
        await expect(page.locator("#gauge-caption")).to_contain_text("has not folded it in yet")
        assert await titles(page) == before
        held_ms = 1000 * (time.monotonic() - clicked_s)
        api.release_stream()
        await expect(page.locator(".column")).to_have_count(1)
        assert await reading_ms(page) >= max(3_000, held_ms)
        assert await titles(page) != before


async def test_clicks_in_quick_succession_are_each_measured(
    api: FakeApi, server: FakeServer, open_page: OpenPage
) -> None:
    api.stream_delay_s = 0.3
    async with open_page() as page:
        await page.goto(server.url + "?user=17850")
        await expect(page.locator(".row")).to_have_count(12)
        for rank in range(3):
            await page.locator(".row [data-take=click]").nth(rank).click()
        await expect(page.locator(".column")).to_have_count(3)
        await expect(page.locator(".entry")).to_have_count(6)
        assert len(api.posted) == 3


async def test_a_list_is_asked_for_once_a_click_so_that_impressions_are_what_was_shown(
    api: FakeApi, server: FakeServer, open_page: OpenPage
) -> None:
    api.stream_delay_s = 0.3
    async with open_page() as page:
        await page.goto(server.url + "?user=17850")
        await expect(page.locator(".row")).to_have_count(12)
        asked = len(api.asked)
        await page.locator(".row [data-take=click]").first.click()
        await expect(page.locator(".column")).to_have_count(1)
        assert len(api.asked) == asked + 1


async def test_hostile_titles_and_ids_stay_text(
    api: FakeApi, server: FakeServer, open_page: OpenPage
) -> None:
    user = 'a/b?c=d#e%2F&"<b>ü'
    api.titles = {
        item if row else 'item/"<i>?#%': f"{HOSTILE} {row}" for row, item in enumerate(api.titles)
    }
    api.generation = "<u>3</u>"
    api._fold(HOSTILE, "21001", HOSTILE, 1_760_000_000_000, 5)
    async with open_page() as page:
        await page.goto(server.url + "?user=17850")
        await expect(page.locator(".row")).to_have_count(12)
        await expect(page.locator(".row .title").first).to_contain_text(HOSTILE)
        await page.fill("#search", "onerror")
        await expect(page.locator(".find")).to_have_count(8)
        await expect(page.locator(".find .title").first).to_have_text(f"{HOSTILE} 0")
        await page.locator(".find [data-take=click]").first.click()
        await expect(page.locator(".column")).to_have_count(1)
        await expect(page.locator("#gauge-caption")).to_contain_text(HOSTILE)
        assert api.posted[0]["item_id"] == 'item/"<i>?#%'

        await page.get_by_role("button", name=HOSTILE, exact=True).click()
        await expect(page.locator("h1")).to_have_text(f"Customer {HOSTILE}")
        await expect(page.locator(".entry-type")).to_have_text(HOSTILE)

        await page.fill("#customer-id", user)
        await page.get_by_role("button", name="Show").click()
        await expect(page.locator("h1")).to_have_text(f"Customer {user}")
        await expect(page.locator(".row")).to_have_count(12)
        assert api.asked[-1] == user
        assert page.url.endswith("?user=" + quote(user, safe="").replace("%20", "+"))
        for tag in ("img", "script:not([type=module])", "b", "i", "u"):
            await expect(page.locator(f"body {tag}")).to_have_count(0)


@pytest.mark.parametrize("user", [".", ".."])
async def test_an_id_that_no_url_can_name_is_refused_with_a_reason(
    user: str, api: FakeApi, server: FakeServer, open_page: OpenPage
) -> None:
    async with open_page() as page:
        await page.goto(server.url + f"?user={user}")
        await expect(page.locator("#list-state")).to_contain_text("cannot name the id")
        assert user not in api.asked


async def test_while_the_indexer_catches_up_the_page_says_so_and_then_shows_the_list_by_itself(
    api: FakeApi, server: FakeServer, open_page: OpenPage
) -> None:
    api.ready = False
    async with open_page() as page:
        await page.goto(server.url + "?user=17850")
        await expect(page.locator("#list-state")).to_contain_text("Catching up")
        await expect(page.locator("#list-state")).to_contain_text(
            "Reading the topics: 12000 messages to go."
        )
        await expect(page.locator("[data-vital=state]")).to_contain_text("catching up")
        await expect(page.locator(".row")).to_have_count(0)
        api.ready = True
        await expect(page.locator(".row")).to_have_count(12)
        await expect(page.locator("#list-state")).to_be_empty()
        await expect(page.locator("[data-vital=state]")).to_contain_text("live")


async def test_a_busy_indexer_is_asked_again(
    api: FakeApi, server: FakeServer, open_page: OpenPage
) -> None:
    api.is_busy = True
    async with open_page() as page:
        await page.goto(server.url + "?user=17850")
        await expect(page.locator("#list-state")).to_contain_text("Busy.")
        api.is_busy = False
        await expect(page.locator(".row")).to_have_count(12)


async def test_with_the_streams_clock_now_is_what_the_stream_says(
    api: FakeApi, server: FakeServer, open_page: OpenPage
) -> None:
    api.stream_now_ms = START_MS + 5 * 3_600_000
    api.lag_messages = 1_234
    async with open_page() as page:
        await page.goto(server.url + "?user=17850")
        await expect(page.locator(".entry time")).to_have_text(
            ["3 hours ago", "4 hours ago", "5 hours ago"]
        )
        await expect(page.locator("[data-vital=now]")).to_contain_text("9 Oct 2025")
        await expect(page.locator("[data-vital=state]")).to_contain_text("1,234 messages behind")


async def test_when_the_api_goes_away_the_page_says_so_keeps_the_list_and_comes_back(
    api: FakeApi, server: FakeServer, open_page: OpenPage
) -> None:
    async with open_page() as page:
        await page.goto(server.url + "?user=17850")
        await expect(page.locator(".row")).to_have_count(12)
        await asyncio.to_thread(server.stop)
        await page.locator(".row [data-take=click]").first.click()
        await expect(page.locator("#gauge-caption")).to_contain_text("Not clicked")
        await expect(page.locator("#list-state")).to_contain_text("does not answer")
        await expect(page.locator("[data-vital=state]")).to_contain_text("no answer")
        await expect(page.locator(".row")).to_have_count(12)
        await asyncio.to_thread(server.start)
        await expect(page.locator("#list-state")).to_be_empty()
        await page.locator(".row [data-take=click]").first.click()
        await expect(page.locator(".column")).to_have_count(1)


async def test_an_event_that_is_refused_is_said_so_and_counts_for_nothing(
    api: FakeApi, server: FakeServer, open_page: OpenPage
) -> None:
    api.refuse_events = True
    async with open_page() as page:
        await page.goto(server.url + "?user=17850")
        await page.locator(".row [data-take=purchase]").first.click()
        await expect(page.locator("#gauge-caption")).to_contain_text("Kafka did not acknowledge")
        await expect(page.locator(".is-taken")).to_have_count(0)
        await expect(page.locator(".column")).to_have_count(0)


async def test_a_new_customer_begins_with_the_trend_and_the_first_click_is_reflected(
    api: FakeApi, server: FakeServer, open_page: OpenPage
) -> None:
    async with open_page() as page:
        await page.goto(server.url)
        await page.get_by_role("button", name="Be a new customer").click()
        await expect(page.locator("h1")).to_contain_text("Customer guest-")
        await expect(page.locator("#customer-facts")).to_contain_text("No event yet")
        await expect(page.locator("#history")).to_have_attribute("data-empty", "true")
        await expect(page.locator(".row .source").first).to_have_text("trend")
        await page.locator(".row [data-take=click]").first.click()
        await expect(page.locator(".column")).to_have_count(1)
        await expect(page.locator(".entry")).to_have_count(1)
        await expect(page.locator(".row .source").first).to_have_text("next")
        guest = api.posted[0]["user_id"]
        await page.get_by_role("button", name="Be a new customer").click()
        await expect(page.locator("h1")).not_to_have_text(f"Customer {guest}")
        await page.go_back()
        await expect(page.locator("h1")).to_have_text(f"Customer {guest}")
        await expect(page.locator(".entry")).to_have_count(1)


async def test_without_customers_and_without_anything_to_recommend_the_page_explains_itself(
    api: FakeApi, server: FakeServer, open_page: OpenPage
) -> None:
    api.histories.clear()
    api.is_empty = True
    api.generation = None
    async with open_page() as page:
        await page.goto(server.url)
        await expect(page.locator("#list-state")).to_contain_text("No customers yet")
        await expect(page.locator("[data-vital=generation]")).to_contain_text("none yet")
        await page.get_by_role("button", name="Be a new customer").click()
        await expect(page.locator("#list-state")).to_contain_text("Nothing to recommend yet")
        api.is_empty = False
        await expect(page.locator(".row")).to_have_count(12)


async def test_items_are_found_by_title_and_can_be_taken_from_there(
    api: FakeApi, server: FakeServer, open_page: OpenPage
) -> None:
    async with open_page() as page:
        await page.goto(server.url + "?user=17850")
        await expect(page.locator(".row")).to_have_count(12)
        await page.keyboard.press("/")
        await page.keyboard.type("lantern")
        await expect(page.locator(".find")).to_have_count(1)
        await page.get_by_role("button", name="Buy Storm lantern").first.click()
        await expect(page.locator(".entry-title").first).to_have_text("Storm lantern")
        await page.fill("#search", "no such thing")
        await expect(page.locator("#search-facts")).to_have_text("No item with “no such thing”.")
        await page.locator("#search").press("Escape")
        await expect(page.locator("#search")).to_have_value("")


async def test_the_generations_name_leads_to_its_report_where_it_has_one(
    open_page: OpenPage, server: FakeServer, api: FakeApi
) -> None:
    async with open_page() as page:
        await page.goto(server.url)
        link = page.locator("[data-vital=generation]").get_by_role("link")
        await expect(page.locator("[data-vital=generation]")).to_contain_text("3-91c0ab12")
        assert await link.count() == 0
        api.has_report = True
        await expect(link).to_have_attribute("href", "/v1/generations/3-91c0ab12/report.html")
        await link.focus()
        api.generation = "4-7be2d950"
        await expect(link).to_have_attribute("href", "/v1/generations/4-7be2d950/report.html")
        await expect(link).to_be_focused()  # a new status takes nobody's place away


async def test_who_waits_for_the_first_generation_sees_how_far_its_fit_is(
    api: FakeApi, server: FakeServer, open_page: OpenPage
) -> None:
    api.generation = None
    began_ms = int(time.time() * 1000) - 70_000
    api.fit = {"model": "<b>mf", "stage": "fit", "done": 64, "total": 256, "began_ms": began_ms}
    async with open_page() as page:
        await page.goto(server.url)
        fit = page.locator("[data-vital=fit]")
        await expect(fit).to_contain_text("Fit of <b>mf")
        await expect(fit).to_contain_text("fit 25 %")
        await expect(fit).to_contain_text("1 min")
        api.fit = None
        api.generation = "3-91c0ab12"
        await expect(page.locator("[data-vital=generation]")).to_contain_text("3-91c0ab12")
        await expect(fit).to_have_count(0)


async def test_a_hot_swap_is_announced_and_the_list_is_of_the_new_generation(
    api: FakeApi, server: FakeServer, open_page: OpenPage
) -> None:
    async with open_page() as page:
        await page.goto(server.url + "?user=17850")
        await expect(page.locator("[data-vital=generation]")).to_contain_text("3-91c0ab12")
        await expect(page.locator("[data-vital=generation]")).to_contain_text("als, 4 min old")
        await expect(page.locator("#notice")).to_be_empty()
        api.generation = "4-7be2d950"
        api.generation_created_ms = int(time.time() * 1000)
        notice = page.get_by_role("status").filter(has_text="Hot swap")
        await expect(notice).to_contain_text("generation 4-7be2d950 took over from 3-91c0ab12")
        await expect(page.locator("#list-facts")).to_contain_text("4-7be2d950")
        await expect(page.locator("[data-vital=generation]")).to_contain_text("4-7be2d950")
        await page.get_by_role("button", name="Close this message").click()
        await expect(page.locator("#notice")).to_be_empty()


async def test_events_that_arrive_without_a_click_here_move_history_and_list_too(
    api: FakeApi, server: FakeServer, open_page: OpenPage
) -> None:
    async with open_page() as page:
        await page.goto(server.url + "?user=17850")
        await expect(page.locator(".entry")).to_have_count(3)
        api._fold("17850", "21020", "click", int(time.time() * 1000), 200)
        await expect(page.locator(".entry")).to_have_count(4)
        await expect(page.locator("#list-facts")).to_contain_text("events[2]@200")
        await expect(page.locator(".column")).to_have_count(0)


async def test_another_customer_never_gets_the_list_of_the_one_before(
    api: FakeApi, server: FakeServer, open_page: OpenPage
) -> None:
    api.is_stream_held = True
    async with open_page() as page:
        await page.goto(server.url + "?user=17850")
        await page.locator(".row [data-take=click]").first.click()
        await expect(page.locator("#gauge")).to_have_attribute("data-state", "waiting")
        await page.get_by_role("button", name="13047", exact=True).click()
        await expect(page.locator("h1")).to_have_text("Customer 13047")
        api.release_stream()
        await asyncio.sleep(0.8)
        await expect(page.locator(".entry-title")).to_have_text([TITLES[5], TITLES[7]])
        await expect(page.locator(".column")).to_have_count(0)
        await expect(page.locator("#gauge")).to_have_attribute("data-state", "failed")


async def test_everything_works_by_keyboard_and_focus_survives_a_changed_list(
    api: FakeApi, server: FakeServer, open_page: OpenPage
) -> None:
    async with open_page() as page:
        await page.goto(server.url + "?user=17850")
        await expect(page.locator(".row")).to_have_count(12)
        await page.keyboard.press("Tab")
        await expect(page.locator(".skip")).to_be_focused()
        await page.keyboard.press("Enter")
        # The jump to the fragment is a navigation of its own, which the next key must not outrun.
        await expect(page.locator("#recommendations")).to_be_focused()
        await page.keyboard.press("Tab")
        await expect(page.locator(".row [data-take=click]").first).to_be_focused()
        await page.keyboard.press("Tab")
        for bought in (1, 2, 3):
            await page.keyboard.press("Enter")
            await expect(page.locator(".column")).to_have_count(bought)
            await expect(page.locator(".row [data-take=purchase]").first).to_be_focused()
        assert [event["type"] for event in api.posted] == ["purchase"] * 3


async def test_rows_glide_unless_the_visitor_prefers_less_motion(
    server: FakeServer, open_page: OpenPage
) -> None:
    moving: dict[str, bool] = {}
    for motion in ("no-preference", "reduce"):
        async with open_page(reduced_motion=motion) as page:
            await page.goto(server.url + "?user=17850")
            await expect(page.locator(".row")).to_have_count(12)
            await page.evaluate(
                """() => {
                  window.animated = 0;
                  const animate = Element.prototype.animate;
                  Element.prototype.animate = function (...args) {
                    window.animated += 1;
                    return animate.apply(this, args);
                  };
                }"""
            )
            await page.locator(".row [data-take=click]").nth(3).click()
            await expect(page.locator(".column")).to_have_count(1)
            moving[motion] = await page.evaluate("() => window.animated > 0")
            await expect(page.locator(".is-leaving")).to_have_count(0)
    assert moving == {"no-preference": True, "reduce": False}


@pytest.mark.parametrize("width", [360, 768, 1280])
async def test_nothing_sticks_out_sideways(
    width: int, api: FakeApi, server: FakeServer, open_page: OpenPage
) -> None:
    api.titles["21003"] = "W" * 200
    api.titles["21005"] = "long words and more long words " * 12
    user = "u" * 200
    async with open_page(viewport={"width": width, "height": 800}) as page:
        await page.goto(server.url + "?user=17850")
        await expect(page.locator(".row")).to_have_count(12)
        await page.locator(".row [data-take=click]").first.click()
        await expect(page.locator(".column")).to_have_count(1)
        await page.fill("#search", "long words")
        await expect(page.locator(".find")).to_have_count(1)
        assert await page.evaluate("() => document.documentElement.scrollWidth") == width
        await page.goto(server.url + f"?user={user}")
        await expect(page.locator(".row")).to_have_count(12)
        assert await page.evaluate("() => document.documentElement.scrollWidth") == width


CONTRASTS = """() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (value) =>
    (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) => 0.2126 * light(r) + 0.7152 * light(g) + 0.0722 * light(b);
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const rgba = channels(getComputedStyle(at).backgroundColor);
      if (rgba.length === 3 || rgba[3] === 1) return rgba;
    }
    return [255, 255, 255];
  };
  const poor = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !node.checkVisibility()) continue;
    if (node.closest(".hidden, script")) continue;
    const style = getComputedStyle(node);
    const pair = [luminance(channels(style.color)), luminance(ground(node))].sort((a, b) => b - a);
    const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
    if (ratio < 4.5) poor.push(`${walk.currentNode.data.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return poor;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_text_has_the_contrast_of_wcag_aa(
    scheme: str, api: FakeApi, server: FakeServer, open_page: OpenPage
) -> None:
    async with open_page(color_scheme=scheme, reduced_motion="reduce") as page:
        await page.goto(server.url + "?user=17850")
        await expect(page.locator(".row")).to_have_count(12)
        await page.locator(".row [data-take=click]").first.click()
        await expect(page.locator(".column")).to_have_count(1)
        await page.fill("#search", "tin")
        await expect(page.locator(".find")).to_have_count(2)
        api.generation = "4-7be2d950"
        await expect(page.locator(".notice")).to_be_visible()
        assert await page.evaluate(CONTRASTS) == []


async def test_every_control_has_a_name_and_the_page_its_landmarks(
    server: FakeServer, open_page: OpenPage
) -> None:
    async with open_page() as page:
        await page.goto(server.url + "?user=17850")
        await expect(page.locator(".row")).to_have_count(12)
        for role in ("button", "textbox", "searchbox", "link"):
            found = page.get_by_role(role)
            for place in range(await found.count()):
                assert await found.nth(place).evaluate(
                    "(node) => Boolean(node.ariaLabel || node.labels?.length || node.innerText)"
                )
        for role in ("banner", "main", "navigation", "search", "contentinfo"):
            await expect(page.get_by_role(role)).to_have_count(1)
        await expect(page.get_by_role("heading", level=1)).to_have_count(1)


async def test_the_page_asks_nobody_but_its_own_server(
    server: FakeServer, open_page: OpenPage
) -> None:
    async with open_page() as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        await page.goto(server.url)
        await expect(page.locator(".row")).to_have_count(12)
        assert len(asked) > 5
        assert [url for url in asked if not url.startswith(server.url)] == []
