"""The gradients of a step: micro-batch by micro-batch, or, where the loss needs the whole step, in three passes.

Either way they are those of the loss summed over the targets of the global batch and divided by their number, however
the batch is laid out on ranks and micro-batches.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from research.batching.pack import MicroBatch, StepItem, pack
from research.batching.plan import Indices, micro_batches
from research.common.errors import UserError, is_out_of_memory
from research.methods.hooks import Vectors
from research.models import sharding
from research.models.random_state import random_state, set_random_state

if TYPE_CHECKING:
    from research.training.module import TaskModule

Queue = list[tuple[MicroBatch, Indices]]  # micro-batches and their examples


class DoesNotFit(Exception):
    """Memory ran out in a micro-batch."""

    def __init__(self, share: Indices) -> None:
        super().__init__()
        self.share = share


def backward(module: TaskModule, item: StepItem) -> Tensor:
    """Gradients of the step's loss, exchanged between the ranks. Returns this rank's share of the loss.

    Where memory runs out, the token budget is halved and the step tried again, on one rank.
    """
    queue: Queue = list(zip(item.micro, item.rows, strict=True))
    if item.budget_tokens > module.budget_tokens and module.trainer.world_size == 1:  # planned before memory ran out
        queue = cut(module, item)
    gradients = _whole_step if module.needs_whole_step else _micro_batches
    while True:
        try:
            return gradients(module, queue, item)
        except DoesNotFit as error:
            assert isinstance(error.__cause__, Exception)
            if len(error.share) <= 1:
                raise error.__cause__ from None
            halve_budget(module, item.step, error.share)
            queue = cut(module, item)


def _micro_batches(module: TaskModule, queue: Queue, item: StepItem) -> Tensor:
    """Each micro-batch forward and backward, one after the other."""
    total, module.unsmoothed = torch.zeros((), device=module.device), None
    for i, (micro, share) in enumerate(queue):
        with _telling(share), _exchange(module, last=i + 1 == len(queue)):
            loss = module.training_loss(micro)[0] * (0.0 if micro.idle else 1.0 / (item.targets or 1.0))
            _backward(module, loss * module.trainer.world_size)
        total += loss.detach()
    if module.unsmoothed is not None:
        module.unsmoothed = module.unsmoothed / (item.targets or 1.0)
    return total


def _whole_step(module: TaskModule, queue: Queue, item: StepItem) -> Tensor:
    """The embeddings of all micro-batches and ranks, the loss over them, then each micro-batch again with its gradient.

    Gao et al. 2021, Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup (GradCache): gradients are
    exact, memory is that of one micro-batch. A single micro-batch is computed once.
    """
    ranks, once = module.trainer.world_size, len(queue) == 1
    states, embedded = [], []
    for micro, share in queue:
        states.append(random_state(module.device))
        with _telling(share), contextlib.nullcontext() if once else torch.no_grad():
            embedded.append(embedded_by(module, micro))
    vectors = [part for _, part in embedded]
    kept = [part for part, (micro, _) in zip(vectors, queue, strict=True) if not micro.idle]
    gathered = {name: _Gathered(name, kept, vectors, module) for name in vectors[0]}
    with _exchange(module, last=False):
        leaves = {name: part.leaf for name, part in gathered.items()}
        loss = _whole_step_loss(module, leaves, {name: part.examples for name, part in gathered.items()})
        loss = loss / (item.targets or 1.0)
        module.manual_backward(loss)
    total = loss.detach() / ranks
    scale = module.scaler.get_scale() if module.scaler is not None else 1.0  # both backward passes apply it
    slices = {name: part.own_gradient() * (ranks / scale) for name, part in gathered.items()}
    taken = dict.fromkeys(slices, 0)
    for i, (micro, share) in enumerate(queue):
        with _telling(share), _exchange(module, last=i + 1 == len(queue)):
            if not once:
                set_random_state(states[i], module.device)
            own, again = embedded[i] if once else embedded_by(module, micro)
            own = own * (0.0 if micro.idle else 1.0 / (item.targets or 1.0))
            total = total + own.detach()
            surrogate = own * ranks
            for name, (made, _) in again.items():
                first = taken[name]
                taken[name] += 0 if micro.idle else len(made)
                weight = torch.zeros_like(made) if micro.idle else slices[name][first : taken[name]]
                surrogate = surrogate + (made.float() * weight).sum()
            _backward(module, surrogate)
    return total


def _backward(module: TaskModule, loss: Tensor) -> None:
    """Raises UserError where no trained weight acts on the loss, as that of a pooler where the task reads tokens."""
    if not loss.requires_grad:
        raise UserError(
            f"adapter={module.config.adapter.name} trains no weight that the loss of task '{module.config.task.name}' "
            "depends on; choose another adapter."
        )
    module.manual_backward(loss)


def embedded_by(module: TaskModule, micro: MicroBatch) -> tuple[Tensor, Vectors]:
    """The loss that needs this micro-batch alone, and the vectors that the loss of the whole step needs of it."""
    if (method := module.whole_step_method) is not None:
        return method.embed(module, micro, module.training_loss)
    return torch.zeros((), device=module.device), module.embed(micro)


def _whole_step_loss(module: TaskModule, vectors: dict[str, Tensor], examples: dict[str, Indices]) -> Tensor:
    """The task's, or a method's, summed over the targets of the step."""
    if (method := module.whole_step_method) is not None:
        return method.step_loss(module, vectors, examples)
    return module.step_loss(vectors, examples)


class _Gathered:
    """One kind of embeddings of the whole step, in the order of their examples: the same for every layout."""

    def __init__(self, name: str, kept: list[Any], embedded: list[Any], module: TaskModule) -> None:
        like = embedded[0][name][0]
        own = [part[name][0].detach().float() for part in kept]
        vectors = torch.cat([*own, like.detach()[:0].float()])  # (n, ...)
        examples = np.concatenate([np.zeros(0, np.int64), *(part[name][1] for part in kept)])
        counts = [len(vectors)]
        if module.trainer.world_size > 1:
            vectors, examples, counts = _all_gathered(vectors, examples, module)
        order = np.argsort(examples, kind="stable")
        self.examples = examples[order]
        self.leaf = vectors[torch.from_numpy(order).to(vectors.device)].requires_grad_()
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        first = sum(counts[: module.global_rank])
        self.own = torch.from_numpy(place[first : first + counts[module.global_rank]])

    def own_gradient(self) -> Tensor:
        """That of this rank's embeddings, in the order they were made."""
        gradient = torch.zeros_like(self.leaf) if self.leaf.grad is None else self.leaf.grad
        return gradient[self.own.to(gradient.device)]


