"""How the query commands show an answer."""

from typing import Any

import pytest

from rheos.cli.answer import print_items

ITEM: dict[str, Any] = {"item_id": "85123A", "score": 2.31, "source": "next"}


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")


def test_reasons_stand_beside_the_items_that_they_are_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    because = [
        {"item_id": "71053", "source": "next", "share": 0.62, "title": "WHITE LANTERN"},
        {"item_id": "22423", "source": "vector", "share": 1.0},
    ]
    print_items("For ann", [ITEM | {"because": because}, ITEM | {"item_id": "x", "because": []}])
    out = capsys.readouterr().out
    assert "because of" in out
    assert "WHITE LANTERN (62% of next)" in out
    assert "22423 (100% of vector)" in out
    assert len([line for line in out.splitlines() if "85123A" in line]) == 1


def test_without_reasons_and_titles_there_are_no_columns_for_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_items("For ann", [ITEM])
    out = capsys.readouterr().out
    assert "because" not in out
    assert "title" not in out
    assert "2.3100" in out


def test_a_title_in_brackets_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    print_items("For ann", [ITEM | {"title": "[red]MUG[/blue] [bold]"}])
    assert "[red]MUG[/blue] [bold]" in capsys.readouterr().out
