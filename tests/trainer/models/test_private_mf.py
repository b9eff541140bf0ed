"""What one user can change is bounded, and what is spent is what the accountant says."""

from dataclasses import replace

import numpy as np
import pytest

from trainer.data_set import DataSet, of_interactions, pairs
from trainer.models import private_mf
from trainer.models.model import Run
from trainer.models.private_mf import PrivateMf
from trainer.models.user_gradients import UserGradients


def some_data(users: int = 30) -> DataSet:
    random = np.random.default_rng(3)
    count = 12 * users
    return of_interactions(
        [f"u{n:02d}" for n in random.integers(users, size=count)],
        [f"i{n}" for n in random.integers(20, size=count)],
        np.arange(count),
    )


def test_taking_one_user_out_moves_a_steps_sum_by_no_more_than_the_clip() -> None:
    data = some_data()
    model = PrivateMf(clip=0.3)
    users = UserGradients(data, alpha=model.alpha, regularisation=model.regularisation)
    Y = np.random.default_rng(0).normal(size=(len(data.item_ids), 16)).astype(np.float32)
    everybody = np.arange(len(data.user_ids))
    whole = model._clipped_sum(users, everybody, Y)
    assert (users.of(everybody, Y).lengths() > 0.3).any()
    for left_out in everybody:
        rest = model._clipped_sum(users, np.delete(everybody, left_out), Y)
        assert np.linalg.norm(whole - rest) <= 0.3 * (1 + 1e-5)


def test_taking_one_user_out_moves_the_counts_by_no_more_than_1(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(private_mf, "POPULARITY_NOISE", 0.0)
    data, random = some_data(), np.random.default_rng(0)
    whole = private_mf._noisy_popularity(data, random)
    for user in range(len(data.user_ids)):
        # Her rows are turned down: she no longer counts, and all ids stay.
        without = replace(data, weights=np.where(data.users == user, -1, 1).astype(np.float32))
        moved = whole - private_mf._noisy_popularity(without, random)
        assert np.linalg.norm(moved) <= 1 + 1e-5


def test_the_manifest_says_what_was_spent_and_it_is_within_what_was_allowed() -> None:
    fitted = PrivateMf(epsilon=3.0, steps=20).fit(some_data(), Run())
    told = fitted.privacy
    assert told is not None
    assert 2.8 < told["epsilon"] <= 3.0
    assert (told["delta"], told["unit"]) == (1e-5, "user")


def test_less_epsilon_means_more_noise_and_too_little_is_refused() -> None:
    noises = [PrivateMf(epsilon=epsilon)._noise_multiplier() for epsilon in (1.0, 4.0, 16.0)]
    assert noises == sorted(noises, reverse=True)
    with pytest.raises(ValueError, match=r"epsilon 0\.01 is too small"):
        PrivateMf(epsilon=0.01).fit(some_data(), Run())


def test_one_full_step_spends_what_the_gaussian_mechanism_does() -> None:
    """Rényi (Mironov 2017): ε_α = α / (2 σ²) a release, summed, as (ε, δ) at the best α."""
    model = PrivateMf(steps=1, user_share=1.0)
    inverse = 1 / 2.0**2 + 1 / private_mf.POPULARITY_NOISE**2
    orders = np.linspace(1.01, 60, 5000)
    spent = (
        orders * inverse / 2
        + np.log((orders - 1) / orders)
        - (np.log(model.delta) + np.log(orders)) / (orders - 1)
    )
    assert model._epsilon(2.0) == pytest.approx(spent.min(), rel=0.01)


def test_no_seed_gives_the_noise_again() -> None:
    one, other = (PrivateMf(steps=1).fit(some_data(), Run(seed=0)) for _ in range(2))
    assert one.popularity is not None
    assert other.popularity is not None
    assert (one.popularity != other.popularity).any()
    assert (one.item_vectors != other.item_vectors).any()


def test_counts_are_never_below_zero_and_differ_from_the_true_ones() -> None:
    data = some_data()
    fitted = PrivateMf(steps=2).fit(data, Run())
    assert fitted.popularity is not None
    assert (fitted.popularity >= 0).all()
    assert not np.array_equal(fitted.popularity, data.popularity())
    assert len(pairs(data).users) > 0
