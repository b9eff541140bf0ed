"""Reading an event file: what is dropped, what counts as a repeat, and how lines are ordered."""

import gzip
import lzma

import pytest

from rheos.mapping import EventMapping
from rheos.row_file import RowFile
from rheos.settings import SourceSettings, from_tree
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


RULES = from_tree({}).event_rules()


def read(path, shape=INVOICES, shuffle_ties=0):
    return event_log.read(RowFile(path), shape, RULES, shuffle_ties)


def ids(log):
    return [event.item_id for event in log.events]


def test_lines_are_cleaned_and_ordered_by_time(file):
    log = read(file)
    assert sorted(ids(log)[:3]) == ["a", "b", "c"]
    assert ids(log)[3] == "late"
    assert log.user_ids == ["17850"]
    assert log.item_ids == ["a", "b", "c", "late"]
    assert [log.item_ids[item] for item in log.items] == ids(log)
    assert log.rows == 9
    assert log.dropped == {
        "drop": 1,
        "missing_field": 1,
        "not_positive": 1,
        "wrong_type": 1,
        "repeated": 1,
    }


def test_lines_of_one_basket_are_shuffled_and_no_others(file):
    orders = {tuple(ids(read(file, shuffle_ties=seed))) for seed in range(40)}
    assert len(orders) == 6
    assert all(order[-1] == "late" for order in orders)


def test_the_same_seed_gives_the_same_order(file):
    assert ids(read(file, shuffle_ties=3)) == ids(read(file, shuffle_ties=3))


def test_without_baskets_a_line_repeats_another_of_the_same_time(tmp_path):
    path = tmp_path / "lines.csv"
    path.write_text(
        "customer,code,when\nu,a,2011-01-01\nu,a,2011-01-01\nu,a,2011-01-02\nv,a,2011-01-01\n"
    )
    assert len(read(path, LogFormat(MAPPING)).events) == 3


def test_compressed_files_are_read_by_their_name(file, tmp_path):
    for name, opener in (("lines.csv.xz", lzma.open), ("lines.csv.gz", gzip.open)):
        with opener(tmp_path / name, "wt") as out:
            out.write(LINES)
        assert ids(read(tmp_path / name)) == ids(read(file))


@pytest.mark.parametrize(
    "shape",
    [
        INVOICES._replace(basket="cart"),
        INVOICES._replace(drop={"cart": "C*"}),
        INVOICES._replace(positive="cart"),
    ],
)
def test_a_column_that_is_not_there_is_named(file, shape):
    with pytest.raises(ValueError, match=r"no column 'cart'"):
        read(file, shape)


def test_a_file_without_any_event_says_why(tmp_path):
    path = tmp_path / "lines.csv"
    path.write_text("customer,code,when\nu,a,yesterday\n")
    with pytest.raises(ValueError, match="wrong_type"):
        read(path, LogFormat(MAPPING))


def test_json_lines_are_read_with_a_mapping_and_without(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_text(
        '{"user_id": "u", "item_id": "a", "type": "click", "time_ms": 5}\n'
        '{"user_id": "u", "item_id": "b", "type": "click", "time_ms": 1}\n'
        '{"user_id": "u", "item_id": "b", "type": "sneeze", "time_ms": 1}\n'
        "nonsense\n"
    )
    log = read(path, LogFormat(None))
    assert ids(log) == ["b", "a"]
    assert log.dropped == {"unknown_type": 1, "not_json": 1}
    mapped = EventMapping(
        SourceSettings(
            name="file",
            topic="file",
            user="user_id",
            item="item_id",
            time="time_ms",
            fixed_type="view",
        )
    )
    assert [event.type for event in read(path, LogFormat(mapped)).events] == ["view", "view"]


def test_what_the_stream_would_refuse_is_no_event(tmp_path):
    path = tmp_path / "lines.csv"
    long_id = "a" * 300
    path.write_text(f"customer,code,when\nu,a,2011-01-01\nu,{long_id},2011-01-02\nu,b,1911-01-02\n")
    assert read(path, LogFormat(MAPPING)).dropped == {"long_id": 1, "out_of_range": 1}
