"""The propagation of graph models: products with the normalised adjacency, and their gradients.

He, Deng, Wang, Li, Zhang & Wang, "LightGCN" (SIGIR 2020): the adjacency is eq. 6 and 7, the mean of
the layers eq. 8 with α_k = 1 / (K + 1).
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, cast

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from rheos.state import Float32s


class Adjacency(Protocol):
    """Â = (0 R̃; R̃ᵀ 0), symmetric, over the users' rows and then the items'."""

    def times(self, x: Tensor) -> Tensor:
        """Â x for x (U + N, d), without gradients."""


def adjacency_on(
    device: torch.device, edges: sparse.csr_array, pool: ThreadPoolExecutor, threads: int
) -> Adjacency:
    """The adjacency of R̃ (U, N) for a device: SciPy's product on a CPU, where it is the fastest.

    There ``threads`` parts of the rows are multiplied side by side in ``pool``, which has to
    outlive the adjacency.
    """
    matrix = sparse.block_array([[None, edges], [edges.T, None]], format="csr")
    # SciPy's and torch's products read 32-bit indices faster; (U + N) and the edges fit.
    matrix.indptr, matrix.indices = matrix.indptr.astype(np.int32), matrix.indices.astype(np.int32)
    return OnCpu(matrix, pool, threads) if device.type == "cpu" else OnDevice(matrix, device)


class OnCpu:
    """Â in parts of about as many non-zeros each; SciPy's product leaves the interpreter free."""

    def __init__(self, matrix: sparse.csr_array, pool: ThreadPoolExecutor, threads: int) -> None:
        shares = np.linspace(0, matrix.nnz, max(1, threads) + 1)
        bounds = np.searchsorted(matrix.indptr, shares)
        bounds[0], bounds[-1] = 0, matrix.shape[0]
        self._parts = [
            (slice(begin, end), matrix[begin:end])
            for begin, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
            if begin < end
        ]
        self._pool = pool

    def times(self, x: Tensor) -> Tensor:
        rows = x.detach().numpy()
        if len(self._parts) == 1:
            return torch.from_numpy(self._parts[0][1] @ rows)
        out: Float32s = np.empty_like(rows)

        def multiply(part: tuple[slice, sparse.csr_array]) -> None:
            out[part[0]] = part[1] @ rows

        list(self._pool.map(multiply, self._parts))
        return torch.from_numpy(out)


class OnDevice:
    """Â as torch's compressed sparse rows, for a GPU."""

    def __init__(self, matrix: sparse.csr_array, device: torch.device) -> None:
        self._matrix = torch.sparse_csr_tensor(
            torch.from_numpy(matrix.indptr),
            torch.from_numpy(matrix.indices),
            torch.from_numpy(matrix.data),
            matrix.shape,
            device=device,
            check_invariants=True,
        )

    def times(self, x: Tensor) -> Tensor:
        return self._matrix @ x.detach()


def layers(adjacency: Adjacency, x: Tensor, count: int) -> list[Tensor]:
    """x, Â x, …, Â^count x: the embeddings of the layers, without gradients."""
    out = [x.detach()]
    for _ in range(count):
        out.append(adjacency.times(out[-1]))
    return out


def propagate(adjacency: Adjacency, x: Tensor, count: int) -> Tensor:
    """P x = (x + Â x + … + Â^count x) / (count + 1), (U + N, d): the mean of the layers."""
    return cast(Tensor, _Propagation.apply(x, adjacency, count))


class _Propagation(torch.autograd.Function):
    """P is a polynomial of a symmetric matrix, so Pᵀ = P: the gradient is one more propagation.

    Nothing is kept for the backward pass, and no transpose is made.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, adjacency: Adjacency, count: int) -> Tensor:
        ctx.adjacency, ctx.count = adjacency, count
        return _mean(adjacency, x, count)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _mean(ctx.adjacency, gradients[0], ctx.count), None, None


def _mean(adjacency: Adjacency, x: Tensor, count: int) -> Tensor:
    """P x by Horner's rule: x + Â (x + Â (x + …))."""
    out = x.detach().clone()
    for _ in range(count):
        out = adjacency.times(out).add_(x.detach())
    return out.div_(count + 1)
