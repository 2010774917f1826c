"""The diagonal Fisher information of a finished run's encoder, which elastic weight consolidation holds weights by.

F_i is the mean over training examples x of (d log p(y | x) / d w_i)^2 with y drawn from the model's own distribution
(Kirkpatrick et al. 2017): the gradient of each example alone is squared. Squares of the gradient of a mini-batch are
another quantity, smaller by about its size, and labels of the data give the empirical Fisher (Kunstner et al. 2019).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from research.adapters.hooks import head_parameters
from research.batching.mixture import MixedPlan
from research.batching.pack import MicroBatch, pack
from research.batching.plan import Indices, random_bits
from research.common.errors import UserError
from research.common.files import write_atomically
from research.inference.finished_config import finished_config, task_data
from research.inference.finished_run import finished_result
from research.methods.ewc import FILE
from research.models.parameters import trained_parameters
from research.tracking.run import Run
from research.training.build import build
from research.training.module import TaskModule

DRAWN = 0xF15  # a stream of random bits of its own


def write_fisher(run: Run, examples: int, before: Path | None = None, decay: float = 1.0) -> Path:
    """Write `fisher.safetensors` of a finished run from a sample of its training data; an existing one is kept.

    With `before`, the file of an earlier run, `decay` times its Fisher is added: online EWC (Schwarz et al. 2018).
    Raises UserError where the existing one is of another number of examples.
    """
    path = run.path / FILE
    if path.is_file():
        check_examples(path, examples)
        return path
    config = finished_config(run)
    config.trainer.sparse_embedding = False
    data = task_data(run, config)
    data.open(finished_result(run)["learned"], only="train")
    module = build(config, data).eval()
    found = fisher(module, sampled_examples(module, examples), config.seed)
    weights = encoder_parameters(module)
    if before is not None:
        earlier = load_file(before)
        found = {name: x + decay * earlier[f"fisher.{name}"] for name, x in found.items()}
    tensors = {f"fisher.{name}": x for name, x in found.items()}
    tensors |= {f"weight.{name}": weights[name].detach().clone() for name in found}
    with write_atomically(path) as temporary:
        save_file(tensors, temporary, metadata={"fisher_examples": str(examples)})
    return path


def check_examples(path: Path, examples: int) -> None:
    """Raises UserError where a file was made from another number of examples; a later task was held by it."""
    with safe_open(path, "pt") as file:
        made = (file.metadata() or {}).get("fisher_examples", str(examples))
    if made != str(examples):
        raise UserError(f"{path} was made with fisher_examples: {made}, not {examples}; give another output.")


def sampled_examples(module: TaskModule, most: int) -> Indices:
    """At most so many of the examples that a module trains on, by its seed."""
    plan, store = module.data.plan, module.data.stores["train"]
    rows = np.concatenate(plan.rows) if isinstance(plan, MixedPlan) else np.arange(len(store))
    order = np.argsort(random_bits(module.config.seed, DRAWN).random_raw(len(rows)), kind="stable")
    return np.sort(rows[order[:most]])


def fisher(module: TaskModule, examples: Indices, seed: int) -> dict[str, Tensor]:
    """The mean over these examples of the squared gradient of log p(y | x), with y drawn by (seed, example)."""
    weights = encoder_parameters(module)
    total = {name: torch.zeros_like(p) for name, p in weights.items()}
    store, packed = module.data.stores["train"], module.backbone.packed
    for example in examples.tolist():
        log_p = sampled_log_probability(module, pack(store, np.array([example]), packed), (seed, example))
        gradients = torch.autograd.grad(log_p, list(weights.values()), allow_unused=True)
        for name, gradient in zip(weights, gradients, strict=True):
            if gradient is not None:
                total[name] += gradient.detach() ** 2
    return {name: x / max(1, len(examples)) for name, x in total.items()}


def sampled_log_probability(module: TaskModule, micro: MicroBatch, key: tuple[int, int]) -> Tensor:
    """log p of labels that are drawn from the model's distributions of all targets of an example."""
    generator = torch.Generator().manual_seed(int(random_bits(key[0], key[1], DRAWN).random_raw() >> 1))
    total = torch.zeros(())
    for logits in distributions(module, micro):  # each (targets, classes)
        if len(logits):
            log_p = torch.log_softmax(logits.float(), -1)
            drawn = torch.multinomial(log_p.detach().exp().cpu(), 1, generator=generator).to(log_p.device)
            total = total + log_p.gather(1, drawn).sum()
    return total


def distributions(module: TaskModule, micro: MicroBatch) -> Iterator[Tensor]:
    """The logits of all targets, of each task where there are several."""
    outputs: Any = module.outputs(micro)
    parts: Any = getattr(module, "parts", None)
    if parts is None:
        yield from module.target_logits(micro, outputs)
    else:
        for name, (part, made) in outputs.items():
            yield from parts[name].target_logits(part.micro, made)


def encoder_parameters(module: TaskModule) -> dict[str, torch.nn.Parameter]:
    """The trained weights below any head."""
    model = module.backbone.model
    heads = head_parameters(model)
    return {name: p for name, p in trained_parameters(model).items() if name not in heads}
