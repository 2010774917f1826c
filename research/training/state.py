"""What a checkpoint holds of a module: trained weights, optimiser moments and the embedding's row state, by name.

Tensors are in it unsharded and once, however the model is shared or sharded, so that a run may resume with another
layout: more ranks or fewer, sharded or not, embedding rows updated one by one or all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from research.common.errors import UserError
from research.models import sharding
from research.models.embedding import RowEmbedding
from research.models.parameters import trained_parameters
from research.training.checkpoint import Checkpoint

if TYPE_CHECKING:
    from research.training.module import TaskModule

MODEL = "backbone.model."  # where a module keeps its model
FORMER_MODEL = "encoder.model."  # where checkpoints of earlier versions have it


def training_tensors(module: TaskModule) -> dict[str, Tensor]:
    """Trained weights, optimiser moments and the embedding's row state, as they lie on this rank."""
    tensors = {f"model.{name}": tensor for name, tensor in trained_state(module.backbone.model).items()}
    names = {parameter: name for name, parameter in module.named_parameters()}
    optimizer: Any = module.optimizers()
    for parameter, state in optimizer.optimizer.state.items():
        for key, value in state.items():
            tensors[f"optimizer.{names[parameter]}.{key}"] = value
    if module.rows is not None:
        tensors |= {f"rows.{name}": tensor for name, tensor in module.rows.optimizer_state().items()}
    for name, method in module.methods.items():
        tensors |= {f"method.{name}.{key}": tensor for key, tensor in method.state().items()}
    return tensors | {f"adapter.{key}": tensor for key, tensor in module.adapter.state().items()}


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """The model's trained weights and its buffers, each tensor once, however many names it has."""
    kept = {*trained_parameters(model), *(name for name, _ in model.named_buffers())}
    return {name: tensor for name, tensor in model.state_dict().items() if name in kept}


def is_finite(module: TaskModule) -> bool:
    """Are all trained weights numbers? Ranks that share one model out must ask together."""
    trained = trained_parameters(module.backbone.model).values()
    finite = all(bool(sharding.local(p).isfinite().all()) for p in trained)
    if sharding.is_sharded(module.backbone.model):
        flag = torch.tensor(float(finite), device=module.device)
        dist.all_reduce(flag, op=dist.ReduceOp.MIN)
        finite = bool(flag)
    return finite


def load_weights(module: TaskModule, saved: Checkpoint) -> None:
    """Put a checkpoint's weights, and the embedding's row state, into the module."""
    tensors = with_moments_as_kept(saved.tensors(), module)
    weights = below("model.", tensors)
    expected = trained_state(module.backbone.model)
    wrong = sorted(k for k in expected if k not in weights or weights[k].shape != expected[k].shape)
    if wrong:
        raise UserError(
            f"The checkpoint {saved.path} is of another model: it lacks or reshapes {', '.join(wrong[:5])}."
        )
    sharding.load(module.backbone.model, weights)
    if module.rows is not None:
        module.rows.load_optimizer_state(below("rows.", tensors))
    for name, method in module.methods.items():
        method.load_state(below(f"method.{name}.", tensors))
    module.adapter.load_state(below("adapter.", tensors))


def load_optimizer(module: TaskModule, saved: Checkpoint) -> None:
    """Put a checkpoint's optimiser moments into the optimiser Lightning has made."""
    tensors = with_moments_as_kept(saved.tensors(), module)
    optimizer: Any = module.optimizers()
    for name, parameter in module.named_parameters():
        state = below(f"optimizer.{name}.", tensors)
        if state:
            optimizer.optimizer.state[parameter] = {
                k: sharding.like(v, parameter) if v.shape == parameter.shape else v.to(parameter.device)
                for k, v in state.items()
            }
    if module.scaler is not None and saved.state["scaler"]:
        module.scaler.load_state_dict(saved.state["scaler"])


def below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin so, by the rest of their names."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def present_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint's tensors under the names that this version gives them."""
    former, present = f"optimizer.{FORMER_MODEL}", f"optimizer.{MODEL}"
    return {
        present + name.removeprefix(former) if name.startswith(former) else name: tensor
        for name, tensor in tensors.items()
    }


def with_moments_as_kept(tensors: dict[str, Tensor], module: TaskModule) -> dict[str, Tensor]:
    """A checkpoint's tensors with the word embedding's moments in the form this module keeps: by row, or dense."""
    tensors = present_names(tensors)
    by_row = "rows.last" in tensors
    if by_row == (module.rows is not None):
        return tensors
    table = module.backbone.model.get_input_embeddings()
    name = next(name for name, p in module.backbone.model.named_parameters() if p is table.weight)
    dense = [f"optimizer.{MODEL}{name}.{key}" for key in ("exp_avg", "exp_avg_sq", "step")]
    kept = {k: v for k, v in tensors.items() if not k.startswith("rows.") and k not in dense}
    if not by_row:
        if dense[0] not in tensors:
            return tensors
        m, v, steps = (tensors[key] for key in dense)
        return kept | {f"rows.{key}": value for key, value in RowEmbedding.dense_state(m, v, int(steps)).items()}
    optim = module.config.optim
    rows = RowEmbedding(
        nn.Embedding.from_pretrained(tensors[f"model.{name}"]), optim.beta1, optim.beta2, optim.eps, optim.weight_decay
    )
    rows.load_optimizer_state(below("rows.", tensors))
    weight, m, v = rows.dense()
    return kept | {f"model.{name}": weight, **dict(zip(dense, (m, v, torch.tensor(float(rows.steps))), strict=True))}
