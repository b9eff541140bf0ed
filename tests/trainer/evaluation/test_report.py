"""What a report tells, held against gate and plain counts; its page, against hostile text."""

import copy
import json
import math
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import msgspec
import numpy as np
import pytest

from tests.trainer.evaluation.reported import HOSTILE, judged, report_of
from trainer.evaluation import report, report_page, served


@pytest.fixture(scope="module")
def made():
    return judged()


@pytest.fixture(scope="module")
def told(made):
    return report_of(made)


def test_it_says_the_same_as_the_gate(made, told):
    own, against, popular = told.rows
    assert (own.role, against.role, popular.role) == ("candidate", "serving", "popularity")
    assert own.all.measures["ndcg"].mean == pytest.approx(made.verdict.candidate.ndcg)
    assert own.all.measures["f1"].mean == pytest.approx(made.verdict.candidate.f1)
    assert against.all.measures["ndcg"].mean == pytest.approx(made.verdict.against)
    assert popular.all.measures["ndcg"].mean < own.all.measures["ndcg"].mean
    assert told.gate.reason == made.verdict.reason
    assert told.gate.difference["p_value"] == made.verdict.difference.p_value


def test_popularity_is_the_gates_own_where_nothing_serves():
    first = judged(first=True)
    own, popular = report_of(first).rows
    assert own.all.measures["ndcg"].mean == pytest.approx(first.verdict.candidate.ndcg)
    assert popular.all.measures["ndcg"].mean == pytest.approx(first.verdict.against, abs=1e-3)


def test_every_row_has_the_same_cases_in_the_same_bands(made, told):
    for bands in ("by_activity", "by_item"):
        shapes = [[(b.name, b.cases, b.users) for b in getattr(row, bands)] for row in told.rows]
        assert shapes[0] == shapes[1] == shapes[2]
        assert sum(cases for _, cases, _ in shapes[0]) == len(made.trial.queries)


def test_the_data_are_described_as_they_are(made, told):
    data = told.data
    assert (data.interactions, data.users, data.items) == (1500, 40, 100)
    pairs = set(zip(made.data.users.tolist(), made.data.items.tolist(), strict=True))
    assert data.density == pytest.approx(len(pairs) / 4000)
    assert sum(data.interactions_per_bin) == 1500
    judged_ms = made.data.times_ms[made.trial.queries].min()
    assert data.judged_from_ms == judged_ms > data.first_ms
    assert data.window == {"0": (0, 1500)}
    counts = sorted(Counter(made.data.items.tolist()).values())
    assert data.popularity_curve[25] == pytest.approx(sum(counts[:50]) / 1500)


def test_what_serves_is_named_by_its_kind(made, told):
    assert told.parts == {"encoder": "fold_in"}
    candidate = copy.copy(made.candidate)
    candidate.manifest = msgspec.structs.replace(
        candidate.manifest,
        ranker={"kind": "neumf"},
        item_weights={"by": "ease"},
        blend={"kind": "trees"},
    )
    assert report_of(made._replace(candidate=candidate)).parts == {
        **{"encoder": "fold_in", "ranker": "neumf", "blend": "trees", "item weights": "ease"},
    }


def test_top_items_are_those_that_stand_in_most_lists(told):
    for row in told.rows:
        shares = [item.share for item in row.top_items]
        assert shares == sorted(shares, reverse=True)
        assert 0 < shares[0] <= 1
        assert len(row.top_items) == 10
        assert HOSTILE in row.top_items[0].title


def test_a_lorenz_curve_runs_from_nothing_to_all():
    curve = report.lorenz(np.array([5.0, 0.0, 5.0, 0.0]))
    assert (curve[0], curve[25], curve[50]) == (0.0, 0.0, 1.0)
    assert report.lorenz(np.ones(7)) == pytest.approx(np.linspace(0, 1, 51).tolist())
    assert all(map(math.isnan, report.lorenz(np.zeros(3))))


def test_one_event_far_in_the_future_does_not_hide_the_others(made):
    times = made.data.times_ms.copy()
    times[0] += 10**13
    data = report_of(made._replace(data=replace(made.data, times_ms=times))).data
    assert max(data.interactions_per_bin) < 200
    assert sum(data.interactions_per_bin) == 1500


def test_a_serving_generation_with_wild_scores_has_no_row(made):
    broken = judged().serving
    broken.item_vectors = np.full_like(broken.item_vectors, np.nan)
    rows = report_of(made._replace(serving=broken)).rows
    assert [row.role for row in rows] == ["candidate", "popularity"]


def test_a_candidate_with_wild_scores_has_no_report(made):
    broken = judged().candidate
    broken.item_vectors = np.full_like(broken.item_vectors, np.inf)
    with pytest.raises(served.NotFiniteError):
        report_of(made._replace(candidate=broken))


def test_the_json_has_no_number_that_json_lacks(told):
    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    tree = json.loads(report.encode(told), parse_constant=refuse)
    assert tree["rows"][0]["pointwise"]["accuracy"] is None
    assert tree["format"] == report.FORMAT
    assert tree["curve"] == {"loss": [0.9, 0.5, 0.4]}


class Checked(HTMLParser):
    """Closes what it opens; fetches nothing and runs nothing."""

    VOID = frozenset({"meta", "br"})

    def __init__(self):
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        assert tag not in {"script", "iframe", "img", "link", "object", "form"}, tag
        for name, value in attrs:
            assert not name.startswith("on"), name
            assert name not in {"src", "href", "style"}, name
            assert "url(" not in (value or "")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def checked(told):
    html = report_page.page(told)
    parser = Checked()
    parser.feed(html)
    assert parser.open == []
    assert "nan" not in html.lower().replace("nano", "")
    assert "infinity" not in html.lower()
    return parser.text


def test_the_page_is_whole_and_says_what_the_report_says(told):
    text = checked(told)
    for words in (
        *("Generation 2 · als", "It passed the gate.", told.gate.reason, "1,500 interactions"),
        *("generation 1 (als)", "popularity", "20-99 before", "Novelty", "Gini", "AUC", "factors"),
        *("loss as the fit went on", "gate_ndcg@20", "to offset (not included)"),
    ):
        assert words in text
    assert "Log loss" not in text  # an ALS gives no probabilities


def test_text_from_outside_is_text_on_the_page(told):
    hostile = msgspec.structs.replace(
        told,
        model=HOSTILE,
        start=HOSTILE,
        parts={HOSTILE: HOSTILE, "blend": HOSTILE},
        parameters={HOSTILE: HOSTILE},
        software={HOSTILE: HOSTILE},
        metrics={HOSTILE: {HOSTILE: 1.0}},
        privacy={"epsilon": HOSTILE},
        curve={HOSTILE: [1.0, 2.0]},
        gate=msgspec.structs.replace(told.gate, passed=False, reason=HOSTILE),
        rows=[msgspec.structs.replace(row, name=HOSTILE) for row in told.rows],
    )
    text = checked(hostile)
    assert text.count(HOSTILE) > 10
    assert "It did not pass the gate." in text
    assert "guards its users’ privacy" in text
    assert "It is served with a blend" in text


def test_a_curve_or_times_that_make_no_sense_are_no_end(told):
    data = msgspec.structs.replace(told.data, last_ms=10**17, judged_from_ms=10**17)
    curve = {"loss": [math.nan, math.inf], "flat": [1.0, 1.0], "one": [0.5], "none": []}
    text = checked(msgspec.structs.replace(told, data=data, curve=curve))
    assert f"{10**17} ms" in text


def test_scores_that_are_logits_have_an_accuracy(made):
    text = checked(report_of(made, logits=True))
    assert "Log loss" in text
