"""Cases by how much was known of their user or item."""

import numpy as np
import pytest

from trainer.evaluation import bands, metrics


def test_each_case_stands_in_the_band_of_its_count():
    counts = np.array([0, 1, 4, 5, 19, 20, 99, 100, 10**9])
    values = np.arange(9.0)[:, None] * np.ones(len(metrics.MEASURES))
    found = bands.by_count(values, np.arange(9), counts)
    assert [(band.name, band.cases) for band in found] == [
        *(("0", 1), ("1-4", 2), ("5-19", 2), ("20-99", 2), ("100+", 2)),
    ]
    assert [band.measures["ndcg"].mean for band in found] == [0.0, 1.5, 3.5, 5.5, 7.5]


def test_bands_without_cases_are_left_out():
    values = np.ones((3, len(metrics.MEASURES)))
    (found,) = bands.by_count(values, np.array([5, 5, 6]), np.array([7, 7, 8]))
    assert (found.name, found.cases, found.users) == ("5-19", 3, 2)
    assert bands.by_count(values[:0], np.zeros(0, int), np.zeros(0, int)) == []


def test_a_negative_count_is_refused():
    with pytest.raises(ValueError, match="negative"):
        bands.by_count(np.ones((1, 7)), np.zeros(1, int), np.array([-1]))
