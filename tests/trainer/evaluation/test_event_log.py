"""Reading an event file: what is dropped, what counts as a repeat, and how lines are ordered."""

import gzip
import lzma

import pytest

from rheos.mapping import EventMapping
from rheos.settings import SourceSettings
from trainer.evaluation import event_log
from trainer.evaluation.event_log import LogFormat

MAPPING = EventMapping(
    SourceSettings(
        name="file",
        topic="file",
        user="customer",
        item="code",
        time="when",
        fixed_type="purchase",
        time_unit="iso",
    )
)
INVOICES = LogFormat(MAPPING, basket="invoice", drop={"invoice": "C*"}, positive="quantity")

LINES = """invoice,customer,code,quantity,when
2,17850.0,late,1,2011-01-02 09:00:00
1,17850.0,a,1,2011-01-01 09:00:00
1,17850.0,b,6,2011-01-01 09:00:00
1,17850.0,a,2,2011-01-01 09:00:00
1,17850.0,c,1,2011-01-01 09:00:00
C3,17850.0,a,-1,2011-01-03 09:00:00
4,,a,1,2011-01-04 09:00:00
5,13047.0,a,0,2011-01-05 09:00:00
6,13047.0,a,1,no time
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "lines.csv"
    path.write_text(LINES)
    return path


def ids(log):
    return [event.item_id for event in log.events]


def test_lines_are_cleaned_and_ordered_by_time(file):
    log = event_log.read(file, INVOICES, shuffle_ties=None)
    assert ids(log) == ["a", "b", "c", "late"]
    assert log.user_ids == ["17850"]
    assert log.item_ids == ["a", "b", "c", "late"]
    assert log.items.tolist() == [0, 1, 2, 3]
    assert log.rows == 9
    assert log.dropped == {
        "drop": 1,
        "missing_field": 1,
        "not_positive": 1,
        "wrong_type": 1,
        "repeated": 1,
    }


def test_lines_of_one_basket_are_shuffled_and_no_others(file):
    orders = {tuple(ids(event_log.read(file, INVOICES, shuffle_ties=seed))) for seed in range(40)}
    assert len(orders) == 6
    assert all(order[-1] == "late" for order in orders)


def test_the_same_seed_gives_the_same_order(file):
    assert ids(event_log.read(file, INVOICES, 3)) == ids(event_log.read(file, INVOICES, 3))


def test_without_baskets_a_line_repeats_another_of_the_same_time(tmp_path):
    path = tmp_path / "lines.csv"
    path.write_text(
        "customer,code,when\nu,a,2011-01-01\nu,a,2011-01-01\nu,a,2011-01-02\nv,a,2011-01-01\n"
    )
    assert len(event_log.read(path, LogFormat(MAPPING), None).events) == 3


def test_compressed_files_are_read_by_their_name(file, tmp_path):
    for name, opener in (("lines.csv.xz", lzma.open), ("lines.csv.gz", gzip.open)):
        with opener(tmp_path / name, "wt") as out:
            out.write(LINES)
        assert ids(event_log.read(tmp_path / name, INVOICES, 1)) == ids(
            event_log.read(file, INVOICES, 1)
        )


@pytest.mark.parametrize(
    "shape",
    [
        INVOICES._replace(basket="cart"),
        INVOICES._replace(drop={"cart": "C*"}),
        INVOICES._replace(separator="\t"),
    ],
)
def test_a_column_that_is_not_there_is_named(file, shape):
    with pytest.raises(ValueError, match=r"no column '(cart|customer)'"):
        event_log.read(file, shape, None)


def test_a_file_without_any_event_says_why(tmp_path):
    path = tmp_path / "lines.csv"
    path.write_text("customer,code,when\nu,a,yesterday\n")
    with pytest.raises(ValueError, match="wrong_type"):
        event_log.read(path, LogFormat(MAPPING), None)
