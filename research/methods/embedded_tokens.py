"""The embedded tokens of a micro-batch, for methods that move them: reading, moving, norms and noise by example.

All of it belongs to an example, not to the micro-batch it lies in: norms are over the tokens of one example, and noise
is drawn from (seed, step, example).

Shapes: a row (1, T, H) of T tokens with its filler, or a grid (N, L, H); E examples, H width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from research.methods.hooks import Loss, Trained
from research.models.load import ENCODER_DECODER
from research.models.random_state import random_state, set_random_state

if TYPE_CHECKING:
    from research.batching.pack import MicroBatch

MOVES = "moves the embedded tokens"  # what only one method of a run can do


Move = Tensor | Callable[[Tensor], Tensor]


class EmbeddedTokens:
    """The word embedding's output in the first stream: watched, and moved, one pass at a time."""

    def __init__(self, module: Trained) -> None:
        self.active = False
        self.move: Move | None = None
        self.seen: Tensor | None = None
        model = module.backbone.model
        reader = model.get_encoder() if module.backbone.family == ENCODER_DECODER else model
        reader.get_input_embeddings().register_forward_hook(self._hook)

    def loss(self, plain: Loss, micro: MicroBatch, move: Move | None = None) -> tuple[Tensor, Any, Tensor]:
        """The loss with the embedded tokens moved, its outputs, and the tokens that were read.

        `move` is added to them, or makes what is read of them.
        """
        self.active, self.move, self.seen = True, move, None
        try:
            loss, outputs = plain(micro)
            assert self.seen is not None
            return loss, outputs, self.seen
        finally:
            self.active, self.move, self.seen = False, None, None

    def _hook(self, embedding: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        """Of the first stream alone: the embedding is asked for it first."""
        if not self.active:
            return output
        self.active = False
        move = self.move
        moved = output if move is None else output + move.to(output) if isinstance(move, Tensor) else move(output)
        self.seen = moved if moved.requires_grad else moved.detach().requires_grad_()
        return self.seen


class SameDropout:
    """Each pass after the first draws the dropout masks of the first."""

    def __init__(self, micro: MicroBatch) -> None:
        self.device = micro.first.positions.device
        self.state = random_state(self.device)

    def again(self) -> None:
        set_random_state(self.state, self.device)


def gradient(loss: Tensor, embedded: Tensor, keep: bool = False) -> Tensor:
    """Of the loss in the embedded tokens, 0 where it does not depend on them; `keep`: there are more backward passes.

    An example's tokens feel its own loss alone, so that this is the gradient of each example's loss.
    """
    (found,) = torch.autograd.grad(loss, embedded, retain_graph=keep, allow_unused=True)
    return torch.zeros_like(embedded) if found is None else found.float()


def owners(micro: MicroBatch, shape: torch.Size) -> tuple[Tensor, int]:
    """The number of the example, 0 to E - 1, of each place, (1, T) or (N, L); E where there is filler. And E."""
    examples, sequence = np.unique(micro.examples, return_inverse=True)  # (E,), (N,)
    device = micro.first.positions.device
    flat = torch.from_numpy(np.repeat(sequence, micro.lengths)).to(device)
    if micro.first.layout is None:
        return micro.first.pad(flat, len(examples)), len(examples)
    filler = flat.new_full((shape[1] - len(flat),), len(examples))
    return torch.cat([flat, filler])[None], len(examples)


def norms(x: Tensor, micro: MicroBatch, order: float = 2) -> Tensor:
    """The norm over all tokens of an example, 2 or infinity, at each of its places: (1, T, 1) or (N, L, 1)."""
    owner, count = owners(micro, x.shape)
    if order == 2:
        squares = x.float().square().sum(-1).flatten()
        of_example = squares.new_zeros(count + 1).index_add_(0, owner.flatten(), squares).sqrt()
    else:
        largest = x.float().abs().amax(-1).flatten()
        of_example = largest.new_zeros(count + 1).scatter_reduce_(0, owner.flatten(), largest, "amax")
    return of_example[owner][..., None]


def unit(x: Tensor, micro: MicroBatch, order: float = 2) -> Tensor:
    """Each example divided by its norm; 0 where that is 0 or no number."""
    norm = norms(x, micro, order)
    usable = norm.isfinite() & (norm > 0)
    return torch.where(usable, x / norm.clamp(min=1e-30), 0.0)


def within(x: Tensor, micro: MicroBatch, radius: float) -> Tensor:
    """Each example scaled back to a norm of at most `radius`."""
    return x * (radius / norms(x, micro).clamp(min=1e-30)).clamp(max=1.0)


def noise(module: Trained, micro: MicroBatch, like: Tensor, what: int, uniform: bool = False) -> Tensor:
    """Standard normal noise, or uniform over [-1, 1), in the shape of `like`; 0 at filler.

    An example of a step has its own, in whichever micro-batch it lies; `what` tells draws for several uses apart.
    """
    parts, width = [], like.shape[-1]
    draw = torch.rand if uniform else torch.randn
    for example in dict.fromkeys(micro.examples.tolist()):
        tokens = int(micro.lengths[micro.examples == example].sum())
        seed = np.random.SeedSequence([module.config.order_seed, module.step, what, example & 0xFFFFFFFF])
        generator = torch.Generator().manual_seed(int(seed.generate_state(1, np.uint64)[0] >> 1))
        parts.append(draw(tokens, width, generator=generator))
    flat = torch.cat(parts).to(like.device)
    flat = flat * 2 - 1 if uniform else flat
    if micro.first.layout is None:
        return micro.first.pad(flat, 0.0)
    return torch.cat([flat, flat.new_zeros(like.shape[1] - len(flat), width)])[None]


def sizes(micro: MicroBatch, like: Tensor) -> Tensor:
    """Embedded numbers of an example, tokens times width, at each of its places: (1, T, 1) or (N, L, 1)."""
    owner, count = owners(micro, like.shape)
    tokens = torch.bincount(owner.flatten(), minlength=count + 1)
    return (tokens * like.shape[-1])[owner][..., None]
