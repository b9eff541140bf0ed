"""The demo's data: complete, in order, and honest about what was changed."""

import csv
import itertools
import lzma
from collections import Counter
from pathlib import Path

import pytest

from rheos.demo import build, online_retail

Table = list[tuple[str, ...]]
"""Rows as tuples, which the garbage collector does not visit again and again."""

COLUMNS = [
    *("InvoiceNo", "StockCode", "Description", "Quantity"),
    *("InvoiceDate", "UnitPrice", "CustomerID", "Country"),
]


def read(path: Path) -> Table:
    with lzma.open(path, "rt", encoding="utf-8", newline="") as file:
        return [tuple(row) for row in csv.reader(file)]


@pytest.fixture(scope="module")
def table() -> Table:
    header, *rows = read(online_retail.ROWS_FILE)
    assert list(header) == COLUMNS
    return rows


def test_rows_are_ordered_by_time(table: Table) -> None:
    assert len(table) == online_retail.ROWS
    assert all(earlier[4] <= later[4] for earlier, later in itertools.pairwise(table))


def test_it_holds_exactly_the_original_s_rows(table: Table, shared_data: Path) -> None:
    header, *rows = read(shared_data / "online-retail" / "online_retail.csv.xz")
    assert list(header) == COLUMNS
    assert Counter(table) == Counter(rows)


def test_lines_of_an_invoice_stand_together_but_not_by_code(table: Table) -> None:
    """In the original a line's code is often close to that of the line before."""
    pairs = near = 0
    met = []
    for basket, lines in itertools.groupby(table, key=lambda row: (row[4], row[0])):
        met.append(basket)
        for earlier, later in itertools.pairwise(row[1] for row in lines):
            pairs += 1
            near += earlier[:4] == later[:4]
    assert len(met) == len(set(met))
    assert near / pairs < 0.06  # 0.24 in the original's order


def test_items_are_those_of_the_rows(table: Table) -> None:
    items = {item.item_id: item for item in online_retail.items()}
    assert set(items) == {row[1] for row in table}
    assert items["85123A"].title == "WHITE HANGING HEART T-LIGHT HOLDER"
    assert items["85123A"].price == pytest.approx(2.95)
    assert items["85123A"].category == "candles and lights"
    assert [name for name in ("POST", "M", "BANK CHARGES") if items[name].available] == []


def test_items_can_be_made_again_from_the_rows(table: Table) -> None:
    assert build.items(table, COLUMNS) == list(online_retail.items())


def test_every_column_of_the_mapping_is_there() -> None:
    assert online_retail.mapping().missing_columns(online_retail.rows().columns()) == []


def test_equal_rows_are_shuffled_the_same_way_each_time() -> None:
    header = ["InvoiceDate", "InvoiceNo", "n"]
    rows = [("1", "a", str(n)) for n in range(50)] + [("0", "b", "x")]
    once = build.in_order(rows, header)
    assert once == build.in_order(rows, header) != sorted(rows)
    assert once[0] == ("0", "b", "x")
    assert sorted(once) == sorted(rows)


def test_the_licence_is_named_beside_the_data() -> None:
    text = online_retail.ROWS_FILE.with_name("ATTRIBUTION.txt").read_text()
    assert "Daqing Chen (2015)" in text
    assert "10.24432/C5BW33" in text
    assert "CC BY 4.0" in text
    assert "Changes made" in text
