"""Makes the demo's files from the original: ``python -m rheos.demo.build online_retail.csv.xz``.

The original is a table of eight columns as CSV, times as ``2010-12-01 08:26:00``. The same input
gives the same bytes. What is changed, and under which licence: ATTRIBUTION.txt.
"""

import csv
import itertools
import lzma
import random
import re
import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from rheos.catalogue import Item, encode_record
from rheos.demo import online_retail

Row = tuple[str, ...]

SEED = 2015

PRODUCT = re.compile(r"\d{5}|DCGS|gift_")
"""How a product's code begins; the others are postage, fees, samples and corrections."""

CATEGORIES = {
    "christmas": "CHRISTMAS XMAS ADVENT SANTA REINDEER SNOWMEN SNOWFLAKE",
    "bags": "BAG BAGS SHOPPER PURSE HANDBAG RUCKSACK TOTE",
    "candles and lights": (
        "CANDLE CANDLES T-LIGHT T-LIGHTS LIGHT LIGHTS LAMP CANDLEHOLDER LANTERN INCENSE"
    ),
    "kitchen": (
        "MUG MUGS CUP CUPS TEA TEAPOT TEACUP TEACUPS COFFEE BOWL PLATE PLATES JAR CAKE "
        "CAKESTAND CUTLERY KITCHEN APRON LUNCH BOTTLE TIN TINS TRAY BAKING EGG JUG GLASS "
        "SPOON"
    ),
    "jewellery": "NECKLACE BRACELET EARRINGS RING BROOCH BANGLE JEWELLERY HAIR",
    "paper and cards": (
        "CARD CARDS WRAP PAPER NAPKINS NOTEBOOK NOTEBOOKS STICKERS BOOK TISSUES GIFT "
        "RIBBON RIBBONS DOILY DOILIES"
    ),
    "writing": "PEN PENS PENCIL PENCILS ERASER ERASERS CHALK RULER",
    "play": (
        "TOY GAME GAMES DOLL DOLLY CHILDRENS CHILDREN'S PLAYHOUSE SKIPPING PUZZLE PUZZLES "
        "BALLOONS PARTY SPACEBOY CIRCUS SOLDIER"
    ),
    "garden": "GARDEN PLANTER BIRD BIRDS FLOWER FLOWERS WATERING PARASOL PICNIC PLANT HERB ROSE",
    "clocks and signs": "CLOCK SIGN BOARD DOORMAT HOOK HOOKS HANGER RACK",
    "storage": "BOX BOXES BASKET CABINET DRAWER DRAWERS CRATE STORAGE CASES CASE HOLDER",
    "textiles": "CUSHION QUILT THROW TOWEL BLANKET CURTAIN WARMER SCARF",
    "decoration": (
        "FRAME HEART HEARTS BUNTING GARLAND WREATH DECORATION MIRROR ORNAMENT ANGEL VASE "
        "MAGNETS DOORSTOP"
    ),
}
"""The first category with a word of the title is the item's; the data themselves have none."""


def main(original: Path) -> None:
    with lzma.open(original, "rt", encoding="utf-8", newline="") as file:
        header, *unordered = csv.reader(file)
    rows = in_order([tuple(row) for row in unordered], header)
    with lzma.open(online_retail.ROWS_FILE, "wt", preset=9, encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
    with lzma.open(online_retail.ITEMS_FILE, "wb", preset=9) as lines:
        for item in items(rows, header):
            lines.write(encode_record(item) + b"\n")


def in_order(rows: Sequence[Row], header: list[str]) -> list[Row]:
    """The rows by time; those of one invoice and minute shuffled."""
    time, invoice = header.index("InvoiceDate"), header.index("InvoiceNo")
    draw = random.Random(SEED)
    shuffled: list[Row] = []
    by_time = sorted(rows, key=lambda row: row[time])
    for _, lines in itertools.groupby(by_time, key=lambda row: (row[time], row[invoice])):
        basket = list(lines)
        draw.shuffle(basket)
        shuffled += basket
    return shuffled


def items(rows: Sequence[Row], header: list[str]) -> list[Item]:
    """An item for each code, ordered by code."""
    code, title, price = map(header.index, ("StockCode", "Description", "UnitPrice"))
    titles: defaultdict[str, Counter[str]] = defaultdict(Counter)
    prices: defaultdict[str, list[float]] = defaultdict(list)
    for row in rows:
        titles[row[code]][" ".join(row[title].split())] += 1
        if float(row[price]) > 0:
            prices[row[code]].append(float(row[price]))
    return [
        Item(
            item_id=item_id,
            title=best_title(titles[item_id]),
            category=category(best_title(titles[item_id])) if PRODUCT.match(item_id) else "",
            price=round(statistics.median(prices[item_id]), 2) if prices[item_id] else None,
            available=bool(PRODUCT.match(item_id) and prices[item_id]),
        )
        for item_id in sorted(titles)
    ]


def best_title(found: Counter[str]) -> str:
    """The most frequent description. The shop writes titles in capitals, remarks ("damaged", "?")
    mostly not: those are the second choice."""
    return max(found, key=lambda title: (title.isupper(), found[title], title))


def category(title: str) -> str:
    words = set(re.findall(r"[A-Z][A-Z'-]*", title))
    named = (name for name, known in CATEGORIES.items() if words & set(known.split()))
    return next(named, "other")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
