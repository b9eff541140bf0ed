"""``rheos generations report``: finds, verifies and prints what a snapshot carries."""

import json
import webbrowser

import pytest

from rheos.cli import main
from rheos.settings import load
from rheos.snapshot_store import LocalStore
from tests.trainer.evaluation.reported import judged, report_of
from trainer import fitting, refused
from trainer.evaluation import report_page
from trainer.models import model_of
from trainer.models.model import Run


@pytest.fixture(scope="module")
def files():
    return report_page.files(report_of(judged()))


@pytest.fixture
def store(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RHEOS_DATA_DIR", str(tmp_path / "data"))
    return LocalStore(load().store_dir)


def put(store, number, files):
    data = judged(first=True).data
    model = model_of("als", {"factors": 2, "iterations": 1})
    made = fitting.make(number, model, fitting.fit(model, data, Run()), data, {})
    return store.put(*made._replace(files=files))


def test_the_newest_ones_page_is_named_and_opened_on_request(store, files, capsys, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    put(store, 1, files)
    name = put(store, 2, files)
    assert main(["generations", "report"]) == 0
    page = store.path(name) / "report.html"
    assert capsys.readouterr().out == f"{page}\n"
    assert page.read_bytes() == files["report.html"]
    assert opened == []
    assert main(["generations", "report", name, "--open"]) == 0
    assert opened == [page.as_uri()]


def test_the_figures_are_one_json_document(store, files, capsys):
    name = put(store, 1, files)
    assert main(["generations", "report", name, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"][0]["role"] == "candidate"


def test_a_refused_candidates_report_is_found_by_its_name(store, files, capsys):
    serves = put(store, 1, files)
    page = refused.of(load()).keep("2-0123abcd", files) / "report.html"
    assert main(["generations", "report", "2-0123abcd"]) == 0
    assert capsys.readouterr().out == f"{page.absolute()}\n"
    assert main(["generations", "report", "2-0123abcd", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"][0]["role"] == "candidate"
    assert main(["generations", "report"]) == 0  # by default one that was let through
    assert serves in capsys.readouterr().out


def test_what_is_not_there_or_was_changed_is_told_in_one_line(store, files, capsys):
    assert main(["generations", "report"]) == 1
    assert "there is no generation in" in capsys.readouterr().err
    name = put(store, 1, {})
    assert main(["generations", "report", name]) == 1
    assert f"{name}: it has no report.html" in capsys.readouterr().err
    assert main(["generations", "report", "../secrets"]) == 1
    assert "no generation's" in capsys.readouterr().err
    name = put(store, 2, files)
    (store.path(name) / "report.html").write_text("<h1>all is well")
    assert main(["generations", "report", name]) == 1
    assert "differs from the manifest's sha256" in capsys.readouterr().err
