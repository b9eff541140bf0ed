"""The demo's data: complete, in order, and honest about what was changed."""

import csv
import itertools
import lzma
from pathlib import Path

import pytest

from rheos.demo import build, online_retail


@pytest.fixture(scope="module")
def table() -> list[dict[str, str]]:
    with lzma.open(online_retail.ROWS_FILE, "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_rows_are_ordered_by_time(table: list[dict[str, str]]) -> None:
    assert len(table) == online_retail.ROWS
    times = [row["InvoiceDate"] for row in table]
    assert all(earlier <= later for earlier, later in itertools.pairwise(times))


def test_it_holds_exactly_the_original_s_rows(
    table: list[dict[str, str]], shared_data: Path
) -> None:
    original = shared_data / "online-retail" / "online_retail.csv.xz"
    with lzma.open(original, "rt", encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == list(table[0])
    assert sorted(rows) == sorted(list(row.values()) for row in table)


def test_lines_of_an_invoice_stand_together_but_not_by_code(table: list[dict[str, str]]) -> None:
    """In the original, a line's code is close to the line before it; here it must not be."""
    baskets = 0
    pairs = near = 0
    for _, lines in itertools.groupby(
        table, key=lambda row: (row["InvoiceDate"], row["InvoiceNo"])
    ):
        codes = [row["StockCode"] for row in lines]
        baskets += 1
        for earlier, later in itertools.pairwise(codes):
            pairs += 1
            near += earlier[:4] == later[:4]
    assert baskets == len({(row["InvoiceDate"], row["InvoiceNo"]) for row in table})
    assert near / pairs < 0.06  # 0.24 in the original's order


def test_items_are_those_of_the_rows(table: list[dict[str, str]]) -> None:
    items = {item.item_id: item for item in online_retail.items()}
    assert set(items) == {row["StockCode"] for row in table}
    assert items["85123A"].title == "WHITE HANGING HEART T-LIGHT HOLDER"
    assert items["85123A"].price == pytest.approx(2.95)
    assert items["85123A"].category == "candles and lights"
    assert [name for name in ("POST", "M", "BANK CHARGES") if items[name].available] == []


def test_items_can_be_made_again_from_the_rows(table: list[dict[str, str]]) -> None:
    header = list(table[0])
    rows = [list(row.values()) for row in table]
    assert build.items(rows, header) == list(online_retail.items())


def test_every_column_of_the_mapping_is_there() -> None:
    assert online_retail.mapping().missing_columns(online_retail.rows().columns()) == []


def test_equal_rows_are_shuffled_the_same_way_each_time() -> None:
    header = ["InvoiceDate", "InvoiceNo", "n"]
    rows = [["1", "a", str(n)] for n in range(50)] + [["0", "b", "x"]]
    once = build.in_order(rows, header)
    assert once == build.in_order(rows, header) != sorted(rows)
    assert once[0] == ["0", "b", "x"]
    assert sorted(once) == sorted(rows)


def test_the_licence_is_named_beside_the_data() -> None:
    text = online_retail.ATTRIBUTION_FILE.read_text()
    assert "Daqing Chen (2015)" in text
    assert "10.24432/C5BW33" in text
    assert "CC BY 4.0" in text
    assert "Changes made" in text
