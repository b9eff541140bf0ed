"""Files of rows: what is a row, what is not, and which bytes each came from."""

import csv
import gzip
import lzma
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rheos.row_file import Row, RowFile, RowFileError


def written(tmp_path: Path, name: str, content: bytes) -> RowFile:
    path = tmp_path / name
    opener = {".xz": lzma.open, ".gz": gzip.open}.get(path.suffix, open)
    with opener(path, "wb") as file:
        file.write(content)
    return RowFile(path)


def test_csv_rows_have_their_number_their_bytes_and_cells(tmp_path: Path) -> None:
    file = written(tmp_path, "a.csv", b'a,b\r\n1,"x\ny"\r\n\r\n2,z')
    assert file.columns() == ["a", "b"]
    assert list(file.rows()) == [
        Row(0, b'1,"x\ny"\r\n', {"a": "1", "b": "x\ny"}),
        Row(1, b"2,z", {"a": "2", "b": "z"}),
    ]


@pytest.mark.parametrize("name", ["a.tsv", "a.tsv.xz", "a.TSV.gz", "a.b.tsv"])
def test_names_tell_delimiter_and_compression(tmp_path: Path, name: str) -> None:
    file = written(tmp_path, name, b"a\tb\n1\t2\n")
    assert [row.cells for row in file.rows()] == [{"a": "1", "b": "2"}]


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson.gz"])
def test_lines_of_json_are_rows_unless_blank(tmp_path: Path, name: str) -> None:
    file = written(tmp_path, name, b'{"a": 1}\n\n  \nno json\n')
    assert list(file.rows()) == [Row(0, b'{"a": 1}\n', None), Row(1, b"no json\n", None)]
    assert file.columns() == []


def test_columns_can_be_named_for_a_file_without_a_header(tmp_path: Path) -> None:
    file = written(tmp_path, "a.csv", b"1,2\n")
    assert [row.cells for row in RowFile(file.path, ["x", "y"]).rows()] == [{"x": "1", "y": "2"}]


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    assert written(tmp_path, "a.csv", b"\xef\xbb\xbfa,b\n").columns() == ["a", "b"]


def test_a_row_with_too_few_or_too_many_cells_is_none(tmp_path: Path) -> None:
    rows = list(written(tmp_path, "a.csv", b"a,b\n1\n1,2,3\n1,2\n").rows())
    assert [row.problem for row in rows] == [
        "1 cells where the header has 2",
        "3 cells where the header has 2",
        "",
    ]
    assert [row.number for row in rows] == [0, 1, 2]


def test_a_cell_beyond_bounds_costs_its_row_only(tmp_path: Path) -> None:
    huge = b'1,"' + b"x" * (csv.field_size_limit() + 10) + b'"\n'
    rows = list(written(tmp_path, "a.csv", b"a,b\n" + huge + b"3,4\n").rows())
    assert rows[0].original == huge
    assert "field larger" in rows[0].problem
    assert rows[1] == Row(1, b"3,4\n", {"a": "3", "b": "4"})


def test_bytes_that_are_no_text_stay_in_the_original(tmp_path: Path) -> None:
    [row] = written(tmp_path, "a.csv", b"a\n\xff\x00\n").rows()
    assert row.original == b"\xff\x00\n"
    assert row.cells == {"a": "\udcff\x00"}


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    file = written(tmp_path, "a.csv", b"")
    assert (file.columns(), list(file.rows())) == ([], [])


@pytest.mark.parametrize("name", ["a.parquet", "a", "a.xz", "a.csv.zip"])
def test_another_kind_of_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(RowFileError, match=r"must end in \.csv \.tsv \.jsonl"):
        RowFile(tmp_path / name)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RowFileError, match=r"none\.csv: No such file"):
        RowFile(tmp_path / "none.csv")


@pytest.mark.parametrize("name", ["a.csv.xz", "a.csv.gz"])
@pytest.mark.parametrize("harm", ["cut", "garbled"])
def test_a_damaged_file_says_so(tmp_path: Path, name: str, harm: str) -> None:
    file = written(tmp_path, name, b"a\n" + b"\n".join(b"%d" % n for n in range(50_000)))
    content = bytearray(file.path.read_bytes())
    if harm == "cut":
        content = content[:-20]
    else:
        content[len(content) // 2] ^= 0xFF
    file.path.write_bytes(content)
    with pytest.raises(RowFileError, match="is damaged"):
        list(RowFile(file.path).rows())


def test_the_hash_is_that_of_the_file_on_the_disk(tmp_path: Path) -> None:
    one = written(tmp_path, "a.csv", b"a\n1\n")
    two = written(tmp_path, "b.csv", b"a\n1\n")
    three = written(tmp_path, "c.csv", b"a\n2\n")
    assert one.sha256() == two.sha256() != three.sha256()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), max_size=5))
def test_what_the_csv_module_wrote_comes_back(tmp_path: Path, table: list[tuple[str, str]]) -> None:
    path = tmp_path / "table.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([("a", "b"), *table])
    rows = list(RowFile(path).rows())
    assert [row.cells for row in rows] == [{"a": a, "b": b} for a, b in table]
    assert b'"a","b"\r\n' + b"".join(row.original for row in rows) == path.read_bytes()
