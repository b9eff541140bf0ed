"""``rheos evaluate`` as a person types it, on files small enough to check."""

import json
import lzma

import numpy as np
import pytest

from rheos.cli import main
from trainer.blending import learning


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RHEOS_TRAINER_PARAMETERS", '{"factors": 4, "iterations": 2}')


@pytest.fixture
def invoices(tmp_path):
    """Two halves of a shop: who buys of one half buys on in it."""
    random = np.random.default_rng(0)
    lines = ["invoice,customer,code,quantity,when"]
    for invoice in range(150):
        customer = int(random.integers(12))
        when = f"2011-01-{1 + invoice // 10:02d} {8 + invoice % 10:02d}:00:00"
        codes = (customer % 2) * 15 + random.permutation(15)[:4]
        lines += [f"{invoice},{customer}.0,{code},1,{when}" for code in codes]
    lines.append("C1,3.0,1,-1,2011-01-02 08:00:00")
    path = tmp_path / "invoices.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def prequential(path, *more):
    return [
        *("evaluate", "prequential", str(path)),
        *("--map", "user=customer", "--map", "item=code", "--map", "time=when"),
        *("--basket", "invoice", "--drop", "invoice=C*", "--shuffle-ties", "1", "--k", "5"),
        *("--every", "1", *more),
    ]


def test_prequential_prints_one_json_document_with_every_row(invoices, capsys):
    assert main(prequential(invoices, "--json")) == 0
    result = json.loads(capsys.readouterr().out)
    assert list(result["accuracy"]) == [
        *("popularity", "nightly batch", "fold-in", "next near", "next far", "trend", "live"),
    ]
    assert result["dropped"] == {"drop": 1}
    assert result["scored"] == result["accuracy"]["live"]["all"]["cases"] > 20
    assert result["settings"]["als"]["factors"] == 4
    # Half of the shop is of no interest to a customer: popularity cannot tell, the rest can.
    live, popular = (result["accuracy"][row]["all"]["hit_rate"] for row in ("live", "popularity"))
    assert live > popular


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("ease", {"factors": 4}),
        ("neumf", {"factors": 4, "mlp_factors": 8, "epochs": 1, "gmf_epochs": 2}),
        ("sasrec", {"factors": 4, "epochs": 2}),
        ("two_tower", {"factors": 4, "epochs": 2}),
    ],
)
def test_prequential_fits_the_model_of_the_settings(
    invoices, capsys, monkeypatch, model, parameters
):
    monkeypatch.setenv("RHEOS_TRAINER_MODEL", model)
    monkeypatch.setenv("RHEOS_TRAINER_PARAMETERS", json.dumps(parameters))
    weekly = ["--nightly-days", "7", "--json"]
    assert main(prequential(invoices, *weekly)) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["settings"][model]["factors"] == 4
    assert "als" not in result["settings"]
    assert ("item weights" in result["accuracy"]) == (model == "ease")
    assert result["accuracy"]["live"]["all"]["hit_rate"] > 0


def test_prequential_says_the_same_again(invoices, capsys):
    found = []
    for _ in range(2):
        assert main(prequential(invoices, "--json")) == 0
        found.append(json.loads(capsys.readouterr().out)["accuracy"])
    assert found[0] == found[1]


def test_prequential_has_a_row_for_the_blend_that_was_learned_before(invoices, capsys, monkeypatch):
    monkeypatch.setenv("RHEOS_TRAINER_BLEND", "linear")
    assert main(prequential(invoices, "--repeats", "--json")) == 0
    result = json.loads(capsys.readouterr().out)
    assert "blend" not in result["accuracy"]
    assert result["blend"].startswith("no blend: fewer than")
    monkeypatch.setitem(learning.LEAST_QUERIES, "linear", 50)
    assert main(prequential(invoices, "--repeats")) == 0
    assert "blend linear: NDCG@20 on" in capsys.readouterr().out
    assert main(prequential(invoices, "--repeats", "--json")) == 0
    result = json.loads(capsys.readouterr().out)
    found = result["accuracy"]["blend"]["all"]
    assert found["cases"] == result["scored"]
    assert found["hit_rate"] > result["accuracy"]["popularity"]["all"]["hit_rate"]


