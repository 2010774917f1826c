"""Sharding a model over the ranks (FSDP2): each holds a part of every weight, gradient and moment.

The run folder does not know of it: tensors are gathered before they are written, and cut again after they
are read, so a run may resume with another number of ranks, sharded or not.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


def shard(model: nn.Module, mesh: DeviceMesh) -> None:
    """Shard a model in place: each layer of its stacks is gathered for its own computation, the rest for all of it."""
    stacks = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    for stack in reversed(stacks):  # inner ones first
        for layer in stack:
            fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)


def is_sharded(model: nn.Module) -> bool:
    return isinstance(model, FSDPModule)


def exchange(model: nn.Module, now: bool) -> None:
    """Whether the coming backward pass ends in the ranks' exchange of gradients."""
    assert isinstance(model, FSDPModule)
    model.set_requires_gradient_sync(now)


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def copied(tensor: Tensor) -> Tensor:
    """The unsharded tensor in CPU memory of its own. All ranks must ask for a sharded one, in the same order."""
    tensor = tensor.detach()
    if isinstance(tensor, DTensor):
        tensor = tensor.full_tensor()
    return tensor.to("cpu", copy=True).contiguous()


def like(tensor: Tensor, other: Tensor) -> Tensor:
    """An unsharded tensor, the same on every rank, on the device of `other` and cut as it is."""
    tensor = tensor.to(other.device)
    if not isinstance(other, DTensor):
        return tensor
    return distribute_tensor(tensor, other.device_mesh, other.placements, src_data_rank=None)


def gathered(model: nn.Module, keep: bool) -> dict[str, Tensor]:
    """All weights, unsharded. Every rank takes part; those that do not `keep` them get none."""
    weights = ((name, copied(tensor)) for name, tensor in model.state_dict().items())
    return {name: tensor for name, tensor in weights if keep}


@torch.no_grad()
def load(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Put unsharded weights into a model, sharded or not; those it does not name stay."""
    for name, own in model.state_dict().items():
        if name in weights:
            own.copy_(like(weights[name], own))
