"""An embedding table whose optimiser touches only the rows a step uses, yet follows dense AdamW.

Dense AdamW moves every row at every step: a row without a gradient still drifts by its momentum and
decays. Over the steps j = s+1..t that a row (last used at step s, with moments m and v) misses, dense AdamW does
    p <- p (1 - lr_j wd) - lr_j [m b1^(j-s) / (1 - b1^j)] / (sqrt(v b2^(j-s) / (1 - b2^j)) + eps)
Everything but p, m, v is known from s and t alone, so the whole sum is one fused update when the row is next read:
    p <- p P_t/P_s - K m / (sqrt(v) + eps E)
with P the running product of the decays, K the sum of the scalar factors and E their mean weight of eps. That
is exact for eps = 0 and to first order in eps otherwise.

Shapes: V vocabulary, R rows a step uses, H width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

FORGOTTEN = 1e-16  # momentum below this share is below rounding


class RowEmbedding(nn.Module):
    """Stands in for an nn.Embedding; `weight` keeps its name, so weights load and save unchanged."""

    def __init__(self, table: nn.Embedding, beta1: float, beta2: float, eps: float, weight_decay: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(table.weight.detach(), requires_grad=False)  # (V, H)
        self.padding_idx = table.padding_idx
        self.beta1, self.beta2, self.eps, self.weight_decay = beta1, beta2, eps, weight_decay
        self.memory_steps = math.ceil(math.log(FORGOTTEN) / math.log(max(beta1, FORGOTTEN)))
        self.rows: Tensor | None = None  # (R, H) leaf of the step under way
        self.ids: Tensor | None = None  # (R,)
        self.moments: list[Tensor] = []  # of these rows, each (R, H)
        V, device = len(self.weight), self.weight.device
        self.slot = torch.zeros(V, dtype=torch.int64, device=device)  # id -> its row in this step
        self.m = torch.zeros_like(self.weight)
        self.v = torch.zeros_like(self.weight)
        self.last = torch.zeros(V, dtype=torch.int64, device=device)  # step at which each row is up to date
        self.decay = np.ones(1)  # P_t
        self.k_over_p = np.zeros(1)  # for each s: K / P_t
        self.ke_over_p = np.zeros(1)  # for each s: K E / P_t

    @property
    def steps(self) -> int:
        return len(self.decay) - 1

    def begin(self, ids: Tensor) -> Tensor:
        """Bring these rows up to date and make them the leaf of the coming step. Returns the leaf (R, H)."""
        self.ids = ids
        weight, *self.moments = self._caught_up(ids)
        self.slot.index_copy_(0, ids, torch.arange(len(ids), device=ids.device))
        self.rows = weight.requires_grad_()
        return self.rows

    def forward(self, input_ids: Tensor) -> Tensor:
        if self.rows is None or not self.training:
            ids, places = input_ids.unique(return_inverse=True)
            return F.embedding(places, self._caught_up(ids)[0])
        embedded = F.embedding(self.slot[input_ids], self.rows)
        if self.padding_idx is None:
            return embedded
        padding = (input_ids == self.padding_idx)[..., None]
        return torch.where(padding, embedded.detach(), embedded)  # as nn.Embedding: no gradient to padding

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """One AdamW update of the rows of this step, by the gradient of the leaf; the other rows owe it."""
        assert self.rows is not None and self.ids is not None, "begin() opens a step"
        t = self.steps + 1
        self._remember(lr, t)
        p, g, ids = self.rows.detach(), self.rows.grad, self.ids
        if g is None:
            g = torch.zeros_like(p)
        m, v = self.moments
        m.lerp_(g, 1 - self.beta1)
        v.mul_(self.beta2).addcmul_(g, g, value=1 - self.beta2)
        p.mul_(1 - lr * self.weight_decay)
        denominator = (v.sqrt() / (1 - self.beta2**t) ** 0.5).add_(self.eps)
        p.addcdiv_(m, denominator, value=-lr / (1 - self.beta1**t))
        for table, rows in ((self.weight.data, p), (self.m, m), (self.v, v)):
            table.index_copy_(0, ids, rows)
        self.last.index_fill_(0, ids, t)
        self.rows = self.ids = None

    def _remember(self, lr: float, t: int) -> None:
        """Add step t to the scalar sums of every s < t."""
        decay = self.decay[-1] * (1 - lr * self.weight_decay)
        self.decay = np.append(self.decay, decay)
        first = max(0, t - self.memory_steps)
        missed = t - np.arange(first, t, dtype=np.float64)  # j - s
        spread = np.sqrt(self.beta2**missed / (1 - self.beta2**t))
        share = lr * self.beta1**missed / (1 - self.beta1**t) / spread / decay
        self.k_over_p[first:] += share
        self.ke_over_p[first:] += share / spread
        self.k_over_p = np.append(self.k_over_p, 0.0)
        self.ke_over_p = np.append(self.ke_over_p, 0.0)

    @torch.no_grad()
    def _caught_up(self, ids: Tensor | slice) -> tuple[Tensor, Tensor, Tensor]:
        """weight, m and v of these rows as dense AdamW would have them now."""
        for name in ("slot", "m", "v", "last"):  # to the weights' device: new ones and those of a checkpoint are not
            setattr(self, name, getattr(self, name).to(self.weight.device))
        last = self.last[ids].cpu().numpy()
        now = self.decay[-1]
        k = self.k_over_p[last] * now
        e = self.ke_over_p[last] / np.maximum(self.k_over_p[last], np.finfo(np.float64).tiny)
        missed = (self.steps - last).astype(np.float64)
        columns = np.stack([now / self.decay[last], k, self.eps * e, self.beta1**missed, self.beta2**missed])
        kept, drift, eps, m_kept, v_kept = torch.from_numpy(columns).to(self.weight)[:, :, None]  # (R, 1) each
        weight, m, v = (x if isinstance(ids, slice) else x.index_select(0, ids) for x in (self.weight, self.m, self.v))
        moved = drift * m / (v.sqrt() + eps.clamp(min=self.eps * 1e-3))
        return weight * kept - moved, m * m_kept, v * v_kept

    @contextmanager
    def up_to_date(self) -> Iterator[None]:
        """Within it, `weight` is what dense AdamW would hold: for export."""
        owed = self.weight.data
        if self.steps:
            self.weight.data = self._caught_up(slice(None))[0]
        try:
            yield
        finally:
            self.weight.data = owed

    def optimizer_state(self) -> dict[str, Tensor]:
        """What a checkpoint needs beside `weight`."""
        scalars = np.stack([self.decay, self.k_over_p, self.ke_over_p])
        return {"m": self.m, "v": self.v, "last": self.last, "scalars": torch.from_numpy(scalars)}

    def dense(self) -> tuple[Tensor, Tensor, Tensor]:
        """The table and its two moments as dense AdamW would hold them."""
        return self._caught_up(slice(None))

    @staticmethod
    def dense_state(m: Tensor, v: Tensor, steps: int) -> dict[str, Tensor]:
        """The `optimizer_state` of a table that dense AdamW has brought through `steps` steps: no row owes any."""
        scalars = torch.stack([torch.ones(steps + 1), torch.zeros(steps + 1), torch.zeros(steps + 1)]).double()
        return {"m": m, "v": v, "last": torch.full((len(m),), steps), "scalars": scalars}

    def load_optimizer_state(self, state: dict[str, Tensor]) -> None:
        """The inverse of `optimizer_state`."""
        self.m, self.v, self.last = (state[name].clone() for name in ("m", "v", "last"))
        self.decay, self.k_over_p, self.ke_over_p = (row.copy() for row in state["scalars"].cpu().numpy())
