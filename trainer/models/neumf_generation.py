"""A trained network in the form that serves: item vectors, an encoder and, for MLP, a ranker.

Item vectors are (h ⊙ q, b, 1, y) and user vectors (p, 1, c, a): GMF, the biases, and MLP's best
linear approximation a·y, by which a candidate is found; the ranker then has MLP in full. A user's p
and c come from the history by ``LogisticFoldIn``, which has the loss of the training; a, what she
adds to MLP's first layer, by a linear map of the mean of the history's item features, solved for on
the users of the fit.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rheos.latest_items import latest_items
from rheos.logistic_fold_in import mean_features
from rheos.state import Float32s
from trainer.data_set import DataSet
from trainer.models.model import Fitted, Start
from trainer.models.neumf_network import Network
from trainer.models.neumf_training import Descent
from trainer.models.stochastic_descent import StochasticDescent

STEPS = 4
"""Newton steps of the fold-in: with them it ranks as the trained vectors do."""
ANCHORS = 2048
"""Items that stand for all others in the fold-in: (2048, 64) float32 are half a megabyte."""
SAMPLED_USERS = 1024
"""Users that tell the others' mean curvature, and how to replace MLP by a linear function."""
CELLS = 1 << 18  # scores computed at once: MLP's (2^18, 64) float32 hidden layer is 64 MB
AT_ONCE = 512  # users whose histories stand in memory together
RIDGE = 1e-3
"""L2 of MLP's linear approximation, as a share of the mean square."""
MAP_RIDGE = 0.03
"""The same of the map from histories: short ones are far from those that it is solved for."""
LEAST_REGULARISATION = 1e-4
"""The fold-in has one minimum only with some L2."""


class Reading(NamedTuple):
    """How the encoder reads a history, as in ``LogisticFoldIn``."""

    half_steps: float
    last: int


@torch.no_grad()
def fitted_of(
    network: Network,
    data: DataSet,
    how: Descent | StochasticDescent,
    reading: Reading,
    losses: Sequence[float],
    random: torch.Generator,
) -> Fitted:
    """The generation of a network trained on ``data`` as ``how`` says."""
    d, m = network.factors, len(network.first_bias)
    sample = torch.randperm(len(network.users), generator=random)[:SAMPLED_USERS]
    b = network.item_inputs(torch.arange(len(network.q), device=network.q.device))
    curvature, y, shift = _of_sample(network, network.users[sample.to(network.users.device)], b)
    users, q = network.users.cpu(), (network.q * network.unit_h()).cpu()
    p, c, a = users[:, :d], users[:, d : d + 1], network.user_inputs(network.users).cpu()
    bias = (network.bias.cpu() + shift)[:, None]
    features = torch.cat([_unit(b.cpu()), _unit(q), torch.ones(len(q), 1)], 1).numpy()
    tensors = {
        "encoder.curvature": curvature.numpy(),
        "encoder.start": torch.cat([p, c], 1).mean(0).numpy(),
        "encoder.features": features,
        "encoder.matrix": _matrix(data, features, a.numpy(), reading),
    }
    ranker = None
    if m:
        ranker = {"kind": "neumf", "layers": len(network.weights), "linear": d + 2}
        tensors["ranker.shift"] = shift.numpy()
        tensors["ranker.first"] = (b + network.first_bias).cpu().numpy()
        tensors["ranker.out"] = network.out.cpu().numpy()
        for layer, (weight, row) in enumerate(zip(network.weights, network.biases, strict=True)):
            tensors[f"ranker.weight.{layer}"] = weight.cpu().numpy()
            tensors[f"ranker.bias.{layer}"] = row.cpu().numpy()
    return Fitted(
        data.item_ids,
        torch.cat([q, bias, torch.ones(len(q), 1), y], 1).numpy(),
        {
            "kind": "logistic_fold_in",
            "factors": d,
            "negatives": how.negatives,
            "regularisation": max(how.regularisation, LEAST_REGULARISATION),
            "steps": STEPS,
            "anchors": ANCHORS,
            "half_steps": reading.half_steps,
            "last": reading.last,
        },
        ranker,
        tensors,
        torch.cat([p, torch.ones(len(p), 1), c, a], 1).numpy(),
        keep=_kept(network),
        curve={"loss": list(losses)},
    )