def test_prequential_prints_a_table(invoices, capsys):
    assert main(prequential(invoices, "--repeats")) == 0
    out = capsys.readouterr().out
    for word in ("HR@5", "MRR@5", "NDCG@5", "popularity", "nightly batch", "session's start"):
        assert word in out


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--drop", "code"], "--drop code: COLUMN=GLOB"),
        (["--positive", "weight"], "no column 'weight'; it has invoice, customer"),
        (["--from", "0.9", "--until", "0.2"], "--from is below --until"),
        (["--nightly-days", "0"], "above 0"),
        (["--map", "flavour=code"], "flavour"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(invoices, capsys, more, told):
    assert main(prequential(invoices, *more)) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def evaluate(command, path, *more):
    return [
        *("evaluate", command, str(path)),
        *("--map", "user=customer", "--map", "item=code", "--map", "time=when"),
        *("--basket", "invoice", "--drop", "invoice=C*", *more),
    ]


def judgements_of(capsys):
    result = json.loads(capsys.readouterr().out)
    return result, result["judgements"]["popularity"], result["judgements"]["als"]


def test_time_split_judges_models_beside_popularity(invoices, capsys):
    at = ["--at", "2011-01-12", "--k", "5"]
    assert main(evaluate("time-split", invoices, "--model", "als", *at, "--json")) == 0
    result, popular, als = judgements_of(capsys)
    assert result["split"] == {"at": "2011-01-12T00:00:00+00:00", "fitted": 440}
    assert result["dropped"] == {"drop": 1}
    assert als["all"]["cases"] == popular["all"]["cases"] == als["all"]["users"]
    assert set(als["all"]["measures"]) == {
        *("hit_rate", "recall", "precision", "f1", "mrr", "map", "ndcg")
    }
    assert als["all"]["measures"]["ndcg"]["standard_error"] > 0
    ndcg = [one["all"]["measures"]["ndcg"]["mean"] for one in (als, popular)]
    assert ndcg[0] > ndcg[1]
    assert als["pointwise"]["accuracy"] is None  # an ALS gives no probabilities
    assert [band["name"] for band in als["by_activity"]]


def test_time_split_prints_a_table(invoices, capsys):
    assert main(evaluate("time-split", invoices, "--share", "0.7")) == 0
    out = capsys.readouterr().out
    for word in ("popularity", "als", "HR", "F1", "MAP", "±", "users with", "coverage", "auc"):
        assert word in out
    assert "nan" not in out


def test_time_split_judges_models_as_they_are_served_too(invoices, capsys, monkeypatch):
    monkeypatch.setenv("RHEOS_TRAINER_BLEND", "linear")
    monkeypatch.setenv("RHEOS_TRAINER_GATE_MIN_EVENTS", "20")
    monkeypatch.setenv("RHEOS_RETRIEVAL_LEAVE_OUT_SEEN", "false")
    monkeypatch.setitem(learning.LEAST_QUERIES, "linear", 50)
    at = ["--at", "2011-01-12", "--k", "5", "--model", "als", "ease"]
    assert main(evaluate("time-split", invoices, *at, "--json")) == 0
    found = json.loads(capsys.readouterr().out)["judgements"]
    assert list(found) == ["popularity", "als", "als as served", "ease", "ease as served"]
    assert len({one["all"]["cases"] for one in found.values()}) == 1
    for name in ("als as served", "ease as served"):
        assert found[name]["blend"].startswith("blend linear: NDCG@20 on")
        assert found[name]["pointwise"] == {
            **{"auc": None, "accuracy": None, "log_loss": None, "cases": 0}
        }
    assert found["als"]["blend"] == ""
    assert main(evaluate("time-split", invoices, "--share", "0.7")) == 0
    out = capsys.readouterr().out
    assert "als as served: blend linear: NDCG@20 on" in " ".join(out.split())
    assert "nan" not in out


def test_time_split_says_what_a_blend_needs_before_it_reads(invoices, capsys, monkeypatch):
    monkeypatch.setenv("RHEOS_TRAINER_BLEND", "trees")
    monkeypatch.setattr(learning, "find_spec", lambda name: None)
    assert main(evaluate("time-split", invoices)) == 2
    error = capsys.readouterr().err
    assert "which needs FAISS: pip install 'rheos[cpu]'" in error
    assert error.count("\n") == 1


def test_cross_validation_judges_models_alone(invoices, capsys, monkeypatch):
    monkeypatch.setenv("RHEOS_TRAINER_BLEND", "linear")
    assert main(evaluate("cross-validate", invoices, "--folds", "2", "--json")) == 0
    assert list(json.loads(capsys.readouterr().out)["judgements"]) == ["popularity", "als"]


@pytest.mark.parametrize("by", ["users", "interactions"])
def test_cross_validation_judges_everybody_with_something_new(invoices, capsys, by):
    assert main(evaluate("cross-validate", invoices, "--folds", "3", "--by", by, "--json")) == 0
    result, popular, als = judgements_of(capsys)
    assert result["split"] == {"folds": 3, "by": by}
    assert 5 < als["all"]["users"] == popular["all"]["users"] <= 12
    assert 0 < als["all"]["measures"]["ndcg"]["mean"] <= 1


@pytest.mark.parametrize(
    ("command", "more", "told"),
    [
        ("time-split", ["--at", "yesterday"], "--at yesterday: a time like"),
        ("time-split", ["--at", "1999-01-01"], "invoices.csv: the split leaves nothing to fit on"),
        ("time-split", ["--at", "2999-01-01"], "invoices.csv: the split leaves nothing to find"),
        ("time-split", ["--share", "1"], "cannot be cut in time at a share of 1"),
        ("time-split", ["--model", "oracle"], "oracle"),
        ("time-split", ["--k", "0"], "--k 0: at least 1"),
        ("time-split", ["--map", "flavour=code"], "flavour"),
        ("cross-validate", ["--folds", "1"], "1 folds: at least 2"),
        ("cross-validate", ["--folds", "13", "--by", "users"], "12 users"),
    ],
)
def test_what_is_wrong_with_a_holdout_is_told_in_one_line(invoices, capsys, command, more, told):
    assert main(evaluate(command, invoices, *more)) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_a_fit_that_fails_is_told_in_one_line(invoices, capsys, monkeypatch):
    monkeypatch.setattr("trainer.models.als.Als.fit", lambda *_: 1 // 0)
    assert main(evaluate("time-split", invoices)) == 1
    assert "als: ZeroDivisionError" in capsys.readouterr().err


@pytest.fixture
def ncf(tmp_path):
    random = np.random.default_rng(0)
    train, test, negatives = [], [], []
    for user in range(20):
        items = random.permutation(30)[:8] + 100 * (user % 2)
        train += [f"{user}\t{item}" for item in items[:-1]]
        test.append(f"{user}\t{items[-1]}\t5\t978300000")
        others = np.setdiff1d(np.arange(200), items)[:99]
        negatives.append("\t".join([f"({user},{items[-1]})", *map(str, others)]))
    for name, lines in (("train.pairs.tsv.xz", train), ("test.negative.xz", negatives)):
        with lzma.open(tmp_path / name, "wt") as file:
            file.write("\n".join(lines) + "\n")
    (tmp_path / "test.rating").write_text("\n".join(test) + "\n")
    return tmp_path


def test_split_fits_and_judges_a_model(ncf, capsys):
    assert main(["evaluate", "split", str(ncf), "--model", "als", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["accuracy"]["cases"] == 20
    assert 0 < result["accuracy"]["ndcg"] <= result["accuracy"]["hit_rate"] <= 1
    assert main(["evaluate", "split", str(ncf)]) == 0
    assert "als on" in capsys.readouterr().out


def test_split_names_what_is_wrong(ncf, capsys):
    assert main(["evaluate", "split", str(ncf), "--model", "oracle"]) == 2
    assert "oracle" in capsys.readouterr().err
    assert main(["evaluate", "split", str(ncf / "nowhere")]) == 1
    assert "nowhere" in capsys.readouterr().err
    (ncf / "test.rating").write_text("0\n")
    assert main(["evaluate", "split", str(ncf)]) == 2
    assert "test.rating line 1" in capsys.readouterr().err
