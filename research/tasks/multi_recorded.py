"""What the heads of earlier tasks say of a new task's training data, recorded before it is learned, and followed then.

Li and Hoiem 2018, Learning without Forgetting: the loss of a step gains

    strength * T^2 * KL(q_T || p_T),  q_T = softmax(recorded / T), p_T = softmax(now / T)

for each earlier head, a mean over the places that the head reads in an example, which counts as its own targets do. The
old model is not in memory: its scores are a file.

Shapes: T tokens of a micro-batch, P places, C outputs of a head.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from research.batching.pack import MicroBatch, pack
from research.batching.plan import Indices
from research.common.errors import UserError
from research.common.files import write_atomically

if TYPE_CHECKING:
    from research.tasks.multi import Module


def write_scores(module: Module, tasks: list[str], path: Path) -> None:
    """Record the scores of these tasks' heads on all examples that the module trains on; an existing file is kept."""
    if path.is_file():
        return
    store, packed = module.data.stores["train"], module.backbone.packed
    examples = np.sort(np.concatenate(module.data.plan.rows))
    found: dict[str, list[Tensor]] = {task: [] for task in tasks}
    module.eval()
    with torch.no_grad():
        for example in examples.tolist():
            micro = pack(store, np.array([example]), packed)
            logits = module.backbone.token_logits(micro)["logits"]
            for task in tasks:
                found[task].append(logits[places(module, task, micro), module.data.outputs[task]].clone())
    module.train()
    tensors = {task: torch.cat(each) for task, each in found.items()}
    tensors |= {f"{task} counts": torch.tensor([len(x) for x in each]) for task, each in found.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as temporary:
        save_file({"examples": torch.from_numpy(examples), **tensors}, temporary)


def places(module: Module, task: str, micro: MicroBatch) -> Tensor:
    """The tokens (P,) at which a task's head reads: the first of each window, or all."""
    if module.part(task).auto_class is not AutoModelForSequenceClassification:
        return torch.arange(len(micro.first.positions), device=micro.first.positions.device)
    return torch.from_numpy(np.cumsum(micro.lengths) - micro.lengths).to(micro.first.positions.device)


class Recorded:
    """The recorded scores of a file. Raises UserError where it is not there."""

    def __init__(self, path: str) -> None:
        if not Path(path).is_file():
            raise UserError(f"task.recorded={path} is not there; research continual writes it.")
        tensors = load_file(path)
        self.row = {example: i for i, example in enumerate(tensors.pop("examples").tolist())}
        self.scores = {name: x for name, x in tensors.items() if not name.endswith(" counts")}
        self.ends = {name: [0, *tensors[f"{name} counts"].cumsum(0).tolist()] for name in self.scores}

    def of(self, task: str, examples: Indices) -> list[Tensor]:
        """The scores of each of these examples, (P, C)."""
        ends, rows = self.ends[task], [self.row[example] for example in examples.tolist()]
        return [self.scores[task][ends[row] : ends[row + 1]] for row in rows]


def followed(module: Module, micro: MicroBatch, recorded: Recorded, strength: float, temperature: float) -> Tensor:
    """What the loss of a micro-batch gains, summed over its examples' targets; `module.logits` are its scores."""
    total: Any = torch.zeros((), device=module.logits.device)
    examples = np.array(list(dict.fromkeys(micro.examples.tolist())))
    targets = torch.from_numpy(module.data.stores["train"].targets[examples])
    for task in recorded.scores:
        read, scores = places(module, task, micro), recorded.of(task, examples)
        counts = torch.tensor([len(each) for each in scores])
        weight = torch.repeat_interleave(targets / counts, counts).to(module.logits)
        now = torch.log_softmax(module.logits[read, module.data.outputs[task]] / temperature, -1)
        then = torch.softmax(torch.cat(scores).to(now) / temperature, -1)
        total = total + (weight * (then * (then.clamp(min=1e-30).log() - now)).sum(-1)).sum()
    summed: Tensor = strength * temperature**2 * total
    return summed
