"""The network of SASRec, in PyTorch.

Kang & McAuley, "Self-Attentive Sequential Recommendation" (ICDM 2018), section III. Two things
differ from the paper. Normalisation stands before each part (Xiong et al., ICML 2020). And a bias
in the attention, per distance and per time gone by, stands in for absolute positions (Raffel et
al., JMLR 2020, section 2.1; for times Zhai et al., ICML 2024): what was learned at one place of a
history holds at others, and of a basket's items, whose order means nothing, the time tells that
they belong together.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from rheos.sequence_encoder import GAPS
from rheos.state import Float32s

NEVER = -1e9
"""Added to the attention to what comes later: no chance after the softmax, and no NaN."""


class Sizes(NamedTuple):
    """``last``: items of a history that the network reads; ``heads`` divides ``factors``."""

    items: int
    factors: int
    blocks: int
    heads: int
    last: int


class Network(nn.Module):
    """Vectors of histories: each place's inner products with ``table`` are its next item's logits.

    ``table`` (N, d) is both what goes in and what is scored (tied, as in the paper).
    """

    def __init__(self, sizes: Sizes, dropout: float, random: torch.Generator) -> None:
        super().__init__()
        d = sizes.factors
        self.sizes = sizes
        self.dropout = nn.Dropout(dropout)

        def matrix(rows: int, columns: int, scale: float) -> nn.Parameter:
            return nn.Parameter(torch.randn(rows, columns, generator=random) * scale)

        # Each of the 2 * blocks parts adds to one sum, which keeps a variance of about 1.
        small = (2 * sizes.blocks * d) ** -0.5
        self.table = matrix(sizes.items, d, d**-0.5)
        self.attend = nn.ParameterList(matrix(d, 3 * d, d**-0.5) for _ in range(sizes.blocks))
        self.mix = nn.ParameterList(matrix(d, d, small) for _ in range(sizes.blocks))
        self.distance = nn.ParameterList(
            nn.Parameter(torch.zeros(sizes.heads, sizes.last)) for _ in range(sizes.blocks)
        )
        self.gap = nn.ParameterList(
            nn.Parameter(torch.zeros(sizes.heads, GAPS)) for _ in range(sizes.blocks)
        )
        self.widen = nn.ParameterList(matrix(d, d, d**-0.5) for _ in range(sizes.blocks))
        self.widen_bias = nn.ParameterList(
            nn.Parameter(torch.zeros(d)) for _ in range(sizes.blocks)
        )
        self.narrow = nn.ParameterList(matrix(d, d, small) for _ in range(sizes.blocks))
        self.narrow_bias = nn.ParameterList(
            nn.Parameter(torch.zeros(d)) for _ in range(sizes.blocks)
        )
        # Before attention and before the layers of each block, and once at the end.
        self.gain = nn.ParameterList(
            nn.Parameter(torch.ones(d)) for _ in range(2 * sizes.blocks + 1)
        )
        self.shift = nn.ParameterList(
            nn.Parameter(torch.zeros(d)) for _ in range(2 * sizes.blocks + 1)
        )

    def forward(self, rows: Tensor, gaps: Tensor) -> Tensor:
        """Vectors (B, n, d) after each place of histories ``rows`` (B, n), oldest first, n <= last.

        ``gaps`` (B, n, n) are those of ``rheos.sequence_encoder.gaps_of``. Histories begin at
        place 0; what stands behind their ends moves nothing before it.
        """
        batch, length = rows.shape
        heads = self.sizes.heads
        place = torch.arange(length, device=rows.device)
        distance = place[:, None] - place  # (n, n)
        later = distance < 0
        x = functional.embedding(rows, self.table) * self.sizes.factors**0.5
        x = self.dropout(x)
        for block in range(self.sizes.blocks):
            y = self._norm(x, 2 * block) @ self.attend[block]
            # (B, n, 3 d) -> three of (B, heads, n, d / heads)
            q, k, v = y.view(batch, length, 3, heads, -1).permute(2, 0, 3, 1, 4)
            bias = self.distance[block][:, distance.clamp(min=0)].masked_fill(later, NEVER)
            bias = bias + self.gap[block][:, gaps].transpose(0, 1)  # (B, heads, n, n)
            shares = (q @ k.transpose(2, 3) * q.shape[-1] ** -0.5 + bias).softmax(-1)
            y = (self.dropout(shares) @ v).transpose(1, 2).reshape(batch, length, -1)
            x = x + self.dropout(y @ self.mix[block])
            y = self._norm(x, 2 * block + 1) @ self.widen[block] + self.widen_bias[block]
            y = torch.relu(y) @ self.narrow[block] + self.narrow_bias[block]
            x = x + self.dropout(y)
        return self._norm(x, 2 * self.sizes.blocks)

    def tensors(self) -> dict[str, Float32s]:
        """What ``rheos.sequence_encoder`` loads beside the item vectors, which are ``table``."""
        found = {"encoder.gain": self.gain[-1], "encoder.shift": self.shift[-1]}
        for block in range(self.sizes.blocks):
            parts = {
                "gain": self.gain[2 * block],
                "shift": self.shift[2 * block],
                "attend": self.attend[block],
                "distance": self.distance[block],
                "gap": self.gap[block],
                "mix": self.mix[block],
                "second_gain": self.gain[2 * block + 1],
                "second_shift": self.shift[2 * block + 1],
                "widen": self.widen[block],
                "widen_bias": self.widen_bias[block],
                "narrow": self.narrow[block],
                "narrow_bias": self.narrow_bias[block],
            }
            found |= {f"encoder.{name}.{block}": part for name, part in parts.items()}
        return {name: part.detach().cpu().numpy() for name, part in found.items()}

    def _norm(self, x: Tensor, which: int) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:], self.gain[which], self.shift[which])

    @torch.no_grad()
    def last_vectors(self, rows: Tensor, gaps: Tensor, lengths: Tensor) -> Tensor:
        """The vectors (B, d) after each history's last place; ``lengths`` (B,) are at least 1."""
        vectors: Tensor = self(rows, gaps)
        return vectors[torch.arange(len(rows), device=rows.device), lengths - 1]
