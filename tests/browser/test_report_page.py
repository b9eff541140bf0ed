"""A generation's report in a real Chromium: by day, by night and on a phone, without a network."""

from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import OpenPage
from tests.trainer.evaluation.reported import judged, report_of
from trainer.evaluation import report_page

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_bytes(report_page.files(report_of(judged()))["report.html"])
    return path.as_uri()


CONTRAST = """() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const luminance = (colour) => {
    const [r, g, b] = channels(colour).map((value) => {
      const share = value / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = getComputedStyle(one).backgroundColor;
      if (!colour.endsWith(", 0)")) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const low = [];
  const all = "h1, h2, p, dt, dd, small, th, td, li, text, summary, .dot";
  for (const element of document.querySelectorAll(all)) {
    const style = getComputedStyle(element);
    const ink = element instanceof SVGElement ? style.fill : style.color;
    const [light, dark] = [luminance(ink), luminance(behind(element))].sort((a, b) => b - a);
    const ratio = (light + 0.05) / (dark + 0.05);
    const least = element.matches(".dot") ? 3 : 4.5;
    if (ratio < least) low.push(`${element.tagName} ${element.textContent} ${ratio.toFixed(2)}`);
  }
  return low;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_is_readable_by_day_and_by_night(
    open_page: OpenPage, address: str, scheme: str
) -> None:
    async with open_page(color_scheme=scheme) as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        await page.goto(address)
        assert asked == [address]  # nothing else is fetched
        assert await page.evaluate(CONTRAST) == []
        assert await page.get_by_role("heading", level=1).inner_text() == "Generation 2 · als"
        images = page.get_by_role("img")
        assert await images.count() >= 5
        for place in range(await images.count()):
            box = await images.nth(place).bounding_box()
            assert box is not None
            assert box["width"] > 300


async def test_a_plots_figures_open_as_a_table_by_keyboard(
    open_page: OpenPage, address: str
) -> None:
    async with open_page() as page:
        await page.goto(address)
        table = page.get_by_role("table").filter(has_text="Hit rate@20")
        assert not await table.is_visible()
        await page.get_by_text("The figures").first.focus()
        await page.keyboard.press("Enter")
        assert await table.is_visible()
        assert await table.get_by_role("rowheader").all_inner_texts() == [
            f"{name}@20" for name in ("Hit rate", "Recall", "Precision", "F1", "MRR", "MAP", "NDCG")
        ]


async def test_a_phone_scrolls_wide_things_and_not_the_page(
    open_page: OpenPage, address: str
) -> None:
    async with open_page(viewport={"width": 360, "height": 700}) as page:
        await page.goto(address)
        widths: Any = await page.evaluate(
            "[document.documentElement.scrollWidth, window.innerWidth]"
        )
        assert widths[0] <= widths[1]
        first = page.locator(".wide").first
        assert await first.evaluate("one => one.scrollWidth > one.clientWidth")
