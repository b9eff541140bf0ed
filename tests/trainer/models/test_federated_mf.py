"""Federated averaging: one client is plain descent, and many see only their own users."""

import numpy as np

from trainer.data_set import DataSet, of_interactions
from trainer.models.federated_mf import FederatedMf
from trainer.models.model import Run
from trainer.models.user_gradients import UserGradients


def some_data() -> DataSet:
    random = np.random.default_rng(3)
    return of_interactions(
        [f"u{n:02d}" for n in random.integers(30, size=400)],
        [f"i{n}" for n in random.integers(20, size=400)],
        np.arange(400),
    )


def test_one_local_step_on_every_client_adds_up_to_the_mean_gradient_of_all_users() -> None:
    data = some_data()
    model = FederatedMf(local_steps=1)
    users = UserGradients(data, alpha=model.alpha, regularisation=model.regularisation)
    Y = np.random.default_rng(0).normal(size=(len(data.item_ids), 4)).astype(np.float32)
    everybody = np.arange(len(data.user_ids))
    parts = [everybody[:7], everybody[7:12], everybody[12:]]
    averaged = sum(len(mine) * model._change(users, mine, Y) for mine in parts) / len(everybody)
    expected = users.of(everybody, Y).total() / len(everybody)
    np.testing.assert_allclose(averaged, expected, rtol=2e-3, atol=1e-3)


def test_more_clients_than_users_and_a_share_of_none_still_fit() -> None:
    data = some_data()
    fitted = FederatedMf(clients=1000, client_share=1e-9, rounds=3).fit(data, Run())
    assert np.isfinite(fitted.item_vectors).all()