def _all_gathered(own: Tensor, examples: Indices, module: TaskModule) -> tuple[Tensor, Indices, list[int]]:
    """Embeddings and examples of all ranks, and how many are each rank's."""
    ranks = module.trainer.world_size
    theirs: list[Any] = [None] * ranks
    dist.all_gather_object(theirs, examples)
    counts = [len(rows) for rows in theirs]
    filled = own.new_zeros(max(counts), *own.shape[1:])
    filled[: len(own)] = own
    parts = [torch.empty_like(filled) for _ in range(ranks)]
    dist.all_gather(parts, filled)
    vectors = torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])
    return vectors, np.concatenate(theirs), counts


def _exchange(module: TaskModule, last: bool) -> contextlib.AbstractContextManager[None]:
    """Gradients stay on this rank until the last micro-batch."""
    if sharding.is_sharded(module.backbone.model):
        sharding.exchange(module.backbone.model, last)
    no_sync = getattr(module.trainer.strategy.model, "no_sync", None)
    return contextlib.nullcontext() if last or no_sync is None else no_sync()


@contextlib.contextmanager
def _telling(share: Indices) -> Iterator[None]:
    """Raises DoesNotFit where memory runs out."""
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise DoesNotFit(share) from error
        raise


def halve_budget(module: TaskModule, step: int, share: Indices) -> None:
    """Halve the token budget and forget the step so far. Raises UserError where other ranks wait."""
    used = int(module.data.training_store(step).tokens[share].sum())
    module.budget_tokens = max(1, min(module.budget_tokens, used) // 2)
    setting = module.budget_tokens * module.copies
    if module.trainer.world_size > 1:  # the others wait for this rank in the middle of the step
        raise UserError(
            f"Rank {module.global_rank} ran out of memory with a micro-batch of {used} tokens. Give the same command "
            f"with trainer.tokens_per_microbatch={setting}: it resumes from the last checkpoint, with the same result."
        )
    module.print(
        f"Out of memory with a micro-batch of {used} tokens: trying the step again with at most "
        f"{module.budget_tokens} (the result is the same; set trainer.tokens_per_microbatch={setting})."
    )
    for p in module.parameters():
        p.grad = None
    if module.rows is not None and module.rows.rows is not None:
        module.rows.rows.grad = None
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def cut(module: TaskModule, item: StepItem) -> Queue:
    """The micro-batches of a step under the present token budget, and their examples."""
    store, batch, packed = module.data.training_store(item.step), np.concatenate(item.rows), module.backbone.packed
    parts = micro_batches(batch, store.stream_tokens[batch], module.budget_tokens, not packed)
    return [(pack(store, part, packed).to(module.device), part) for part in parts]
