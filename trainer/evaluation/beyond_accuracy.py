"""What lists of recommendations do to a catalogue: coverage, novelty, popularity bias."""

from typing import Any

import msgspec
import numpy as np

from rheos.state import Float64s, Int64s


class BeyondAccuracy(msgspec.Struct, frozen=True):
    """Of ``lists`` lists; NaN everywhere when there are none.

    ``coverage``: the share of the catalogue that stands in at least one list (Ge, Delgado &
    Jannach 2010, "catalog coverage").
    ``novelty``: the mean self-information of a recommended item in bits, -log2(users who had it /
    all users) (Zhou et al. 2010, "Solving the apparent diversity-accuracy dilemma of recommender
    systems"; Castells, Hurley & Vargas 2015). An item that nobody had counts as had by one.
    ``average_popularity``: the mean over lists of the mean number of users who had the listed items
    (Yin et al. 2012; Abdollahpouri et al. 2019, "ARP"), ``history_popularity`` the same of what the
    lists' users had, and ``popularity_lift`` (first - second) / second (Abdollahpouri et al. 2020,
    "The connection between popularity bias, calibration, and fairness in recommendation", group
    average popularity): 0 recommends as popular items as people have, above is bias.
    ``gini``: the Gini coefficient of how often each item of the catalogue is listed (Fleder &
    Hosanagar 2009): 0 all alike, 1 always the same item.
    """

    coverage: float
    novelty: float
    average_popularity: float
    history_popularity: float
    popularity_lift: float
    gini: float
    lists: int


def of_lists(
    lists: Int64s, users_per_item: Float64s, users: int, history_popularity: Float64s
) -> BeyondAccuracy:
    """``lists`` (n, k) are rows of the catalogue, best first, -1 where a list is shorter.

    ``users_per_item`` (N,): how many of the ``users`` had each item of the catalogue.
    ``history_popularity`` (n,): the mean of that over what each list's user had; NaN without any.
    """
    shown = lists >= 0
    if not shown.any():
        nothing: dict[str, Any] = dict.fromkeys(BeyondAccuracy.__struct_fields__, np.nan)
        return BeyondAccuracy(**{**nothing, "lists": len(lists)})
    listed = lists[shown]
    counts = np.bincount(listed, minlength=len(users_per_item)).astype(np.float64)
    share = np.maximum(users_per_item, 1.0) / max(users, 1)
    popularity = np.where(shown, users_per_item[lists], 0.0)
    lengths = shown.sum(axis=1)
    average = float((popularity.sum(axis=1)[lengths > 0] / lengths[lengths > 0]).mean())
    known = history_popularity[~np.isnan(history_popularity)]
    had = float(known.mean()) if len(known) else np.nan
    return BeyondAccuracy(
        coverage=float((counts > 0).mean()),
        novelty=float(-np.log2(share[listed]).mean()),
        average_popularity=average,
        history_popularity=had,
        popularity_lift=average / had - 1 if had else np.nan,
        gini=gini(counts),
        lists=len(lists),
    )


def gini(counts: Float64s) -> float:
    """Gini coefficient of ``counts`` (N,), none negative: sum over i of (2 i - N - 1) x_i, with x
    in rising order, divided by N sum of x. NaN when all are 0.
    """
    total = counts.sum()
    if not total:
        return float("nan")
    order = np.sort(counts)
    places = np.arange(1, len(order) + 1)
    return float(((2 * places - len(order) - 1) * order).sum() / (len(order) * total))