def _of_sample(network: Network, users: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Over some users' rows: the mean slope of the logistic function at each item's score (N,), and
    the linear regression of MLP's scores on a: coefficients (N, m) and constants (N,).
    """
    items = torch.arange(len(network.q), device=users.device)
    slopes = torch.zeros(len(items), device=users.device)
    a = network.user_inputs(users)
    centre = a.mean(0)
    mlp_mean = torch.zeros_like(slopes)
    together = torch.zeros(a.shape[1], len(items), device=users.device)
    at_once = max(1, CELLS // len(items))
    for part, inputs in zip(torch.split(users, at_once), torch.split(a, at_once), strict=True):
        whole = network.inner_block(part, items)  # (B, N)
        if len(centre):
            mlp = network.mlp(inputs, b)
            whole = whole + mlp
            mlp_mean += mlp.sum(0)
            together += (inputs - centre).T @ mlp
        slopes += (whole.sigmoid() * (-whole).sigmoid()).sum(0)
    mlp_mean /= len(users)
    gram = (a - centre).T @ (a - centre)
    ridge = RIDGE * gram.trace() / max(1, len(gram)) + 1e-6
    y = torch.linalg.solve(gram + ridge * torch.eye(len(gram), device=gram.device), together).T
    return (slopes / len(users)).cpu(), y.cpu(), (mlp_mean - y @ centre).cpu()


def _matrix(data: DataSet, features: Float32s, a: Float32s, reading: Reading) -> Float32s:
    """The ridge regression (f, m) of the users' a on the means of their histories' features."""
    row_of = {item: row for row, item in enumerate(data.item_ids)}
    width = features.shape[1]
    gram, target = np.zeros((width, width)), np.zeros((width, a.shape[1]))
    if a.shape[1]:
        for span, histories in data.histories(AT_ONCE):
            latest = latest_items(histories, row_of, reading.last)
            means = mean_features(latest, reading.half_steps, features).astype(np.float64)
            gram += means.T @ means
            target += means.T @ a[span]
    ridge = MAP_RIDGE * np.trace(gram) / width + 1e-6
    matrix: Float32s = np.linalg.solve(gram + ridge * np.eye(width), target).astype(np.float32)
    return matrix


_USERS = "user.vectors"


def _kept(network: Network) -> Mapping[str, Float32s]:
    """What a later fit starts from."""
    kept = {_USERS: network.users.cpu().numpy()}
    for name, parameter in network.named_parameters():
        whose = "item." if name in ("q", "w", "bias") else ""
        if parameter.numel():
            kept[f"{whose}{name}"] = parameter.cpu().numpy()
    return kept


@torch.no_grad()
def start_from(network: Network, start: Start, data: DataSet) -> None:
    """Takes over what the last fit kept of the users and items that it knew."""
    users = network.users.cpu().numpy()
    start.carry(_USERS, data.user_ids, users)
    network.users.copy_(torch.from_numpy(users))
    for name, parameter in network.named_parameters():
        into = parameter.cpu().numpy().copy()
        if name in ("q", "w", "bias"):
            start.carry(f"item.{name}", data.item_ids, into)
        elif name in start.tensors and start.tensors[name].shape == into.shape:
            into = start.tensors[name]
        parameter.copy_(torch.from_numpy(into))


def _unit(vectors: Tensor) -> Tensor:
    """Vectors scaled to a root mean square length of 1: one regularisation suits both branches."""
    return vectors / vectors.square().sum(1).mean().sqrt().clamp(min=1e-12)
